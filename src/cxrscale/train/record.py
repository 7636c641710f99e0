"""What is kept of a training: where it is, while it goes on; what it found and what it cost, when it ends."""

import logging
import platform
import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

from cxrscale.common import atomic, records, tables
from cxrscale.train.contracts import COST, HISTORY, LEARNER
from cxrscale.train.learner import WEIGHTS, LearnerRecord
from cxrscale.train.micro_batch import MicroBatch
from cxrscale.train.models import save_weights

logger = logging.getLogger(__name__)

HISTORY_FILE, EVENTS = "history.csv", "tensorboard"
OUTPUTS = (WEIGHTS, LEARNER.file_name, HISTORY_FILE, COST.file_name)


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
    """Where a training is: everything beside weights and optimiser that the next update depends on."""

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
    energy_j: float | None = 0.0  # of the GPUs, over all attempts; None once one could not be measured
    peak_memory_mb: float = 0.0
    interruptions: int = 0

    def waited_for(self, items: Iterator[torch.Tensor]) -> Iterator[torch.Tensor]:
        """The same items; the time that it takes to get each is counted as waiting."""
        start = time.monotonic()
        for item in items:
            self.epoch_wait_s += time.monotonic() - start
            yield item
            start = time.monotonic()

    def end_update(self, loss: float, images: int, seconds: float) -> None:
        """Count an update."""
        self.update, self.loss_sum = self.update + 1, self.loss_sum + loss
        self.images, self.epoch_s = self.images + images, self.epoch_s + seconds

    def keep_if_best(self, score: float, network: nn.Module) -> None:
        """Keep the weights if no epoch before had so high a mean validation AUROC.

        NaN (no finding with both classes) never beats, but the first epoch always counts.
        """
        if self.best_weights is None or score > self.best_auroc:
            self.best_auroc, self.best_epoch = score, self.epoch + 1
            self.best_weights = {k: v.detach().cpu().clone() for k, v in network.state_dict().items()}

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


def log_epoch(row: dict[str, float], epochs: int) -> None:
    """Say what the row of an epoch says, of so many epochs."""
    logger.info(
        "epoch %d/%d  loss %.4f  validation loss %.4f  mean AUROC %.4f  %.1f images/s  loader wait %.0f %%  "
        "%.0f s left",
        row["epoch"], epochs, row["train_loss"], row["validation_loss"], row["validation_auroc"],
        row["images_per_second"], 100 * row["loader_wait_fraction"], row["seconds"] * (epochs - row["epoch"]),
    )  # fmt: skip


def peak_memory_mb(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # KiB on Linux


def write_outputs(
    folder: Path, record: LearnerRecord, network: nn.Module, state: TrainingState, cost: dict[str, Any]
) -> None:
    """Write the best epoch's weights, which `network` holds, the learner's record, the history and what it cost."""
    with atomic.replacing(folder / WEIGHTS) as temporary:
        save_weights(network, temporary)
    record.write(folder / LEARNER.file_name)
    tables.write(HISTORY, pd.DataFrame(state.history), folder / HISTORY_FILE, float_format=None)
    records.write(COST, cost, folder / COST.file_name)
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
