"""Ends processes that train together when one of them is missing, and says which.

A process that waits for the message of another can neither be told nor tell why. So a thread of each writes into a
store of torch how many messages its process has begun, and looks at what the others write: one that writes no more is
silent (it was stopped, or its host is away); one that begins no further message, while others have, is behind (its disk
hangs).
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

#: Runs jobs and makes no value of a result; raised when a fix here changes results (docs/reruns.md).
RESULT_VERSION = 1

logger = logging.getLogger(__name__)

#: Key under which the first process to see one missing tells the others.
END = "end"
NOTHING = "0 0"


@dataclass(frozen=True)
class Patience:
    """How long a process may be silent, or behind the others, in seconds; beat_s: how often each writes and looks."""

    beat_s: float = 5.0
    silent_s: float = 600.0
    behind_s: float = 1800.0


def _end_process() -> None:
    os._exit(1)  # the main thread may never return from the message it waits for


class Watch:
    """One process's watch over all.

    names: of the processes, by rank. store: of torch, kept by rank 0, for this watch alone. end: ends this process.
    """

    def __init__(
        self,
        rank: int,
        names: Sequence[str],
        store: Any,
        patience: Patience,
        end: Callable[[], None] = _end_process,
    ) -> None:
        self.rank, self.names, self.store, self.patience, self.end = rank, names, store, patience, end
        self.messages = 0
        now = time.monotonic()
        self._said = [NOTHING] * len(names)  # the last words of each: beats and messages
        self._begun = [0] * len(names)  # messages of each
        self._heard_at, self._level_at = [now] * len(names), [now] * len(names)
        self._listened_at = now
        self._told: str | None = None
        self._over = threading.Event()

    def start(self) -> None:
        for body in (self._listen, self._judge):
            threading.Thread(target=body, daemon=True, name=f"watch {body.__name__}").start()

    def stop(self) -> None:
        """To be called when the training is over: the others may leave from now on."""
        self._over.set()

    def _listen(self) -> None:
        beat, keys = 0, [str(rank) for rank in range(len(self.names))]
        while not self._over.wait(self.patience.beat_s):
            beat += 1
            try:
                self.store.set(str(self.rank), f"{beat} {self.messages}")
                said = [self.store.get(key).decode() if self.store.check([key]) else NOTHING for key in keys]
                self._hear(said, time.monotonic())
                if self.store.check([END]):
                    self._told = self.store.get(END).decode()
            except RuntimeError as error:  # what torch raises where the store is gone; its keeper is silent then
                logger.debug("the store of the watch cannot be reached: %s", error)

    def _hear(self, said: Sequence[str], now: float) -> None:
        """Note what the processes say; those that begin a message, or have begun as many as any, are not behind."""
        self._listened_at = now
        for rank, words in enumerate(said):
            if words != self._said[rank]:
                self._heard_at[rank] = now
            begun = int(words.split()[1])
            if begun != self._begun[rank]:
                self._level_at[rank] = now
            self._said[rank], self._begun[rank] = words, begun
        for rank, begun in enumerate(self._begun):
            if begun == max(self._begun):
                self._level_at[rank] = now

    def meet(self) -> None:
        """Wait, for hours if need be, until all have come here: one may have pictures to copy, another none."""
        self.store.set(f"ready {self.rank}", "")
        while not self.store.check([f"ready {rank}" for rank in range(len(self.names))]):
            time.sleep(min(self.patience.beat_s, 1.0))

    def _judge(self) -> None:
        before = time.monotonic()
        while not self._over.wait(self.patience.beat_s):
            now = time.monotonic()
            if now - before > self.patience.beat_s + self.patience.silent_s / 2:  # this process was stopped itself
                self._heard_at, self._level_at = [now] * len(self.names), [now] * len(self.names)
            before = now
            missing = self._told or self.missing(now)
            if missing is not None:
                logger.error("%s", missing)
                threading.Thread(target=self.store.set, args=(END, missing), daemon=True).start()  # may hang too
                if not self._over.wait(3 * self.patience.beat_s):  # the others hear it meanwhile
                    self.end()
                return

    def missing(self, now: float) -> str | None:
        """Which processes are missing, in words; None if none is."""
        patience, ranks = self.patience, range(len(self.names))
        silent = [rank for rank in ranks if now - self._heard_at[rank] > patience.silent_s]
        if silent and now - self._listened_at > patience.silent_s / 2:
            silent = [0]  # the store is away: nobody is heard of, and its keeper is the one to look at
        most = max(self._begun)
        behind = [r for r in ranks if self._begun[r] < most and now - self._level_at[r] > patience.behind_s]
        if silent:
            who, what = silent, f"silent for {patience.silent_s:g} s"
        elif behind:
            who, what = behind, f"behind the others for {patience.behind_s:g} s, before message {most}"
        else:
            return None
        names = ", ".join(self.names[rank] for rank in who)
        return (
            f"{names}: {what}; the others wait for it. All processes of this training end. Look at that host (disk, "
            f"network, GPU) and run again: the training goes on from its last checkpoint."
        )
