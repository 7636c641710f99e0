"""Writing the store: native files into base shards, base shards into smaller ones, and the index of them all.

A shard is one Parquet file: image_id, the JPEG's bytes, uncompressed and without dictionary, so that the bytes of each
JPEG lie in the file as they are and a reader can map the file and slice it. The index holds where.

What a shard holds follows from the native files, the settings and nothing else: neither the number of workers nor what
was interrupted on the way shows in its bytes.
"""

import hashlib
import logging
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cxrscale.common import tables
from cxrscale.common.atomic import replacing
from cxrscale.common.errors import StudyError, may_pass
from cxrscale.store.contracts import INDEX, QUARANTINE
from cxrscale.store.pixels import UnreadableImageError, decode_native, downscale, encode, inner_size, to_square
from cxrscale.store.quarantine import named_files_absent
from cxrscale.store.settings import BaseSettings, Filter, Geometry, Quality

logger = logging.getLogger(__name__)

#: Rows of a row group: what one sequential read takes.
ROW_GROUP_IMAGES = 32

SHARD_SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("jpeg", pa.binary(), nullable=False),
        pa.field("native_height_px", pa.int32(), nullable=False),
        pa.field("native_width_px", pa.int32(), nullable=False),
        pa.field("native_bits", pa.int32(), nullable=False),
        pa.field("native_path", pa.string(), nullable=False),
        pa.field("native_bytes", pa.int64(), nullable=False),
        pa.field("native_sha256", pa.string(), nullable=False),
    ]
)

#: Of each shard, this many native files are kept whole, so that what the store lost can be measured at any time.
SAMPLE_IMAGES = 64
SAMPLE_SCHEMA = pa.schema(
    [pa.field("image_id", pa.string(), nullable=False), pa.field("native", pa.binary(), nullable=False)]
)

INDEX_FILE = "index.parquet"  # beside the shards it lists


def shard_name(shard: int) -> str:
    return f"shard-{shard:05d}"


