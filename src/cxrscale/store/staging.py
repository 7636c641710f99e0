"""A copy of a store on this host's own disk, for stores that lie on a network file system."""

import contextlib
import fcntl
import logging
import os
import shutil
from pathlib import Path

from cxrscale.common import tables
from cxrscale.common.atomic import replacing
from cxrscale.common.errors import StudyError
from cxrscale.common.provenance import file_digest
from cxrscale.store.contracts import INDEX
from cxrscale.store.shards import shard_name

#: Runs jobs and makes no value of a result; raised when a fix here changes results (docs/reruns.md).
RESULT_VERSION = 1

logger = logging.getLogger(__name__)


def staged(folder: Path, stage_dir: str | Path | None) -> Path:
    """Copy the store of one resolution below a local folder, once, and return the folder to read from.

    folder: holds index.parquet and the shards. stage_dir: None reads where the store lies; environment variables in
    it are filled in on the host that reads (as $TMPDIR). The copy is named after the store, the resolution and the
    index's digest, so that a changed store is copied anew; files that lie there whole are taken, so that a copy that
    was stopped goes on. Jobs of one host wait for each other at a lock and share the copy. It is never deleted here.
    Damage is found where it is always found, by the reader. Raises StudyError if the disk has too little space, the
    folder cannot be written to or names a variable that is not set.
    """
    if stage_dir is None:
        return folder
    root = Path(os.path.expandvars(stage_dir)).expanduser()
    if "$" in str(root):
        raise StudyError(f"training.stage_dir: {stage_dir} names an environment variable that is not set on this host.")
    index = folder / "index.parquet"
    shards = tables.read(INDEX, index, columns=["shard"])["shard"].unique()
    sources = [folder / f"{shard_name(shard)}.parquet" for shard in shards] + [index]
    place = folder.resolve()
    target = root / f"{place.parent.name}-{place.name}-{file_digest(index)[:16]}"
    try:
        target.mkdir(parents=True, exist_ok=True)
        with (target / ".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            _copy_missing(sources, target)
    except OSError as error:
        raise StudyError(f"training.stage_dir: {folder} cannot be copied to {target}: {error}") from error
    return target


def _copy_missing(sources: list[Path], target: Path) -> None:
    for left_over in target.glob(".*.tmp"):  # of a copy that was killed; we hold the lock
        left_over.unlink()
    sizes = {source: source.stat().st_size for source in sources}
    missing = [s for s in sources if not _has(target / s.name, sizes[s])]
    needed = sum(sizes[s] for s in missing)
    if not missing:
        return
    _require_space(target, needed)
    logger.info("copying %d files, %.2f GB, to %s", len(missing), needed / 1e9, target)
    for source in missing:
        with replacing(target / source.name) as temporary:
            shutil.copyfile(source, temporary)


def _has(path: Path, size: int) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_size == size
    return False


def _require_space(target: Path, needed: int) -> None:
    free = shutil.disk_usage(target).free
    if free < needed:
        raise StudyError(
            f"training.stage_dir: {target} needs {needed / 1e9:.2f} GB more, the disk has {free / 1e9:.2f} GB free. "
            f"Free some, choose another folder, or set it to null to read where the store lies."
        )
