"""Trainings of one, two and four processes on a CPU, started by torchrun, with messages by gloo."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from cxrscale import tables
from cxrscale.findings import TARGETS

ROOT = Path(__file__).parents[2]
SETTINGS = {
    "epochs": 2, "batch_images": 16, "norm_group_images": 4, "optimiser": "adam", "learning_rate": 1e-3,
    "weight_decay": 0.0, "schedule": "cosine", "flip_probability": 0.5, "rotation_degrees": 15.0, "mean": 0.4,
    "standard_deviation": 0.2, "clip_norm": 1.0, "average_decay": 0.9,
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
            "targets": tmp_path / "targets.parquet", "manifest": small_store.folder / "manifest.parquet",
            "processes": processes, "threads": processes,
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


def test_processes_that_are_stopped_write_one_checkpoint_and_go_on(command):
    folder, line = command(2, epochs=60)
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    with subprocess.Popen(line, env=environment, stderr=subprocess.PIPE, text=True) as running:
        while not (folder / "checkpoint.pt").is_file():
            assert running.poll() is None, running.stderr.read()
            time.sleep(0.05)
        running.send_signal(signal.SIGTERM)
        running.communicate(timeout=120)
    assert running.returncode == 75
    assert not (folder / "weights.safetensors").exists()
    finish(line)
    assert "going on from epoch" in Path(f"{folder}.log").read_text()
    assert len(pd.read_csv(folder / "history.csv")) == 60
    assert not (folder / "checkpoint.pt").exists()
