"""Starts of Snakemake that cost no imports: each is forked from one process that has imported what no test changes.

A start takes 2 seconds of CPU time so, and 5 otherwise; the tests make some 150. The package itself is not imported
beforehand, since tests edit it, and nothing heavy may be imported here: each start imports this module.
"""

import multiprocessing
import os
import subprocess
import sys
import tempfile
from pathlib import Path

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["snakemake.cli", "pandas", "pyarrow.parquet", "pydantic"])


def snakemake(folder: Path, *arguments: str, patience_s: float = 1200) -> subprocess.CompletedProcess[str]:
    """Run Snakemake in `folder`, both streams in stdout; the status is negative if it had to be killed."""
    with tempfile.TemporaryFile() as said:
        process = FORKS.Process(target=_run, args=(folder, arguments, f"/proc/{os.getpid()}/fd/{said.fileno()}"))
        process.start()
        process.join(patience_s)
        if process.exitcode is None:
            process.kill()
            process.join()
        said.seek(0)
        assert process.exitcode is not None
        return subprocess.CompletedProcess(arguments, process.exitcode, said.read().decode())


def _run(folder: Path, arguments: tuple[str, ...], said: str) -> None:
    """Be the program `snakemake` from here on."""
    streams = os.open(said, os.O_WRONLY | os.O_APPEND)
    os.dup2(streams, 1)
    os.dup2(streams, 2)
    os.chdir(folder)
    from snakemake.cli import main

    sys.argv = ["snakemake", *arguments]
    main()
