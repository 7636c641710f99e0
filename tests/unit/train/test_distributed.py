"""Trainings of one, two and four processes on a CPU, started by torchrun, with messages by gloo."""

import json
import os
import pickle
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest
import torch
from safetensors.torch import load_file

from cxrscale.common import tables
from cxrscale.common.devices import SUBMITTED
from cxrscale.data.contracts import TARGETS
from cxrscale.store.reader import StoreReader
from cxrscale.train.distributed import _first_host
from cxrscale.train.learner import Origin
from cxrscale.train.settings import RunSettings, TrainingSettings

ROOT = Path(__file__).parents[3]
SETTINGS = {
    "epochs": 2, "batch_images": 16, "norm_group_images": 4, "optimiser": "adam", "learning_rate": 1e-3,
    "weight_decay": 0.0, "schedule": "cosine", "flip_probability": 0.5, "rotation_degrees": 15.0, "mean": 0.4,
    "standard_deviation": 0.2, "clip_grad_norm": 1.0, "ema_decay": 0.9,
}  # fmt: skip


@pytest.fixture
def command(small_store, tmp_path):
    """A function that gives the command of a training by so many processes."""
    targets = small_store.targets.assign(view="PA")
    tables.write(TARGETS, targets, tmp_path / "targets.parquet")

    def build(processes, epochs=2):
        folder = tmp_path / f"{processes}-{epochs}"
        given = {
            "folder": folder, "log": f"{folder}.log", "code": "x", "model": "test_resnet", "resolution-px": 32,
            "geometry": "stretch", "seed": 0, "settings": json.dumps(SETTINGS | {"epochs": epochs}),
            "accelerator": "cpu", "targets": tmp_path / "targets.parquet",
            "index": small_store.folder / "index.parquet",
            "processes": processes, "threads": processes, "run": json.dumps({"workers": 0}),
        }  # fmt: skip
        script = str(ROOT / "workflow/scripts/train.py")
        arguments = [part for key, value in given.items() for part in (f"--{key}", str(value))]
        return folder, [sys.executable, script, *arguments]

    return build


