"""What must hold on a device before its speed counts: it learns as a CPU does, and a stopped training goes on.

In float32, without augmentation, by torch's deterministic algorithms: then only rounding may differ between devices,
and nothing between two runs on one.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import torch
from measure import Result
from safetensors.torch import load_file

from cxrscale.store.reader import StoreReader
from cxrscale.train.distributed import Processes
from cxrscale.train.interruption import Interrupted
from cxrscale.train.learner import Origin
from cxrscale.train.settings import RunSettings, TrainingSettings
from cxrscale.train.task import Task
from cxrscale.train.training import Training, train_learner
from cxrscale.train.update import Updater

SETTINGS = TrainingSettings(epochs=2, batch_images=16, precision="float32", flip_probability=0.0, rotation_degrees=0.0)
RUN = RunSettings(micro_batch_images=8, activation_checkpointing=False, channels_last=False, workers=0)
N_VALIDATE = 8
NO_ORIGIN = Origin(code="", store="", index="", targets="", initial_weights=None)
UPDATES = 4
#: Pictures that the store must have.
NEEDED = UPDATES * SETTINGS.batch_images + N_VALIDATE


def task_of(store: StoreReader, folder: Path, model: str) -> Task:
    """A learner of three findings, whose last images validate."""
    numbers = np.arange(len(store))
    targets = pd.DataFrame({"image_id": store.image_ids, "split": "train"})
    targets.loc[len(store) - N_VALIDATE :, "split"] = "validate"
    for finding in range(3):
        targets[f"target:{finding}"], targets[f"mask:{finding}"] = (numbers >> finding) % 2, 1
    return Task(folder, model, store.shape[0], 0, SETTINGS, RUN, targets, store, None, NO_ORIGIN)


@contextmanager
def deterministic() -> Iterator[None]:
    """Algorithms that give the same bits each time, where torch has them for this device."""
    before = os.environ.get("CUBLAS_WORKSPACE_CONFIG"), torch.backends.cudnn.benchmark
    os.environ["CUBLAS_WORKSPACE_CONFIG"], torch.backends.cudnn.benchmark = ":4096:8", False
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)
        torch.backends.cudnn.benchmark = before[1]
        if before[0] is None:
            del os.environ["CUBLAS_WORKSPACE_CONFIG"]
        else:
            os.environ["CUBLAS_WORKSPACE_CONFIG"] = before[0]


def losses(task: Task, device: torch.device) -> torch.Tensor:
    """Of the first updates, float64 (update,)."""
    training = Training(task, Processes(0, 1, device))
    training.updater.begin(None)
    batches = training.batches.of_epoch(0, training.updater.micro.images)[:UPDATES]
    pictures = training.batches.pictures(batches)
    return torch.tensor([training.updater.update(batch, pictures, SETTINGS.learning_rate)[0] for batch in batches])


def stopped_once(task: Task, device: torch.device) -> None:
    """Train, with a request to stop in the middle of the first epoch, and go on."""
    update, done = Updater.update, []

    def update_and_ask(*given: Any) -> Any:
        done.append(update(*given))
        if len(done) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return done[-1]

    try:
        with patch.object(Updater, "update", update_and_ask):
            train_learner(task, Processes(0, 1, device))
    except Interrupted:
        train_learner(task, Processes(0, 1, device))
    else:
        raise RuntimeError("a training that was asked to stop did not stop")


def difference(one: Path, other: Path) -> float:
    """The largest difference between two learners' weights, running statistics included."""
    a, b = (load_file(folder / "weights.safetensors") for folder in (one, other))
    return max(float((a[name].double() - b[name].double()).abs().max()) for name in a)


def check(store: StoreReader, folder: Path, model: str, device: torch.device) -> list[Result]:
    """Rows that say what holds; folder: where learners may be trained."""
    with deterministic():
        here, cpu = (losses(task_of(store, folder, model), where) for where in (device, torch.device("cpu")))
        through, stopped = folder / f"{model}-through", folder / f"{model}-stopped"
        train_learner(task_of(store, through, model), Processes(0, 1, device))
        stopped_once(task_of(store, stopped, model), device)
    largest = float(((here - cpu) / cpu).abs().max())
    return [
        Result(f"{model}: losses of {UPDATES} updates beside a CPU's", largest, "share", "<= 0.001"),
        Result("  weights after a stop, beside those without", difference(through, stopped), "", "<= 0"),
    ]


def checked(store: StoreReader, folder: Path, models: list[str], device: torch.device) -> list[Result]:
    """`check` for each model, on a store of at least NEEDED pictures."""
    return [row for model in models for row in check(store, folder, model, device)]
