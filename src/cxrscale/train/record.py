"""What is kept of a training: where it is, while it goes on; what it found and what it cost, when it ends."""

import logging
import platform
import resource
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

from cxrscale.common import atomic, tables
from cxrscale.train.contracts import HISTORY
from cxrscale.train.learner import LEARNER_RECORD, Learner
from cxrscale.train.micro_batch import MicroBatch
from cxrscale.train.models import save_weights

logger = logging.getLogger(__name__)

WEIGHTS, HISTORY_FILE, COST, EVENTS = "weights.safetensors", "history.csv", "cost.json", "tensorboard"
OUTPUTS = (WEIGHTS, LEARNER_RECORD, HISTORY_FILE, COST)


def mean_auroc(logits: np.ndarray, target: np.ndarray, mask: np.ndarray) -> float:
    """Mean AUROC over the findings that have both classes; NaN if none has. All (image, finding)."""
    # scikit-learn's, not the study's own: what changes there must not train all learners again.
    values = []
    for k in range(logits.shape[1]):
        counted = mask[:, k] > 0
        if len(np.unique(target[counted, k])) == 2:
            values.append(roc_auc_score(target[counted, k], logits[counted, k]))
    return float(np.mean(values)) if values else float("nan")


@dataclass
class TrainingState:
    """Where a training is: everything beside weights, optimiser and random state that the next update depends on."""

    epoch: int = 0  # epochs finished
    update: int = 0  # updates done in the current epoch
    loss_sum: float = 0.0  # of the current epoch
    epoch_s: float = 0.0  # spent in the current epoch, over all attempts
    epoch_wait_s: float = 0.0  # of it, waiting for the loader
    best_auroc: float = float("-inf")
    best_epoch: int = 0
    best_weights: Any = None
    history: Any = ()  # tuple of dicts, a row an epoch
    seconds: float = 0.0  # spent in updates and validation, over all attempts
    wait_s: float = 0.0  # of it, waiting for the loader
    images: int = 0  # trained on, over all attempts
    energy_j: float | None = None  # of the GPUs, over all attempts
    peak_memory_mb: float = 0.0
    interruptions: int = 0
    micro_batch: Any = None  # what `MicroBatch` found

    def end_epoch(
        self, updates: int, batch_images: int, validation_loss: float, validation_auroc: float, learning_rate: float
    ) -> dict[str, Any]:
        """Add the epoch's row to the history, and return it. updates: of the epoch, of so many images each."""
        row = {
            "epoch": self.epoch + 1,
            "train_loss": self.loss_sum / updates,
            "validation_loss": validation_loss,
            "validation_auroc": validation_auroc,
            "learning_rate": learning_rate,
            "seconds": self.epoch_s,
            "images_per_second": updates * batch_images / self.epoch_s,
            "loader_wait_fraction": self.epoch_wait_s / self.epoch_s,
        }
        self.history = (*self.history, row)
        self.seconds, self.wait_s = self.seconds + self.epoch_s, self.wait_s + self.epoch_wait_s
        self.epoch, self.update, self.loss_sum, self.epoch_s, self.epoch_wait_s = self.epoch + 1, 0, 0.0, 0.0, 0.0
        return row

    @property
    def validation_auroc(self) -> list[float]:
        return [row["validation_auroc"] for row in self.history]


def write_events(folder: Path, row: dict[str, float]) -> None:
    """Add an epoch's row of the history to TensorBoard's event files; one that is written again replaces itself."""
    from torch.utils.tensorboard import SummaryWriter  # imports much

    epoch = int(row["epoch"])
    with SummaryWriter(str(folder), purge_step=epoch) as writer:
        for key, value in row.items():
            if key != "epoch":
                writer.add_scalar(key, value, epoch)


def peak_memory_mb(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # KiB on Linux


def write_outputs(
    folder: Path, learner: Learner, network: nn.Module, state: TrainingState, cost: dict[str, Any]
) -> None:
    """Write the best epoch's weights, which `network` holds, the learner's record, the history and what it cost."""
    with atomic.replacing(folder / WEIGHTS) as temporary:
        save_weights(network, temporary)
    learner.write(folder / LEARNER_RECORD)
    tables.write(HISTORY, pd.DataFrame(state.history), folder / HISTORY_FILE, float_format=None)
    atomic.write_json(folder / COST, cost)
    logger.info(
        "best epoch %d of %d, mean validation AUROC %.4f, %.0f s", state.best_epoch, state.epoch, state.best_auroc,
        state.seconds,
    )  # fmt: skip


def cost_of(state: TrainingState, micro: MicroBatch, epochs: int, devices: int) -> dict[str, Any]:
    """What a training cost and how it ran. Seconds are those of updates and validation, over all attempts.

    micro: in which parts it was computed. epochs: its budget. devices: that trained together.
    """
    return {
        "seconds": round(state.seconds, 3),
        "gpu_seconds": round(state.seconds * devices, 3) if micro.device.type == "cuda" else None,
        "energy_j": None if state.energy_j is None else round(state.energy_j),
        "images": state.images,
        "images_per_second": round(state.images / state.seconds, 3),
        "loader_wait_s": round(state.wait_s, 3),
        "peak_memory_mb": round(state.peak_memory_mb, 1),
        "device": micro.device_name,
        "devices": devices,
        "micro_batch_images": micro.images,
        "activation_checkpointing": micro.way.activation_checkpointing,
        "channels_last": micro.memory_format == torch.channels_last,
        "threads": torch.get_num_threads(),
        "interruptions": state.interruptions,
        "best_epoch": state.best_epoch,
        "epochs": state.epoch,
        # A best epoch in the last tenth of the budget says that more epochs might have helped.
        "converged": state.best_epoch <= epochs - max(1, epochs // 10),
        "best_validation_auroc": state.best_auroc if np.isfinite(state.best_auroc) else None,
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
    }
