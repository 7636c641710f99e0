"""What a job says: plain lines into its log file, errors of the user without a traceback."""

import contextlib
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

from cxrscale.common.errors import StudyError
from cxrscale.common.provenance import require_checkout


@contextlib.contextmanager
def job(log: str | Path, script: str | Path) -> Iterator[logging.Logger]:
    """Run a job's body with its log file open.

    log: the file that takes everything the job logs; warnings and errors go to standard error too.
    script: the `__file__` of the calling script; refuses to run a `cxrscale` of another checkout.
    A StudyError ends the process with status 1 and one readable message; other exceptions keep their traceback.
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
    except StudyError as error:
        logger.error("%s", error)
        sys.exit(1)
    except Exception:
        logger.exception("this looks like a bug of cxrscale:")
        raise
