"""Several processes that train one learner together: one GPU each, on one node by torchrun, on several by srun.

Each process computes the gradient of its share of every effective batch; the shares are added up, so that all hold the
gradient of the whole batch and take the same step. The number of processes is how a training runs, not what it is.
"""

import io
import os
import re
import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from cxrscale.common.devices import started_together
from cxrscale.common.errors import StudyError
from cxrscale.train.watch import Patience, Watch

#: Runs jobs and makes no value of a result; raised when a fix here changes results (docs/reruns.md).
RESULT_VERSION = 1

#: After which torch ends a message that does not arrive. `Watch` is sooner, and says who is missing.
MESSAGE_TIMEOUT = timedelta(minutes=45)
PATIENCE = Patience()


class AnotherFailed(StudyError):  # noqa: N818
    """Another process of the training failed; its own log says why."""


@dataclass(frozen=True)
class Processes:
    """Those that train together. rank: this one's number, 0 to world - 1; device: what it computes on; hosts: of each,
    by rank.

    What sends messages must be called by all of them, in the same order: never behind a condition that they may answer
    differently.
    """

    rank: int
    world: int
    device: torch.device
    hosts: Sequence[str] = ()
    watch: Watch | None = None

    @property
    def on_host(self) -> int:
        """How many of them are on this one's host."""
        return self.hosts.count(self.hosts[self.rank]) if self.hosts else 1

    @property
    def first(self) -> bool:
        """Whether this process writes files and logs."""
        return self.rank == 0

    def add_up(self, tensor: torch.Tensor) -> None:
        """Replace a tensor, in place, by its sum over all processes."""
        if self.world > 1:
            self._begin_message()
            dist.all_reduce(tensor)

    def _begin_message(self) -> None:
        if self.watch is not None:
            self.watch.messages += 1

    def meet(self) -> None:
        """Wait until all have come here, however long that takes."""
        if self.watch is not None:
            self.watch.meet()

    def add_up_gradients(self, parameters: list[torch.nn.Parameter]) -> None:
        """Replace the gradients by their sums over all processes, in one message. A missing gradient counts as zero."""
        if self.world == 1:
            return
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters if p.requires_grad]
        together = torch.cat([g.flatten() for g in gradients])
        self.add_up(together)
        parts = together.split([g.numel() for g in gradients])
        # Copied into tensors of the weights' own memory format, which fused optimisers take for granted.
        for parameter, gradient, part in zip((p for p in parameters if p.requires_grad), gradients, parts, strict=True):
            parameter.grad = gradient.copy_(part.view_as(gradient))

    def total(self, value: float) -> float:
        """The sum of a number over all processes."""
        return self.totals([value])[0]

    def totals(self, values: Sequence[float]) -> list[float]:
        """The sums of numbers over all processes, in one message."""
        if self.world == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        self.add_up(tensor)
        return list(tensor.tolist())

    def from_first(self, make: Callable[[], Any]) -> Any:
        """What the first process makes, told to all: plain values and tensors of a CPU. Only the first calls `make`.

        Raises what `make` raises in the first process, and AnotherFailed in the others.
        """
        if self.world == 1:
            return make()
        message = torch.empty(0, dtype=torch.uint8)
        length, error = torch.zeros(1, dtype=torch.int64, device=self.device), None
        if self.first:
            try:
                buffer = io.BytesIO()
                torch.save(make(), buffer)
                message = torch.frombuffer(buffer.getbuffer(), dtype=torch.uint8)
            except Exception as raised:
                error = raised
            length[0] = len(message)
        self._begin_message()
        dist.broadcast(length, 0)
        if error is not None:
            raise error
        if not int(length):
            raise AnotherFailed(f"{self.name(0)} failed; its log says why.")
        message = message.to(self.device) if self.first else length.new_empty(int(length), dtype=torch.uint8)
        dist.broadcast(message, 0)
        return torch.load(io.BytesIO(message.cpu().numpy().tobytes()), map_location="cpu", weights_only=True)

    def require_same(self, what: str, values: Sequence[int]) -> None:
        """Raise StudyError, in all processes, unless all of them hold the same whole numbers.

        what: names the numbers, in the message, which names the processes too.
        """
        if self.world == 1:
            return
        held = torch.zeros(self.world, len(values), dtype=torch.int64, device=self.device)
        held[self.rank] = torch.tensor(values, device=self.device)
        self.add_up(held)
        rows = [tuple(row) for row in held.tolist()]
        if len(set(rows)) > 1:
            found = "; ".join(f"{self.name(rank)}: {row}" for rank, row in enumerate(rows))
            raise StudyError(
                f"the processes of this training differ in ({what}): {found}. No checkpoint was written. Run again: "
                f"all go on from the last one. If it comes back, look at the hosts and GPUs named."
            )

    def name(self, rank: int) -> str:
        """A process, for messages."""
        return f"rank {rank}" + (f" on {self.hosts[rank]}" if self.hosts else "")

    def gather(self, values: np.ndarray, at: np.ndarray, n_rows: int) -> np.ndarray:
        """Put together rows that the processes hold. values: float32 (row, column), this process's rows, whose numbers
        are `at`, int64 (row,). Each row is held by one process. Returns float32 (n_rows, column), the same everywhere.
        """
        if self.world == 1:
            return values[np.argsort(at)]
        whole = torch.zeros(n_rows, values.shape[1], device=self.device)
        whole[torch.from_numpy(at).to(self.device)] = torch.from_numpy(values).to(self.device)
        self.add_up(whole)
        return whole.cpu().numpy()


