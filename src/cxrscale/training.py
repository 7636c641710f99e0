"""Training one learner: a (model, resolution, fold, seed), controlled so that only the resolution differs.

Same images in the same order, same number of updates, same effective batch, augmentation drawn by (seed, epoch,
image) in relative units, normalisation over fixed groups of images. A training that is stopped at any moment goes on
from its last checkpoint to the same result.
"""

import csv
import itertools
import logging
import platform
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import nn
from tqdm import tqdm

from cxrscale import atomic, checkpoint
from cxrscale.augmentation import Augmentation, augment, normalise
from cxrscale.errors import StudyError
from cxrscale.evaluation.auroc import auroc
from cxrscale.findings import TARGETS
from cxrscale.loader import Examples, decoded_batches, epoch_order, select_examples
from cxrscale.models import build_model, group_batch_norm, save_weights
from cxrscale.provenance import digest
from cxrscale.store.reader import StoreReader

logger = logging.getLogger(__name__)

#: Exit status of a training that was asked to stop (SIGTERM, SIGUSR1) and wrote a checkpoint: EX_TEMPFAIL.
INTERRUPTED_STATUS = 75

WEIGHTS, HISTORY, COST = "weights.safetensors", "history.csv", "cost.json"
OUTPUTS = (WEIGHTS, HISTORY, COST)


@dataclass(frozen=True)
class TrainingSettings:
    """What a learner's weights depend on, beside its images, targets and initial weights.

    epochs: fixed budget; the best epoch by mean validation AUROC is kept. batch_images: effective batch of one update.
    norm_group_images: images over which batch statistics are taken; batch_images is a multiple of it.
    learning_rate, weight_decay; optimiser: "adam" or "adamw". schedule: "constant" or "cosine" (to zero over all
    updates). rotation_degrees: uniform within plus and minus; flip_probability. mean, standard_deviation: of the
    grey range 0 to 1.
    """

    epochs: int
    batch_images: int
    norm_group_images: int
    optimiser: Literal["adam", "adamw"]
    learning_rate: float
    weight_decay: float
    schedule: Literal["constant", "cosine"]
    flip_probability: float
    rotation_degrees: float
    mean: float
    standard_deviation: float


def masked_loss(logits: torch.Tensor, target: torch.Tensor, mask: torch.Tensor, n_counted: float) -> torch.Tensor:
    """Binary cross-entropy summed over what counts, divided by n_counted (the targets that count in the whole
    effective batch, so that parts of it add up). All (image, finding)."""
    loss = F.binary_cross_entropy_with_logits(logits.float(), target, reduction="none")
    return (loss * mask).sum() / max(n_counted, 1.0)


def make_optimiser(model: nn.Module, settings: TrainingSettings) -> torch.optim.Optimizer:
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[settings.optimiser]
    return kind(model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True)


def learning_rate_at(settings: TrainingSettings, update: int, updates: int) -> float:
    """The learning rate of update number `update` (from 0) of `updates`."""
    if settings.schedule == "constant":
        return settings.learning_rate
    return settings.learning_rate * 0.5 * (1 + float(np.cos(np.pi * update / updates)))


def mean_auroc(logits: np.ndarray, target: np.ndarray, mask: np.ndarray) -> float:
    """Mean AUROC over the findings that have both classes; NaN if none has. All (image, finding)."""
    values = []
    for k in range(logits.shape[1]):
        counted = mask[:, k] > 0
        value = auroc(logits[counted, k], target[counted, k])
        if not np.isnan(value):
            values.append(value)
    return float(np.mean(values)) if values else float("nan")


