"""One update: what is trained (model, optimiser, average of weights), and how a batch moves it."""

import contextlib
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from cxrscale.train.batches import Batch
from cxrscale.train.distributed import Processes, checksum
from cxrscale.train.learner import Learner
from cxrscale.train.loader import Examples
from cxrscale.train.memory import lacks_memory
from cxrscale.train.micro_batch import MicroBatch, ways_of
from cxrscale.train.models import build_model
from cxrscale.train.normalisation import set_normalisation
from cxrscale.train.optimisation import WeightEma, load_optimiser, make_optimiser, masked_loss, pos_weight
from cxrscale.train.task import Task


def seed_random_numbers(*of: int) -> None:
    """Start all that a network may draw from (dropout): a function of these numbers alone, of no host or device."""
    (start,) = np.random.SeedSequence(of).generate_state(1).tolist()
    torch.manual_seed(start)
    np.random.seed(start)  # noqa: NPY002
    random.seed(start)


class Wishes(NamedTuple):
    """What a process wants done after an update; together: what any of them wants."""

    stop: bool = False
    save: bool = False


class Failed(Exception):  # noqa: N818
    """An update failed in some process, perhaps in another (then there is no cause). Weights are as before.

    wishes: of all processes.
    """

    def __init__(self, wishes: Wishes) -> None:
        super().__init__("an update failed in another process of this training; its log says why.")
        self.wishes = wishes


class TooLarge(Exception):  # noqa: N818
    """An update did not fit into the GPU's memory. Nothing has moved, and smaller parts are chosen: do it again."""


