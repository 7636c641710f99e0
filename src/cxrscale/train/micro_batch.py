"""In which parts an effective batch is computed: images at once, activations kept or checkpointed, memory format.

None of it changes a result but by rounding. On a GPU it is found by trying passes of noise, from one group up. An
update that runs out of memory all the same is done again in smaller parts.
"""

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from cxrscale.common.errors import StudyError
from cxrscale.train.memory import lacks_memory
from cxrscale.train.needs import images_at_once, largest_share, unit_images
from cxrscale.train.settings import Auto, RunSettings, TrainingSettings

#: Runs jobs and makes no value of a result; raised when a fix here changes results (docs/reruns.md).
RESULT_VERSION = 1

logger = logging.getLogger(__name__)


#: Elements of the largest tensor; beyond it kernels that count in 32 bits fail or, worse, do not.
MOST_ELEMENTS = 2**31 - 1


NO_CHECKPOINTING = (
    "training.activation_checkpointing: true is not possible with normalisation synchronised and several GPUs. Choose "
    "auto or false, or normalisation groups."
)


@dataclass(frozen=True)
class Way:
    """micro_batch_images: how many are computed at once. activation_checkpointing: whether activations are computed
    again in the backward pass."""

    micro_batch_images: int
    activation_checkpointing: bool


def possible_ways(share: int, unit: int, most: int, activation_checkpointing: bool | Auto) -> list[Way]:
    """The ways to compute a process's share of a batch, best first.

    share: images of the process in a batch. unit: images of which a micro-batch is a multiple. most: images of the
    largest. activation_checkpointing: auto allows both; keeping activations comes first, since computing them again
    costs a forward pass and a few large images keep a GPU busy.
    """
    sizes = [n for n in range(unit, min(share, most) + 1, unit) if share % n == 0] or [unit]
    choices = [False, True] if activation_checkpointing == "auto" else [bool(activation_checkpointing)]
    return [Way(size, again) for again in choices for size in reversed(sizes)]


def unit_of(settings: TrainingSettings, run: RunSettings) -> int:
    """A micro-batch, and a process's share of a batch, are multiples of this many images."""
    return unit_images(settings.normalisation, settings.norm_group_images, run.micro_batch_images)


def ways_of(settings: TrainingSettings, run: RunSettings, processes: int, device: torch.device) -> list[Way]:
    """The ways to compute a batch with these settings, best first. processes: that share it.

    Raises StudyError if synchronised statistics cannot be taken over equal shares, or with activation checkpointing.
    """
    again, unit = run.activation_checkpointing, unit_of(settings, run)
    share = largest_share(settings.batch_images, processes, unit)
    most = images_at_once(settings.normalisation, share, unit, run.micro_batch_images, device.type)
    if settings.normalisation == "synchronised":
        if settings.batch_images % processes:
            raise StudyError("training.normalisation: synchronised needs batch_images to be a multiple of gpus.")
        if processes > 1:  # computing again, layers would wait for those of other processes in the backward pass too
            if again is True:
                raise StudyError(NO_CHECKPOINTING)
            again = False
        unit = share
    return possible_ways(share, unit, most, again)


@contextlib.contextmanager
def _counting_elements() -> Iterator[list[int]]:
    """Counts the elements of the largest tensor that any module takes or gives; one number in a list."""
    largest = [0]

    def see(_: nn.Module, taken: Any, given: Any) -> None:
        tensors = (t for t in (*taken, given) if isinstance(t, torch.Tensor))
        largest[0] = max([*largest, *(t.numel() for t in tensors)])

    hook = nn.modules.module.register_module_forward_hook(see)
    try:
        yield largest
    finally:
        hook.remove()


