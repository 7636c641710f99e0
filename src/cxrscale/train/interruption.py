"""How a training stops when it is asked to: at the next update or batch of validation, with a checkpoint written.

Before SLURM's time limit ends a job, the profile has it send SIGURG, which every other process ignores. A training that
made progress then puts its own job back into the queue, and goes on under the same number.
"""

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

from cxrscale.common.devices import submitted
from cxrscale.common.errors import StudyError

#: Runs jobs and makes no value of a result; raised when a fix here changes results (docs/reruns.md).
RESULT_VERSION = 1

logger = logging.getLogger(__name__)

#: Exit status of a training that was asked to stop and wrote a checkpoint: EX_TEMPFAIL.
INTERRUPTED_STATUS = 75

#: That the time limit is near. Its default is to be ignored: SLURM sends it to every process of a job.
TIME_LIMIT = signal.SIGURG

#: By which a training is asked to stop: by a scheduler or user, a terminal, the process that launched it.
REQUESTS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, TIME_LIMIT)


class StopRequest:
    """Turns signals into a request that the training loop honours at the next update.

    signal: the number of the last one; TIME_LIMIT stays. A signal that was ignored before (`nohup`) still is. Where
    another StopRequest takes a signal already, what that one got counts here too.
    """

    def __init__(self, numbers: Sequence[signal.Signals] = REQUESTS) -> None:
        self.numbers = numbers
        self.signal: int | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopRequest":
        for number in self.numbers:
            before = signal.getsignal(number)
            if before is signal.SIG_IGN:
                continue
            outer = getattr(before, "__self__", None)
            if isinstance(outer, StopRequest) and outer.signal is not None:
                self.signal = outer.signal
            self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGINT and self.signal == signal.SIGINT:
            raise KeyboardInterrupt  # whoever presses Ctrl-C again does not want to wait
        if self.signal != TIME_LIMIT:
            self.signal = number


class Interrupted(Exception):  # noqa: N818
    """The training was asked to stop and has written its checkpoint.

    time_limit: since the time limit of its job is near. progress: whether it got any further in this job.
    """

    def __init__(self, why: str, time_limit: bool = False, progress: bool = True) -> None:
        super().__init__(why)
        self.time_limit, self.progress = time_limit, progress


def run_as_job(
    train: Callable[[], None], wait_for_others: Callable[[], object] = lambda: None, first: bool = True
) -> None:
    """Run a training as a process: an interruption ends it with INTERRUPTED_STATUS.

    wait_for_others: meets the other processes of the training. The first to leave has srun or torchrun kill the others;
    by then the checkpoint must be whole and the job back in the queue. first: whether this one speaks for all.
    Before a time limit the job is put back into the queue. Raises StudyError if it got no further since it began: it
    would not in the next one either.
    """
    try:
        train()
    except Interrupted as stopped:
        wait_for_others()
        if stopped.time_limit and first and not stopped.progress:
            raise StudyError(
                "the time limit of this job was too short: from its start to the signal before its end no update "
                "and no validation was finished. Raise runtime of train in the profile (docs/cluster.md)."
            ) from None
        if stopped.time_limit and stopped.progress:
            if first:
                requeue()
            wait_for_others()
        logger.warning("%s; run again to go on.", stopped)
        sys.exit(INTERRUPTED_STATUS)


def requeue() -> None:
    """Put the SLURM job that Snakemake submitted for this training back into the queue; does nothing elsewhere.

    SLURM ends the job and starts it again under its number, so that Snakemake goes on waiting for it.
    """
    if not submitted():
        return
    job = os.environ["SLURM_JOB_ID"]
    try:
        subprocess.run(["scontrol", "requeue", job], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", None) or error
        logger.warning("job %s could not be put back into the queue: %s", job, str(said).strip())
    else:
        logger.info("job %s goes back into the queue and goes on from the checkpoint", job)
