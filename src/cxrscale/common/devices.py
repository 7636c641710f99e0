"""Devices: a job leases the GPUs it uses, so that two jobs on one host never share one.

Snakemake's `gpu` resource limits how many jobs run at once but hands nobody a device. A lease is a name that the job's
own process holds in the kernel, one a card: a bound abstract Unix socket, of which there can be one of a name. It lies
in no folder, so that it is the same for all users, and it ends with the process, however that ends. A card has one
name, its UUID, whatever CUDA_VISIBLE_DEVICES calls it. What SLURM gave to a job is leased too, since several jobs may
share an allocation; only a job that Snakemake itself submitted to SLURM has its GPUs for itself.

Abstract sockets are those of a network namespace: jobs in two containers see each other's leases if both run in the
host's (`docker run --network host`; Apptainer does by itself). Linux only, as CUDA here. Importing this module imports
no torch, since CUDA_VISIBLE_DEVICES must be set before CUDA starts.
"""

import contextlib
import ctypes
import errno
import logging
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from cxrscale.common.errors import StudyError
from cxrscale.common.process_names import is_above, own_name

#: Runs jobs and makes no value of a result; raised when a fix here changes results (docs/reruns.md).
RESULT_VERSION = 1

logger = logging.getLogger(__name__)

VISIBLE = "CUDA_VISIBLE_DEVICES"
#: Set by the workflow in a job that Snakemake submitted to SLURM for one step: the number of the SLURM job.
SUBMITTED = "CXRSCALE_SUBMITTED_JOB"
#: Set for processes that train together: the name of the process that started them and holds their GPUs.
LAUNCHER = "CXRSCALE_LEASE"


class EnergyMeter:
    """Energy that a GPU has used, by NVML; measures nothing on a CPU, and where NVML cannot tell.

    Within `with`, `take` returns the joules since it was asked last, or None. An error of NVML is logged, and from
    then on it is None; nothing is raised.
    """

    def __init__(self, device: Any) -> None:
        self._index = None if device.type != "cuda" else device.index or 0
        self._handle: Any = None
        self._before = 0
        self._close: Callable[[], object] = lambda: None

    def __enter__(self) -> "EnergyMeter":
        if self._index is not None:
            try:
                import pynvml
                import torch

                pynvml.nvmlInit()
                self._close = pynvml.nvmlShutdown
                uuid = f"GPU-{torch.cuda.get_device_properties(self._index).uuid}"
                self._handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
                self._read = pynvml.nvmlDeviceGetTotalEnergyConsumption
                self._before = self._read(self._handle)
            except Exception as error:  # no NVML, an old GPU, a part of one: each with an exception of its own
                logger.info("energy is not measured: %s", error)
                self._handle = None
        return self

    def take(self) -> float | None:
        if self._handle is None:
            return None
        try:
            before, self._before = self._before, self._read(self._handle)
        except Exception as error:  # the driver, not the training: no reason to end it
            logger.warning("energy is no longer measured: %s", error)
            self._handle = None
            return None
        return (self._before - before) / 1000  # NVML counts millijoules

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(Exception):
            self._close()


def end_with_parent() -> None:
    """Have the kernel kill this process when the one that started it ends, however that ends (Linux only).

    What a lease's holder has started uses the same devices, and must be gone when the lease is.
    """
    if sys.platform == "linux":
        set_parent_death_signal = 1  # PR_SET_PDEATHSIG of prctl(2)
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)


def as_launcher() -> dict[str, str]:
    """The environment in which this process, which holds their devices, starts those that train together."""
    return {**os.environ, LAUNCHER: own_name()}


def launched() -> bool:
    """Whether torchrun started this process for one that holds its devices (`as_launcher`).

    Then it ends with those above it, and at once (SystemExit) if they have ended before it came to that.
    """
    if LAUNCHER not in os.environ:
        return False
    end_with_parent()
    if not is_above(os.environ[LAUNCHER]):
        raise SystemExit("the process that started this training and held its GPUs has ended")
    return True


def started_together() -> bool:
    """Whether torchrun or srun started this process as one of several, and gave it its devices."""
    return "RANK" in os.environ or int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1


@dataclass(frozen=True)
class Card:
    """A GPU or a part of one (MIG). uuid: its one name; index: nvidia-smi's, of the GPU; gpu: the UUID of the GPU."""

    uuid: str
    index: str
    gpu: str


def visible_cards() -> list[Card]:
    """The cards of this host that the process may use, each once.

    All that nvidia-smi lists or, where CUDA_VISIBLE_DEVICES is set, those that it names: by nvidia-smi's index (the
    order of the PCI bus, whatever CUDA_DEVICE_ORDER says), by UUID or the beginning of one. As for CUDA, a name of
    nothing ends the list. Of a GPU that is divided (MIG) the parts are listed and never the whole, on which CUDA can't
    compute. Without nvidia-smi, UUIDs are taken as they are. Raises StudyError if an index cannot be looked up.
    """
    cards = _listed_cards()
    named = os.environ.get(VISIBLE)
    if named is None:
        return cards or []
    found: dict[str, Card] = {}
    for name in filter(None, map(str.strip, named.split(","))):
        if cards is not None:
            chosen = _called(name, cards)
        elif name.isdecimal():
            raise StudyError(
                f"{VISIBLE} is {named}, but nvidia-smi can't be run to say which GPU {name} is, so jobs could share it "
                f"unseen. Put nvidia-smi on PATH (in a container: NVIDIA_DRIVER_CAPABILITIES=compute,utility), or name "
                f"GPUs by their UUIDs."
            )
        else:
            chosen = [Card(name, "", name)] if name.startswith(("GPU-", "MIG-")) else []
        if not chosen:
            break
        found.update({card.uuid: card for card in chosen})
    return list(found.values())