class MicroBatch:
    """The way that is taken, for one model on one device.

    ways: those to choose from, best first. channels_last: memory format; auto: the faster one on a GPU.
    try_pass: a forward and a backward pass of so many images of noise, which leaves the model as it is but for
    gradients. what: names the work in messages.
    """

    def __init__(
        self,
        model: nn.Module,
        device: torch.device,
        ways: list[Way],
        channels_last: bool | Auto,
        try_pass: Callable[[int], None],
        what: str,
    ) -> None:
        self.model, self.device, self.ways, self.try_pass, self.what = model, device, ways, try_pass, what
        self.channels_last = channels_last
        self.way = ways[0]
        self._lay_out(channels_last is not False)

    @property
    def images(self) -> int:
        return self.way.micro_batch_images

    def choose(self, found: Any = None) -> None:
        """Take what was found before (`found`), if it was found for the same, else try. Raises StudyError if nothing
        fits.
        """
        if found is not None and found["asked"] == self._asked:
            self.take_over(found)
            return
        self._take(self.ways[0])
        if self.device.type != "cuda":
            return
        self._take(self._best_that_fits())
        if self.channels_last == "auto":
            self._lay_out(self._channels_last_is_faster())
        self._log()

    def take_over(self, found: dict[str, Any]) -> None:
        """Take what the first of several processes has found, whatever this one would."""
        self._take(Way(*found["way"]))
        self._lay_out(found["channels_last"])

    def shrink(self) -> None:
        """Take the next way, after an update ran out of memory. Raises StudyError if there is none."""
        logger.warning("%s: out of memory with %d images at once", self.device_name, self.images)
        self._take(self._next())
        self._log()

    @property
    def found(self) -> dict[str, Any]:
        """What a checkpoint keeps for `choose`."""
        laid_out = self.memory_format == torch.channels_last
        return {
            "asked": self._asked,
            "way": [self.way.micro_batch_images, self.way.activation_checkpointing],
            "channels_last": laid_out,
        }

    @property
    def device_name(self) -> str:
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type

    @property
    def _asked(self) -> list[Any]:
        ways = [[way.micro_batch_images, way.activation_checkpointing] for way in self.ways]
        return [self.device_name, ways, self.channels_last]

    def _best_that_fits(self) -> Way:
        """The largest micro-batch with activations kept, else with activations computed again.

        Tries go up from the smallest and end at the first that does not fit: far above what fits, libraries fail in
        other ways than by lack of memory.
        """
        for again in dict.fromkeys(way.activation_checkpointing for way in self.ways):
            fitting = None
            self.elements_an_image = 0.0
            for way in sorted(
                (way for way in self.ways if way.activation_checkpointing == again),
                key=lambda way: way.micro_batch_images,
            ):
                self._take(way)
                if self.elements_an_image * self.images > MOST_ELEMENTS or not self._fits(fitting is not None):
                    break
                fitting = way
            if fitting is not None:
                return fitting
        raise self._nothing_fits()

    def _next(self) -> Way:
        later = self.ways[self.ways.index(self.way) + 1 :]
        if not later:
            raise self._nothing_fits()
        return later[0]

    def _nothing_fits(self) -> StudyError:
        return StudyError(
            f"not even {self.images} images of {self.what} fit into the memory of {self.device_name}. Choose "
            f"training.activation_checkpointing: true, or a smaller training.norm_group_images."
        )

    def _take(self, way: Way) -> None:
        self.way = way
        if not way.activation_checkpointing and not hasattr(self.model, "set_grad_checkpointing"):
            return
        try:
            self.model.set_grad_checkpointing(way.activation_checkpointing)  # type: ignore[operator]
        except (AttributeError, AssertionError):  # how timm's models say that they cannot
            raise StudyError(
                f"training.activation_checkpointing: {type(self.model).__name__} cannot compute its activations again. "
                f"Choose false; if memory does not suffice then, a smaller training.norm_group_images."
            ) from None

    def _log(self) -> None:
        logger.info(
            "%d images at once, activations %s, memory format %s",
            self.images,
            "checkpointed" if self.way.activation_checkpointing else "kept",
            "channels last" if self.memory_format == torch.channels_last else "contiguous",
        )

    def _lay_out(self, channels_last: bool) -> None:
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.model.to(memory_format=self.memory_format)

    def _fits(self, fewer_fit: bool) -> bool:
        """Whether a pass fits into the GPU's memory, with a tenth to spare; notes how large its largest tensor is.

        fewer_fit: so did a smaller one; then any error says that this one does not.
        """
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self.device)
        try:
            with _counting_elements() as largest:
                self.try_pass(self.images)
        except RuntimeError as error:
            if not lacks_memory(error) and not fewer_fit:
                raise
            logger.info("%d images at once do not fit: %s", self.images, str(error).partition("\n")[0])
            return False
        finally:
            self.model.zero_grad(set_to_none=True)
            torch.cuda.empty_cache()
        self.elements_an_image = largest[0] / self.images
        # Adam's two moments are not there yet; each is as large as the weights.
        peak = torch.cuda.max_memory_reserved(self.device) + 8 * sum(p.numel() for p in self.model.parameters())
        return peak < 0.9 * torch.cuda.get_device_properties(self.device).total_memory

    def _channels_last_is_faster(self, passes: int = 3) -> bool:
        """Time passes in both memory formats; the first of each is not counted."""
        seconds = {}
        for channels_last in (True, False):
            self._lay_out(channels_last)
            self._timed_pass()
            seconds[channels_last] = min(self._timed_pass() for _ in range(passes))
        self.model.zero_grad(set_to_none=True)
        logger.info("a pass takes %.4f s channels last, %.4f s contiguous", seconds[True], seconds[False])
        return seconds[True] <= seconds[False]

    def _timed_pass(self) -> float:
        self._wait()
        start = time.perf_counter()
        self.try_pass(self.images)
        self._wait()
        return time.perf_counter() - start

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
