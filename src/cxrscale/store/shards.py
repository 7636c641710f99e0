"""Writing the store: native files into base shards, base shards into smaller ones, and the manifest of them all.

A shard is one Parquet file: image_id, the JPEG's bytes, uncompressed and without dictionary, so that the bytes of each
JPEG lie in the file as they are and a reader can map the file and slice it. The manifest holds where.
"""

import logging
import mmap
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cxrscale import tables
from cxrscale.atomic import replacing
from cxrscale.errors import StudyError
from cxrscale.store.pixels import (
    Filter,
    Geometry,
    UnreadableImageError,
    decode,
    decode_native,
    encode,
    to_square,
)
from cxrscale.tables import Column, Table

logger = logging.getLogger(__name__)

#: Rows of a row group: what one sequential read takes.
ROW_GROUP_IMAGES = 32

SHARD_SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("jpeg", pa.binary(), nullable=False),
        pa.field("native_height_px", pa.int32(), nullable=False),
        pa.field("native_width_px", pa.int32(), nullable=False),
    ]
)

MANIFEST = Table(
    name="manifest",
    row="an image of the store at one resolution, in the order of the shards",
    columns=(
        Column("image_id", "text", "the image"),
        Column("shard", "int32", "number of the shard, and of its file"),
        Column("row_group", "int32", "row group within the shard"),
        Column("offset", "int64", "first byte of the JPEG in the shard's file"),
        Column("length", "int64", "bytes of the JPEG"),
        Column("native_height_px", "int32", "height of the native file after EXIF orientation"),
        Column("native_width_px", "int32", "width of the native file after EXIF orientation"),
        Column("crc32", "int64", "CRC-32 of the JPEG's bytes, as zlib computes it"),
    ),
    key=("image_id",),
)

QUARANTINE = Table(
    name="quarantine",
    row="an image that the data set names and the store leaves out",
    columns=(
        Column("image_id", "text", "the image"),
        Column("path", "text", "native file, relative to the data set's root"),
        Column("reason", "text", "why it cannot be used"),
    ),
    key=("image_id",),
)


@dataclass(frozen=True)
class BaseSettings:
    """What the base store's pixels depend on: size, geometry, filter and JPEG quality (1 to 100)."""

    base_resolution_px: int
    geometry: Geometry
    filter: Filter
    jpeg_quality: int


def shard_name(shard: int) -> str:
    return f"shard-{shard:05d}"


def ingest_shard(
    images: pd.DataFrame,
    shard: int,
    root: Path,
    settings: BaseSettings,
    max_unreadable_fraction: float,
    shard_path: Path,
    quarantine_path: Path,
) -> int:
    """Read one shard's native files, each once, and write the base shard and its quarantine.

    images: the table of that name, whole. Unreadable images are left out and named with the reason. Returns how many
    images the shard holds. Raises StudyError, before anything is written, once the unreadable images of this shard
    alone exceed max_unreadable_fraction of *all* images, or the data root does not exist.
    """
    rows = images[images["shard"] == shard].sort_values("order", kind="stable")
    allowed = int(max_unreadable_fraction * len(images))
    if not root.is_dir():
        raise StudyError(
            f"dataset.root: there is no folder {root}; the images of {len(images)} rows are looked for there."
        )
    refused: list[tuple[str, str, str]] = []

    def records() -> Iterator[tuple[str, bytes, int, int]]:
        for row in rows.itertuples():
            try:
                pixels = decode_native(_read_native(root / str(row.path)))
            except UnreadableImageError as error:
                refused.append((str(row.image_id), str(row.path), str(error)))
                logger.warning("quarantined %s (%s): %s", row.image_id, row.path, error)
                if len(refused) > allowed:
                    raise _too_many(refused, images, rows, root, max_unreadable_fraction) from None
                continue
            square = to_square(pixels, settings.base_resolution_px, settings.geometry, settings.filter)
            yield str(row.image_id), encode(square, settings.jpeg_quality), *pixels.shape

    count = _write_shard(records(), shard_path)
    quarantine = pd.DataFrame(refused, columns=["image_id", "path", "reason"], dtype="str")
    tables.write(QUARANTINE, quarantine, quarantine_path)
    return count


