"""Does a training that was killed end as if nothing had happened? As many kills as asked for: benchmarks/kills.py 100

A small learner is trained undisturbed. Then others are trained that are stopped at random moments, in an update, in
validation, or while a file is written, and started again until they end: their weights must be the same to the bit.
Ways to stop: kill -9; SIGTERM to the training alone or to all its processes, as SLURM does; a disk that is full from
that moment on. Ways to train: one process or two, none or two workers that load.

A kill is counted where the training was still running. Ends with status 1 if weights differ, if a checkpoint was lost,
or if a training ended with another status than it should.

The training's script runs as it is, but for one thing: processes are forked, so that torch is imported once, and what
torchrun does for two of them is imitated.
"""

import argparse
import importlib.util
import json
import os
import random
import re
import resource
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from measure import Result, report
from pictures import make_stores, plain_files

from cxrscale.common import tables
from cxrscale.common.devices import as_launcher
from cxrscale.data.contracts import TARGETS
from cxrscale.train.interruption import INTERRUPTED_STATUS, StopRequest
from cxrscale.train.settings import RunSettings, TrainingSettings

SCRIPT = Path(__file__).parents[1] / "workflow/scripts/train.py"
SIZE_PX = 32
#: 32 images to train on: four updates an epoch, and a checkpoint after each.
SETTINGS = TrainingSettings(epochs=8, batch_images=8, norm_group_images=4, learning_rate=2e-3)
#: Processes and workers of the rounds, in turns. A round is a training that is killed several times.
WAYS = ((1, 2), (2, 0), (1, 0), (2, 2))
KILLS_A_ROUND = 5
#: How a training is stopped, and the status with which it should end.
STOPS = {
    "kill -9": -signal.SIGKILL,
    "SIGTERM": INTERRUPTED_STATUS,
    "SIGTERM to all": INTERRUPTED_STATUS,
    "full disk": 1,
}
WHERE = ("update", "validation", "writing")
PATIENCE_S = 120


