"""The loader: pictures from the store in batches, in a stated order, from worker processes.

store = StoreReader("results/stores/mimic-cxr-jpg-1a2b3c4d/512")
examples = select_examples(targets, store, "train")
for pixels, target, mask in labelled_batches(store, examples, 16, Augmentation(seed=0, epoch=0), workers=4):
    ...

Workers decode straight into memory that they share with this process. It is used again as soon as nobody holds the
batch that lay in it; a batch that is kept stays as it is.
"""

import contextlib
import multiprocessing
import os
import re
import signal
import threading
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.context import ForkServerContext, ForkServerProcess
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from cxrscale.common.errors import StudyError
from cxrscale.data.contracts import TARGETS
from cxrscale.store.reader import StoreReader
from cxrscale.train.augmentation import Augmentation, augment, image_keys, normalise, warp_normalised
from cxrscale.train.needs import (
    LOAD_BYTES,
    MORE_SHARED_MEMORY,
    PREFETCH,
    SHARED_MEMORY,
    loads_in_use,
    require_room,
)

__all__ = [
    "Augmentation",
    "Examples",
    "StoreReader",
    "decoded_batches",
    "epoch_order",
    "labelled_batches",
    "select_examples",
    "share_of_rank",
]

#: By which a user, a terminal or a scheduler asks a whole group of processes to stop. Workers never get them: the
#: process that they load for decides, and needs their pictures until it has reached a state that can be kept.
REQUESTS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU)


class WorkersEnded(StudyError):  # noqa: N818
    """Workers ended that should not have: somebody killed them, or their memory did not suffice."""


@dataclass(frozen=True)
class Examples:
    """Images with their targets. rows: int64 (image,) in the store's index; keys: uint64 (image,) for
    augmentation; target and mask: float32 (image, finding)."""

    image_id: np.ndarray
    rows: np.ndarray
    keys: np.ndarray
    target: torch.Tensor
    mask: torch.Tensor

    def __len__(self) -> int:
        return len(self.rows)


def select_examples(targets: pd.DataFrame, store: StoreReader, split: str) -> Examples:
    """The images of a split that the store holds, in the store's order. Quarantined images are not in the store."""
    findings = TARGETS.findings(targets.columns)
    chosen = targets[targets["split"] == split]
    chosen = chosen[chosen["image_id"].map(store.__contains__).astype(bool)]
    rows = store.rows(list(chosen["image_id"]))
    chosen, rows = chosen.iloc[np.argsort(rows)], np.sort(rows)

    def tensor(kind: str) -> torch.Tensor:  # (image, finding)
        return torch.tensor(chosen[[f"{kind}:{f}" for f in findings]].to_numpy(np.float32))

    return Examples(
        image_id=chosen["image_id"].to_numpy(dtype=object),
        rows=rows,
        keys=image_keys(list(chosen["image_id"])),
        target=tensor("target"),
        mask=tensor("mask"),
    )


def epoch_order(store: StoreReader, rows: np.ndarray, seed: int, epoch: int, window_groups: int = 64) -> np.ndarray:
    """The order in which an epoch sees its images: a function of the images, seed and epoch alone.

    Row groups are shuffled; each image comes at its row group's place plus a random delay of up to `window_groups`
    groups, counted in a circle. So reading takes up one new row group after another, about `window_groups` are in use
    at a time, and a batch draws evenly from them. With no more groups than that (2,048 images) it is a full shuffle.

    How well mixed: images lie in their shards by a hash of their id, so a row group is a random sample of the data set,
    and so is each batch: labels, patients and dates run no longer in it than in a full shuffle. What remains is that
    two images of one row group (of 32) share a batch of 64 in about 3 % of the epochs, where a full shuffle of
    n images has 64 / n.

    rows: int64 (image,) index rows. Returns the same rows reordered.
    """
    rng = np.random.default_rng([seed, epoch, 0x6F72])
    group = store.shard[rows].astype(np.int64) << 32 | store.row_group[rows]
    names, member = np.unique(group, return_inverse=True)
    place = rng.permutation(len(names))[member]  # new place of each image's row group
    delay = min(window_groups, len(names)) * rng.random(len(rows))
    return rows[np.argsort((place + delay) % max(len(names), 1), kind="stable")]


