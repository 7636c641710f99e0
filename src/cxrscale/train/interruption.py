"""How a training stops when it is asked to: at the next update, with a checkpoint written."""

import logging
import signal
import sys
from collections.abc import Callable
from types import FrameType

logger = logging.getLogger(__name__)

#: Exit status of a training that was asked to stop (SIGTERM, SIGUSR1) and wrote a checkpoint: EX_TEMPFAIL.
INTERRUPTED_STATUS = 75


class StopRequest:
    """Turns SIGTERM and SIGUSR1 into a request that the training loop honours at the next update."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def __enter__(self) -> "StopRequest":
        self._before = {s: signal.signal(s, self._ask) for s in (signal.SIGTERM, signal.SIGUSR1)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, _: FrameType | None) -> None:
        self.signal = number


class Interrupted(Exception):  # noqa: N818
    """The training was asked to stop and has written its checkpoint."""


def run_as_job(train: Callable[[], None]) -> None:
    """Run a training as a process: an interruption ends it with INTERRUPTED_STATUS."""
    try:
        train()
    except Interrupted as stopped:
        logger.warning("%s; run again to go on.", stopped)
        sys.exit(INTERRUPTED_STATUS)
