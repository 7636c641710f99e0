"""Trainings by several processes, with faults in one of them: forked, so that torch is imported once.

Run as a program: `ranks.py FOLDER < arguments`, where the arguments are pickled. It prints what became of each rank in
each of SCENARIOS, as JSON.
"""

import errno
import json
import logging
import os
import pickle
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.utils.tensorboard  # once, not in each process

from cxrscale.common.devices import EnergyMeter
from cxrscale.train.distributed import Processes, join, leave
from cxrscale.train.interruption import Interrupted
from cxrscale.train.micro_batch import MicroBatch
from cxrscale.train.task import Task
from cxrscale.train.training import Training, train_learner
from cxrscale.train.update import Updater
from cxrscale.train.watch import Patience

CASES = ("sleeps", "is stopped", "is late")
Fault = Callable[[int, int], Any]


def start(world: int, folder: Path, body: Callable[[int], Any]) -> list[int]:
    """Run the body in so many processes, which write what it returned or raised; returns them."""
    children = []
    with socket.socket() as kept:  # no other program is given its port; bound without listening, it lets others listen
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        kept.bind(("127.0.0.1", 0))
        port = kept.getsockname()[1]
        for rank in range(world):
            child = os.fork()
            if not child:
                os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
                os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
                status = 0
                try:
                    said = str(body(rank))
                except Exception as error:
                    said, status = f"{type(error).__name__}: {error}", 1
                (folder / f"said-{rank}").write_text(said)
                os._exit(status)
            children.append(child)
    return children


def fork(world: int, folder: Path, body: Callable[[int], Any]) -> list[str]:
    """Run the body in so many processes; returns what it returned or raised, of each rank."""
    for child in start(world, folder, body):
        os.waitpid(child, 0)
    return [(folder / f"said-{rank}").read_text() for rank in range(world)]


def train(task: Task, world: int, faulty: int | None = None, fault: Fault = lambda *_: None) -> list[str]:
    """Train together; the fault is called in the faulty rank beforehand."""
    task.folder.mkdir(exist_ok=True)

    def body(rank: int) -> Any:
        if rank == faulty:
            fault(rank, world)
        processes = join("cpu")
        try:
            train_learner(task, processes)
        except Interrupted as stopped:
            return f"Interrupted: time limit {stopped.time_limit}"
        finally:
            leave(processes)
        return "trained"

    return fork(world, task.folder, body)


def stale_checkpoint(*_: int) -> None:
    read = Path.read_bytes

    def stale(path: Path) -> bytes:
        if path.name == "checkpoint.pt":
            raise OSError(errno.ESTALE, "Stale file handle")
        return read(path)

    Path.read_bytes = stale


def other_task(*_: int) -> None:
    Task.digest = "f" * 16


def other_weights_at_start(*_: int) -> None:
    begin = Updater.begin

    def other(self: Updater, state: Any) -> None:
        begin(self, state)
        with torch.no_grad():
            self.parameters[0].view(-1)[0] += 1e-3

    Updater.begin = other


def other_moments_later(*_: int) -> None:
    update = Updater.update

    def other(self: Updater, *given: Any) -> Any:
        found = update(self, *given)
        self.optimiser.state[self.parameters[0]]["exp_avg"].view(-1)[0] += 1e-3
        return found

    Updater.update = other


def other_position(*_: int) -> None:
    restore = Training._compare

    def other(self: Training) -> None:
        self.state.update += 1
        restore(self)

    Training._compare = other


def other_parts(*_: int) -> None:
    def choose(self: MicroBatch, found: Any = None) -> None:
        self.take_over({"way": [4, False], "channels_last": False})

    MicroBatch.choose = choose


def no_energy(*_: int) -> None:
    EnergyMeter.take = lambda self: None


def broken_forward(*_: int) -> None:
    gradients = Updater._gradients

    def broken(self: Updater, batch: Any, pictures: Any) -> Any:
        def fails() -> Any:
            raise ValueError("a damaged picture")
            yield

        return gradients(self, batch, fails() if batch.number == 1 else pictures)

    Updater._gradients = broken


def asked_to_stop(rank: int, world: int, number: int = signal.SIGTERM) -> None:
    """One rank alone is asked to stop, in its first update."""
    gradients = Updater._gradients

    def asked(self: Updater, *given: Any) -> Any:
        os.kill(os.getpid(), number)
        return gradients(self, *given)

    Updater._gradients = asked


