"""Trainings of one, two and four processes on a CPU, started by torchrun, with messages by gloo."""

import json
import os
import signal
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
from cxrscale.data.contracts import TARGETS
from cxrscale.train.distributed import _first_host

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
            "seed": 0, "settings": json.dumps(SETTINGS | {"epochs": epochs}), "accelerator": "cpu",
            "targets": tmp_path / "targets.parquet", "index": small_store.folder / "index.parquet",
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


def test_the_number_of_processes_changes_weights_and_losses_by_rounding_alone(command):
    folders = []
    for processes in (1, 2, 4):
        folder, line = command(processes)
        finish(line)
        folders.append(folder)
        cost = json.loads((folder / "cost.json").read_text())
        assert cost["devices"] == processes
        assert cost["images"] == 2 * 32  # each once an epoch, over all processes
    one, *others = ({"w": load_file(f / "weights.safetensors"), "h": pd.read_csv(f / "history.csv")} for f in folders)
    start = torch.cat([v.flatten().float() for v in one["w"].values()])
    for other in others:
        assert other["h"]["train_loss"].tolist() == pytest.approx(one["h"]["train_loss"].tolist(), rel=1e-4)
        assert other["h"]["validation_loss"].tolist() == pytest.approx(one["h"]["validation_loss"].tolist(), rel=1e-3)
        found = torch.cat([v.flatten().float() for v in other["w"].values()])
        assert (found - start).norm() < 1e-3 * start.norm()


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
    step = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_LOCALID": "0", "SLURM_STEP_NODELIST": "localhost", "SLURM_JOB_ID": "7"}
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


def test_several_nodes_need_slurm(command):
    _, line = command(1)
    ended = subprocess.run(
        [*line, "--nodes", "2"], env=os.environ | {"PYTHONPATH": str(ROOT / "src")}, capture_output=True, text=True
    )
    assert ended.returncode == 1
    assert "training.nodes above 1 needs SLURM" in ended.stderr


@pytest.mark.parametrize(
    ("nodes", "first"),
    [("gpu7", "gpu7"), ("a,b", "a"), ("gpu[03-05,9],x", "gpu03"), ("n[1,4]-ib,m[2]", "n1-ib"), ("x,n[1-2]", "x")],
)
def test_the_first_host_of_a_step_is_the_meeting_place(nodes, first):
    assert _first_host(nodes) == first
