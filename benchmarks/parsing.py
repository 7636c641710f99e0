"""Time and memory from MIMIC-CXR-JPG's csv files to the targets, and of planning a study on them.

The csv files are made at full size, filled at random, in a temporary folder (cxrscale.data.random_mimic). Each
stage is its workflow's own script, in a process of its own; its time includes the start of Python, its memory is the
peak of the resident set. Planning is `snakemake -n` on config.yaml in a copy of the checkout.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measure import Result, arguments, report

ROOT = Path(__file__).resolve().parents[1]

#: Runs a script of the workflow without Snakemake: argv is the script and what Snakemake would hand it, as JSON.
STAGE = """
import json, runpy, sys
from types import SimpleNamespace

class Files(list):
    pass

def handed(value):
    if isinstance(value, dict) and value.pop("files", False):
        files = Files(value.values())
        files.__dict__.update(value)
        return files
    return value

given = {key: handed(value) for key, value in json.loads(sys.argv[2]).items()}
for key in ("params", "wildcards"):
    given[key] = SimpleNamespace(**given[key])
runpy.run_path(sys.argv[1], init_globals={"snakemake": SimpleNamespace(**given)})
"""


def measured(command: list[str], folder: Path) -> tuple[float, float]:
    """Run a command in a folder. Returns its seconds of wall time and its peak memory in MB, children included."""
    environment = os.environ | {"PYTHONPATH": str(folder / "src")}
    start = time.perf_counter()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT)
        # wait4 gives the usage of this one child; getrusage would give the largest of all so far.
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            sys.exit(f"{' '.join(command)[:200]} failed:\n{output.read().decode(errors='replace')[-4000:]}")
    return seconds, usage.ru_maxrss * 1024 / 1e6


def copy_checkout(target: Path) -> None:
    """Copy the files of this checkout that git tracks or would track."""
    command = ["git", "ls-files", "-co", "--exclude-standard"]
    for name in subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines():
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)


def stages(data: Path, out: Path) -> dict[str, dict[str, object]]:
    """What Snakemake hands to each of the scripts that read csv files alone, under config.yaml."""
    config = {
        "dataset": {"format": "mimic-cxr-jpg", "root": str(data), "options": {}},
        "labels": {"source": "chexpert", "test_source": "same"},
        "boxes_file": None,
    }
    files = {name: str(out / f"{name}.parquet") for name in ("labels", "images", "targets")}
    split = {"method": "kfold", "folds": 10, "order": "file", "seed": 0}
    common = {"config": config, "log": [str(out / "log")], "wildcards": {"fold": "0"}, "input": {"files": True}}
    tables = {"files": True, "labels": files["labels"], "images": files["images"]}

    def output(name: str) -> dict[str, object]:
        return {"files": True, name: files[name], "notes": str(out / f"notes-{name}.csv")}

    return {
        "parse_labels": common
        | {
            "output": output("labels"),
            "params": {"label_source": "chexpert", "test_source": "same", "findings": None, "exact_ids": False},
        },
        "list_images": common | {"output": output("images"), "params": {"shards": 256, "exact_ids": False}},
        "check_inputs": common
        | {
            "input": tables | {"boxes": []},
            "output": [str(out / "notes-inputs.csv")],
            "params": {
                "exact_ids": False,
                "findings": None,
                "report": {"findings": None},
                "ignores_split": False,
                "boxes": None,
                "subgroups": None,
                "groups": ["view"],
            },
        },
        "build_targets": common
        | {
            "input": tables,
            "output": output("targets"),
            "params": {
                "findings": None,
                "views": None,
                "unread": "ignore",
                "policy": {"default": {"uncertain": "zeros", "missing": "negative"}, "per_finding": {}},
                "split": split | {"validate_fraction": 0.1, "combine_fraction": 0.1},
            },
        },
    }


def main() -> None:
    options = arguments(__doc__).parse_args()
    with tempfile.TemporaryDirectory(prefix="cxrscale-") as name:
        checkout, data, out = Path(name) / "checkout", Path(name) / "data", Path(name) / "out"
        copy_checkout(checkout)
        fraction = "0.01" if options.quick else "1"
        generator = [sys.executable, "-m", "cxrscale.data.random_mimic", str(data), "--fraction", fraction]
        seconds, _ = measured(generator, checkout)
        results = [Result("csv files made", seconds, "s", "<= 60")]

        snakemake = [sys.executable, "-m", "snakemake", "--cores", "2"]
        root = ["--config", f"dataset={{root: {data}}}"]
        plan = [*snakemake, "-n", *root]
        seconds, memory = measured(plan, checkout)
        results += [
            Result("snakemake -n, nothing built", seconds, "s", "<= 20"),
            Result("snakemake -n, nothing built: peak memory", memory, "MB"),
        ]

        total, peak = 0.0, 0.0
        for stage, given in stages(data, out).items():
            script = checkout / "workflow" / "scripts" / f"{stage}.py"
            seconds, memory = measured([sys.executable, "-c", STAGE, str(script), json.dumps(given)], checkout)
            results += [Result(stage, seconds, "s"), Result(f"{stage}: peak memory", memory, "MB")]
            total, peak = total + seconds, max(peak, memory)
        results += [
            Result("labels, images and targets together", total, "s", "<= 30"),
            Result("labels, images and targets: peak memory", peak, "MB", "<= 2000"),
        ]

        seconds, _ = measured([*snakemake, "targets", *root], checkout)
        results.append(Result("snakemake targets, from the csv files", seconds, "s"))
        seconds, _ = measured(plan, checkout)
        results.append(Result("snakemake -n, targets built", seconds, "s", "<= 20"))
    report(results, options.json)


if __name__ == "__main__":
    main()
