"""Train one learner. Launched as a process of its own; asked for several, it has torchrun start them."""

import argparse
import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

from cxrscale.common import tables
from cxrscale.common.devices import end_with_parent, leased, started_together
from cxrscale.common.joblog import job
from cxrscale.data.contracts import TARGETS


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="the learner's folder")
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--code", required=True, help="digest of the code; a checkpoint of other code is set aside")
    parser.add_argument("--model", required=True, help="timm name")
    parser.add_argument("--resolution-px", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--settings", type=json.loads, required=True, help="TrainingSettings as JSON")
    parser.add_argument("--targets", type=Path, required=True)
    parser.add_argument("--index", type=Path, required=True, help="of the store at this resolution")
    parser.add_argument("--native-at-least-px", type=int, default=0, help="leave out images with smaller native files")
    parser.add_argument("--weights", type=Path, help="initial weights; random without")
    parser.add_argument("--accelerator", choices=["cuda", "cpu"], required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--processes", type=int, default=1, help="that train together on this host, a GPU each")
    parser.add_argument("--nodes", type=int, default=1, help="of a cluster, each with so many processes, under srun")
    parser.add_argument("--run", type=json.loads, default={}, help="RunSettings as JSON")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    given = parse(arguments)
    if started_together():
        if "RANK" in os.environ:
            end_with_parent()  # torchrun
        with job(given.log, __file__):
            train_here(given)
        return
    if given.nodes > 1:
        raise SystemExit("training.nodes above 1 needs SLURM: snakemake --workflow-profile profiles/slurm")
    with job(given.log, __file__) as log, leased(given.accelerator, given.processes) as devices:
        processes = len(devices) or given.processes
        if processes > 1:
            log.info("starting %d processes", processes)
            launch(processes, sys.argv[1:] if arguments is None else arguments)
        else:
            train_here(given)


def launch(processes: int, arguments: list[str]) -> None:
    """Have torchrun start this script several times, pass a request to stop on to all, and end as they do."""
    import psutil

    from cxrscale.train.interruption import INTERRUPTED_STATUS, StopRequest

    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    with StopRequest() as stop:
        running = subprocess.Popen([*torchrun, "--", __file__, *arguments], preexec_fn=end_with_parent)
        try:
            told = False
            while running.poll() is None:
                if stop.signal is not None and not told:
                    for training in psutil.Process(running.pid).children():
                        training.send_signal(signal.SIGUSR1)
                    told = True
                with contextlib.suppress(subprocess.TimeoutExpired):
                    running.wait(0.5)
        finally:
            if running.poll() is None:
                running.terminate()  # torchrun ends its processes
                running.wait()
    if running.returncode:
        sys.exit(INTERRUPTED_STATUS if stop.signal is not None else running.returncode)


def train_here(given: argparse.Namespace) -> None:
    """Train in this process, alone or as one of several."""
    import torch  # after the lease, which says which GPU this process may see

    from cxrscale.common.provenance import digest, file_digest
    from cxrscale.store.reader import StoreReader
    from cxrscale.store.staging import staged
    from cxrscale.train.distributed import join, leave
    from cxrscale.train.interruption import run_as_job
    from cxrscale.train.settings import RunSettings, TrainingSettings
    from cxrscale.train.training import train_learner

    processes = join(given.accelerator)
    torch.set_num_threads(max(given.threads // (given.processes if given.nodes == 1 else 1), 1))
    torch.backends.cudnn.benchmark = True  # all batches have one shape
    data = [file_digest(path) for path in (given.targets, given.index, given.weights) if path]
    log = logging.getLogger("cxrscale")
    if not processes.first:
        log.setLevel(logging.WARNING)
    log.info("digest of code %s, of data %s", given.code, digest(data))
    run = tables.settings_from(RunSettings, given.run)
    try:
        run_as_job(
            lambda: train_learner(
                folder=given.folder,
                model_name=given.model,
                resolution_px=given.resolution_px,
                seed=given.seed,
                settings=tables.settings_from(TrainingSettings, given.settings),
                run=run,
                targets=tables.read(TARGETS, given.targets),
                store=StoreReader(staged(given.index.parent, run.stage_dir), given.native_at_least_px),
                weights=given.weights,
                inputs_digest=digest([given.code, data, given.native_at_least_px]),
                processes=processes,
                progress=sys.stderr.isatty(),
            )
        )
    finally:
        leave()


if __name__ == "__main__":
    main()
