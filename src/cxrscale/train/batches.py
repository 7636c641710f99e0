"""What a training learns from, in which order: effective batches, of which each process computes its share in parts."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from cxrscale.train.augmentation import Augmentation
from cxrscale.train.distributed import Processes
from cxrscale.train.loader import Examples, augmented_batches, decoded_batches, epoch_order, share_of_rank
from cxrscale.train.micro_batch import unit_of
from cxrscale.train.task import Task


@dataclass(frozen=True, eq=False)
class Batch:
    """One effective batch. epoch and number, within it: when it comes, from 0. examples: int64 (image,), numbers of its
    images among the training images. parts: the examples of each micro-batch that this process computes; none where
    there are fewer groups than processes.
    """

    epoch: int
    number: int
    examples: np.ndarray
    parts: Sequence[np.ndarray]


class Batches:
    """The training images in effective batches: the same ones, whatever the number of processes and the micro-batch."""

    def __init__(self, task: Task, examples: Examples, processes: Processes) -> None:
        self.task, self.examples, self.processes = task, examples, processes

    @property
    def per_epoch(self) -> int:
        """Batches of an epoch, which are its updates. Images that fill no batch sit the epoch out."""
        return len(self.examples) // self.task.settings.batch_images

    def of_epoch(self, epoch: int, micro_batch_images: int) -> list[Batch]:
        """The batches of an epoch, numbered from 0, in their order."""
        order = epoch_order(self.task.store, self.examples.rows, self.task.seed, epoch)
        return self.divided(np.searchsorted(self.examples.rows, order), epoch, micro_batch_images)

    def sample(self, micro_batch_images: int) -> list[Batch]:
        """The images that running statistics are taken from, as batches: the same at every resolution, in every epoch
        and for every seed.

        Those whose ids have the smallest hashes, in whole batches: `statistics_images` at most, one batch at least.
        """
        size = self.task.settings.batch_images
        n = max(self.task.settings.statistics_images, size)
        return self.divided(np.argsort(self.examples.keys, kind="stable")[:n], 0, micro_batch_images)

    def divided(self, examples: np.ndarray, epoch: int, micro_batch_images: int) -> list[Batch]:
        """Examples, int64 (image,), as the batches of an epoch in that order."""
        size, unit = self.task.settings.batch_images, unit_of(self.task.settings, self.task.run)
        mine = share_of_rank(size, size, self.processes.rank, self.processes.world, unit)
        parts = [mine[i : i + micro_batch_images] for i in range(0, len(mine), micro_batch_images)]
        whole = examples[: len(examples) // size * size].reshape(-1, size)
        return [Batch(epoch, n, batch, [batch[part] for part in parts]) for n, batch in enumerate(whole)]

    def pictures(self, batches: Sequence[Batch]) -> Iterator[torch.Tensor]:
        """The augmented pictures of the parts of these batches, all of one epoch, one part after another.

        Each is float32 (image, 1, height_px, width_px), normalised, on the device.
        """
        settings, parts = self.task.settings, [part for batch in batches for part in batch.parts]
        how = Augmentation(
            self.task.seed, batches[0].epoch, settings.flip_probability, settings.rotation_degrees, settings.mean,
            settings.standard_deviation,
        )  # fmt: skip
        rows, keys = ([of_all[part] for part in parts] for of_all in (self.examples.rows, self.examples.keys))
        return augmented_batches(self.task.store, rows, keys, how, self.task.run.workers, self.processes.device)

    def plain_pictures(self, batches: Sequence[Batch]) -> Iterator[torch.Tensor]:
        """As `pictures`, but as the store holds them: uint8, on the host."""
        rows = [self.examples.rows[part] for batch in batches for part in batch.parts]
        on_gpu = self.processes.device.type == "cuda"
        return decoded_batches(self.task.store, rows, self.task.run.workers, pin_memory=on_gpu)