class StopRequest:
    """Turns SIGTERM and SIGUSR1 into a request that the training loop honours at the next update."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def __enter__(self) -> "StopRequest":
        self._before = {s: signal.signal(s, self._ask) for s in (signal.SIGTERM, signal.SIGUSR1)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, _: FrameType | None) -> None:
        self.signal = number


class Interrupted(Exception):  # noqa: N818
    """The training was asked to stop and has written its checkpoint."""


@torch.inference_mode()
def predict_logits(
    model: nn.Module,
    store: StoreReader,
    rows: np.ndarray,
    mean: float,
    standard_deviation: float,
    device: torch.device,
    batch_images: int,
    workers: int,
) -> np.ndarray:
    """Logits of images in the order of `rows`, without augmentation. Returns float32 (image, finding)."""
    model.eval()
    batches = [rows[i : i + batch_images] for i in range(0, len(rows), batch_images)]
    found = []
    for pixels in decoded_batches(store, batches, workers, pin_memory=device.type == "cuda"):
        x = normalise(to_float(pixels, device), mean, standard_deviation)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            found.append(model(x).float().cpu().numpy())
    return np.concatenate(found)


def to_float(pixels: torch.Tensor, device: torch.device) -> torch.Tensor:
    """uint8 (image, 1, height_px, width_px) on the host -> float32 in [0, 1] on the device, channels last."""
    moved = pixels.to(device, non_blocking=True)
    return moved.to(torch.float32).div_(255).to(memory_format=torch.channels_last)


def train_learner(
    *,
    folder: Path,
    model_name: str,
    resolution_px: int,
    seed: int,
    settings: TrainingSettings,
    targets: pd.DataFrame,
    store: StoreReader,
    weights: Path | None,
    inputs_digest: str,
    device: torch.device,
    micro_batch_images: int,
    workers: int,
    checkpoint_s: float,
    progress: bool = False,
) -> None:
    """Train one learner and write weights.safetensors, history.csv and cost.json into `folder`.

    inputs_digest: names code, data and initial weights; with the settings it decides whether a checkpoint may be gone
    on from. micro_batch_images: how many images are computed at once, a matter of memory alone.
    progress: show a progress bar on standard error.
    Raises Interrupted after a stop signal, StudyError for what cannot be trained, FloatingPointError if the loss is
    not finite.
    """
    identity = {
        "settings": asdict(settings),
        "model": model_name,
        "resolution_px": resolution_px,
        "seed": seed,
        "inputs": inputs_digest,
    }
    name = digest(identity)
    folder.mkdir(parents=True, exist_ok=True)
    if checkpoint.restore(folder, name, OUTPUTS):
        logger.info("this learner was trained before with the same settings, code and data; it was brought back.")
        return

    findings = TARGETS.findings(targets.columns)
    train, validate = (select_examples(targets, store, split) for split in ("train", "validate"))
    updates_per_epoch = len(train) // settings.batch_images
    if updates_per_epoch < 1 or not len(validate):
        raise StudyError(
            f"{len(train)} images to train on and {len(validate)} to validate on, in batches of "
            f"{settings.batch_images}: too few. Lower training.batch_images or change split."
        )
    micro = _micro_batch(micro_batch_images, settings)

    model = group_batch_norm(build_model(model_name, len(findings), seed, weights), settings.norm_group_images)
    model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = make_optimiser(model, settings)
    started = _State()
    path = folder / checkpoint.CHECKPOINT
    if state := checkpoint.load(path, name):
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        started = _State(**state["state"])
        checkpoint.restore_random_state(state["random"])
        logger.info("going on from epoch %d, update %d", started.epoch + 1, started.update)
    else:
        torch.manual_seed(seed)

    def save() -> None:
        checkpoint.save(
            path,
            {
                "digest": name,
                "identity": identity,
                "model": model.state_dict(),
                "optimiser": optimiser.state_dict(),
                "state": asdict(started),
            },
        )

    logger.info(
        "%s at %d px, seed %d: %d images to train on, %d to validate on, %d updates an epoch, %d epochs, on %s",
        model_name, resolution_px, seed, len(train), len(validate), updates_per_epoch, settings.epochs, device,
    )  # fmt: skip
    _train_epochs(
        model, optimiser, started, settings, train, validate, store, seed, updates_per_epoch, micro, device, workers,
        checkpoint_s, save, progress,
    )  # fmt: skip

    model.load_state_dict(started.best_weights)
    _write_outputs(folder, model, started, settings, identity, device, len(train))
    checkpoint.keep(folder, name, OUTPUTS)
    path.unlink(missing_ok=True)


@dataclass
class _State:
    """Where a training is: everything beside weights, optimiser and random state that the next update depends on."""

    epoch: int = 0  # epochs finished
    update: int = 0  # updates done in the current epoch
    loss_sum: float = 0.0  # of the current epoch
    best_auroc: float = float("-inf")
    best_epoch: int = 0
    best_weights: Any = None
    history: Any = ()  # tuple of dicts, a row an epoch
    seconds: float = 0.0  # spent in updates and validation, over all attempts
    wait_s: float = 0.0  # of it, waiting for the loader
    images: int = 0  # trained on, over all attempts
    peak_memory_mb: float = 0.0
    interruptions: int = 0


def _micro_batch(wanted: int, settings: TrainingSettings) -> int:
    """The largest multiple of the group, at most `wanted`, that divides the batch; the group itself at least."""
    group = settings.norm_group_images
    sizes = [m for m in range(group, settings.batch_images + 1, group) if settings.batch_images % m == 0]
    return max([m for m in sizes if m <= wanted], default=group)


def _train_epochs(
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    state: _State,
    settings: TrainingSettings,
    train: Examples,
    validate: Examples,
    store: StoreReader,
    seed: int,
    updates_per_epoch: int,
    micro: int,
    device: torch.device,
    workers: int,
    checkpoint_s: float,
    save: Callable[[], None],
    progress: bool,
) -> None:
    place = {int(row): i for i, row in enumerate(train.rows)}
    target, mask = train.target.to(device), train.mask.to(device)
    saved_at = time.monotonic()
    with StopRequest() as stop:
        while state.epoch < settings.epochs:
            epoch = state.epoch
            order = epoch_order(store, train.rows, seed, epoch)[: updates_per_epoch * settings.batch_images]
            left = order[state.update * settings.batch_images :]
            bar = tqdm(
                total=updates_per_epoch, initial=state.update, desc=f"epoch {epoch + 1}/{settings.epochs}",
                unit="update", disable=not progress, leave=False,
            )  # fmt: skip
            model.train()
            clock = time.monotonic()
            waited, images_before, seconds_before = state.wait_s, state.images, state.seconds
            augmentation = Augmentation(
                seed, epoch, settings.flip_probability, settings.rotation_degrees, settings.mean,
                settings.standard_deviation,
            )  # fmt: skip
            loaded = _augmented(store, left, micro, workers, device, augmentation, train.keys, place, state)
            for start in range(0, len(left), settings.batch_images):
                at = np.array([place[int(r)] for r in left[start : start + settings.batch_images]])
                rate = learning_rate_at(
                    settings, epoch * updates_per_epoch + state.update, settings.epochs * updates_per_epoch
                )
                parts = itertools.islice(loaded, settings.batch_images // micro)
                loss = _update(model, optimiser, parts, target[at], mask[at], epoch, rate, train.image_id[at])
                state.update += 1
                state.loss_sum += loss
                state.images += len(at)
                now = time.monotonic()
                state.seconds, clock = state.seconds + now - clock, now
                bar.update()
                bar.set_postfix(loss=f"{state.loss_sum / state.update:.4f}", refresh=False)
                if stop.signal is not None:
                    state.interruptions += 1
                    save()
                    raise Interrupted(f"{signal.Signals(stop.signal).name}: checkpoint written")
                if now - saved_at > checkpoint_s:
                    save()
                    saved_at = time.monotonic()
            bar.close()
            logits = predict_logits(
                model,
                store,
                validate.rows,
                settings.mean,
                settings.standard_deviation,
                device,
                micro,
                workers,
            )
            score = mean_auroc(logits, validate.target.numpy(), validate.mask.numpy())
            validation_loss = float(
                masked_loss(torch.from_numpy(logits), validate.target, validate.mask, float(validate.mask.sum()))
            )
            state.seconds += time.monotonic() - clock
            state.peak_memory_mb = max(state.peak_memory_mb, _peak_memory_mb(device))
            spent = state.seconds - seconds_before
            row = {
                "epoch": epoch + 1,
                "train_loss": state.loss_sum / updates_per_epoch,
                "validation_loss": validation_loss,
                "validation_auroc": score,
                "learning_rate": optimiser.param_groups[0]["lr"],  # a resumed epoch may have no update left
                "seconds": spent,
                "images_per_second": (state.images - images_before) / spent,
                "loader_wait_fraction": (state.wait_s - waited) / spent,
            }
            state.history = (*state.history, row)
            # NaN (no finding with both classes) never beats, but the first epoch always counts.
            if state.best_weights is None or score > state.best_auroc:
                state.best_auroc, state.best_epoch = score, epoch + 1
                state.best_weights = {k: v.detach().cpu().clone() for k, v in model.state_dict().items()}
            state.epoch, state.update, state.loss_sum = epoch + 1, 0, 0.0
            save()
            saved_at = time.monotonic()
            logger.info(
                "epoch %d/%d  loss %.4f  validation loss %.4f  mean AUROC %.4f  %.1f images/s  loader wait %.0f %%  "
                "%.0f s left",
                epoch + 1, settings.epochs, row["train_loss"], validation_loss, score, row["images_per_second"],
                100 * row["loader_wait_fraction"], spent * (settings.epochs - epoch - 1),
            )  # fmt: skip
            if stop.signal is not None and state.epoch < settings.epochs:
                raise Interrupted(f"{signal.Signals(stop.signal).name}: checkpoint written")


def _augmented(
    store: StoreReader,
    order: np.ndarray,
    micro: int,
    workers: int,
    device: torch.device,
    how: Augmentation,
    keys: np.ndarray,
    place: dict[int, int],
    state: _State,
) -> Iterator[torch.Tensor]:
    """Augmented, normalised micro-batches on the device, one at a time; counts the wait for the loader.

    The workers augment for a CPU; a GPU does it itself.
    """
    on_cpu = device.type == "cpu"
    parts = [order[i : i + micro] for i in range(0, len(order), micro)]
    clock = time.monotonic()
    loaded = decoded_batches(store, parts, workers, device.type == "cuda", how if on_cpu else None)
    for rows, pixels in zip(parts, loaded, strict=True):
        state.wait_s += time.monotonic() - clock
        if on_cpu:
            x = pixels
        else:
            x = augment(to_float(pixels, device), keys[[place[int(r)] for r in rows]], how)
            x = normalise(x, how.mean, how.standard_deviation)
        yield x.to(memory_format=torch.channels_last)
        clock = time.monotonic()


def _update(
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    parts: Iterable[torch.Tensor],
    target: torch.Tensor,
    mask: torch.Tensor,
    epoch: int,
    rate: float,
    image_id: np.ndarray,
) -> float:
    """One update over an effective batch; returns its loss. Gradients of the micro-batches add up to the batch's."""
    for group in optimiser.param_groups:
        group["lr"] = rate
    optimiser.zero_grad(set_to_none=True)
    counted, total, start = float(mask.sum()), 0.0, 0
    for x in parts:
        part = slice(start, start + len(x))
        start += len(x)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=x.device.type == "cuda"):
            logits = model(x)
        loss = masked_loss(logits, target[part], mask[part], counted)
        loss.backward()
        total += float(loss.detach())
    if not np.isfinite(total):
        raise FloatingPointError(
            f"the loss is {total} in epoch {epoch + 1}; the last checkpoint is kept. "
            f"Images of the batch: {', '.join(map(str, image_id))}"
        )
    optimiser.step()
    return total


