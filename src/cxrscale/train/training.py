"""Training one learner: a (model, resolution, fold, seed), controlled so that only the resolution differs.

Same images in the same order, same number of updates, same effective batch, augmentation drawn by (seed, epoch,
image) in relative units, normalisation over fixed groups of images. A training that is stopped at any moment goes on
from its last checkpoint to the same result. How it runs (micro-batch, processes, activation checkpointing) changes its
result by rounding alone.
"""

import contextlib
import logging
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, TypeVar

import numpy as np
import torch
from tqdm import tqdm

from cxrscale.common.devices import EnergyMeter
from cxrscale.common.errors import StudyError
from cxrscale.common.sole_writer import SoleWriter
from cxrscale.train import checkpoint
from cxrscale.train.batches import Batch, Batches
from cxrscale.train.distributed import AnotherFailed, Processes
from cxrscale.train.interruption import TIME_LIMIT, Interrupted, StopRequest
from cxrscale.train.loader import select_examples
from cxrscale.train.needs import (
    MORE_SHARED_MEMORY,
    SHARED_MEMORY,
    loader_bytes,
    pixel_bytes,
    require_room,
    training_bytes,
)
from cxrscale.train.optimisation import learning_rate_at, masked_loss, stops_early
from cxrscale.train.record import (
    EVENTS,
    OUTPUTS,
    TrainingState,
    cost_of,
    log_epoch,
    mean_auroc,
    peak_memory_mb,
    write_events,
    write_outputs,
)
from cxrscale.train.statistics import Sums, note_statistics, set_statistics
from cxrscale.train.task import Task
from cxrscale.train.update import Failed, TooLarge, Updater, Wishes

logger = logging.getLogger(__name__)

#: The file in a learner's folder that says which process trains it.
LOCK = "training.lock"

T = TypeVar("T")


class _Unfinished(Exception):  # noqa: N818
    """A validation was left, since the training was asked to stop; it is done when the training goes on."""


def train_learner(task: Task, processes: Processes) -> None:
    """Train a learner, or bring it back if it was trained before: OUTPUTS and tensorboard/ in its folder.

    processes: all of them call this alike; the first writes. Raises Interrupted after a stop signal, StudyError for
    what cannot be trained and where another process trains the same one, FloatingPointError if the loss is not finite.
    """
    # Each has read settings, targets and index by itself.
    processes.require_same("digest of settings, code and data", [int(task.digest, 16) >> 1])
    task.folder.mkdir(parents=True, exist_ok=True)
    writer = SoleWriter(task.folder / LOCK)
    with contextlib.ExitStack() as held:

        def restore() -> bool:
            held.enter_context(writer)
            return checkpoint.restore(task.folder, task.digest, OUTPUTS)

        if processes.from_first(restore):
            logger.info("this learner was trained before with the same settings, code and data; it was brought back.")
            return
        Training(task, processes, writer).run()


