"""Run `snakemake --lint` on the workflow with the demo's config; exit with its status."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

if __name__ == "__main__":
    for config in ("config/demo.yaml", "config/truth.yaml", "tests/workflow/tiny.yaml"):
        command = [sys.executable, "-m", "snakemake", "--lint", "--configfile", config]
        if config.endswith("tiny.yaml"):  # names a file of weights that the tests make
            command += ["--config", "models=[{name: test_resnet}]"]
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        if result.returncode or "Lints for" in result.stderr + result.stdout:
            print(result.stdout, result.stderr, sep="\n")
            sys.exit(f"snakemake --lint is not clean with {config}")
    print("snakemake --lint is clean")
