"""What a job says: plain lines into its log file, errors of the user without a traceback."""

import contextlib
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

from cxrscale.common.errors import StudyError
from cxrscale.common.provenance import require_checkout

#: Runs jobs and makes no value of a result; raised when a fix here changes results (docs/reruns.md).
RESULT_VERSION = 1


@contextlib.contextmanager
def job(log: str | Path, script: str | Path) -> Iterator[logging.Logger]:
    """Run a job's body with its log file open.

    log: the file that takes everything the job logs; warnings and errors go to standard error too.
    script: the `__file__` of the calling script; refuses to run a `cxrscale` of another checkout.
    A StudyError ends the process with status 1 and one readable message, as does a loss that is not finite. Other
    exceptions keep their traceback: errors of the system, which may pass, and bugs.
    """
    Path(log).parent.mkdir(parents=True, exist_ok=True)
    to_file = logging.FileHandler(log, mode="a", encoding="utf-8")
    to_file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    to_terminal = logging.StreamHandler(sys.stderr)
    to_terminal.setLevel(logging.WARNING)
    to_terminal.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[to_file, to_terminal], force=True)
    logging.captureWarnings(True)
    logger = logging.getLogger("cxrscale")
    try:
        require_checkout(script)
        yield logger
    except (StudyError, FloatingPointError) as error:
        logger.error("%s", error)
        sys.exit(1)
    except OSError:
        logger.exception("the system could not do what it was asked to; if that passes, run again to go on:")
        raise
    except Exception:
        logger.exception("this looks like a bug of cxrscale:")
        raise