class Updater:
    """The model of a task, and all that an update changes or depends on beside the batch.

    model: as it is trained. micro: in which parts a batch is computed.
    """

    def __init__(self, task: Task, examples: Examples, processes: Processes) -> None:
        settings, run = task.settings, task.run
        self.task, self.processes, self.device = task, processes, processes.device
        self.image_id = examples.image_id
        self.target, self.mask, self.pos_weight = examples.target, examples.mask, None
        self.n_counted = examples.mask.sum(1, dtype=torch.float64).numpy()  # (image,): targets that count
        if settings.pos_weight == "balanced":
            self.pos_weight = pos_weight(self.target, self.mask).to(self.device)
        model = build_model(task.model, len(task.record.findings), task.seed, task.weights)
        model = set_normalisation(model, settings.normalisation, settings.norm_group_images, processes.world)
        self.learner = Learner(task.record, model.to(self.device), self.device)
        self.model = self.learner.network
        ways, what = ways_of(settings, run, processes.world, self.device), f"{task.resolution_px} px"
        self.micro = MicroBatch(self.model, self.device, ways, run.channels_last, self._try_pass, what)
        self.parameters = list(self.model.parameters())
        self.optimiser = make_optimiser(self.model, settings)
        self.ema = WeightEma(self.model, settings.ema_decay) if settings.ema_decay else None
        self.forward: Callable[[torch.Tensor], torch.Tensor] = torch.compile(self.model) if run.compile else self.model

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps for `begin`."""
        return {
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "ema": self.ema.state_dict() if self.ema is not None else None,
            "micro_batch": self.micro.found,
        }

    def begin(self, state: Mapping[str, Any] | None) -> None:
        """Go on from a state, the same in all processes, or from the initial weights if it is None. To be called before
        the first update.
        """
        if state is not None:
            self.model.load_state_dict(state["model"])
        self._choose_parts(None if state is None else state["micro_batch"])
        if state is not None:
            load_optimiser(self.optimiser, state["optimiser"])
            if self.ema is not None:
                self.ema.load_state_dict(state["ema"])

    def _choose_parts(self, before: Any) -> None:
        """Take the micro-batch and memory format that the first process finds, on its device."""
        together = self.task.settings.normalisation == "synchronised"  # each pass that is tried needs all processes
        if together:
            self.micro.choose(before)

        def choose() -> dict[str, Any]:
            if not together:
                self.micro.choose(before)
            return self.micro.found

        self.micro.take_over(self.processes.from_first(choose))

    def checksum(self) -> int:
        """Of weights, optimiser and average."""
        moments = [v for kept in self.optimiser.state.values() for v in kept.values() if isinstance(v, torch.Tensor)]
        average = [] if self.ema is None else self.ema.state_dict()["weights"]
        return checksum([*self.model.state_dict().values(), *moments, *average])

    @property
    def learning_rate(self) -> float:
        """Of the last update."""
        return float(self.optimiser.param_groups[0]["lr"])

    def update(
        self,
        batch: Batch,
        pictures: Iterator[torch.Tensor],
        learning_rate: float,
        wishes: Callable[[], Wishes] = Wishes,
    ) -> tuple[float, Wishes]:
        """Move the weights by one batch; returns its loss, and the wishes of all processes.

        pictures: of which the next are those of the batch's parts. wishes: gives those of this process.
        Processes exchange one message beside the gradients, and a device is waited for once. Raises TooLarge, Failed,
        and FloatingPointError if the loss is not finite, in all processes alike; weights are then as before.
        """
        self.optimiser.zero_grad(set_to_none=True)
        loss, short, failure = self._gradients(batch, pictures)
        said = torch.tensor([short, failure is not None, *wishes()], dtype=torch.float64)
        found = torch.cat([loss, said.to(self.device, non_blocking=True)])
        self.processes.add_up(found)
        value, short, failed, *wanted = found.tolist()
        together = Wishes(*map(bool, wanted))
        if failed:
            self._discard()
            raise Failed(together) from failure
        if short:
            self._discard()
            self.micro.shrink()
            raise TooLarge
        if not np.isfinite(value):
            images = ", ".join(map(str, self.image_id[batch.examples]))
            raise FloatingPointError(
                f"the loss is {value} in epoch {batch.epoch + 1}; the last checkpoint is kept. "
                f"Images of the batch: {images}"
            )
        self.processes.add_up_gradients(self.parameters)
        if self.task.settings.clip_grad_norm is not None:
            nn.utils.clip_grad_norm_(self.parameters, self.task.settings.clip_grad_norm)
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate
        self.optimiser.step()
        if self.ema is not None:
            self.ema.update(self.model)
        return value, together

    def _gradients(self, batch: Batch, pictures: Iterator[torch.Tensor]) -> tuple[torch.Tensor, bool, Exception | None]:
        """Add the gradients of this process's parts up to its share of the batch's.

        Returns its share of the loss, float64 (1,), whether its memory did not suffice, and what else went wrong.
        """
        self.model.train()
        seed_random_numbers(self.task.seed, batch.epoch, batch.number, self.processes.rank)
        counted = float(self.n_counted[batch.examples].sum())
        total = torch.zeros(1, dtype=torch.float64, device=self.device)
        try:
            for part, x in zip(batch.parts, pictures, strict=False):
                with self.learner.autocast():
                    logits = self.forward(x.to(memory_format=self.micro.memory_format))
                target, mask = self._on_device(self.target[part]), self._on_device(self.mask[part])
                loss = masked_loss(logits, target, mask, counted, self.task.settings.label_smoothing, self.pos_weight)
                loss.backward()
                total += loss.detach()
        except Exception as error:  # the others must hear of it, not wait
            if self.task.settings.normalisation == "synchronised" and self.processes.world > 1:
                raise  # they wait within a layer, and hear nothing else: the end of this process ends them
            short = isinstance(error, RuntimeError) and lacks_memory(error)
            return total, short, None if short else error
        return total, False, None

    def _on_device(self, tensor: torch.Tensor) -> torch.Tensor:
        if self.device.type == "cuda":
            tensor = tensor.pin_memory()  # else copying waits for all that the device was asked before
        return tensor.to(self.device, non_blocking=True)

    def _discard(self) -> None:
        """Forget what an update that did not come about has left."""
        self.optimiser.zero_grad(set_to_none=True)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Within, the model has the averaged weights, if an average is kept."""
        if self.ema is None:
            yield
            return
        self.ema.swap(self.model)
        try:
            yield
        finally:
            self.ema.swap(self.model)

    def _try_pass(self, micro: int) -> None:
        """A forward and backward pass of pictures of noise; of the model only gradients change."""
        side = self.task.resolution_px
        x = torch.rand(micro, 1, side, side, device=self.device)
        buffers = [buffer.clone() for buffer in self.model.buffers()]
        self.model.train()
        try:
            with self.learner.autocast():
                loss = self.model(x.to(memory_format=self.micro.memory_format)).float().sum()
            loss.backward()
        finally:
            for buffer, before in zip(self.model.buffers(), buffers, strict=True):
                buffer.copy_(before)