def share_of_rank(n_images: int, batch_images: int, rank: int, world: int, group_images: int = 1) -> np.ndarray:
    """Which positions of an epoch's order one of several processes handles.

    Each effective batch is divided among the ranks in order, in whole groups (of `group_images`, over which batch
    statistics are taken), as evenly as that goes. So a batch is the same images whatever the number of ranks, and all
    ranks together handle each position exactly once; the last batch may be smaller. A rank's share of a batch is empty
    where there are fewer groups than ranks.

    rank: 0 to world - 1. Returns int64 (position,), ascending. Raises ValueError for a rank that is not there.
    """
    if not 0 <= rank < world:
        raise ValueError(f"rank {rank} of {world}")
    shares = [np.empty(0, np.int64)]
    for start in range(0, n_images, batch_images):
        end = min(start + batch_images, n_images)
        groups = -(-(end - start) // group_images)
        first, beyond = (start + groups * r // world * group_images for r in (rank, rank + 1))
        shares.append(np.arange(first, min(beyond, end)))
    return np.concatenate(shares)


def labelled_batches(
    store: StoreReader,
    examples: Examples,
    batch_images: int,
    augmentation: Augmentation,
    workers: int = 0,
    first_batch: int = 0,
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """One epoch of training batches, in the order of `epoch_order` for the augmentation's seed and epoch.

    first_batch: where to go on in the middle of an epoch. Yields the augmented, normalised pictures, float32
    (image, 1, height_px, width_px), and their targets and masks, float32 (image, finding); the last batch may be
    smaller. Raises StudyError if a picture is damaged.
    """
    order = epoch_order(store, examples.rows, augmentation.seed, augmentation.epoch)
    batches = [order[i : i + batch_images] for i in range(first_batch * batch_images, len(order), batch_images)]
    loaded = decoded_batches(store, batches, workers, augmentation=augmentation)
    for rows, pixels in zip(batches, loaded, strict=True):
        at = np.searchsorted(examples.rows, rows)
        yield pixels, examples.target[at], examples.mask[at]


def augmented_batches(
    store: StoreReader,
    batches: Sequence[np.ndarray],
    keys: Sequence[np.ndarray],
    how: Augmentation,
    workers: int,
    device: torch.device,
) -> Iterator[torch.Tensor]:
    """Augmented, normalised batches on the device, float32 (image, 1, height_px, width_px).

    batches, workers: as `decoded_batches` takes them. keys: uint64 (image,) of each batch, by which its images are
    augmented. The workers augment for a CPU; a GPU does it itself.
    """
    if device.type == "cpu":
        yield from decoded_batches(store, batches, workers, augmentation=how)
        return
    for pixels, key in zip(decoded_batches(store, batches, workers, pin_memory=True), keys, strict=True):
        yield normalise(augment(to_float(pixels, device), key, how), how.mean, how.standard_deviation)


def to_float(pixels: torch.Tensor, device: torch.device) -> torch.Tensor:
    """uint8 (image, 1, height_px, width_px) on the host -> float32 in [0, 1] on the device."""
    return pixels.to(device, non_blocking=True).to(torch.float32).div_(255)


def decoded_batches(
    store: StoreReader,
    batches: Sequence[np.ndarray],
    workers: int,
    pin_memory: bool = False,
    augmentation: Augmentation | None = None,
) -> Iterator[torch.Tensor]:
    """Yield batches of pictures in the order given, the same to the bit whatever the number of workers.

    batches: arrays of index rows. workers: decoding processes; 0 decodes in this one. pin_memory: copy each batch
    to pinned memory, for a GPU.
    Yields uint8 (image, 1, height_px, width_px) or, with an augmentation, float32 of that shape: flipped, rotated
    (as `cxrscale.train.augmentation.augment`, with grey rounded to whole levels) and normalised.
    Raises StudyError if a picture is damaged or there is too little shared memory, WorkersEnded if workers are killed.
    """
    if not len(batches):
        return
    height, width = store.shape
    loads = _loads([len(rows) for rows in batches], height * width)
    images = max(sum(len(batches[b]) for b in load) for load in loads)
    dtype = torch.uint8 if augmentation is None else torch.float32
    slots = _allocate((loads_in_use(workers), images, 1, height, width), dtype, shared=workers > 0)
    rows = [np.concatenate([batches[b] for b in load]) for load in loads]
    issued, free = deque[int | None](), list(range(len(slots)))

    def tasks() -> Iterator[tuple[int, int | None]]:
        for number in range(len(loads)):
            issued.append(free.pop() if free else None)
            yield number, issued[-1]

    context = None
    if workers:
        context = _Workers()
        context.set_forkserver_preload([__name__])  # workers start with everything imported
    loader = DataLoader(
        _Loads(store, rows, slots, augmentation),
        batch_size=None,
        sampler=_Once(tasks()),
        num_workers=workers,
        worker_init_fn=_start_worker,
        prefetch_factor=PREFETCH if workers else None,
        multiprocessing_context=context,
        # Its own: each new loader draws a number, and a resumed epoch starts one loader more.
        generator=torch.Generator(),
    )
    memory = slots.numpy()
    with _requests_blocked():
        prepared = iter(loader)  # starts the workers
    for load in loads:
        loaded = _next_of(prepared)
        slot = issued.popleft()
        n_images = sum(len(batches[b]) for b in load)
        if slot is not None:
            lent = memory[slot, :n_images]
            weakref.finalize(lent, free.append, slot)  # torch holds this array as long as any tensor on it lives
            loaded = torch.from_numpy(lent)
            del lent
        for part in loaded.split([len(batches[b]) for b in load]):
            yield part.pin_memory() if pin_memory else part
        del loaded, part


def _next_of(prepared: Iterator[Any]) -> Any:
    try:
        return next(prepared)
    except RuntimeError as error:
        if not re.search(r"DataLoader worker .*(exited unexpectedly|is killed by signal)", str(error)):
            raise  # of the code that a worker runs
        raise WorkersEnded(
            f"{error}: processes that load pictures were killed. If memory was short, lower training.workers, or give "
            "the job more."
        ) from error


class _Worker(ForkServerProcess):
    def terminate(self) -> None:
        self.kill()  # SIGTERM is blocked


class _Workers(ForkServerContext):
    Process = _Worker


@contextlib.contextmanager
def _requests_blocked() -> Iterator[None]:
    """Have processes that are started meanwhile, and all that those start, never get a request to stop."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, REQUESTS)
    try:
        resource_tracker.ensure_running()  # lets SIGTERM and SIGINT through again
        signal.pthread_sigmask(signal.SIG_BLOCK, REQUESTS)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker(_: int) -> None:
    """A worker is one core: torch keeps to one thread in a worker by itself, OpenCV does not."""
    import cv2

    cv2.setNumThreads(1)
    threading.Thread(target=_end_with_trainer, daemon=True).start()


def _end_with_trainer() -> None:
    """End this worker with the process that it loads for, however that ends: a server of multiprocessing is the parent,
    which stays as long as any worker does."""
    trainer = multiprocessing.parent_process()
    assert trainer is not None  # of a worker
    trainer.join()
    os.kill(os.getpid(), signal.SIGKILL)


def _loads(lengths: Sequence[int], picture_bytes: int) -> list[list[int]]:
    """Consecutive batches that are loaded together: numbers of the batches of each load."""
    loads: list[list[int]] = []
    filled = LOAD_BYTES
    for number, length in enumerate(lengths):
        if filled + length * picture_bytes > LOAD_BYTES:
            loads.append([])
            filled = 0
        loads[-1].append(number)
        filled += length * picture_bytes
    return loads


def _allocate(shape: tuple[int, ...], dtype: torch.dtype, shared: bool) -> torch.Tensor:
    """Memory for pictures. Raises StudyError where shared memory is short: writing to it would end the process."""
    if not shared:
        return torch.empty(shape, dtype=dtype)
    needed = int(np.prod(shape)) * dtype.itemsize
    if SHARED_MEMORY.is_dir():
        require_room(SHARED_MEMORY, needed, "loading", MORE_SHARED_MEMORY)
    return torch.empty(0, dtype=dtype).set_(torch.UntypedStorage._new_shared(needed)).view(shape)


class _Once:
    """A sampler that hands out what an iterator gives, asked one at a time."""

    def __init__(self, tasks: Iterator[tuple[int, int | None]]) -> None:
        self.tasks = tasks

    def __iter__(self) -> Iterator[tuple[int, int | None]]:
        return self.tasks


class _Loads(Dataset[torch.Tensor | None]):
    """Item (number, slot) puts the pictures of a load into a slot, or returns them where there is none."""

    def __init__(
        self, store: StoreReader, rows: list[np.ndarray], slots: torch.Tensor, augmentation: Augmentation | None
    ) -> None:
        self.store, self.rows, self.slots, self.augmentation = store, rows, slots, augmentation

    def __getitem__(self, task: tuple[int, int | None]) -> torch.Tensor | None:
        number, slot = task
        rows = self.rows[number]
        if slot is None:
            shape = (len(rows), *self.slots.shape[2:])
            out = _allocate(shape, self.slots.dtype, shared=get_worker_info() is not None)
        else:
            out = self.slots[slot]
        self.store.announce(rows)
        if self.augmentation is None:
            for row, picture in zip(rows, out.numpy()[:, 0], strict=False):
                self.store.pixels_into(int(row), picture)
        else:
            self._augmented(rows, out.numpy()[:, 0], self.augmentation)
        return out if slot is None else None

    def _augmented(self, rows: np.ndarray, out: np.ndarray, how: Augmentation) -> None:
        matrices = how.matrices(image_keys(self.store.image_ids[rows]))
        decoded = np.empty(self.store.shape, dtype=np.uint8)
        for row, matrix, picture in zip(rows, matrices, out, strict=False):
            self.store.pixels_into(int(row), decoded)
            warp_normalised(decoded, matrix, how, picture)
