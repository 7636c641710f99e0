"""Training one learner: a (model, resolution, fold, seed), controlled so that only the resolution differs.

Same images in the same order, same number of updates, same effective batch, augmentation drawn by (seed, epoch,
image) in relative units, normalisation over fixed groups of images. A training that is stopped at any moment goes on
from its last checkpoint to the same result. How it runs (micro-batch, processes, activation checkpointing) changes its
result by rounding alone.
"""

import logging
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn
from tqdm import tqdm

from cxrscale.common.devices import EnergyMeter
from cxrscale.common.errors import StudyError
from cxrscale.common.provenance import digest
from cxrscale.common.settings import not_default
from cxrscale.data.contracts import TARGETS
from cxrscale.store.reader import StoreReader
from cxrscale.train import checkpoint
from cxrscale.train.augmentation import Augmentation
from cxrscale.train.distributed import Processes
from cxrscale.train.interruption import Interrupted, StopRequest
from cxrscale.train.learner import Learner
from cxrscale.train.loader import augmented_batches, epoch_order, select_examples, share_of_rank
from cxrscale.train.micro_batch import MicroBatch, unit_of, ways_of
from cxrscale.train.models import build_model
from cxrscale.train.normalisation import discard_statistics, holding_statistics, set_normalisation, step_statistics
from cxrscale.train.optimisation import (
    WeightEma,
    learning_rate_at,
    load_optimiser,
    make_optimiser,
    masked_loss,
    pos_weight,
    stops_early,
)
from cxrscale.train.record import (
    EVENTS,
    OUTPUTS,
    TrainingState,
    cost_of,
    mean_auroc,
    peak_memory_mb,
    write_events,
    write_outputs,
)
from cxrscale.train.settings import RunSettings, TrainingSettings

logger = logging.getLogger(__name__)


class _TooLarge(Exception):  # noqa: N818
    """The GPU's memory did not suffice for an update; it may be tried again in smaller parts."""


