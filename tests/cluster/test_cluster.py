"""What a study meets on SLURM: its own jobs with what they ask for, GPUs of their own, retries, lost jobs and heads."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import yaml
from tests.workflow.conftest import ROOT, TINY, copy_checkout, give_weights, planned, snakemake

from cxrscale.workflow.networks import TrainingPlan

from .conftest import PATIENCE_S, accounted, site

PROFILE = "profiles/site"
SMALL = ROOT / "tests/cluster/small.smk"
STUDY = "tests/cluster/study.yaml"
IMAGES = 3 * 40  # of the study, about: before it is drawn nobody knows, and a tenth more is no minute more
N_LEARNERS, N_SHARDS = 2, 4
LEARNERS = "results/cluster/learners/test_resnet/32px"


def command(*arguments: str, profile: str = PROFILE) -> list[str]:
    return [sys.executable, "-m", "snakemake", "--workflow-profile", profile, *arguments]


class Ran(NamedTuple):
    """A folder after a run on SLURM, sacct's records of its jobs, and the learners that were made twice."""

    folder: Path
    records: list[dict[str, str]]
    redone: tuple[Path, ...] = ()


def run(folder: Path, *arguments: str, profile: str = PROFILE) -> str:
    """Run Snakemake on SLURM to its end and return what it said."""
    result = subprocess.run(
        command(*arguments, profile=profile),
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout
    return result.stdout


def disturb(folder: Path, learner: str, config: tuple[str, ...], act: Callable[[], object]) -> str:
    """Have a learner of the study trained, act once it has a checkpoint, and return what Snakemake said by its end."""
    with subprocess.Popen(
        command(f"{learner}/weights.safetensors", "--configfile", STUDY, "--config", *config),
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as head:  # fmt: skip
        wait_until(lambda: head.poll() is not None or (folder / learner / "checkpoint.pt").is_file())
        assert head.poll() is None, head.communicate()[0]
        act()
        said = head.communicate(timeout=PATIENCE_S)[0]
    assert head.returncode == 0, said
    return said


def wait_until(holds: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.2)


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with the site's profile."""
    folder = copy_checkout(tmp_path_factory.mktemp("cluster"))
    (folder / PROFILE).mkdir()
    (folder / PROFILE / "config.yaml").write_text(yaml.safe_dump(site(folder)))
    return folder


@pytest.fixture(scope="session")
def finished(checkout: Path, small_head: subprocess.Popen[str]) -> Ran:
    """The study after its run on SLURM, beside the jobs of small.smk.

    On the way the head is killed with -9 while trainings run; they end by themselves before it is started again.
    """
    began = time.time()
    study = ("--configfile", STUDY)
    learners = checkout / "results/cluster/learners"
    with subprocess.Popen(command(*study), cwd=checkout, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as head:
        wait_until(lambda: head.poll() is not None or "RUNNING" in running("rule_train"))
        assert head.poll() is None, head.communicate()[0]
        head.send_signal(signal.SIGKILL)
    wait_until(lambda: not running("rule_train"))
    ended = {path: path.stat().st_mtime_ns for path in learners.rglob("weights.safetensors")}
    assert ended, "no training outlived the head"
    subprocess.run(command(*study, "--unlock"), cwd=checkout, check=True, capture_output=True)
    run(checkout, *study)
    redone = tuple(path for path, then in ended.items() if path.stat().st_mtime_ns != then)
    return Ran(checkout, accounted(began), redone)


def running(comment: str) -> str:
    """States of the jobs whose comment holds a word."""
    listed = subprocess.run(["squeue", "-h", "-o", "%T %k"], capture_output=True, text=True, check=True).stdout
    return "\n".join(line for line in listed.splitlines() if comment in line)


def of_rule(records: list[dict[str, str]], rule: str) -> list[dict[str, str]]:
    return [r for r in records if r["Comment"].startswith(f"rule_{rule}")]


def test_every_stage_is_a_job_with_what_it_asks_for(finished: Ran) -> None:
    folder, records = finished.folder, finished.records
    asked = yaml.safe_load((folder / "profiles/slurm/config.yaml").read_text())["set-resources"]
    for rule in ("train", "predict", "erf", "cam", "localise"):
        found = [r for r in of_rule(records, rule) if r["State"] == "COMPLETED"]
        assert len(found) >= N_LEARNERS, rule
        for record in found:
            resolution = re.search(r"_(\d+)_0_0$", record["Comment"])
            assert resolution, record
            names = {"attempt": 1, "wildcards": SimpleNamespace(resolution=resolution[1]), "int": int, "min": min}
            if rule == "train":
                asked[rule]["mem_mb"] = 6000  # a process on a CPU without workers
            memory, minutes = (
                eval(str(asked[rule][key]).replace("$MIMICS", str(IMAGES / 377_110)), {"__builtins__": {}}, names)
                for key in ("mem_mb", "runtime")
            )
            assert record["ReqMem"] == f"{memory}M", record
            assert int(record["TimelimitRaw"]) == round(minutes), record
            assert record["AllocCPUS"] == "1", record
    single = ("make_synthetic", "parse_labels", "list_images", "build_targets", "collect_quarantine")
    for rule in (*single, "compare", "stack", "report"):
        assert of_rule(records, rule), rule


def test_short_steps_share_a_job(finished: Ran) -> None:
    records = finished.records
    assert not [r for r in records if re.fullmatch(r"rule_(ingest_shard|evaluate).*wildcards.*", r["Comment"])]
    (metrics,) = [r for r in records if r["Comment"] == "rule_metrics_evaluate"]
    assert metrics["AllocCPUS"] == str(N_LEARNERS)
    (images,) = [r for r in records if r["Comment"].startswith("rule_images_")]
    assert images["AllocCPUS"] == str(N_SHARDS)


def test_killed_head_redoes_nothing_that_is_finished(finished: Ran) -> None:
    folder = finished.folder
    assert finished.redone == ()
    assert (folder / "results/cluster/report/report.html").is_file()
    said = snakemake(folder, "-n", config=STUDY).stdout
    assert "Nothing to be done" in said
    # Snakemake has no record of what ended without it, and would not see that its settings changed.
    more = ("--config", "training={epochs: 60}")
    unrecorded = re.search(r"Rules with missing metadata: (.+)", said)
    assert unrecorded
    assert "train" in unrecorded[1].split()
    assert planned(folder, *more, config=STUDY).get("train", 0) < N_LEARNERS
    rows = [row.split("\t") for row in snakemake(folder, "--summary", config=STUDY).stdout.splitlines()]
    files = [row[0] for row in rows if len(row) == 6 and row[1] != "-" and row[3] == "-"]  # as docs/cluster.md says
    assert planned(folder, *more, "--forcerun", *files, config=STUDY)["train"] == N_LEARNERS


@pytest.fixture(scope="session")
def on_gpus(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, int | str]]:
    """What each rule asks for with the profile as it is, two GPUs on each of two nodes for a training, by a dry run."""
    folder = copy_checkout(tmp_path_factory.mktemp("plan"))
    for rules in (folder / "workflow/rules").glob("*.smk"):  # a rule with a message does not list its resources
        rules.write_text(re.sub(r"\n +message:\n.*", "", rules.read_text()))
    give_weights(folder)
    config = ("--configfile", TINY, "--config", "accelerator=cuda", "training={nodes: 2, gpus: 2}")
    said = subprocess.run(
        command("-n", *config, profile="profiles/slurm"), cwd=folder, capture_output=True, text=True, check=True
    ).stdout
    asked: dict[str, dict[str, int | str]] = {}
    rule = ""
    for line in map(str.strip, said.splitlines()):
        if starts := re.fullmatch(r"(?:local)?rule (\w+):", line):
            rule = starts[1]
        elif line.startswith("resources: "):
            parts = (part.split("=", 1) for part in line.removeprefix("resources: ").split(", "))
            asked[rule] = {name: int(value) if value.isdigit() else value for name, value in parts}
    return asked


def test_gpus_are_asked_for_by_the_stages_that_use_them(on_gpus: dict[str, dict[str, int | str]]) -> None:
    gpus = {rule: asked["gpu"] for rule, asked in on_gpus.items() if asked.get("gpu")}
    assert gpus == {"train": 4, "predict": 1, "erf": 1, "cam": 1, "localise": 1}
    assert {rule for rule, asked in on_gpus.items() if asked.get("slurm_partition") == "gpu"} == set(gpus)
    assert len(on_gpus) >= 18


@pytest.fixture(scope="session")
def small_head(checkout: Path, on_gpus: dict[str, dict[str, int | str]]) -> Iterator[subprocess.Popen[str]]:
    """A run of small.smk with the site's profile, which goes on while other tests run."""
    folder = checkout / "small"
    folder.mkdir()
    names = ("launcher", "mpi", "tasks", "tasks_per_node", "tasks_per_gpu", "nodes", "gpu", "gres")
    several = {name: on_gpus["train"][name] for name in names if name in on_gpus["train"]}
    started = TrainingPlan(gpus=2).resources_of("cuda", "test_resnet", 32)
    on_one = {name: started[name] for name in names if name in started}
    (folder / "several.yaml").write_text(yaml.safe_dump({"threads": 1, "several": several, "two": on_one}))
    arguments = ("-s", str(SMALL), "--configfile", "several.yaml")
    with (
        (folder / "said").open("w") as said,
        subprocess.Popen(
            command(*arguments, profile=str(checkout / PROFILE)), cwd=folder, stdout=said, stderr=said, text=True
        ) as head,
    ):
        yield head
        head.kill()


@pytest.fixture(scope="session")
def small(checkout: Path, small_head: subprocess.Popen[str]) -> Ran:
    """small.smk after its run, and the records of its jobs."""
    folder = checkout / "small"
    wait_until(lambda: small_head.poll() is not None)
    assert small_head.returncode == 0, (folder / "said").read_text()
    return Ran(folder, accounted((folder / "several.yaml").stat().st_mtime))


def test_a_gpu_has_one_job_at_a_time(small: Ran) -> None:
    folder = small.folder
    uses = [path.read_text().split() for path in (folder / "gpu").iterdir()]
    assert len(uses) == 6
    assert all(len(devices.split(",")) == 1 for _, devices, *_ in uses)
    spans = [(node, devices, float(began), float(ended)) for node, devices, began, ended in uses]
    for (node, device, began, ended), (other_node, other_device, other_began, other_ended) in combinations(spans, 2):
        apart = other_began >= ended or began >= other_ended
        assert apart or (node, device) != (other_node, other_device)
    assert max(sum(b <= t < e for _, _, b, e in spans) for _, _, t, _ in spans) <= 4


def test_too_little_memory_or_time_is_tried_again_with_more(small: Ran) -> None:
    records = small.records
    memory, slow = (
        [(r["State"].split()[0], r) for r in of_rule(records, rule)] for rule in ("take_memory", "take_time")
    )
    assert [state for state, _ in memory][-1] == "COMPLETED"
    assert [r["ReqMem"] for _, r in memory] == ["600M", "1200M"]
    assert memory[0][0] in ("OUT_OF_MEMORY", "FAILED", "CANCELLED")
    assert [state for state, _ in slow] == ["TIMEOUT", "COMPLETED"]
    assert [r["TimelimitRaw"] for _, r in slow] == ["1", "3"]


def test_several_nodes_start_by_srun(small: Ran) -> None:
    folder, records = small.folder, small.records
    lines = sorted((folder / "several").read_text().splitlines())
    assert [line.split()[0] for line in lines] == ["0", "1", "2", "3"]
    assert len({line.split()[1] for line in lines}) == 2
    (record,) = [r for r in of_rule(records, "use_several") if r["State"] == "COMPLETED"]
    assert "gres/gpu=4" in record["AllocTRES"]
    assert record["AllocCPUS"] == "4"  # one a process


def test_several_gpus_of_one_node_are_one_process(small: Ran) -> None:
    (line,) = (small.folder / "two").read_text().splitlines()
    assert len(line.split()[2].split(",")) == 2
    (record,) = of_rule(small.records, "use_two")
    assert "gres/gpu=2" in record["AllocTRES"]


def test_cancelled_training_goes_on_from_its_checkpoint(finished: Ran) -> None:
    folder = finished.folder
    began = time.time()
    cancel = ["scancel", "--state=RUNNING", "--partition=test"]
    learner = f"{LEARNERS}/fold0-seed0"
    # Forced, since its training ended after its head: Snakemake has no record of its settings.
    config = ("training={epochs: 90}", "--forcerun", f"{learner}/weights.safetensors")
    disturb(folder, learner, config, lambda: subprocess.run(cancel, check=True))
    states = [r["State"].split()[0] for r in of_rule(accounted(began), "train")]
    assert states == ["CANCELLED", "COMPLETED"]
    log = (folder / "results/cluster/logs/train/test_resnet-32px-fold0-seed0.log").read_text()
    assert "going on from epoch" in log


def test_requeued_training_ends_with_the_weights_of_an_undisturbed_one(finished: Ran) -> None:
    """As a preemption does: SIGTERM, back into the queue under the same number, a start from the checkpoint."""
    folder = finished.folder
    learner = f"{LEARNERS}/fold0-seed7"
    config = ("training={epochs: 80}", "seeds=[7]")
    jobs: list[str] = []

    def requeue() -> None:
        listed = subprocess.run(["squeue", "-h", "-o", "%i"], capture_output=True, text=True, check=True).stdout
        (job,) = listed.split()
        jobs.append(job)
        subprocess.run(["scontrol", "requeue", job], check=True)

    began = time.time()
    said = disturb(folder, learner, config, requeue)
    (job,) = jobs
    records = of_rule(accounted(began), "train")
    assert [(r["JobIDRaw"], r["State"]) for r in records] == [(job, "REQUEUED"), (job, "COMPLETED")]
    assert "Trying to restart" not in said  # to Snakemake it was one job all along
    assert "going on from epoch" in (folder / "results/cluster/logs/train/test_resnet-32px-fold0-seed7.log").read_text()
    disturbed = (folder / learner / "weights.safetensors").read_bytes()
    shutil.rmtree(folder / learner)
    undisturbed = snakemake(folder, f"{learner}/weights.safetensors", "--config", *config, config=STUDY)
    assert undisturbed.returncode == 0, undisturbed.stdout
    assert (folder / learner / "weights.safetensors").read_bytes() == disturbed


def test_training_that_needs_several_time_limits_goes_on_by_itself(checkout: Path) -> None:
    """Without retries. The signal that SLURM sends before a limit is sent here after each checkpoint of a start.

    SLURM's limits are whole minutes, and `--signal` is up to one early: the real ones would make this ten minutes long.
    """
    learner = f"{LEARNERS}/fold0-seed9"
    config = ("--config", "training={epochs: 30, workers: 2}", "seeds=[9]")
    arguments = (f"{learner}/weights.safetensors", "--configfile", STUDY, "--retries", "0", *config)
    before_it = snakemake(checkout, arguments[0], *config, "--until", "index_shards", "keep_together", config=STUDY)
    assert before_it.returncode == 0, before_it.stdout  # made here, where no other test has made it yet
    began = time.time()
    with (
        (checkout / "several-limits").open("w+") as said,
        subprocess.Popen(command(*arguments), cwd=checkout, stdout=said, stderr=said, text=True) as head,
    ):
        checkpoint = checkout / learner / "checkpoint.pt"
        for limit in range(1, 5):
            before = checkpoint.stat().st_mtime_ns if checkpoint.is_file() else 0

            def goes_on(before: int = before) -> bool:
                newer = checkpoint.is_file() and checkpoint.stat().st_mtime_ns > before
                return newer or head.poll() is not None

            wait_until(goes_on)
            assert head.poll() is None, said.seek(0) or said.read()
            subprocess.run(["scancel", "--signal=URG", "--state=RUNNING", "--partition=test"], check=True)

            def put_back(limit: int = limit) -> bool:
                states = [r["State"] for r in of_rule(accounted(began), "train")]
                return states.count("REQUEUED") == limit or head.poll() is not None

            wait_until(put_back)
        assert head.wait(PATIENCE_S) == 0, said.seek(0) or said.read()
    records = of_rule(accounted(began), "train")
    assert [r["State"] for r in records] == ["REQUEUED"] * 4 + ["COMPLETED"]
    assert len({r["JobIDRaw"] for r in records}) == 1  # to Snakemake it was one job all along
    assert json.loads((checkout / learner / "cost.json").read_text())["interruptions"] == 4
    asked = subprocess.run(
        ["sacct", "-n", "-P", "-D", "-j", records[0]["JobIDRaw"], "-o", "SubmitLine"], capture_output=True, text=True
    ).stdout
    assert "--signal=URG@600" in asked


def test_training_on_two_nodes(finished: Ran) -> None:
    folder = finished.folder
    learner = f"{LEARNERS}/fold0-seed8"
    config = ("--configfile", STUDY, "--config", "training={epochs: 1, nodes: 2, gpus: 2}", "seeds=[8]")
    said = run(folder, f"{learner}/weights.safetensors", *config)
    assert json.loads((folder / learner / "cost.json").read_text())["devices"] == 4
    job = re.findall(r"with SLURM jobid (\d+)", said)[-1]
    steps = subprocess.run(
        ["sacct", "-n", "-P", "-j", f"{job}.0", "-o", "NTasks,NNodes,AllocCPUS"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert steps == ["4|2|4"]
