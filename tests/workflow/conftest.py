"""Runs of the real workflow, each in a copy of the checkout, so that tests can edit code, config and results."""

import hashlib
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
import timm
from filelock import FileLock
from safetensors.torch import save_file

from . import forked

ROOT = Path(__file__).parents[2]
TINY = "tests/workflow/tiny.yaml"


def copy_checkout(target: Path) -> Path:
    """Copy the files of this checkout that git tracks or would track."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    for name in listed:
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    return target


def give_weights(folder: Path) -> None:
    """Write the file that the tiny study names: it stands for weights trained on colour pictures."""
    rgb = timm.create_model("test_resnet", pretrained=False)
    (folder / "data").mkdir()
    save_file(rgb.state_dict(), folder / "data/test_resnet.safetensors")


def snakemake(folder: Path, *arguments: str, config: str | None = TINY) -> subprocess.CompletedProcess[str]:
    """Run Snakemake in `folder` with two cores, both streams in stdout."""
    return forked.snakemake(folder, *arguments, "--cores", "2", *(["--configfile", config] if config else []))


@dataclass(frozen=True)
class Plan:
    """What a dry run says: jobs by rule without `all`, why by rule, all of its output."""

    jobs: dict[str, int]
    why: dict[str, str]
    text: str


def dry_run(folder: Path, *arguments: str, config: str | None = TINY) -> Plan:
    """Plan a run; no jobs and no reasons if nothing is to be done."""
    result = snakemake(folder, "-n", *arguments, config=config)
    assert result.returncode == 0, result.stdout
    if "Nothing to be done" in result.stdout:
        return Plan({}, {}, result.stdout)
    table = result.stdout.split("Job stats:")[1]
    jobs = {rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", table, re.M)}
    reasons = result.stdout.partition("Why each stage runs:\n")[2].partition("\n\n")[0]
    why = dict(re.findall(r"^    (\w+) +(\d+ of \d+: .+)$", reasons, re.M))
    return Plan({rule: n for rule, n in jobs.items() if rule not in ("total", "all")}, why, result.stdout)


def planned(folder: Path, *arguments: str, config: str | None = TINY) -> dict[str, int]:
    """The jobs that a dry run plans, by rule, without `all`; {} if nothing is to be done."""
    return dry_run(folder, *arguments, config=config).jobs


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every result by its path below `results/`, logs left out."""
    files = {path.relative_to(folder / "results"): path for path in (folder / "results").rglob("*") if path.is_file()}
    return {
        str(name): hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in files.items()
        if "logs" not in name.parts
    }


#: Columns that hold measured times; all else in the tables of two runs is the same to the byte.
TIMES = {"history.csv": ["seconds", "images_per_second", "loader_wait_fraction"]}


def tables_of(folder: Path) -> dict[str, bytes]:
    """Each csv, Parquet and safetensors file below `results/` by its path, without columns of measured times."""
    found = {}
    for path in sorted((folder / "results").rglob("*")):
        if path.suffix in (".csv", ".parquet", ".safetensors"):
            content = path.read_bytes()
            if path.name in TIMES:
                content = pd.read_csv(path, dtype=str).drop(columns=TIMES[path.name]).to_csv().encode()
            found[str(path.relative_to(folder / "results"))] = content
    return found


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A checkout with the tiny study run to its end. Not to be changed: see `study`.

    Where tests run in several processes, the first that needs it makes it for all.
    """
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "finished"
    with FileLock(f"{folder}.lock"):
        if not (folder / "said").is_file():
            shutil.rmtree(folder, ignore_errors=True)
            give_weights(copy_checkout(folder))
            result = snakemake(folder)
            assert result.returncode == 0, result.stdout
            (folder / "said").write_text(result.stdout)
    return folder


@pytest.fixture
def study(finished: Path, tmp_path: Path) -> Path:
    """A copy, by cp -a, of the finished checkout, to change."""
    subprocess.run(["cp", "-a", f"{finished}/.", str(tmp_path / "study")], check=True)
    return tmp_path / "study"


@pytest.fixture
def edit(study: Path) -> Callable[[str, str, str], None]:
    """Replace a text that stands once in a file of the study's checkout."""

    def replace(name: str, old: str, new: str) -> None:
        text = (study / name).read_text()
        assert text.count(old) == 1, f"{name} holds {old!r} {text.count(old)} times"
        (study / name).write_text(text.replace(old, new))

    return replace
