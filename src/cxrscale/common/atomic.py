"""Files that are whole or absent: written under a temporary name, flushed to disk, then renamed."""

import contextlib
import errno
import glob
import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cxrscale.common import process_names
from cxrscale.common.errors import StudyError

#: Runs jobs and makes no value of a result; raised when a fix here changes results (docs/reruns.md).
RESULT_VERSION = 1

#: Temporaries of processes that cannot be asked, on other hosts say, are left-overs once they are so old.
LEFT_OVER_S = 24 * 3600
_numbers = itertools.count()


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` on success, delete it on an exception.

    The temporary name holds the process's own, so that two writers of one file never share a temporary. What killed
    processes left behind is deleted: of this host at once, of other hosts once nobody has written to it for a day.
    Raises StudyError where the disk is full.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(path)
    delete_left_over(path)
    try:
        yield temporary
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        temporary.replace(path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise StudyError(
                f"{path}: cannot be written: {os.strerror(error.errno)}. Free some space and run again; what was "
                f"finished before is kept."
            ) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def temporary_beside(path: Path) -> Path:
    """A path beside `path` that nobody else uses, and that `delete_left_over` knows for what it is."""
    return path.with_name(f".{path.name}.{process_names.own_name()}-{next(_numbers)}.tmp")


def delete_left_over(path: Path) -> None:
    """Delete temporaries of `path` whose writers are gone. What can't be deleted stays: no write fails for that."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        writer = left.name.removeprefix(f".{path.name}.").removesuffix(".tmp").rpartition("-")[0]
        with contextlib.suppress(OSError):
            dead = process_names.is_dead(writer)
            if dead is None:
                dead = now_beside(path) - left.stat().st_mtime > LEFT_OVER_S
            if dead:
                left.unlink()


def now_beside(path: Path) -> float:
    """The time by the clock that dates files in the folder of `path`, in seconds, as `st_mtime`.

    Hosts that share a file system may have different clocks. Raises OSError where no file can be made.
    """
    probe = temporary_beside(path)
    probe.touch()
    try:
        return probe.stat().st_mtime
    finally:
        probe.unlink()


def is_there(path: str | Path) -> bool:
    """Whether there is a file or folder. Raises OSError where that cannot be told, as on a network file system that is
    away: `Path.is_file` of some versions of Python takes that for "no"."""
    try:
        Path(path).stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def write_text(path: str | Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, sort_keys=False) + "\n")