def _read_native(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise UnreadableImageError("is absent") from None
    except OSError as error:
        raise UnreadableImageError(f"cannot be read: {error.strerror}") from None


def _too_many(
    refused: list[tuple[str, str, str]], images: pd.DataFrame, rows: pd.DataFrame, root: Path, fraction: float
) -> StudyError:
    """The message that stops a run; it looks which files exist, which only a failing run pays for."""
    absent = [str(path) for path in images["path"] if not (root / str(path)).is_file()]
    first = "; ".join(f"{path} {reason}" for _, path, reason in refused[:3])
    where = f"under {root.resolve()}"
    return StudyError(
        f"more than {fraction:.2%} of the {len(images)} images cannot be used: {len(refused)} of the first "
        f"{len(rows)} looked at ({first}). {len(absent)} of {len(images)} named files are absent {where}"
        f"{' (first: ' + absent[0] + ')' if absent else ''}. "
        f"Set dataset.root, fetch the missing files, or raise store.max_unreadable_fraction."
    )


def downscale_shard(base_path: Path, size_px: int, filter_: Filter, jpeg_quality: int, shard_path: Path) -> int:
    """Write one shard of a smaller resolution from the base shard. Returns how many images it holds.

    Raises StudyError if the base shard is damaged.
    """

    def records() -> Iterator[tuple[str, bytes, int, int]]:
        for batch in pq.ParquetFile(base_path).iter_batches(batch_size=ROW_GROUP_IMAGES):
            for image_id, jpeg, height, width in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                try:
                    pixels = decode(jpeg)
                except ValueError as error:
                    raise StudyError(
                        f"{base_path}: {image_id} is damaged: {error}. Delete the file and rerun."
                    ) from error
                yield (
                    image_id,
                    encode(to_square(pixels, size_px, "stretch", filter_), jpeg_quality),
                    height,
                    width,
                )

    return _write_shard(records(), shard_path)


def _write_shard(records: Iterator[tuple[str, bytes, int, int]], path: Path) -> int:
    count = 0
    with (
        replacing(path) as temporary,
        pq.ParquetWriter(
            temporary, SHARD_SCHEMA, compression="NONE", use_dictionary=False, write_statistics=False
        ) as writer,
    ):
        group: list[tuple[str, bytes, int, int]] = []
        for record in records:
            group.append(record)
            if len(group) == ROW_GROUP_IMAGES:
                writer.write_table(_group_table(group))
                count, group = count + len(group), []
        if group or not count:
            writer.write_table(_group_table(group))
            count += len(group)
    return count


def _group_table(group: list[tuple[str, bytes, int, int]]) -> pa.Table:
    columns = zip(*group, strict=True) if group else [()] * len(SHARD_SCHEMA)
    return pa.table(
        [pa.array(column, type=f.type) for column, f in zip(columns, SHARD_SCHEMA, strict=True)],
        schema=SHARD_SCHEMA,
    )


def list_shards(shard_paths: Sequence[Path]) -> pd.DataFrame:
    """Find every JPEG in the shards: the columns of `MANIFEST`.

    shard_paths: the files of one resolution; the shard's number is taken from the file's name.
    Raises StudyError if a shard is damaged or its bytes are not where Parquet's plain encoding puts them.
    """
    found: list[tuple[str, int, int, int, int, int, int, int]] = []
    for path in shard_paths:
        number = int(path.stem.removeprefix("shard-"))
        try:
            file = pq.ParquetFile(path)
        except (OSError, pa.ArrowInvalid) as error:
            raise StudyError(f"{path}: is damaged: {error}. Delete the file and rerun.") from error
        with path.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            position = 0
            for group in range(file.num_row_groups):
                table = file.read_row_group(group)
                for image_id, jpeg, height, width in zip(*(c.to_pylist() for c in table.columns), strict=True):
                    # Plain encoding: four bytes of length, then the value.
                    position = mapped.find(len(jpeg).to_bytes(4, "little") + jpeg, position)
                    if position < 0:
                        raise StudyError(
                            f"{path}: {image_id} is not stored plainly; was the shard written by cxrscale?"
                        )
                    crc32 = zlib.crc32(jpeg)
                    found.append((image_id, number, group, position + 4, len(jpeg), height, width, crc32))
                    position += 4 + len(jpeg)
    return pd.DataFrame(found, columns=[c.name for c in MANIFEST.columns])


def check_unreadable(quarantine: pd.DataFrame, n_images: int, max_fraction: float) -> None:
    """Raise StudyError if more than max_fraction of n_images were left out of the store."""
    if len(quarantine) > max_fraction * n_images:
        reasons = quarantine["reason"].value_counts()
        raise StudyError(
            f"{len(quarantine)} of {n_images} images cannot be used, more than store.max_unreadable_fraction = "
            f"{max_fraction}: {'; '.join(f'{n} {reason}' for reason, n in reasons.head(3).items())}. "
            f"The shards' quarantine files name them."
        )
