"""Several processes of this host that train one learner together, started by torchrun."""

import contextlib
import signal
import subprocess
import sys

from cxrscale.common.devices import as_launcher, end_with_parent
from cxrscale.train.interruption import INTERRUPTED_STATUS, TIME_LIMIT, StopRequest

#: Runs jobs and makes no value of a result; raised when a fix here changes results (docs/reruns.md).
RESULT_VERSION = 1


def launch(script: str, processes: int, arguments: list[str]) -> None:
    """Have torchrun start a script several times, pass a request to stop on to all, and end as they do.

    script: its file. arguments: its own. Raises SystemExit with the status with which the processes ended, if not 0.
    """
    import psutil  # only several processes need it

    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    with StopRequest() as stop:
        command = [*torchrun, "--", script, *arguments]
        running = subprocess.Popen(command, env=as_launcher(), preexec_fn=end_with_parent)
        try:
            told: set[psutil.Process] = set()
            while running.poll() is None:
                if stop.signal is not None:  # in its first seconds torchrun has not started all yet
                    for training in set(psutil.Process(running.pid).children()) - told:
                        training.send_signal(TIME_LIMIT if stop.signal == TIME_LIMIT else signal.SIGUSR1)
                        told.add(training)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    running.wait(0.5)
        finally:
            if running.poll() is None:
                running.terminate()  # torchrun ends its processes
                running.wait()
    if running.returncode:
        sys.exit(INTERRUPTED_STATUS if stop.signal is not None else running.returncode)