def finish(command_line):
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    result = subprocess.run(command_line, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr


def start(command_line, folder):
    """Start a training, and wait until it has written a checkpoint of its own."""
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    before = (folder / "checkpoint.pt").stat().st_mtime_ns if (folder / "checkpoint.pt").is_file() else 0
    running = subprocess.Popen(command_line, env=environment, stderr=subprocess.PIPE, text=True)
    while not ((folder / "checkpoint.pt").is_file() and (folder / "checkpoint.pt").stat().st_mtime_ns > before):
        assert running.poll() is None, running.stderr.read()
        time.sleep(0.05)
    return running


def test_processes_that_are_stopped_write_one_checkpoint_and_go_on(command):
    folder, line = command(2, epochs=60)
    with start(line, folder) as running:
        running.send_signal(signal.SIGTERM)
        running.communicate(timeout=120)
    assert running.returncode == 75
    assert not (folder / "weights.safetensors").exists()
    with start(line, folder) as running:
        below = psutil.Process(running.pid).children(recursive=True)
        assert len(below) >= 3  # torchrun and two that train
        running.kill()
        running.communicate(timeout=120)
        # The lease of their GPUs ended with the launcher: none may go on.
        _, alive = psutil.wait_procs(below, timeout=20)
        assert alive == []
    finish(line)
    assert Path(f"{folder}.log").read_text().count("going on from epoch") == 2
    assert len(pd.read_csv(folder / "history.csv")) == 60
    assert not (folder / "checkpoint.pt").exists()


def test_tasks_of_srun_train_together(command):
    """Over two hosts of a step, as SLURM's environment describes it; here both are this one."""
    alone, line = command(1)
    finish(line)
    folder = alone.parent / "tasks"
    line = [str(folder) if part == str(alone) else part for part in line] + ["--nodes", "2"]
    step = {
        SUBMITTED: "7",
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_LOCALID": "0",
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_JOB_ID": "7",
    }
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")} | step
    tasks = [
        subprocess.Popen(line, env=environment | {"SLURM_PROCID": rank}, stderr=subprocess.PIPE, text=True)
        for rank in "01"
    ]
    for task in tasks:
        _, errors = task.communicate(timeout=120)
        assert task.returncode == 0, errors
    assert json.loads((folder / "cost.json").read_text())["devices"] == 2
    losses = [pd.read_csv(f / "history.csv")["train_loss"].tolist() for f in (folder, alone)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_what_started_the_shell_did_not_start_the_training(command):
    """A pod of several, or `srun -n 4 --pty bash`: their ranks are not this training's."""
    folder, line = command(1)
    around = {"RANK": "1", "WORLD_SIZE": "2", "SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "0", "SLURM_JOB_ID": "7"}
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")} | around
    ended = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
    assert json.loads((folder / "cost.json").read_text())["devices"] == 1


def test_several_nodes_need_slurm(command):
    """And a job of their own in it: in an allocation of somebody's, others may be on the same GPUs."""
    _, line = command(1)
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    for around in ({}, {"SLURM_JOB_ID": "7", "SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}):
        ended = subprocess.run([*line, "--nodes", "2"], env=environment | around, capture_output=True, text=True)
        assert ended.returncode == 1
        assert "training.nodes above 1 needs SLURM" in ended.stderr


@pytest.mark.parametrize(
    ("nodes", "first"),
    [("gpu7", "gpu7"), ("a,b", "a"), ("gpu[03-05,9],x", "gpu03"), ("n[1,4]-ib,m[2]", "n1-ib"), ("x,n[1-2]", "x")],
)
def test_the_first_host_of_a_step_is_the_meeting_place(nodes, first):
    assert _first_host(nodes) == first


@pytest.fixture(scope="module")
def faults(small_store, tmp_path_factory):
    """What became of trainings by 2 and 4 ranks, the first or the last of which had a fault (ranks.py)."""
    settings = {**SETTINGS, "epochs": 1, "ema_decay": None}
    arguments = {
        "model": "test_resnet", "resolution_px": 32, "seed": 0, "settings": TrainingSettings(**settings),
        "targets": small_store.targets, "store": StoreReader(small_store.folder), "weights": None,
        "origin": Origin(code="", store="", index="", targets="", initial_weights=None),
        "run": RunSettings(workers=0, channels_last=False),
    }  # fmt: skip
    command = [sys.executable, str(Path(__file__).parent / "ranks.py"), str(tmp_path_factory.mktemp("faults"))]
    done = subprocess.run(command, input=pickle.dumps(arguments), capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout) | {"folder": command[-1]}


def test_the_number_of_processes_changes_weights_and_losses_by_rounding_alone(faults):
    folders = {processes: Path(faults["folder"]) / f"several-{processes}" for processes in (1, 2, 4)}
    for processes, folder in folders.items():
        cost = json.loads((folder / "cost.json").read_text())
        assert cost["devices"] == processes
        assert cost["images"] == 2 * 32  # each once an epoch, over all processes
    one, *others = (
        {"w": load_file(f / "weights.safetensors"), "h": pd.read_csv(f / "history.csv")} for f in folders.values()
    )
    start = torch.cat([v.flatten().float() for v in one["w"].values()])
    for other in others:
        assert other["h"]["train_loss"].tolist() == pytest.approx(one["h"]["train_loss"].tolist(), rel=1e-4)
        assert other["h"]["validation_loss"].tolist() == pytest.approx(one["h"]["validation_loss"].tolist(), rel=1e-3)
        found = torch.cat([v.flatten().float() for v in other["w"].values()])
        assert (found - start).norm() < 1e-3 * start.norm()


FAULTY = [(2, 0), (2, 1), (4, 0), (4, 3)]


def others(world, faulty):
    return [rank for rank in range(world) if rank != faulty]


@pytest.mark.parametrize(("world", "faulty"), FAULTY)
def test_all_stop_where_one_was_asked_to(faults, world, faulty):
    stopped = faults[f"stopped-{world}-{faulty}"]
    assert set(stopped["said"]) == {"Interrupted: time limit False"}
    assert stopped["checkpoint"] == 1


@pytest.mark.parametrize(("world", "faulty"), FAULTY[:2])
def test_a_time_limit_that_one_hears_of_is_that_of_all(faults, world, faulty):
    said = faults[f"told_of_its_time_limit-{world}-{faulty}"]["said"]
    assert said == ["Interrupted: time limit True"] * world


@pytest.mark.parametrize(("world", "faulty"), FAULTY)
def test_a_checkpoint_that_one_rank_cannot_read_never_parts_them(faults, world, faulty):
    """The first reads for all. If it cannot, all end, and the next attempt goes on."""
    whole, stale, again = (
        faults[name] for name in (f"whole-{world}", f"stale-{world}-{faulty}", f"again-{world}-{faulty}")
    )
    if faulty == 0:
        assert stale["said"][0] == "OSError: [Errno 116] Stale file handle"
        assert {said.split(" on ")[0] for said in stale["said"][1:]} == {"AnotherFailed: rank 0"}
        assert stale["checkpoint"] is not False
        assert stale["aside"] == 0
    else:
        assert stale["said"] == ["trained"] * world
    assert again["said"] == ["trained"] * world
    assert again["weights"] == whole["weights"]


@pytest.mark.parametrize(
    ("fault", "world", "faulty"),
    [("other_weights_at_start", *at) for at in FAULTY]
    + [(fault, *at) for fault in ("other_task", "other_moments_later", "other_position") for at in FAULTY[:2]],
)
def test_ranks_that_differ_end_by_name_without_a_checkpoint(faults, fault, world, faulty):
    found = faults[f"{fault}-{world}-{faulty}"]
    assert len(set(found["said"])) == 1
    said = found["said"][0]
    assert said.startswith("StudyError: the processes of this training differ in (")
    held = dict(re.findall(rf"rank (\d) on {re.escape(socket.gethostname())}: (\([^)]*\))", said))
    assert len(held) == world
    assert len({held[str(rank)] for rank in others(world, faulty)}) == 1
    assert held[str(faulty)] not in {held[str(rank)] for rank in others(world, faulty)}
    assert found["checkpoint"] is False


@pytest.mark.parametrize(("world", "faulty"), FAULTY)
def test_how_a_batch_is_computed_is_the_first_ranks_choice(faults, world, faulty):
    found, whole = faults[f"other_parts-{world}-{faulty}"], faults[f"whole-{world}"]
    assert found["said"] == ["trained"] * world
    assert whole["cost"]["micro_batch_images"] == 16 // world
    assert found["cost"]["micro_batch_images"] == (4 if faulty == 0 else 16 // world)
    if faulty:
        assert found["weights"] == whole["weights"]


@pytest.mark.parametrize(("world", "faulty"), FAULTY[:2])
def test_energy_that_one_rank_cannot_measure_stops_nobody(faults, world, faulty):
    found, whole = faults[f"no_energy-{world}-{faulty}"], faults[f"whole-{world}"]
    assert whole["cost"]["energy_j"] == world * 5
    assert found["said"] == ["trained"] * world
    assert found["cost"]["energy_j"] is None
    assert found["weights"] == whole["weights"]


@pytest.mark.parametrize(("world", "faulty"), FAULTY[:2])
def test_an_error_in_one_rank_ends_all_at_once(faults, world, faulty):
    said = faults[f"broken_forward-{world}-{faulty}"]["said"]
    assert said[faulty] == "ValueError: a damaged picture"
    assert {said[rank] for rank in others(world, faulty)} == {
        "Failed: an update failed in another process of this training; its log says why."
    }


@pytest.mark.parametrize(("world", "faulty"), FAULTY)
@pytest.mark.parametrize(
    ("case", "what"), [("sleeps", "behind the others for 3 s, before message"), ("is stopped", "silent for 6 s")]
)
def test_a_rank_that_is_missing_ends_all_by_its_name_on_every_log(faults, case, what, world, faulty):
    found = faults[f"{case}-{world}-{faulty}"]
    stopped = case == "is stopped"  # it can do nothing itself
    assert found["ends"] == [1] * (world - stopped)
    for rank, log in enumerate(found["logs"]):
        if not (stopped and rank == faulty):
            assert log.startswith(f"rank {faulty} on {socket.gethostname()}: {what}"), (rank, log)


@pytest.mark.parametrize(("world", "faulty"), FAULTY)
def test_what_comes_before_training_may_take_one_rank_as_long_as_it_takes(faults, world, faulty):
    """Such as copying the store to its host's disk."""
    assert faults[f"is late-{world}-{faulty}"] == {"ends": [0] * world, "logs": [""] * world}
