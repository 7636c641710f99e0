import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SNAKEFILE = """
from cxrscale.workflow import start
start.say_whose_gpus(workflow)
rule all:
    input: "shell", "script"
rule shell:
    output: "shell"
    shell: "echo ${{CXRSCALE_SUBMITTED_JOB:-none}} > {output}"
rule script:
    output: "script"
    script: "say.py"
"""
SCRIPT = """
import os, pathlib
pathlib.Path(snakemake.output[0]).write_text(os.environ.get("CXRSCALE_SUBMITTED_JOB", "none"))
"""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        # As Snakemake's executor for SLURM starts the nested Snakemake of a step, and of a group of them.
        (["--target-jobs", "shell:", "--mode", "remote"], {"shell": "17"}),
        (["--target-jobs", "script:", "--mode", "remote"], {"script": "17"}),
        (["--target-jobs", "shell:", "script:", "--local-groupid", "5", "--mode", "remote"], dict.fromkeys(
            ["shell", "script"], "none"
        )),
        # As a user does in an allocation, here in one where the variable was left by another.
        ([], {"shell": "none", "script": "none"}),
    ],
)  # fmt: skip
def test_slurm_gave_gpus_to_a_step_that_snakemake_submitted_alone(tmp_path, arguments, said):
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    (tmp_path / "say.py").write_text(SCRIPT)
    environment = os.environ | {
        "PYTHONPATH": str(ROOT / "src"), "SLURM_JOB_ID": "17", "CXRSCALE_SUBMITTED_JOB": "17"
    }  # fmt: skip
    command = [sys.executable, "-m", "snakemake", "--cores", "1", *arguments]
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    found = {name: (tmp_path / name) for name in ("shell", "script")}
    assert {name: path.read_text().strip() for name, path in found.items() if path.exists()} == said