def sample_size(shards: int) -> int:
    """How many images of each shard keep their native file: `SAMPLE_IMAGES` in all, one a shard at least."""
    return -(-SAMPLE_IMAGES // shards)


def ingest_shard(
    images: pd.DataFrame,
    shard: int,
    root: Path,
    settings: BaseSettings,
    max_unreadable_fraction: float,
    shard_path: Path,
    sample_path: Path,
    quarantine_path: Path,
    sample_images: int = 1,
) -> int:
    """Read one shard's native files, each once, and write the base shard, its sample and its quarantine.

    images: the table of that name, whole. sample_images: how many native files are kept whole, the first in the
    shard's order, which is random. Unreadable images are left out and named with the reason. Returns how many images
    the shard holds. Raises StudyError, before anything is written, once the unreadable images of this shard alone
    exceed max_unreadable_fraction of *all* images, or the data root does not exist.
    """
    rows = images[images["shard"] == shard].sort_values("order", kind="stable")
    allowed = int(max_unreadable_fraction * len(images))
    if not root.is_dir():
        raise StudyError(
            f"dataset.root: there is no folder {root}; the images of {len(images)} rows are looked for there."
        )
    refused: list[tuple[str, str, str]] = []
    sample: list[tuple[str, bytes]] = []

    with ExitStack() as files:
        writer = _ShardWriter(files.enter_context(replacing(shard_path)))
        for row in rows.itertuples():
            try:
                native = read_native(root / str(row.path))
                pixels, bits = decode_native(native, settings)
            except UnreadableImageError as error:
                refused.append((str(row.image_id), str(row.path), str(error)))
                logger.warning("quarantined %s (%s): %s", row.image_id, row.path, error)
                if len(refused) > allowed:
                    raise _too_many(refused, images, rows, root, max_unreadable_fraction) from None
                continue
            square = to_square(pixels, settings.base_resolution_px, settings.geometry, settings.filter)
            writer.add(
                image_id=str(row.image_id),
                jpeg=encode(square, settings.jpeg_quality),
                native_height_px=pixels.shape[0],
                native_width_px=pixels.shape[1],
                native_bits=bits,
                native_path=str(row.path),
                native_bytes=len(native),
                native_sha256=hashlib.sha256(native).hexdigest(),
            )
            if len(sample) < sample_images:
                sample.append((str(row.image_id), native))
        writer.close()
        columns = [list(column) for column in zip(*sample, strict=True)] or [[], []]
        pq.write_table(pa.table(columns, schema=SAMPLE_SCHEMA), files.enter_context(replacing(sample_path)))
        quarantine = pd.DataFrame(refused, columns=["image_id", "path", "reason"], dtype="str")
        tables.write(QUARANTINE, quarantine, quarantine_path)
    return writer.count


def read_native(path: Path) -> bytes:
    """The bytes of a native file.

    Raises UnreadableImageError if it is absent or no file, StudyError if reading fails, which may pass.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise UnreadableImageError("is absent") from None
    except OSError as error:
        if may_pass(error):
            raise StudyError(
                f"{path}: cannot be read: {error.strerror}. No image is left out for that. Run again; if it stays so, "
                f"repair the file or its permissions, or delete it: an absent file is left out."
            ) from error
        raise UnreadableImageError(f"cannot be read: {error.strerror}") from None


def _too_many(
    refused: list[tuple[str, str, str]], images: pd.DataFrame, rows: pd.DataFrame, root: Path, fraction: float
) -> StudyError:
    """The message that stops a run; it looks which files exist, which only a failing run pays for."""
    first = "; ".join(f"{path} {reason}" for _, path, reason in refused[:3])
    return StudyError(
        f"more than {fraction:.2%} of the {len(images)} images cannot be used: {len(refused)} of the first "
        f"{len(rows)} looked at ({first}). {named_files_absent(images, root)}. "
        f"Set dataset.root, fetch the missing files, or raise store.max_unreadable_fraction."
    )


def downscale_shard(base_path: Path, shard_paths: Mapping[int, Path], filter_: Filter, jpeg_quality: Quality) -> int:
    """Write the shard of one or more smaller resolutions from the base shard. Returns how many images each holds.

    shard_paths: where the shard of each resolution (size_px) goes. Each image of the base is decoded once for all of
    them ("dct": once for each), and every shard holds the same bytes as if it were made alone.
    Raises StudyError if the base shard is damaged.
    """
    with ExitStack() as files:
        writers = {size: _ShardWriter(files.enter_context(replacing(path))) for size, path in shard_paths.items()}
        for record in read_shard(base_path):
            jpeg = record.pop("jpeg")
            try:
                smaller = downscale(jpeg, list(writers), filter_)
            except ValueError as error:
                raise damaged(base_path, f"{record['image_id']}: {error}") from error
            for writer, pixels in zip(writers.values(), smaller, strict=True):
                writer.add(**record, jpeg=encode(pixels, jpeg_quality))
        for writer in writers.values():
            writer.close()
    return next(iter(writers.values())).count


def read_shard(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the records of a shard, a row group in memory at a time; every page is held against its checksum.

    Raises StudyError if the file is absent or damaged, OSError if it could not be read this time.
    """
    try:
        file = pq.ParquetFile(path, page_checksum_verification=True, pre_buffer=False)
        if not file.schema_arrow.equals(SHARD_SCHEMA):
            raise damaged(path, "its columns are not those that this version of cxrscale writes")
        for batch in file.iter_batches(batch_size=ROW_GROUP_IMAGES):
            yield from batch.to_pylist()
    except (OSError, pa.ArrowInvalid) as error:
        if isinstance(error, OSError) and may_pass(error):
            raise
        raise damaged(path, str(error)) from error


def damaged(path: Path, what: str) -> StudyError:
    """The error for a shard that does not hold what was written, with the way to repair it."""
    return StudyError(
        f"{path}: is damaged: {what}. Run `python -m cxrscale.store.verify {path.parent.parent} --set-aside`, which "
        f"checks the whole store and moves damaged shards away, then run the workflow again: it makes them anew."
    )


class _ShardWriter:
    """Writes records into one shard, a row group at a time, plain and uncompressed."""

    def __init__(self, path: Path) -> None:
        self.count = 0
        self._group: list[dict[str, Any]] = []
        self._file = pq.ParquetWriter(
            path,
            SHARD_SCHEMA,
            compression="NONE",
            use_dictionary=False,
            write_statistics=False,
            write_page_checksum=True,
        )

    def add(self, **record: Any) -> None:
        self._group.append(record)
        self.count += 1
        if len(self._group) == ROW_GROUP_IMAGES:
            self._flush()

    def _flush(self) -> None:
        self._file.write_table(pa.Table.from_pylist(self._group, schema=SHARD_SCHEMA))
        self._group = []

    def close(self) -> None:
        if self._group or not self.count:
            self._flush()
        self._file.close()


def index_shards(shard_paths: Sequence[Path], size_px: int, geometry: Geometry) -> pd.DataFrame:
    """Find every JPEG in the shards: the columns of `INDEX`.

    shard_paths: the files of one resolution; the shard's number is taken from the file's name.
    Raises StudyError if a shard is damaged or its bytes are not where Parquet's plain encoding puts them.
    """
    found: list[tuple[Any, ...]] = []
    for path in shard_paths:
        number = int(path.stem.removeprefix("shard-"))
        for place, (record, offset) in enumerate(zip(read_shard(path), _offsets(path), strict=True)):
            jpeg, height, width = record["jpeg"], record["native_height_px"], record["native_width_px"]
            inner_height, inner_width = inner_size(height, width, size_px, geometry)
            found.append(
                (
                    record["image_id"],
                    number,
                    place // ROW_GROUP_IMAGES,
                    offset,
                    len(jpeg),
                    height,
                    width,
                    record["native_bits"],
                    inner_height / height,
                    inner_width / width,
                    min(height, width) if geometry == "stretch" else max(height, width),
                    zlib.crc32(jpeg),
                )
            )
    return pd.DataFrame(found, columns=[c.name for c in INDEX.columns])


def _offsets(path: Path) -> Iterator[int]:
    """Where each JPEG of a shard begins in the file, a row group in memory at a time."""
    with path.open("rb") as handle:
        file = pq.ParquetFile(path, pre_buffer=False)
        for group in range(file.num_row_groups):
            column = file.metadata.row_group(group).column(SHARD_SCHEMA.get_field_index("jpeg"))
            handle.seek(column.data_page_offset)
            chunk, position = handle.read(column.total_compressed_size), 0
            for jpeg in file.read_row_group(group, columns=["jpeg"])["jpeg"].to_pylist():
                # Plain encoding: four bytes of length, then the value.
                position = chunk.find(len(jpeg).to_bytes(4, "little") + jpeg, position)
                if position < 0:
                    raise StudyError(f"{path}: its JPEGs are not stored plainly; was it written by cxrscale?")
                yield column.data_page_offset + position + 4
                position += 4 + len(jpeg)
