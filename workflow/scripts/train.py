"""Train one learner. Launched as a process of its own; asked for several, it has torchrun start them."""

import argparse
import json
import logging
import os
import sys
from pathlib import Path

from cxrscale.common import tables
from cxrscale.common.devices import launched, leased, started_together, submitted
from cxrscale.common.joblog import job
from cxrscale.data.contracts import TARGETS
from cxrscale.train.interruption import TIME_LIMIT, StopRequest, run_as_job
from cxrscale.train.launch import launch


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="the learner's folder")
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--code", required=True, help="digest of the code under which the learner is filed")
    parser.add_argument("--model", required=True, help="timm name")
    parser.add_argument("--resolution-px", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--settings", type=json.loads, required=True, help="TrainingSettings as JSON")
    parser.add_argument("--targets", type=Path, required=True)
    parser.add_argument("--index", type=Path, required=True, help="of the store at this resolution")
    parser.add_argument("--geometry", choices=["stretch", "pad"], required=True, help="of the store")
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
    if not launched():
        os.environ.pop("RANK", None)  # of a pod that this runs in, say
        if given.nodes == 1:
            os.environ.pop("SLURM_STEP_NUM_TASKS", None)  # of a shell that srun started with several tasks
    with StopRequest([TIME_LIMIT]):  # from the start: pictures may be staged for hours
        start(given, arguments)


def start(given: argparse.Namespace, arguments: list[str] | None) -> None:
    if given.nodes > 1 and not (submitted() and started_together()):
        raise SystemExit(
            "training.nodes above 1 needs SLURM, and a job that Snakemake submits to it, so that its GPUs are its own: "
            "snakemake --workflow-profile profiles/slurm"
        )
    if started_together():
        with job(given.log, __file__):
            train_here(given)
        return
    with job(given.log, __file__) as log, leased(given.accelerator, given.processes) as devices:
        processes = len(devices) or given.processes
        if processes > 1:
            log.info("starting %d processes", processes)
            launch(__file__, processes, sys.argv[1:] if arguments is None else arguments)
        else:
            train_here(given)


def train_here(given: argparse.Namespace) -> None:
    """Train in this process, alone or as one of several."""
    import torch  # after the lease, which says which GPU this process may see

    from cxrscale.common.provenance import code_digest, file_digest
    from cxrscale.store.reader import StoreReader
    from cxrscale.store.staging import staged
    from cxrscale.train.distributed import join, leave
    from cxrscale.train.learner import Origin
    from cxrscale.train.settings import RunSettings, TrainingSettings
    from cxrscale.train.task import Task
    from cxrscale.train.training import train_learner

    run = tables.settings_from(RunSettings, given.run)
    processes = join(given.accelerator)
    torch.set_num_threads(max(given.threads // (given.processes if given.nodes == 1 else 1), 1))
    torch.backends.cudnn.benchmark = True  # all batches have one shape
    origin = Origin(
        code=code_digest(__file__),  # as it is, whatever it is filed under
        store=given.index.parent.parent.name,
        index=file_digest(given.index),
        targets=file_digest(given.targets),
        initial_weights=file_digest(given.weights) if given.weights else None,
    )
    log = logging.getLogger("cxrscale")
    if not processes.first:
        log.setLevel(logging.WARNING)
    log.info("%s", origin)
    try:
        pictures = staged(given.index.parent, run.stage_dir)  # for hours, maybe
        task = Task(
            folder=given.folder,
            model=given.model,
            resolution_px=given.resolution_px,
            seed=given.seed,
            settings=tables.settings_from(TrainingSettings, given.settings),
            run=run,
            targets=tables.read(TARGETS, given.targets),
            store=StoreReader(pictures, given.native_at_least_px),
            weights=given.weights,
            origin=origin,
            geometry=given.geometry,
            filed_as=given.code,
            progress=sys.stderr.isatty(),
        )
        processes.meet()  # one host may have had pictures to copy, and the others none
        run_as_job(lambda: train_learner(task, processes), lambda: processes.total(0.0), processes.first)
    finally:
        leave(processes)


if __name__ == "__main__":
    main()
