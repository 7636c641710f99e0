"""Starts of Snakemake that cost no imports: each is forked from one process that has imported what no test changes.

A start takes 2 seconds of CPU time so, and 5 otherwise; the tests make some 150. The package itself is not imported
beforehand, since tests edit it.
"""

import atexit
import json
import os
import signal
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path


def snakemake(folder: Path, *arguments: str, patience_s: int = 1200) -> subprocess.CompletedProcess[str]:
    """Run Snakemake in `folder`, both streams in stdout; the status is negative if it had to be killed."""
    server = _server()
    assert server.stdin is not None
    assert server.stdout is not None
    with tempfile.NamedTemporaryFile() as said:
        request = {"folder": str(folder), "arguments": arguments, "said": said.name, "patience_s": patience_s}
        server.stdin.write(json.dumps(request) + "\n")
        server.stdin.flush()
        status = int(server.stdout.readline())
        return subprocess.CompletedProcess(arguments, status, Path(said.name).read_text())


@cache
def _server() -> subprocess.Popen[str]:
    """A process of its own for each that runs tests."""
    server = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    atexit.register(server.communicate)  # its input ends, and so does it
    return server


def _serve() -> None:
    import pandas  # noqa: F401
    import pyarrow.parquet  # noqa: F401
    import pydantic  # noqa: F401
    from snakemake.cli import main

    sys.path.pop(0)  # the folder of this file
    for line in sys.stdin:
        request = json.loads(line)
        process = os.fork()
        if not process:
            signal.alarm(request["patience_s"])
            streams = os.open(request["said"], os.O_WRONLY | os.O_APPEND)
            for stream, to in ((0, os.open(os.devnull, os.O_RDONLY)), (1, streams), (2, streams)):
                os.dup2(to, stream)
            os.chdir(request["folder"])
            sys.argv = ["snakemake", *request["arguments"]]
            main()  # ends by sys.exit
        print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)


if __name__ == "__main__":
    _serve()