def _called(name: str, cards: list[Card]) -> list[Card]:
    """The card of that name, or the parts of that GPU; none where several begin so."""
    if name.isdecimal():
        return [card for card in cards if card.index == name]
    gpus = {card.gpu for card in cards if card.gpu.lower().startswith(name.lower())}
    parts = {card.uuid for card in cards if card.uuid.lower().startswith(name.lower())} - gpus
    return [card for card in cards if card.gpu in gpus or card.uuid in parts] if len(gpus | parts) == 1 else []


def _listed_cards() -> list[Card] | None:
    """What `nvidia-smi -L` lists; None where there is none."""
    try:
        # A broken card makes its status an error, though it lists the others.
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=120, check=False).stdout
    except OSError:
        return None
    except subprocess.TimeoutExpired as error:
        raise StudyError("nvidia-smi -L gave no answer within 2 minutes: this host's driver hangs.") from error
    cards: list[Card] = []
    for line in listed.splitlines():
        if gpu := re.match(r"GPU (\d+): .*\(UUID: (GPU-[^)\s]+)\)", line):
            cards.append(Card(gpu[2], gpu[1], gpu[2]))
        elif cards and (part := re.match(r"\s+MIG .*\(UUID: (MIG-[^)\s]+)\)", line)):
            whole = cards[-1]
            if whole.uuid == whole.gpu:
                cards.pop()
            cards.append(Card(part[1], whole.index, whole.gpu))
    return cards


@contextlib.contextmanager
def leased(accelerator: str, count: int = 1, poll_s: float = 0.5) -> Iterator[list[str]]:
    """Hold `count` of the visible cards while the body runs; CUDA_VISIBLE_DEVICES names them, by UUID.

    accelerator: "cpu" holds nothing and yields []. Yields the names. All are taken at once or none, so that jobs that
    want several cannot block each other; while too few are free it waits, and says once for whom. Where fewer exist
    than were asked for, all of them are taken and a warning says so; so is one where all are parts of GPUs (MIG), since
    CUDA uses one of those a process. Raises StudyError if there is none.
    """
    if accelerator == "cpu":
        yield []
        return
    if (given := _given_by_slurm()) is not None:
        yield given[: _possible(count, given)]
        return
    cards = visible_cards()
    if not cards:
        named = os.environ.get(VISIBLE)
        seen = "this host shows no GPU" if named is None else f"{VISIBLE}={named} names no GPU of this host"
        raise StudyError(f"accelerator is cuda, but {seen}. Set accelerator: cpu, or check nvidia-smi.")
    whole = [card.uuid for card in cards if card.uuid == card.gpu]
    names = whole if whole and count > 1 else [card.uuid for card in cards]
    count = _possible(count, whole or names[:1])
    with contextlib.ExitStack() as held:
        taken = _take(names, count, held, poll_s)
        before = os.environ.get(VISIBLE)
        os.environ[VISIBLE] = ",".join(taken)
        logger.info("leased %s", ", ".join(taken))
        try:
            yield taken
        finally:
            os.environ.pop(VISIBLE)
            if before is not None:
                os.environ[VISIBLE] = before


def submitted() -> bool:
    """Whether Snakemake's executor submitted the SLURM job that this process runs in, for the one rule that it runs.

    An allocation is not enough: in one of salloc, of JupyterHub or of an sbatch that runs Snakemake there are several
    jobs. `SUBMITTED` must name the very SLURM job, in case it was passed on to another.
    """
    job = os.environ.get("SLURM_JOB_ID")
    return job is not None and job == os.environ.get(SUBMITTED)


def _given_by_slurm() -> list[str] | None:
    """The GPUs that SLURM gave to this job alone, as it names them; None where it did not, or others may use them."""
    given = [name for name in os.environ.get(VISIBLE, "").split(",") if name.strip()]
    return given if given and submitted() else None


def _possible(count: int, names: list[str]) -> int:
    if count > len(names):
        logger.warning("%d GPUs were asked for, this host shows %d; going on with those.", count, len(names))
    return min(count, len(names))


def _take(names: list[str], count: int, held: contextlib.ExitStack, poll_s: float) -> list[str]:
    """Wait until `count` of the cards are free and hold them until `held` is closed."""
    said = False
    while True:
        # One job at a time tries: two jobs that each grab half of what both want would go on so.
        with contextlib.ExitStack() as trying:
            if _hold("gate", trying):
                taken: list[str] = []
                with contextlib.ExitStack() as cards:
                    for name in names:
                        if len(taken) < count and _hold(name, cards):
                            taken.append(name)
                    if len(taken) == count:
                        held.enter_context(cards.pop_all())
                        return taken
                if not said:
                    busy = ", ".join(f"{name} ({_holder(name)})" for name in names)
                    logger.info("waiting for %d of %s", count, busy)
                    said = True
            wait_s = poll_s if said else 0.01
        time.sleep(wait_s)


def _hold(name: str, stack: contextlib.ExitStack) -> bool:
    """Hold a name until the stack is closed, or this process ends; False if another process holds it."""
    bound = socket.socket(socket.AF_UNIX)
    try:
        bound.bind(f"\0cxrscale/{name}")
        bound.listen()  # so that others may ask who holds it
    except OSError as error:
        bound.close()
        if error.errno != errno.EADDRINUSE:
            raise
        return False
    stack.enter_context(bound)
    return True


def _holder(name: str) -> str:
    """Who holds a name, in words."""
    with socket.socket(socket.AF_UNIX) as asking:
        asking.setblocking(False)
        try:
            asking.connect(f"\0cxrscale/{name}")
            process, user, _ = struct.unpack("3i", asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        except ConnectionRefusedError:
            return "free"
        except OSError:
            return "held"
    return f"held by process {process} of user {user}"