def told_of_its_time_limit(rank: int, world: int) -> None:
    asked_to_stop(rank, world, signal.SIGURG)


FAULTS = {
    f.__name__: f
    for f in (
        other_task,
        other_weights_at_start,
        other_moments_later,
        other_position,
        other_parts,
        no_energy,
        broken_forward,
        told_of_its_time_limit,
    )
}


def missing(case: str, world: int, faulty: int, folder: Path) -> list[int]:
    """Start ranks of which one is missing between two messages; returns the processes."""
    folder.mkdir()

    def body(rank: int) -> Any:
        logging.basicConfig(filename=folder / f"log-{rank}", level=logging.ERROR, format="%(message)s", force=True)
        patience = {"sleeps": Patience(0.1, 60, 3), "is stopped": Patience(0.1, 6, 60), "is late": Patience(0.1, 60, 3)}
        processes = join("cpu", patience[case])
        if rank == faulty and case == "is late":
            time.sleep(7)
        processes.meet()
        processes.total(1.0)
        if rank == faulty and case == "sleeps":
            time.sleep(60)
        if rank == faulty and case == "is stopped":
            signal.raise_signal(signal.SIGSTOP)
        total = processes.total(1.0)
        leave(processes)
        return total

    return start(world, folder, body)


def watched(folder: Path, case: str) -> dict[str, Any]:
    """What becomes of ranks of which one is missing: the exit status and log of each."""
    cases = [(case, world, faulty) for world in (2, 4) for faulty in (0, world - 1)]
    groups = [missing(*case, folder / "-".join(map(str, case))) for case in cases]
    found = {}
    for (case, world, faulty), children in zip(cases, groups, strict=True):
        others = [child for rank, child in enumerate(children) if case != "is stopped" or rank != faulty]
        ends = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in others]
        for child in set(children) - set(others):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        name = f"{case}-{world}-{faulty}"
        logs = [(folder / name / f"log-{rank}").read_text() for rank in range(world)]
        found[name] = {"ends": ends, "logs": logs}
    return found


def outcome(task: Task, said: list[str]) -> dict[str, Any]:
    """What a training leaves."""
    weights, cost = task.folder / "weights.safetensors", task.folder / "cost.json"
    checkpoint = task.folder / "checkpoint.pt"
    return {
        "said": said,
        "weights": weights.read_bytes().hex()[-20_000:] if weights.is_file() else None,
        "cost": json.loads(cost.read_text()) if cost.is_file() else None,
        "checkpoint": checkpoint.is_file() and torch.load(checkpoint, weights_only=True)["state"]["update"],
        "aside": len(list(task.folder.glob("*.damaged*"))),
    }


def main(arguments: dict[str, Any], folder: Path) -> dict[str, Any]:
    torch.set_num_threads(1)
    EnergyMeter.take = lambda self: 5.0
    found: dict[str, Any] = {}
    for case in CASES:
        found |= watched(folder, case)

    def task(name: str) -> Task:
        return Task(folder=folder / name, **arguments)

    longer = replace(arguments["settings"], epochs=2, ema_decay=0.9)
    several = {world: replace(task(f"several-{world}"), settings=longer) for world in (1, 2, 4)}
    train_learner(several[1], Processes(0, 1, torch.device("cpu")))  # imports what those to come need
    for world in (2, 4):
        assert train(several[world], world) == ["trained"] * world
        whole = task(f"whole-{world}")
        found[f"whole-{world}"] = outcome(whole, train(whole, world))
        for faulty in (0, world - 1):
            of = f"{world}-{faulty}"
            stopped = task(f"stopped-{of}")
            found[f"stopped-{of}"] = outcome(stopped, train(stopped, world, faulty, asked_to_stop))
            found[f"stale-{of}"] = outcome(stopped, train(stopped, world, faulty, stale_checkpoint))
            found[f"again-{of}"] = outcome(stopped, train(stopped, world))
            for name, fault in FAULTS.items():
                if world == 2 or name in ("other_weights_at_start", "other_parts"):
                    given = task(f"{name}-{of}")
                    found[given.folder.name] = outcome(given, train(given, world, faulty, fault))
    return found


if __name__ == "__main__":
    given = pickle.loads(sys.stdin.buffer.read())
    given["run"] = replace(given["run"], checkpoint_s=10**6)
    print(json.dumps(main(given, Path(sys.argv[1]))))
