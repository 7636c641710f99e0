"""Several processes that train one learner together: one GPU each, on one node by torchrun, on several by srun.

Each process computes the gradient of its share of every effective batch; the shares are added up, so that all hold the
gradient of the whole batch and take the same step. The number of processes is how a training runs, not what it is.
"""

import os
import re
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist

from cxrscale.common.devices import started_together

#: How long a process waits for the others: one of them may write a checkpoint or validate meanwhile.
PATIENCE = timedelta(minutes=30)


@dataclass(frozen=True)
class Processes:
    """Those that train together. rank: this one's number, 0 to world - 1; device: what it computes on."""

    rank: int
    world: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this process writes files and logs."""
        return self.rank == 0

    def add_up(self, tensor: torch.Tensor) -> None:
        """Replace a tensor, in place, by its sum over all processes."""
        if self.world > 1:
            dist.all_reduce(tensor)

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
        if self.world == 1:
            return value
        tensor = torch.tensor([value], dtype=torch.float64, device=self.device)
        self.add_up(tensor)
        return float(tensor)

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


def join(accelerator: str) -> Processes:
    """Meet the other processes that torchrun or srun started; alone if neither did.

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
        os.environ.setdefault("MASTER_PORT", str(20_000 + int(os.environ["SLURM_JOB_ID"]) % 20_000))
    rank, world, local = (int(os.environ[name]) for name in names)
    device = torch.device("cpu")
    if accelerator == "cuda":
        device = torch.device("cuda", local % torch.cuda.device_count())  # with one GPU a task, each task's own is 0
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if accelerator == "cuda" else "gloo", rank=rank, world_size=world, timeout=PATIENCE)
    return Processes(rank, world, device)


def _first_host(nodes: str) -> str:
    """The first host of a SLURM node list: of "gpu[03-05,9]-ib,x" it is gpu03-ib."""
    found = re.match(r"([^,\[]+)(?:\[(\w+)[^\]]*\])?([^,]*)", nodes)
    if found is None:
        raise ValueError(f"SLURM_STEP_NODELIST is {nodes!r}; expected a list of nodes such as gpu[03-05,9]")
    return "".join(part or "" for part in found.groups())


def leave() -> None:
    """Part from the other processes."""
    if dist.is_initialized():
        dist.destroy_process_group()