def _peak_memory_mb(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # KiB on Linux


def _write_outputs(
    folder: Path,
    model: nn.Module,
    state: _State,
    settings: TrainingSettings,
    identity: dict[str, Any],
    device: torch.device,
    n_train: int,
) -> None:
    with atomic.replacing(folder / WEIGHTS) as temporary:
        save_weights(model, temporary)
    with atomic.replacing(folder / HISTORY) as temporary, temporary.open("w", newline="") as handle:
        writer = csv.DictWriter(handle, list(state.history[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(state.history)
    cost = {
        "seconds": round(state.seconds, 3),
        "images": state.images,
        "images_per_second": round(state.images / state.seconds, 3),
        "loader_wait_s": round(state.wait_s, 3),
        "peak_memory_mb": round(state.peak_memory_mb, 1),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "devices": 1,
        "threads": torch.get_num_threads(),
        "interruptions": state.interruptions,
        "train_images": n_train,
        "best_epoch": state.best_epoch,
        "epochs": settings.epochs,
        # A best epoch in the last tenth of the budget says that more epochs might have helped.
        "converged": state.best_epoch <= settings.epochs - max(1, settings.epochs // 10),
        "best_validation_auroc": state.best_auroc if np.isfinite(state.best_auroc) else None,
        "identity": identity,
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
    }
    atomic.write_json(folder / COST, cost)
    logger.info(
        "best epoch %d of %d, mean validation AUROC %.4f, %.0f s", state.best_epoch, settings.epochs, state.best_auroc,
        state.seconds,
    )  # fmt: skip


def run_as_job(train: Callable[[], None]) -> None:
    """Run a training as a process: an interruption ends it with INTERRUPTED_STATUS."""
    try:
        train()
    except Interrupted as stopped:
        logger.warning("%s; run again to go on.", stopped)
        sys.exit(INTERRUPTED_STATUS)