class Training:
    """One training. updater: what is trained; state: how far; batches: on what; writer: held by the first process, or
    nothing is written."""

    def __init__(self, task: Task, processes: Processes, writer: SoleWriter | None = None) -> None:
        self.task, self.settings, self.processes = task, task.settings, processes
        self.writer = writer or SoleWriter(task.folder / LOCK)
        self.train, self.validate = (select_examples(task.targets, task.store, s) for s in ("train", "validate"))
        self.batches = Batches(task, self.train, processes)
        if self.batches.per_epoch < 1 or not len(self.validate):
            raise StudyError(
                f"{len(self.train)} images to train on and {len(self.validate)} to validate on, in batches of "
                f"{self.settings.batch_images}: too few. Lower training.batch_images or change split."
            )
        self.updater = Updater(task, self.train, processes)
        self.state = TrainingState()
        self.stop, self.meter, self.saved_at = StopRequest(), EnergyMeter(processes.device), time.monotonic()
        logger.info(
            "%s at %d px, seed %d: %d images to train on, %d to validate on, %d updates an epoch, %d epochs, on "
            "%d x %s",
            task.model, task.resolution_px, task.seed, len(self.train), len(self.validate), self.batches.per_epoch,
            self.settings.epochs, processes.world, processes.device.type,
        )  # fmt: skip

    def run(self) -> None:
        """Train from the last checkpoint, or from the start, until the epochs are over; then write the learner."""
        with self.stop, self.meter:
            self._restore()
            self._require_room()
            self.began_at = self.state.epoch, self.state.update
            while not self._over:
                while self.state.update < self.batches.per_epoch:
                    self._updates_that_fit()
                try:
                    self._end_of_epoch()
                except _Unfinished:
                    self._interrupt()
                if self._stop_asked() and not self._over:
                    self._interrupt()
                self._save()
            self._write()

    def _updates_that_fit(self) -> None:
        """What is left of the epoch's updates, up to one that must be done again in smaller parts."""
        state, micro = self.state, self.updater.micro
        batches = self.batches.of_epoch(state.epoch, micro.images)[state.update :]
        pictures = state.waited_for(self.batches.pictures(batches))
        clock = time.monotonic()
        with self._progress() as bar:
            for batch in batches:
                try:
                    loss, wishes = self.updater.update(batch, pictures, self._learning_rate(batch), self._wishes)
                except TooLarge:
                    return
                except Failed as failed:
                    if failed.wishes.stop:  # what else ended the loader's workers
                        self._interrupt()
                    raise failed.__cause__ or failed from None
                now = time.monotonic()
                state.end_update(loss, len(batch.examples), now - clock)
                clock = now
                bar.update()
                bar.set_postfix(loss=f"{state.loss_sum / state.update:.4f}", refresh=False)
                alone = self.processes.world == 1  # one of several may act on what all have heard alone
                if wishes.stop or (alone and self._wishes().stop):
                    self._interrupt()
                if wishes.save:
                    self._save()

    def _end_of_epoch(self) -> None:
        """Validate, keep the best weights, note the epoch."""
        state, validate = self.state, self.validate
        start = time.monotonic()
        try:
            with self.updater.averaged():
                self._take_statistics()
                logits = self._validate()
                score = self.processes.from_first(
                    lambda: mean_auroc(logits, validate.target.numpy(), validate.mask.numpy())
                )
                state.keep_if_best(score, self.updater.model)
        finally:
            state.epoch_s += time.monotonic() - start
        counted = float(validate.mask.sum())
        loss = float(masked_loss(torch.from_numpy(logits), validate.target, validate.mask, counted))
        state.peak_memory_mb = max(state.peak_memory_mb, peak_memory_mb(self.processes.device))
        self._add_energy()
        rate = self.updater.learning_rate
        row = state.end_epoch(self.batches.per_epoch, self.settings.batch_images, loss, score, rate)
        log_epoch(row, self.settings.epochs)
        if self.processes.first:
            try:
                write_events(self.task.folder / EVENTS, row)
            except OSError as error:  # the epoch counts for more than its curves
                logger.warning("TensorBoard's file could not be written: %s", error)

    def _take_statistics(self) -> None:
        """Let the running statistics be those of the weights that the model has now."""
        updater, meet = self.updater, self.settings.normalisation == "synchronised"  # in every layer: none may leave

        def pictures() -> Iterator[torch.Tensor]:
            for pixels in self.batches.plain_pictures(self.batches.sample(updater.micro.images)):
                if not meet:
                    self._look()
                yield updater.learner.prepared(pixels)

        def note() -> Sums:
            return note_statistics(updater.model, pictures())

        with updater.learner.autocast():
            sums = note() if meet else self._unless_stopped(note)
        set_statistics(sums, self.processes.add_up)

    def _validate(self) -> np.ndarray:
        """Logits of the validation images, each computed by one process. Returns float32 (image, finding)."""
        mine = np.array_split(np.arange(len(self.validate)), self.processes.world)[self.processes.rank]
        logits = self._unless_stopped(
            lambda: self.updater.learner.predict(
                self.task.store, self.validate.rows[mine], self.task.run.workers, self.updater.micro.images,
                before_each=self._look,
            )
        )  # fmt: skip
        return self.processes.gather(logits, mine, len(self.validate))

    def _unless_stopped(self, work: Callable[[], T]) -> T:
        """What each process works out by itself.

        Raises _Unfinished in all processes if one of them was asked to stop meanwhile.
        """
        left: Exception | None = None
        try:
            done = work()
        except Exception as error:  # the others must hear of it, not wait
            left = error
        failed, asked = self.processes.totals([float(left is not None), float(self.stop.signal is not None)])
        if failed:
            if asked:
                raise _Unfinished from left
            raise left or AnotherFailed("the validation failed in another process of this training; its log says why.")
        return done

    @property
    def _over(self) -> bool:
        state = self.state
        return state.epoch >= self.settings.epochs or stops_early(self.settings, state.validation_auroc)

    def _learning_rate(self, batch: Batch) -> float:
        per_epoch = self.batches.per_epoch
        number = batch.epoch * per_epoch + batch.number
        return learning_rate_at(self.settings, number, per_epoch, self.state.validation_auroc)

    def _restore(self) -> None:
        """Go on from the checkpoint, if there is one of this task. The first process reads it and tells the others."""
        path = self.task.folder / checkpoint.CHECKPOINT
        found = self.processes.from_first(lambda: checkpoint.load(path, self.task.digest))
        self.updater.begin(None if found is None else found["updater"])
        if found is not None:
            self.state = TrainingState(**found["state"])
            logger.info("going on from epoch %d, update %d", self.state.epoch + 1, self.state.update)
        self._compare()

    def _require_room(self) -> None:
        """Raise StudyError if shared memory or disk are too small, before hours are spent on what could not be kept."""
        task, processes, images = self.task, self.processes, self.updater.micro.images
        pictures = loader_bytes(task.run.workers, images, task.resolution_px, pixel_bytes(processes.device.type))
        weights = sum(t.numel() * t.element_size() for t in self.updater.model.state_dict().values())
        remedy = "Free some, or let results/ be a link to another disk; what is there is kept."
        lacking: Exception | None = None
        try:
            room = training_bytes(weights, (task.folder / checkpoint.CHECKPOINT).exists())
            if SHARED_MEMORY.is_dir():
                what = f"loading for {processes.on_host} processes" if processes.on_host > 1 else "loading"
                require_room(SHARED_MEMORY, pictures * processes.on_host, what, MORE_SHARED_MEMORY)
            require_room(task.folder, room, "a checkpoint and the learner", remedy)
        except Exception as error:  # the others must hear of it, not wait
            lacking = error
        if processes.total(float(lacking is not None)):  # and none takes its own before all have looked
            raise lacking or AnotherFailed("another process of this training lacks room; its log says of what.")

    def _save(self) -> None:
        """Write a checkpoint with all that the next update depends on, unless the processes differ in it."""
        self._compare()
        task, state, updater = self.task, self.state, self.updater

        def write() -> None:
            self.writer.check()
            content = {"digest": task.digest, "identity": task.identity}
            content |= {"state": dict(vars(state)), "updater": updater.state_dict()}
            checkpoint.save(task.folder / checkpoint.CHECKPOINT, content)

        self.processes.from_first(write)
        self.saved_at = time.monotonic()

    def _compare(self) -> None:
        """Raise StudyError if the processes are not all at the same place with the same weights and moments."""
        held = [self.state.epoch, self.state.update, self.updater.checksum()] if self.processes.world > 1 else []
        self.processes.require_same("epoch, update, checksum of weights and optimiser", held)

    def _wishes(self) -> Wishes:
        """What this process wants done after the present update. The first alone looks at the clock."""
        due = self.processes.first and time.monotonic() - self.saved_at > self.task.run.checkpoint_s
        return Wishes(stop=self.stop.signal is not None, save=due)

    def _stop_asked(self) -> bool:
        """Whether any process was asked to stop: all stop at the same update."""
        return self.processes.total(float(self.stop.signal is not None)) > 0

    def _look(self) -> None:
        if self.stop.signal is not None:
            raise _Unfinished

    def _interrupt(self) -> NoReturn:
        state, asked = self.state, self.stop.signal
        state.interruptions += 1
        self._add_energy()
        self._save()
        why = signal.Signals(asked).name if asked is not None else "another process was stopped"
        time_limit = self.processes.total(float(self.stop.signal == TIME_LIMIT)) > 0  # not all hear of it at once
        raise Interrupted(
            f"{why}: checkpoint written",
            time_limit=time_limit,
            progress=(state.epoch, state.update) > self.began_at,
        )

    def _add_energy(self) -> None:
        used = self.meter.take()
        joules, unknown = self.processes.totals([used or 0.0, float(used is None)])
        before = self.state.energy_j
        self.state.energy_j = None if unknown or before is None else before + joules

    def _progress(self) -> "tqdm[Any]":
        return tqdm(
            total=self.batches.per_epoch, initial=self.state.update, unit="update", leave=False,
            desc=f"epoch {self.state.epoch + 1}/{self.settings.epochs}",
            disable=not (self.task.progress and self.processes.first),
        )  # fmt: skip

    def _write(self) -> None:
        """Write the best epoch's weights and the learner's record, keep them, and remove the checkpoint."""
        task, state, updater = self.task, self.state, self.updater

        def write() -> None:
            self.writer.check()
            updater.model.load_state_dict(state.best_weights)
            cost = cost_of(state, updater.micro, self.settings.epochs, self.processes.world)
            cost |= {"train_images": len(self.train), "identity": task.identity}
            write_outputs(task.folder, task.record, updater.model, state, cost)
            checkpoint.keep(task.folder, task.digest, OUTPUTS)
            (task.folder / checkpoint.CHECKPOINT).unlink(missing_ok=True)

        self.processes.from_first(write)  # none leaves before all is written
