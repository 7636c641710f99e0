"""What a training needs of its host: memory, shared memory, disk. Imports no torch: the workflow asks it too."""

import math
import shutil
from pathlib import Path

from cxrscale.common.errors import StudyError

#: Runs jobs and makes no value of a result; raised when a fix here changes results (docs/reruns.md).
RESULT_VERSION = 1

#: Bytes of decoded grey below which batches travel from a worker together: a message costs what a small batch does.
LOAD_BYTES = 8 << 20

#: Loads that each worker prepares ahead.
PREFETCH = 2

SHARED_MEMORY = Path("/dev/shm")
MORE_SHARED_MEMORY = "Give it more (docker run --shm-size), or lower training.workers or training.micro_batch_images."

#: MB of a process that trains, and of a worker, beside pictures: torch, CUDA's context, targets, checkpoints.
PROCESS_MB, WORKER_MB = 6000, 600


#: Images that a CPU computes at once, unless told otherwise.
CPU_MICRO_BATCH = 16


def unit_images(normalisation: str, group_images: int, micro_batch_images: int | str) -> int:
    """Images that are never parted between processes or micro-batches: those over which batch statistics are taken."""
    if normalisation == "per_micro_batch":
        return int(micro_batch_images)
    return group_images if normalisation == "groups" else 1


def largest_share(batch_images: int, processes: int, unit: int) -> int:
    """Images of a batch that one of several processes computes at most, in whole units."""
    units = math.ceil(batch_images / unit)
    return min(math.ceil(units / processes) * unit, batch_images)


def images_at_once(normalisation: str, share: int, unit: int, micro_batch_images: int | str, accelerator: str) -> int:
    """The most images that a process with such a share of a batch may compute at once. micro_batch_images: or auto."""
    if normalisation == "synchronised":  # in every layer, so all at once
        return share
    most = micro_batch_images
    if most == "auto":
        most = share if accelerator == "cuda" else CPU_MICRO_BATCH
    return max(min(share, int(most)), unit)


def loads_in_use(workers: int) -> int:
    """Loads that exist at once: what workers prepare, what has just come, and what is held until the next is taken."""
    return workers * PREFETCH + 2


def pixel_bytes(accelerator: str) -> int:
    """Bytes of a pixel in shared memory: grey, and for a CPU, whose pictures workers augment, float32."""
    return 1 if accelerator == "cuda" else 4


def loader_bytes(workers: int, batch_images: int, side_px: int, bytes_a_pixel: int) -> int:
    """Shared memory of a loader, in bytes. batch_images: of a batch. bytes_a_pixel: see `pixel_bytes`."""
    if not workers:
        return 0
    picture = side_px * side_px
    images = max(batch_images, LOAD_BYTES // picture)
    return loads_in_use(workers) * images * picture * bytes_a_pixel


def host_memory_mb(processes: int, workers: int, batch_images: int, side_px: int, bytes_a_pixel: int) -> int:
    """Memory of processes of one training on one host, in MB, each with so many workers and parts of so many images.

    Shared memory counts, and once more what is copied from it to where a GPU fetches it.
    """
    pictures = 2 * loader_bytes(workers, batch_images, side_px, bytes_a_pixel) / 2**20
    return round(processes * (PROCESS_MB + workers * WORKER_MB + pictures))


def training_bytes(model_bytes: int, checkpoint_exists: bool) -> int:
    """Disk that a training takes beside what is there. A checkpoint is five times the model: weights, their average and
    best, and two moments of the optimiser; a new one is whole before the old one goes. The learner is one more."""
    return model_bytes * (5 + 1 + (0 if checkpoint_exists else 5))


def require_room(place: Path, needed: int, what: str, remedy: str) -> None:
    """Raise StudyError if a file system has less than so many bytes free. what: they are for; remedy: a sentence."""
    free = shutil.disk_usage(place).free
    if free < needed:
        raise StudyError(f"{place}: {what} takes {_size(needed)} there; it has {_size(free)} free. {remedy}")


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 2**30:.1f} GiB" if n_bytes >= 2**30 else f"{n_bytes / 2**20:.0f} MiB"
