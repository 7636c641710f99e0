"""Devices: a job leases the GPUs it uses, so that two jobs on one host never share one.

Snakemake's `gpu` resource limits how many jobs run at once but hands nobody a device. A lease is a file lock, one file
a device, held by the job's own process: it ends with the process, however that ends. Under SLURM the scheduler has
chosen already, and its choice is taken. Importing this module imports no torch, since CUDA_VISIBLE_DEVICES must be set
before CUDA starts.
"""

import contextlib
import ctypes
import fcntl
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from cxrscale.common.errors import StudyError

logger = logging.getLogger(__name__)


class EnergyMeter:
    """Energy that a GPU has used, by NVML; measures nothing on a CPU, and where NVML cannot tell.

    Within `with`, `take` returns the joules since it was asked last, or None.
    """

    def __init__(self, device: Any) -> None:
        self._index = None if device.type != "cuda" else device.index or 0
        self._handle: Any = None
        self._before = 0

    def __enter__(self) -> "EnergyMeter":
        if self._index is not None:
            try:
                import pynvml
                import torch

                pynvml.nvmlInit()
                uuid = f"GPU-{torch.cuda.get_device_properties(self._index).uuid}"
                self._handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
                self._read, self._close = pynvml.nvmlDeviceGetTotalEnergyConsumption, pynvml.nvmlShutdown
                self._before = self._read(self._handle)
            except Exception as error:  # no NVML, an old GPU, a part of one: each with an exception of its own
                logger.info("energy is not measured: %s", error)
                self._handle = None
        return self

    def take(self) -> float | None:
        if self._handle is None:
            return None
        before, self._before = self._before, self._read(self._handle)
        return (self._before - before) / 1000  # NVML counts millijoules

    def __exit__(self, *_: object) -> None:
        if self._handle is not None:
            self._close()


def end_with_parent() -> None:
    """Have the kernel kill this process when the one that started it ends, however that ends (Linux only).

    What a lease's holder has started uses the same devices, and must be gone when the lease is.
    """
    if sys.platform == "linux":
        set_parent_death_signal = 1  # PR_SET_PDEATHSIG of prctl(2)
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)


def started_together() -> bool:
    """Whether torchrun or srun started this process as one of several, and gave it its devices."""
    return "RANK" in os.environ or int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1


def visible_devices() -> list[str]:
    """Names of this host's GPUs that the process may use: CUDA_VISIBLE_DEVICES if set, else all of nvidia-smi."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip()]
    try:
        listed = subprocess.run(
            ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return []
    return listed.stdout.split()


@contextlib.contextmanager
def leased(
    accelerator: str, count: int = 1, devices: Sequence[str] | None = None, poll_s: float = 0.5
) -> Iterator[list[str]]:
    """Hold `count` devices of this host while the body runs; set CUDA_VISIBLE_DEVICES to them.

    accelerator: "cpu" holds nothing and yields []. devices: the names to choose from (None: the visible ones).
    All are taken at once or none, so that jobs that want several cannot block each other. Where fewer exist than
    were asked for, all of them are taken and a warning says so. Raises StudyError if there is none.
    """
    if accelerator == "cpu":
        yield []
        return
    names = list(visible_devices() if devices is None else devices)
    if not names:
        raise StudyError("accelerator is cuda, but this host shows no GPU. Set accelerator: cpu, or check nvidia-smi.")
    if count > len(names):
        logger.warning("%d GPUs were asked for, this host shows %d; going on with those.", count, len(names))
        count = len(names)
    if "SLURM_JOB_ID" in os.environ:
        yield names[:count]  # the scheduler gave these to this job alone
        return
    folder = Path(tempfile.gettempdir()) / f"cxrscale-gpu-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    held: dict[str, IO[str]] = {}
    try:
        while len(held) < count:
            held = _try_lock(folder, names, count)
            if len(held) < count:
                time.sleep(poll_s)
        before = os.environ.get("CUDA_VISIBLE_DEVICES")
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(held)
        logger.info("leased %s", ", ".join(held))
        try:
            yield list(held)
        finally:
            if before is None:
                del os.environ["CUDA_VISIBLE_DEVICES"]
            else:
                os.environ["CUDA_VISIBLE_DEVICES"] = before
    finally:
        for handle in held.values():
            handle.close()


def _try_lock(folder: Path, names: Sequence[str], count: int) -> dict[str, IO[str]]:
    """Lock `count` of the devices, or none. The handles hold the locks.

    One job at a time tries, behind a lock of its own: two jobs that each grab half of what both want would go on so.
    """
    with (folder / "gate.lock").open("a") as gate:
        fcntl.flock(gate, fcntl.LOCK_EX)
        return _lock_free(folder, names, count)


def _lock_free(folder: Path, names: Sequence[str], count: int) -> dict[str, IO[str]]:
    held: dict[str, IO[str]] = {}
    for name in names:
        handle = (folder / f"{name.replace('/', '_')}.lock").open("a")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.close()
            continue
        held[name] = handle
        if len(held) == count:
            return held
    for locked in held.values():
        locked.close()
    return {}