def train_learner(
    *,
    folder: Path,
    model_name: str,
    resolution_px: int,
    seed: int,
    settings: TrainingSettings,
    run: RunSettings,
    targets: pd.DataFrame,
    store: StoreReader,
    weights: Path | None,
    inputs_digest: str,
    processes: Processes,
    progress: bool = False,
) -> None:
    """Train one learner and write OUTPUTS and tensorboard/ into `folder`.

    inputs_digest: names code, data and initial weights; with the settings it decides whether a checkpoint may be gone
    on from. processes: all of them call this alike; the first writes. progress: show a bar on standard error.
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
    if settings.normalisation == "per_micro_batch":
        identity["micro_batch_images"] = run.micro_batch_images
    # A setting that comes later changes no learner that exists.
    name = digest(identity | {"settings": not_default(settings)})
    folder.mkdir(parents=True, exist_ok=True)
    if processes.total(float(processes.first and checkpoint.restore(folder, name, OUTPUTS))):
        logger.info("this learner was trained before with the same settings, code and data; it was brought back.")
        return
    training = Training(
        folder, model_name, resolution_px, seed, settings, run, targets, store, weights, processes, progress
    )
    training.checkpoint_to(folder / checkpoint.CHECKPOINT, name, identity)
    training.epochs()
    if processes.first:
        training.model.load_state_dict(training.state.best_weights)
        cost = cost_of(training.state, training.micro, settings.epochs, processes.world)
        cost |= {"train_images": len(training.train), "identity": identity}
        write_outputs(folder, training.learner, training.model, training.state, cost)
        checkpoint.keep(folder, name, OUTPUTS)
        (folder / checkpoint.CHECKPOINT).unlink(missing_ok=True)
    processes.total(0.0)  # none leaves before all is written


class Training:
    """One training: what it works on, and the steps of it."""

    def __init__(
        self,
        folder: Path,
        model_name: str,
        resolution_px: int,
        seed: int,
        settings: TrainingSettings,
        run: RunSettings,
        targets: pd.DataFrame,
        store: StoreReader,
        weights: Path | None,
        processes: Processes,
        progress: bool = False,
    ) -> None:
        self.folder, self.seed, self.settings, self.run, self.store = folder, seed, settings, run, store
        self.processes, self.device, self.progress = processes, processes.device, progress
        self.learner = Learner(
            model_name, TARGETS.findings(targets.columns), resolution_px, seed, settings.mean,
            settings.standard_deviation, settings.precision, store.native_at_least_px, settings.norm_group_images,
        )  # fmt: skip
        self.train, self.validate = (select_examples(targets, store, split) for split in ("train", "validate"))
        self.updates_per_epoch = len(self.train) // settings.batch_images
        if self.updates_per_epoch < 1 or not len(self.validate):
            raise StudyError(
                f"{len(self.train)} images to train on and {len(self.validate)} to validate on, in batches of "
                f"{settings.batch_images}: too few. Lower training.batch_images or change split."
            )
        self.target, self.mask = self.train.target.to(self.device), self.train.mask.to(self.device)
        self.place = np.full(int(self.train.rows.max()) + 1, -1)
        self.place[self.train.rows] = np.arange(len(self.train))
        self.pos_weight = None
        if settings.pos_weight == "balanced":
            self.pos_weight = pos_weight(self.target, self.mask)

        model = build_model(model_name, len(self.learner.findings), seed, weights)
        model = set_normalisation(model, settings.normalisation, settings.norm_group_images, processes.world)
        self.model = model.to(self.device)
        ways, what = ways_of(settings, run, processes.world, self.device), f"{resolution_px} px"
        self.micro = MicroBatch(self.model, self.device, ways, run.channels_last, self._try_pass, what)
        self.parameters = list(self.model.parameters())
        self.optimiser = make_optimiser(self.model, settings)
        self.ema = WeightEma(self.model, settings.ema_decay) if settings.ema_decay else None
        self.forward: Callable[[torch.Tensor], torch.Tensor] = torch.compile(self.model) if run.compile else self.model
        self.state = TrainingState()
        self.resolution_px = resolution_px
        logger.info(
            "%s at %d px, seed %d: %d images to train on, %d to validate on, %d updates an epoch, %d epochs, on "
            "%d x %s",
            model_name, resolution_px, seed, len(self.train), len(self.validate), self.updates_per_epoch,
            settings.epochs, processes.world, self.device.type,
        )  # fmt: skip

    def checkpoint_to(self, path: Path, name: str, identity: dict[str, Any]) -> None:
        """Say where checkpoints go, and go on from the one that is there."""
        self.path, self.name, self.identity = path, name, identity
        if not self.processes.first:
            self.processes.total(0.0)  # the first moves away what does not belong here
        state = checkpoint.load(path, name)
        if state is not None:
            self.model.load_state_dict(state["model"])
            self.state = TrainingState(**state["state"])
        if self.processes.first:
            self.processes.total(0.0)
        self.micro.choose(self.state.micro_batch)
        torch.manual_seed(self.seed)
        if state is not None:
            load_optimiser(self.optimiser, state["optimiser"])
            if self.ema is not None:
                self.ema.load_state_dict(state["ema"])
            checkpoint.restore_random_state(state["random"])
            logger.info("going on from epoch %d, update %d", self.state.epoch + 1, self.state.update)

    def save(self) -> None:
        """Write a checkpoint with all that the next update depends on."""
        if not self.processes.first:
            return
        content = {
            "digest": self.name,
            "identity": self.identity,
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "ema": self.ema.state_dict() if self.ema is not None else None,
            "state": asdict(self.state) | {"micro_batch": self.micro.found},
        }
        checkpoint.save(self.path, content)

    def _try_pass(self, micro: int) -> None:
        """A forward and backward pass of pictures of noise; of the model only gradients change."""
        x = torch.rand(micro, 1, self.resolution_px, self.resolution_px, device=self.device)
        buffers = [buffer.clone() for buffer in self.model.buffers()]
        self.model.train()
        try:
            with self.learner.autocast(self.device):
                loss = self.model(x.to(memory_format=self.micro.memory_format)).float().sum()
            loss.backward()
        finally:
            for buffer, before in zip(self.model.buffers(), buffers, strict=True):
                buffer.copy_(before)

    def epochs(self) -> None:
        """Train until the epochs are over."""
        state, settings = self.state, self.settings
        self.saved_at = time.monotonic()
        with StopRequest() as self.stop, EnergyMeter(self.device) as self.meter:
            while state.epoch < settings.epochs and not stops_early(settings, state.validation_auroc):
                self._updates_of_epoch()
                self._end_of_epoch()
                if self._stop_asked() and state.epoch < settings.epochs:
                    raise Interrupted(f"{self._signal}: checkpoint written")

    def _stop_asked(self) -> bool:
        """Whether any process was asked to stop: all stop at the same update."""
        return self.processes.total(float(self.stop.signal is not None)) > 0

    @property
    def _signal(self) -> str:
        return signal.Signals(self.stop.signal).name if self.stop.signal is not None else "another process was stopped"

    def _updates_of_epoch(self) -> None:
        """What is left of the epoch's updates, in smaller parts from the first that does not fit into memory."""
        while self.state.update < self.updates_per_epoch:
            try:
                self._updates_that_fit()
            except _TooLarge:
                discard_statistics(self.model)
                self.optimiser.zero_grad(set_to_none=True)
                if self.device.type == "cuda":
                    torch.cuda.empty_cache()
                self.micro.shrink()

    def _updates_that_fit(self) -> None:
        state, settings = self.state, self.settings
        order = epoch_order(self.store, self.train.rows, self.seed, state.epoch)
        order = order[state.update * settings.batch_images : self.updates_per_epoch * settings.batch_images]
        progress = tqdm(
            total=self.updates_per_epoch, initial=state.update, desc=f"epoch {state.epoch + 1}/{settings.epochs}",
            unit="update", disable=not (self.progress and self.processes.first), leave=False,
        )  # fmt: skip
        self.model.train()
        clock = time.monotonic()
        with progress as bar:
            for at, parts in self._batches(order):
                rate = learning_rate_at(
                    settings, state.epoch * self.updates_per_epoch + state.update, self.updates_per_epoch,
                    state.validation_auroc,
                )  # fmt: skip
                state.loss_sum += self._update(at, parts, rate)
                state.update += 1
                state.images += len(at)
                now = time.monotonic()
                state.epoch_s, clock = state.epoch_s + now - clock, now
                bar.update()
                bar.set_postfix(loss=f"{state.loss_sum / state.update:.4f}", refresh=False)
                if self._stop_asked():
                    state.interruptions += 1
                    self._add_energy()
                    self.save()
                    raise Interrupted(f"{self._signal}: checkpoint written")
                if now - self.saved_at > self.run.checkpoint_s:
                    self.save()
                    self.saved_at = time.monotonic()

    def _batches(self, order: np.ndarray) -> Iterator[tuple[np.ndarray, Iterator[tuple[torch.Tensor, np.ndarray]]]]:
        """The effective batches of an order of rows: the examples of each, numbers (image,), and this process's part of
        it as micro-batches on the device, each with its examples. Micro-batches must be taken before the next batch.
        """
        batch, processes = self.settings.batch_images, self.processes
        mine = share_of_rank(len(order), batch, processes.rank, processes.world, unit_of(self.settings))
        shares = [mine[mine // batch == number] for number in range(len(order) // batch)]
        micro = [
            [share[i : i + self.micro.images] for i in range(0, len(share), self.micro.images)] for share in shares
        ]
        loaded = self._loaded([order[part] for parts in micro for part in parts])
        for number, parts in enumerate(micro):
            at = self.place[order[number * batch : (number + 1) * batch]]
            yield at, ((next(loaded), self.place[order[part]]) for part in parts)

    def _loaded(self, parts: list[np.ndarray]) -> Iterator[torch.Tensor]:
        """Augmented, normalised pictures on the device, one micro-batch at a time; counts the wait for the loader."""
        settings, learner = self.settings, self.learner
        how = Augmentation(
            self.seed, self.state.epoch, settings.flip_probability, settings.rotation_degrees, learner.mean,
            learner.standard_deviation,
        )  # fmt: skip
        keys = [self.train.keys[self.place[rows]] for rows in parts]
        clock = time.monotonic()
        for x in augmented_batches(self.store, parts, keys, how, self.run.workers, self.device):
            self.state.epoch_wait_s += time.monotonic() - clock
            yield x.to(memory_format=self.micro.memory_format)
            clock = time.monotonic()

    def _update(self, at: np.ndarray, parts: Iterator[tuple[torch.Tensor, np.ndarray]], rate: float) -> float:
        """One update over an effective batch; returns its loss. Gradients of the parts add up to the batch's.

        at: the examples of the whole batch; parts: pictures and examples of this process's micro-batches.
        """
        settings = self.settings
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad(set_to_none=True)
        counted = float(self.mask[at].sum())
        found = torch.zeros(2, dtype=torch.float64, device=self.device)  # loss; processes that lacked memory
        try:
            for x, examples in parts:
                with self.learner.autocast(self.device):
                    logits = self.forward(x)
                loss = masked_loss(
                    logits, self.target[examples], self.mask[examples], counted, settings.label_smoothing,
                    self.pos_weight,
                )  # fmt: skip
                with holding_statistics():
                    loss.backward()
                found[0] += loss.detach()
        except torch.OutOfMemoryError:
            found[1] += 1
        self.processes.add_up(found)
        value, short = found.tolist()
        if short:
            raise _TooLarge
        if not np.isfinite(value):
            raise FloatingPointError(
                f"the loss is {value} in epoch {self.state.epoch + 1}; the last checkpoint is kept. "
                f"Images of the batch: {', '.join(map(str, self.train.image_id[at]))}"
            )
        self.processes.add_up_gradients(self.parameters)
        if settings.clip_grad_norm is not None:
            nn.utils.clip_grad_norm_(self.parameters, settings.clip_grad_norm)
        self.optimiser.step()
        step_statistics(self.model, self.processes.add_up if self.processes.world > 1 else None)
        if self.ema is not None:
            self.ema.update(self.model)
        return value

    def _validate(self) -> np.ndarray:
        """Logits of the validation images, each computed by one process. Returns float32 (image, finding)."""
        mine = np.array_split(np.arange(len(self.validate)), self.processes.world)[self.processes.rank]
        logits = self.learner.logits(
            self.model, self.store, self.validate.rows[mine], self.device, self.micro.images, self.run.workers
        )
        return self.processes.gather(logits, mine, len(self.validate))

    def _end_of_epoch(self) -> None:
        """Validate, keep the best weights, note the epoch and write a checkpoint."""
        state, settings, validate = self.state, self.settings, self.validate
        clock = time.monotonic()
        if self.ema is not None:
            self.ema.swap(self.model)
        logits = self._validate()
        score = mean_auroc(logits, validate.target.numpy(), validate.mask.numpy())
        # NaN (no finding with both classes) never beats, but the first epoch always counts.
        if state.best_weights is None or score > state.best_auroc:
            state.best_auroc, state.best_epoch = score, state.epoch + 1
            state.best_weights = {k: v.detach().cpu().clone() for k, v in self.model.state_dict().items()}
        if self.ema is not None:
            self.ema.swap(self.model)
        validation_loss = masked_loss(
            torch.from_numpy(logits), validate.target, validate.mask, float(validate.mask.sum())
        )
        state.epoch_s += time.monotonic() - clock
        state.peak_memory_mb = max(state.peak_memory_mb, peak_memory_mb(self.device))
        self._add_energy()
        rate = self.optimiser.param_groups[0]["lr"]
        row = state.end_epoch(self.updates_per_epoch, settings.batch_images, float(validation_loss), score, rate)
        self.save()
        self.saved_at = time.monotonic()
        logger.info(
            "epoch %d/%d  loss %.4f  validation loss %.4f  mean AUROC %.4f  %.1f images/s  loader wait %.0f %%  "
            "%.0f s left",
            state.epoch, settings.epochs, row["train_loss"], row["validation_loss"], score, row["images_per_second"],
            100 * row["loader_wait_fraction"], row["seconds"] * (settings.epochs - state.epoch),
        )  # fmt: skip
        if self.processes.first:
            write_events(self.folder / EVENTS, row)

    def _add_energy(self) -> None:
        used = self.meter.take()
        if used is not None:
            self.state.energy_j = (self.state.energy_j or 0.0) + self.processes.total(used)