def join(accelerator: str, patience: Patience = PATIENCE) -> Processes:
    """Meet the other processes that torchrun or srun started; alone if neither did.

    From then on each watches the others: all end, by name of the one that is missing, when patience with it is over.

    Reads torchrun's environment (RANK, WORLD_SIZE, LOCAL_RANK) or that of a SLURM step with several tasks. NCCL carries
    the messages between GPUs, gloo between CPUs. `MASTER_ADDR` and `MASTER_PORT` name the meeting place; under srun
    they are the step's first host and a port made of the job's number, unless set.
    """
    if not started_together():
        return Processes(0, 1, torch.device(accelerator))
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    if "RANK" not in os.environ:
        names = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID")
        os.environ.setdefault("MASTER_ADDR", _first_host(os.environ["SLURM_STEP_NODELIST"]))
        os.environ.setdefault("MASTER_PORT", str(_port(int(os.environ["SLURM_JOB_ID"]))))
    rank, world, local = (int(os.environ[name]) for name in names)
    device = torch.device("cpu")
    if accelerator == "cuda":
        device = torch.device("cuda", local % torch.cuda.device_count())  # with one GPU a task, each task's own is 0
        torch.cuda.set_device(device)
    carrier = "nccl" if accelerator == "cuda" else "gloo"
    dist.init_process_group(carrier, rank=rank, world_size=world, timeout=MESSAGE_TIMEOUT)
    processes = Processes(rank, world, device)
    processes = replace(processes, hosts=_hosts(processes))
    watch = Watch(rank, [processes.name(other) for other in range(world)], _store(processes), patience)
    watch.start()
    return replace(processes, watch=watch)


def _store(processes: Processes) -> dist.TCPStore:
    """A store of its own for the watch, kept by the first process."""
    host, kept = os.environ["MASTER_ADDR"], None
    if processes.first:
        kept = dist.TCPStore(host, 0, is_master=True, wait_for_workers=False)
    port = processes.from_first(lambda: kept.port if kept is not None else None)
    return dist.TCPStore(host, port, is_master=False) if kept is None else kept


def _hosts(processes: Processes) -> list[str]:
    """The name of each process's host."""
    held = torch.zeros(processes.world, 64, dtype=torch.uint8, device=processes.device)
    own = list(socket.gethostname().encode()[:64])
    held[processes.rank, : len(own)] = torch.tensor(own, dtype=torch.uint8)
    processes.add_up(held)
    return [bytes(row).rstrip(b"\0").decode(errors="replace") for row in held.tolist()]


def _port(job: int) -> int:
    """A port made of a job's number, below 32,768: from there on, Linux gives ports to whoever asks for any."""
    return 20_000 + job % 12_000


def _first_host(nodes: str) -> str:
    """The first host of a SLURM node list: of "gpu[03-05,9]-ib,x" it is gpu03-ib."""
    found = re.match(r"([^,\[]+)(?:\[(\w+)[^\]]*\])?([^,]*)", nodes)
    if found is None:
        raise ValueError(f"SLURM_STEP_NODELIST is {nodes!r}; expected a list of nodes such as gpu[03-05,9]")
    return "".join(part or "" for part in found.groups())


def checksum(tensors: Iterable[torch.Tensor]) -> int:
    """A number of 64 bits made of the bits of tensors, each with its place, whatever their memory format."""
    total = None
    for number, tensor in enumerate(tensors):
        kind = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()]
        bits = tensor.detach().contiguous().flatten().view(kind)
        places = torch.arange(len(bits), device=bits.device).mul_(2).add_(1)
        found = (bits * places).sum() * (2 * number + 1)  # whole numbers of 64 bits, which wrap around
        total = found if total is None else total + found.to(total.device)
    return 0 if total is None else int(total)


def leave(processes: Processes) -> None:
    """Part from the other processes."""
    if processes.watch is not None:
        processes.watch.stop()
    if dist.is_initialized():
        dist.destroy_process_group()
