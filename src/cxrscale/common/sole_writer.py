"""A folder that one process at a time writes to, whatever host it runs on: a lock file kept fresh by its holder.

After the head of a study has died, a training that it started may still run while the next head starts the same one.
A lock of the kernel would not do: not every network file system passes those on. This one is a file that says who
holds it, and its holder dates it anew every few seconds. It is taken over once its holder is known to have ended, or
has not dated it for `STALE_S`; a holder that was only slow, suspended say, finds that out before it writes again.
Times are those of the file system, so that hosts' clocks do not matter.
"""

import contextlib
import json
import logging
import os
import platform
import threading
import time
from pathlib import Path

from cxrscale.common.atomic import delete_left_over, now_beside, temporary_beside
from cxrscale.common.errors import StudyError
from cxrscale.common.process_names import is_dead, own_name

#: Runs jobs and makes no value of a result; raised when a fix here changes results (docs/reruns.md).
RESULT_VERSION = 1

logger = logging.getLogger(__name__)

#: How often the holder dates the lock; since when a dead one has not; how long others wait, longer than that.
BEAT_S, STALE_S, WAIT_S = 15.0, 300.0, 600.0
POLL_S = 2.0


class SoleWriter:
    """Holds a lock file within `with`.

    lock: the file. Entering waits for another holder, up to `WAIT_S`; then it raises StudyError, which says who writes
    there and how to end it.
    """

    def __init__(self, lock: Path) -> None:
        self.lock = lock
        self._mine = temporary_beside(lock)
        self._text = json.dumps(
            {
                "name": self._mine.name,  # no other lock's
                "process": own_name(),
                "host": platform.node(),
                "pid": os.getpid(),
                "slurm_job": os.environ.get("SLURM_JOB_ID"),
                "since": time.strftime("%Y-%m-%d %H:%M:%S"),
            }
        )
        self._ended = threading.Event()

    def __enter__(self) -> "SoleWriter":
        self.lock.parent.mkdir(parents=True, exist_ok=True)
        delete_left_over(self.lock)
        self._mine.write_text(self._text, encoding="utf-8")
        try:
            self._acquire()
        finally:
            self._mine.unlink(missing_ok=True)
        threading.Thread(target=self._keep_fresh, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        with contextlib.suppress(OSError):
            if self._text == _read(self.lock):
                self.lock.unlink()

    def check(self) -> None:
        """To be called before anything is overwritten. Raises StudyError if another process has taken over."""
        found = _read(self.lock)
        if found != self._text:
            raise StudyError(
                f"{self.lock.parent}: this process did not keep its lock, because it was suspended for minutes or "
                f"someone deleted the file. {_described(found)} may write here now, so this one ends and writes "
                f"nothing more."
            )

    def _acquire(self) -> None:
        start, said = time.monotonic(), False
        while not _linked(self._mine, self.lock):
            held = _read(self.lock)
            if held is None:
                time.sleep(0.01)  # until a network file system tells the same to all
                continue
            if is_dead(_holder(held)) or self._age() > STALE_S:
                logger.info("%s of %s is left over; it is taken over", self.lock.name, _described(held))
                self._take_away(held)
                continue
            if not said:
                logger.warning("%s: waiting for %s, which writes here", self.lock.parent, _described(held))
                said = True
            if time.monotonic() - start > WAIT_S:
                raise StudyError(
                    f"{self.lock.parent}: {_described(held)} writes here, and still did after {WAIT_S:.0f} s of "
                    f"waiting. Wait until it has ended, or end it ({_how_to_end(held)}); then run again."
                )
            time.sleep(POLL_S)
            os.utime(self._mine)  # the lock must be fresh when it is made

    def _age(self) -> float:
        """Seconds since the holder has dated its lock."""
        try:
            dated = self.lock.stat().st_mtime
        except FileNotFoundError:
            return 0.0
        return now_beside(self.lock) - dated

    def _take_away(self, held: str) -> None:
        """Remove the lock that says `held`; one that another process has put there since is put back."""
        aside = temporary_beside(self.lock)
        try:
            self.lock.rename(aside)
        except FileNotFoundError:
            return
        if aside.read_text(encoding="utf-8") != held:
            _linked(aside, self.lock)
        aside.unlink()

    def _keep_fresh(self) -> None:
        while not self._ended.wait(BEAT_S):
            with contextlib.suppress(OSError):  # a passing fault; if it stays, `check` finds the lock taken over
                if _read(self.lock) == self._text:
                    os.utime(self.lock)


def _linked(source: Path, target: Path) -> bool:
    """Give a file a second name, if nothing has it. Returns whether it was given."""
    try:
        os.link(source, target)
    except FileExistsError:
        return source.stat().st_nlink > 1  # a server may have done it, its answer been lost, and been asked again
    except OSError:  # a file system without hard links; others may read the file while it is empty, and then wait
        try:
            with target.open("x", encoding="utf-8") as handle:
                handle.write(source.read_text(encoding="utf-8"))
        except FileExistsError:
            return False
    return True


def _read(lock: Path) -> str | None:
    """What a lock says; None where there is none."""
    try:
        return lock.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


def _parsed(text: str | None) -> dict[str, object]:
    with contextlib.suppress(ValueError):
        found = json.loads(text or "{}")
        if isinstance(found, dict):
            return found
    return {}


def _holder(text: str) -> str:
    return str(_parsed(text).get("process", ""))


def _described(text: str | None) -> str:
    holder = _parsed(text)
    if not holder:
        return "another process"
    job = f", SLURM job {holder['slurm_job']}" if holder.get("slurm_job") else ""
    return f"process {holder.get('pid')} on {holder.get('host')}{job} (since {holder.get('since')})"


def _how_to_end(text: str) -> str:
    holder = _parsed(text)
    if holder.get("slurm_job"):
        return f"scancel {holder['slurm_job']}"
    return f"on {holder.get('host')}: kill {holder.get('pid')}" if holder else "which one is not known"
