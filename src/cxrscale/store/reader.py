"""Reading the store: any image by its id from memory-mapped shards, and batches in a stated order.

store = StoreReader("results/stores/mimic-cxr-jpg-1a2b3c4d/512")
pixels = store["02aa804e-bde0afdd-112c0b34-7bc16630-4e384014"]  # uint8 (512, 512)
"""

import mmap
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from cxrscale import tables
from cxrscale.errors import StudyError
from cxrscale.store.pixels import decode
from cxrscale.store.shards import MANIFEST, shard_name


class StoreReader:
    """The images of one resolution. Files are mapped on first use, and anew in each process."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        manifest = tables.read(MANIFEST, self.folder / "manifest.parquet")
        self._rows = {str(image_id): row for row, image_id in enumerate(manifest["image_id"])}
        self.shard = manifest["shard"].to_numpy()
        self.row_group = manifest["row_group"].to_numpy()
        self._offset = manifest["offset"].to_numpy()
        self._length = manifest["length"].to_numpy()
        self._crc32 = manifest["crc32"].to_numpy()
        self._mapped: dict[int, mmap.mmap] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, image_id: str) -> bool:
        return image_id in self._rows

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_mapped": {}}  # a mapping belongs to its process

    def rows(self, image_ids: Sequence[str]) -> np.ndarray:
        """Row of each image in the manifest, int64 (image,). Raises StudyError if one is not in the store."""
        try:
            return np.array([self._rows[i] for i in image_ids], dtype=np.int64)
        except KeyError as error:
            raise StudyError(f"{self.folder}: image {error.args[0]} is not in the store.") from None

    def jpeg(self, row: int) -> memoryview:
        """The bytes of one JPEG, where they lie in the mapped file.

        Raises StudyError if the shard is missing, shortened or changed.
        """
        shard, offset, length = int(self.shard[row]), int(self._offset[row]), int(self._length[row])
        path = self.folder / f"{shard_name(shard)}.parquet"
        if shard not in self._mapped:
            try:
                with path.open("rb") as handle:
                    self._mapped[shard] = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
            except (OSError, ValueError) as error:
                raise StudyError(
                    f"{path}: cannot be read: {error}. Delete it and the manifest beside it, then rerun the workflow."
                ) from error
        data = memoryview(self._mapped[shard])[offset : offset + length]
        if zlib.crc32(data) != self._crc32[row]:
            raise StudyError(
                f"{path}: is damaged at byte {offset}. Delete it and the manifest beside it, then rerun the workflow."
            )
        return data

    def pixels(self, row: int) -> np.ndarray:
        """uint8 (height_px, width_px)."""
        return decode(self.jpeg(row))

    def __getitem__(self, image_id: str) -> np.ndarray:
        return self.pixels(int(self.rows([image_id])[0]))


class _Batches(Dataset[torch.Tensor]):
    """Item i is batch i, decoded: uint8 (image, 1, height_px, width_px)."""

    def __init__(self, store: StoreReader, batches: list[np.ndarray]) -> None:
        self.store, self.batches = store, batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.from_numpy(np.stack([self.store.pixels(int(row)) for row in self.batches[index]])[:, None])


def decoded_batches(
    store: StoreReader, batches: Sequence[np.ndarray], workers: int, pin_memory: bool = False
) -> Iterator[torch.Tensor]:
    """Yield batches of pictures in the order given, whatever the number of workers.

    batches: arrays of manifest rows. workers: decoding processes; 0 decodes in this one.
    Yields uint8 (image, 1, height_px, width_px).
    """
    loader = DataLoader(
        _Batches(store, list(batches)),
        batch_size=None,
        num_workers=workers,
        pin_memory=pin_memory,
        prefetch_factor=4 if workers else None,
        multiprocessing_context="forkserver" if workers else None,
        # Its own: each new loader draws a number, and a resumed epoch starts one loader more.
        generator=torch.Generator(),
    )
    yield from loader


def epoch_order(store: StoreReader, rows: np.ndarray, seed: int, epoch: int, pool_groups: int = 32) -> np.ndarray:
    """The order in which an epoch sees its images: a function of the images, seed and epoch alone.

    Row groups are shuffled, `pool_groups` consecutive ones make a pool, and images are shuffled within a pool, so
    that reading stays sequential a row group at a time. Images lie in their shard by a hash of their id, so a row
    group is a random sample of the data set to begin with, and any two images may meet in a batch.

    rows: int64 (image,) manifest rows. Returns the same rows reordered.
    """
    rng = np.random.default_rng([seed, epoch, 0x6F72])
    group = store.shard[rows].astype(np.int64) << 32 | store.row_group[rows]
    names, member = np.unique(group, return_inverse=True)
    place = rng.permutation(len(names))[member]  # new place of each image's row group
    pool = place // pool_groups
    return rows[np.lexsort((rng.random(len(rows)), pool))]
