"""Reading the store: any image by its id from memory-mapped shards. Batches are `cxrscale.train.loader`'s.

store = StoreReader("results/stores/mimic-cxr-jpg-1a2b3c4d/512")
pixels = store["02aa804e-bde0afdd-112c0b34-7bc16630-4e384014"]  # uint8 (512, 512)
"""

import mmap
import zlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from cxrscale.common import tables
from cxrscale.common.errors import StudyError, may_pass
from cxrscale.store.contracts import INDEX
from cxrscale.store.pixels import decode, decode_into
from cxrscale.store.shards import damaged, shard_name


class StoreReader:
    """The images of one resolution. Files are mapped on first use, and anew in each process.

    native_at_least_px: images that would be enlarged at this resolution are as if they were not there.
    """

    def __init__(self, folder: str | Path, native_at_least_px: int = 0) -> None:
        self.folder, self.native_at_least_px = Path(folder), native_at_least_px
        index = tables.read(INDEX, self.folder / "index.parquet")
        self.image_ids = index["image_id"].to_numpy(dtype=object)  # of each row of the index
        self.native_px = index["native_px"].to_numpy()
        wanted = self.native_px >= native_at_least_px
        self._rows = {str(self.image_ids[row]): int(row) for row in np.flatnonzero(wanted)}
        self.shard = index["shard"].to_numpy()
        self.row_group = index["row_group"].to_numpy()
        self._offset = index["offset"].to_numpy()
        self._length = index["length"].to_numpy()
        self._crc32 = index["crc32"].to_numpy()
        self._mapped: dict[int, mmap.mmap] = {}
        changes = (np.diff(self.shard) != 0) | (np.diff(self.row_group) != 0)
        self._group = np.concatenate([[0], np.cumsum(changes)])  # running number of each row's row group
        self._announced: set[int] = set()

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, image_id: str) -> bool:
        return image_id in self._rows

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_mapped": {}, "_announced": set()}  # a mapping belongs to its process

    @cached_property
    def shape(self) -> tuple[int, int]:
        """height_px, width_px of every picture; (0, 0) of an empty store."""
        if not len(self):
            return 0, 0
        height, width = decode(self.jpeg(0)).shape
        return height, width

    def rows(self, image_ids: Sequence[str]) -> np.ndarray:
        """Row of each image in the index, int64 (image,). Raises StudyError if one is not in the store."""
        try:
            return np.array([self._rows[i] for i in image_ids], dtype=np.int64)
        except KeyError as error:
            raise StudyError(f"{self.folder}: image {error.args[0]} is not in the store.") from None

    def jpeg(self, row: int) -> memoryview:
        """The bytes of one JPEG, where they lie in the mapped file.

        Raises StudyError if the shard is missing, shortened or changed.
        """
        shard, offset, length = int(self.shard[row]), int(self._offset[row]), int(self._length[row])
        data = memoryview(self._map(shard))[offset : offset + length]
        if zlib.crc32(data) != self._crc32[row]:
            raise damaged(self._path(shard), f"{self.image_ids[row]} at byte {offset}")
        return data

    def _path(self, shard: int) -> Path:
        return self.folder / f"{shard_name(shard)}.parquet"

    def _map(self, shard: int) -> mmap.mmap:
        if shard not in self._mapped:
            try:
                with self._path(shard).open("rb") as handle:
                    self._mapped[shard] = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
            except (OSError, ValueError) as error:
                if isinstance(error, OSError) and may_pass(error):
                    raise
                raise damaged(self._path(shard), str(error)) from error
        return self._mapped[shard]

    def announce(self, rows: np.ndarray) -> None:
        """Have the system read the row groups of these rows, each as a whole and once, while this process goes on."""
        for group in set(self._group[rows].tolist()) - self._announced:
            self._announced.add(group)
            first, beyond = np.searchsorted(self._group, [group, group + 1])
            mapped = self._map(int(self.shard[first]))
            start = int(self._offset[first]) // mmap.PAGESIZE * mmap.PAGESIZE
            end = min(int(self._offset[beyond - 1] + self._length[beyond - 1]), len(mapped))
            if end > start:
                mapped.madvise(mmap.MADV_WILLNEED, start, end - start)

    def pixels(self, row: int) -> np.ndarray:
        """uint8 (height_px, width_px)."""
        return decode(self.jpeg(row))

    def pixels_into(self, row: int, out: np.ndarray) -> None:
        """Decode into out, uint8 of the store's `shape`, contiguous. Raises StudyError if the picture is damaged."""
        try:
            decode_into(self.jpeg(row), out)
        except ValueError as error:
            raise StudyError(f"{self.folder}: image {self.image_ids[row]} cannot be decoded: {error}") from error

    def __getitem__(self, image_id: str) -> np.ndarray:
        return self.pixels(int(self.rows([image_id])[0]))
