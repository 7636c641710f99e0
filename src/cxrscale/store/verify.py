"""Check a whole store and name what is wrong with it.

python -m cxrscale.store.verify results/stores/mimic-cxr-jpg-1a2b3c4d
"""

import argparse
import os
import sys
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from tqdm import tqdm

from cxrscale.common import tables
from cxrscale.common.atomic import is_there
from cxrscale.common.errors import StudyError
from cxrscale.store.changes import set_aside
from cxrscale.store.contracts import INDEX, QUARANTINE
from cxrscale.store.pixels import decode
from cxrscale.store.shards import INDEX_FILE, read_shard


class Problem(NamedTuple):
    """A file of the store and what is wrong with it, in words."""

    path: Path
    what: str


def verify(store: Path, workers: int = 1, progress: bool = False) -> list[Problem]:
    """Read every shard of a store and return what is wrong, [] if nothing.

    Checked: that each shard can be read and its pages' checksums hold; that each JPEG decodes to the size of its
    resolution and is the one that the index lists, at its place; that no shard is missing, every resolution holds
    the base's images, and no quarantined image is in the store. Raises StudyError if `store` is no store.
    """
    folders = [store / "base", *sorted((f for f in store.glob("*") if f.name.isdigit()), key=lambda f: int(f.name))]
    shards = [path for folder in folders for path in sorted(folder.glob("shard-*.parquet"))]
    if not shards:
        raise StudyError(f"{store}: holds no shard in base/ or a resolution's folder; expected results/stores/<store>.")
    indexes = {f: tables.read(INDEX, f / INDEX_FILE) for f in folders if is_there(f / INDEX_FILE)}
    with ThreadPoolExecutor(workers) as pool:  # decoding releases the interpreter
        checked = pool.map(lambda path: _check_shard(path, indexes.get(path.parent)), shards)
        results = list(tqdm(checked, total=len(shards), unit="shard", disable=not progress))
    problems = [problem for found, _ in results for problem in found]
    held = {path: ids for path, (_, ids) in zip(shards, results, strict=True) if ids is not None}
    problems += _check_sets(store, folders, set(shards), held, indexes)
    return problems


def _check_shard(path: Path, index: pd.DataFrame | None) -> tuple[list[Problem], frozenset[str] | None]:
    """Problems of one shard, and its image ids; None if it cannot be read."""
    size_px = None if path.parent.name == "base" else int(path.parent.name)
    listed = None
    if index is not None:
        number = int(path.stem.removeprefix("shard-"))
        rows = index[index["shard"] == number]
        columns = (rows[c].tolist() for c in ("image_id", "offset", "length", "crc32"))
        listed = {image_id: where for image_id, *where in zip(*columns, strict=True)}
    data = memoryview(path.read_bytes())
    problems, ids = [], set()
    try:
        for record in read_shard(path):
            image_id, jpeg = record["image_id"], record["jpeg"]
            ids.add(image_id)
            try:
                shape = decode(jpeg).shape
            except ValueError as error:
                problems.append(Problem(path, f"{image_id} cannot be decoded: {error}"))
                continue
            size_px = size_px or shape[0]  # of the base: that of its first image
            if shape != (size_px, size_px):
                problems.append(Problem(path, f"{image_id} has {shape[0]} x {shape[1]} px; expected {size_px}"))
            if listed is None:
                continue
            if image_id not in listed:
                problems.append(Problem(path, f"{image_id} is not in the index"))
                continue
            offset, length, crc32 = listed[image_id]
            if zlib.crc32(data[offset : offset + length]) != crc32:
                problems.append(Problem(path, f"{image_id} is not where the index says"))
    except StudyError as error:
        return [*problems, Problem(path, str(error).removeprefix(f"{path}: ").split(" Run `")[0])], None
    if listed is not None and (gone := listed.keys() - ids):
        problems.append(Problem(path, f"lacks {len(gone)} images that the index lists (first: {min(gone)})"))
    return problems, frozenset(ids)


def _check_sets(
    store: Path,
    folders: list[Path],
    shards: set[Path],
    held: dict[Path, frozenset[str]],
    indexes: dict[Path, pd.DataFrame],
) -> Iterator[Problem]:
    numbers = {path.name for path in shards}
    quarantine = store / "base/quarantine.csv"
    left_out = set(tables.read(QUARANTINE, quarantine)["image_id"]) if is_there(quarantine) else set()
    for folder in folders:
        if not any(path.parent == folder for path in shards):
            continue
        for name in sorted(numbers):
            path, base = folder / name, store / "base" / name
            if path not in shards:
                yield Problem(path, "is missing")
            elif path in held and base in held and held[path] != held[base]:
                yield Problem(path, f"differs from the base in {len(held[path] ^ held[base])} images")
            elif both := held.get(path, frozenset()) & left_out:
                yield Problem(path, f"holds {len(both)} quarantined images (first: {min(both)})")
        if folder not in indexes:
            yield Problem(folder / INDEX_FILE, "is missing; the workflow makes it")


def main() -> None:
    parser = argparse.ArgumentParser(description="Check every shard of a store and name what is wrong with it.")
    parser.add_argument("store", type=Path, help="results/stores/<store>")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="shards checked at once")
    parser.add_argument(
        "--set-aside", action="store_true", help="move what is wrong to <store>/superseded, to be made anew"
    )
    given = parser.parse_args()
    try:
        problems = verify(given.store, given.workers, progress=sys.stderr.isatty())
    except StudyError as error:
        sys.exit(str(error))
    for path, what in problems:
        print(f"{path}: {what}")
    if not problems:
        print(f"{given.store}: nothing is wrong")
        return
    if given.set_aside:
        target = set_aside(given.store, sorted({problem.path for problem in problems}))
        print(f"moved to {target}; run the workflow again to make them anew")
    sys.exit(1)


if __name__ == "__main__":
    main()
