"""Whether the data set still is what the store was made of, and setting aside the shards that it is not."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cxrscale.common import tables
from cxrscale.common.atomic import is_there
from cxrscale.common.errors import StudyError, may_pass
from cxrscale.common.provenance import file_digest
from cxrscale.store.contracts import QUARANTINE
from cxrscale.store.pixels import UnreadableImageError, decode_native
from cxrscale.store.settings import Accepted
from cxrscale.store.shards import INDEX_FILE, damaged, read_native, shard_name


def check_list(images: pd.DataFrame, records: Sequence[pd.DataFrame], quarantine: pd.DataFrame) -> None:
    """Raise StudyError unless base shards and quarantine together hold just the images that the data set names.

    images: image_id and path, all of the data set; records: what each base shard was made of (`record_of`). A store
    made before the data set's csv files changed fails here.
    """
    recorded = pd.concat([*(record[["image_id", "path"]] for record in records), quarantine[["image_id", "path"]]])
    both = images.merge(recorded, on=["image_id", "path"], how="outer", indicator=True)
    new, gone = (both[both["_merge"] == side] for side in ("left_only", "right_only"))
    if len(new) or len(gone):
        first = (new if len(new) else gone).iloc[0]
        raise StudyError(
            f"the store was made of another list of images: {len(new)} that the data set names are not in it, "
            f"{len(gone)} in it are no longer named so (first: {first['image_id']}, {first['path']}). "
            f"Run `snakemake --cores all check_sources` with the same config, which sets the shards they belong to "
            f"aside, then run the workflow again."
        )


def record_of(shard_path: Path) -> pd.DataFrame:
    """What a base shard was made of: image_id, path, bytes, sha256. Raises StudyError if it is damaged."""
    columns = {"image_id": "image_id", "native_path": "path", "native_bytes": "bytes", "native_sha256": "sha256"}
    try:
        table = pq.read_table(shard_path, columns=list(columns), page_checksum_verification=True)
    except (OSError, pa.ArrowInvalid) as error:
        if isinstance(error, OSError) and may_pass(error):
            raise
        raise damaged(shard_path, str(error)) from error
    return table.to_pandas().rename(columns=columns)


def find_changes(images: pd.DataFrame, store: Path, root: Path, accepted: Accepted, workers: int) -> pd.DataFrame:
    """Hold every native file and every row of the data set's csv files against what the store was made of.

    images: image_id, path and shard of the data set as it is now; store: the store's folder; root: the data set's.
    Every native file is read once more, `workers` at a time, and its SHA-256 compared. accepted: as ingest had it; by
    this an image that was left out is held to be usable now.
    Returns a row for each image that differs: image_id, path, shard, change (in words) and stale: whether the shard
    holds something else than the data set now does. An image whose native file is gone stays in the store.
    Shards that were not made yet are left out. Raises StudyError if the root does not exist.
    """
    if not root.is_dir():
        raise StudyError(f"dataset.root: there is no folder {root}.")
    numbers = sorted(int(path.stem.removeprefix("shard-")) for path in store.glob("base/shard-*.parquet"))
    by_shard = dict(tuple(images.groupby("shard")))
    none = images.iloc[:0]
    with ThreadPoolExecutor(workers) as pool:  # reading and hashing release the interpreter
        found = list(pool.map(lambda n: _changes_of(n, by_shard.get(n, none), store, root, accepted), numbers))
    columns = ["image_id", "path", "shard", "change", "stale"]
    return pd.DataFrame([row for rows in found for row in rows], columns=columns)


def _changes_of(
    number: int, rows: pd.DataFrame, store: Path, root: Path, accepted: Accepted
) -> list[tuple[str, str, int, str, bool]]:
    made = record_of(store / f"base/{shard_name(number)}.parquet").set_index("image_id")
    left_out = tables.read(QUARANTINE, store / f"base/quarantine/{shard_name(number)}.csv").set_index("image_id")
    changes: list[tuple[str, str, int, str, bool]] = []

    def add(image_id: str, path: str, change: str, stale: bool = True) -> None:
        changes.append((image_id, path, number, change, stale))

    named = set(rows["image_id"])
    for record in (made, left_out):
        for image_id, path in record["path"].items():
            if image_id not in named:
                add(str(image_id), path, "is no longer in the csv files")
    for image_id, path in zip(rows["image_id"], rows["path"], strict=True):
        note = partial(add, image_id, path)
        file = root / path
        if image_id in left_out.index:
            if (reason := _still_unusable(file, accepted)) is None:
                note(f"can be used now; it was left out because it {left_out['reason'][image_id]}")
            elif path != left_out["path"][image_id]:
                note(f"was {left_out['path'][image_id]} in the csv files and {reason}")
        elif image_id not in made.index:
            note("is new in the csv files")
        elif not is_there(file):
            note("is gone; the store keeps it", stale=path != made["path"][image_id])
        elif path != made["path"][image_id]:
            note(f"was {made['path'][image_id]} in the csv files")
        elif file.stat().st_size != made["bytes"][image_id] or file_digest(file) != made["sha256"][image_id]:
            note("has other bytes")
    return changes


def _still_unusable(path: Path, accepted: Accepted) -> str | None:
    try:
        decode_native(read_native(path), accepted)
    except UnreadableImageError as error:
        return str(error)
    return None


def set_aside(store: Path, files: Sequence[Path]) -> Path:
    """Move files of a store to its `superseded/<time>/`, with the indexes of their folders, so that the workflow
    makes them anew. Returns that folder. Nothing is deleted.
    """
    target = store / "superseded" / datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f")
    indexes = {file.parent / INDEX_FILE for file in files}
    for file in [*files, *sorted(indexes)]:
        if is_there(file):
            new = target / file.relative_to(store)
            new.parent.mkdir(parents=True, exist_ok=True)
            file.replace(new)
    return target