def load_script() -> Any:
    """The training's script as a module."""
    spec = importlib.util.spec_from_file_location("train_script", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_study(folder: Path) -> list[str]:
    """A store and targets; returns the script's arguments but for the folder, the log and how it runs."""
    store = make_stores(plain_files(folder / "native", 48, 40), folder / "stores", [SIZE_PX], "lanczos")[SIZE_PX]
    numbers = pd.Series(range(len(store)))
    targets = pd.DataFrame({"image_id": store.image_ids, "subject_id": store.image_ids, "study_id": store.image_ids})
    targets["view"], targets["split"] = "PA", ["train"] * 32 + ["validate"] * (len(store) - 32)
    for finding, shows in {"A": numbers % 2, "B": numbers // 3 % 2}.items():
        targets[f"target:{finding}"], targets[f"mask:{finding}"] = shows.astype("int8"), numbers.ge(0).astype("int8")
    tables.write(TARGETS, targets, folder / "targets.parquet")
    index = folder / "stores" / str(SIZE_PX) / "index.parquet"
    return [
        "--model", "test_resnet", "--resolution-px", str(SIZE_PX), "--seed", "1", "--accelerator", "cpu",
        "--code", "code", "--geometry", "stretch", "--settings", json.dumps(asdict(SETTINGS)),
        "--targets", str(folder / "targets.parquet"), "--index", str(index),
    ]  # fmt: skip


class Moment:
    """The place in a training where it is to be stopped. There it tells the parent and waits to be killed."""

    def __init__(self, where: str, passes: int, act: Callable[[], None]) -> None:
        """where: of WHERE. passes: how often the place is passed before."""
        self.where, self.passes, self.act = where, passes, act

    def watch(self) -> None:
        """Look out for the moment in this process."""
        if self.where == "writing":
            synchronise = os.fsync

            def written(file: int) -> None:  # a file has its content, under a temporary name
                self.passed()
                synchronise(file)

            os.fsync = written
        else:
            torch.nn.modules.module.register_module_forward_pre_hook(self.forward)

    def forward(self, module: torch.nn.Module, _: Any) -> None:
        if module.training == (self.where == "update"):
            self.passed()

    def passed(self) -> None:
        self.passes -= 1
        if self.passes == -1:
            self.act()


def fill_disk() -> None:
    """From now on, no file can be written beyond a thousand bytes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def fork(body: Callable[[], object]) -> int:
    """Run the body in a new process; returns its id."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        body()
        status = 0
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else 1
    finally:
        sys.stdout.flush()
        os._exit(status)


def as_torchrun(processes: int, train: Callable[[int], object]) -> None:
    """What the launcher and torchrun do: start all, pass on a request to stop, end all where one fails."""
    with StopRequest() as stop:
        ranks = [fork(lambda rank=rank: train(rank)) for rank in range(processes)]  # type: ignore[misc]
        running, failed, told = set(ranks), 0, False
        while running:
            if stop.signal is not None and not told:
                for rank in running:
                    os.kill(rank, signal.SIGUSR1)
                told = True
            ended, status = os.waitpid(-1, os.WNOHANG)
            running.discard(ended)
            if ended and status and not failed:
                failed = max(os.waitstatus_to_exitcode(status), 1)
                for rank in running - {ended}:
                    os.kill(rank, signal.SIGTERM)
            time.sleep(0.02)
    if failed:
        sys.exit(INTERRUPTED_STATUS if stop.signal is not None else failed)


class Round:
    """One learner, in a folder of its own, trained by so many processes and workers."""

    def __init__(self, study: list[str], folder: Path, processes: int, workers: int) -> None:
        self.folder, self.processes, self.attempts = folder, processes, 0
        run = RunSettings(
            micro_batch_images=4, activation_checkpointing=False, channels_last=False, workers=workers, checkpoint_s=0
        )
        self.arguments = [*study, "--folder", str(folder), "--run", json.dumps(asdict(run))]
        self.position = (0, 0)
        self.lost = 0

    def attempt(self, where: str = "", stop: str = "", passes: int = 0) -> tuple[int, bool]:
        """Train, to the end or until stopped. Returns the exit status, and whether the moment to stop it came."""
        had = (self.folder / "checkpoint.pt").exists()
        self.attempts += 1
        log = self.folder.with_name(f"{self.folder.name}-{self.attempts}.log")
        hears, says = os.pipe()

        def come() -> None:
            if stop == "full disk":
                fill_disk()
            os.write(says, b".")
            time.sleep(0.5)  # in which it is killed, or asked to stop

        watched = random.randrange(self.processes)

        def train(rank: int) -> None:
            if rank == watched and where:
                Moment(where, passes, come).watch()
            if self.processes > 1:
                os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            script.main([*self.arguments, "--log", str(log)])

        def job() -> None:
            os.setsid()
            os.close(hears)
            sys.stderr = log.with_suffix(".err").open("w")
            if self.processes == 1:
                train(0)
            else:
                with free_port() as port:
                    os.environ |= as_launcher() | {
                        "WORLD_SIZE": str(self.processes), "LOCAL_WORLD_SIZE": str(self.processes),
                        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
                    }  # fmt: skip
                    as_torchrun(self.processes, train)

        child = fork(job)
        os.close(says)
        came = bool(os.read(hears, 1))  # nothing once all have ended
        os.close(hears)
        if came and stop == "kill -9":
            os.kill(child, signal.SIGKILL)
        elif came and stop.startswith("SIGTERM"):
            (os.killpg if stop.endswith("all") else os.kill)(child, signal.SIGTERM)
        status = wait(child)
        self._check(log, had)
        return status, came

    def _check(self, log: Path, had_checkpoint: bool) -> None:
        """Count it if the training went on from an earlier update than one before it, or not from its checkpoint."""
        said = log.read_text(encoding="utf-8")
        if "it was brought back" in said:  # it was killed after all was done
            return
        found = re.search(r"going on from epoch (\d+), update (\d+)", said)
        position = (int(found[1]), int(found[2])) if found else (0, 0)
        if (had_checkpoint and not found) or position < self.position or list(self.folder.glob("*.damaged*")):
            self.lost += 1
            print(f"{log}: a checkpoint was lost: {position} after {self.position}")
        self.position = max(position, self.position)

    @property
    def weights(self) -> bytes:
        return (self.folder / "weights.safetensors").read_bytes()


def wait(child: int) -> int:
    """The exit status of a process, minus the signal that killed it. Raises SystemExit where it does not end."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    raise SystemExit(f"a training did not end within {PATIENCE_S} s")


@contextmanager
def free_port() -> Iterator[int]:
    """A port of this host on which a program may listen, kept from being given to any other."""
    with socket.socket() as kept:
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # bound here without listening: others may listen
        kept.bind(("127.0.0.1", 0))
        yield kept.getsockname()[1]


def kill_often(study: list[str], folder: Path, kills: int) -> tuple[int, int, int]:
    """Returns how many learners differ, checkpoints were lost and trainings ended with another status than due."""
    warm_up = Round(study, folder / "warm-up", 1, 0)
    script.main([*warm_up.arguments, "--log", str(folder / "warm-up.log")])  # imports what those to come need
    undisturbed: dict[int, bytes] = {}
    done = number = differ = lost = unexpected = 0
    while done < kills:
        processes, workers = WAYS[number % len(WAYS)]
        if processes not in undisturbed:
            calm = Round(study, folder / f"undisturbed-{processes}", processes, 0)
            if (ended := calm.attempt()[0]) != 0:
                raise SystemExit(f"the undisturbed training ended with {ended}: {folder}")
            undisturbed[processes] = calm.weights
        killed = Round(study, folder / f"killed-{number}", processes, workers)
        for _ in range(min(KILLS_A_ROUND, kills - done)):
            stop = random.choice(list(STOPS))
            where = "writing" if stop == "full disk" else random.choice(WHERE)
            status, came = killed.attempt(where, stop, random.randrange(8 if where == "writing" else 150))
            if not came:  # it was trained before the moment came
                break
            done += 1
            print(f"{processes} processes, {workers} workers: {stop} in {where}: ended with {status}", flush=True)
            if status not in (STOPS[stop], 0):
                unexpected += 1
                print(f"  due was {STOPS[stop]}: {killed.folder}-{killed.attempts}.log")
        if (ended := killed.attempt()[0]) != 0:
            unexpected += 1
            print(f"  started once more it ended with {ended}: {killed.folder}-{killed.attempts}.log")
        elif killed.weights != undisturbed[processes]:
            differ += 1
            print(f"  its weights differ: {killed.folder}")
        lost += killed.lost
        number += 1
    return differ, lost, unexpected


def main(given: argparse.Namespace) -> int:
    torch.set_num_threads(1)
    random.seed(given.seed)
    print(f"seed {given.seed}")
    folder = Path(given.keep or tempfile.mkdtemp(prefix="cxrscale-kills-"))
    folder.mkdir(parents=True, exist_ok=True)
    differ, lost, unexpected = kill_often(make_study(folder), folder, given.kills)
    report(
        [
            Result("kills", given.kills, ""),
            Result("  learners with other weights", differ, "", "<= 0"),
            Result("  checkpoints lost", lost, "", "<= 0"),
            Result("  ends with another status", unexpected, "", "<= 0"),
        ]
    )
    if differ or lost or unexpected:
        print(f"what was found lies in {folder}")
        return 1
    if not given.keep:
        import shutil

        shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    script = load_script()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kills", type=int, help="how many")
    parser.add_argument("--seed", type=int, default=random.randrange(2**31), help="of the moments; drawn without")
    parser.add_argument("--keep", metavar="FOLDER", help="where to work, and leave all there")
    sys.exit(main(parser.parse_args()))
