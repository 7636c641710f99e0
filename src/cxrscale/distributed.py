"""Several processes that train one learner together: one GPU each, on one node by torchrun, on several by srun.

Each process computes the gradient of its share of every effective batch; the shares are added up, so that all hold the
gradient of the whole batch and take the same step. The number of processes is how a training runs, not what it is.
"""

import os
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist

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

    Reads torchrun's environment (RANK, WORLD_SIZE, LOCAL_RANK) or, where SLURM started several tasks, SLURM's; NCCL
    carries the messages between GPUs, gloo between CPUs. `MASTER_ADDR` and `MASTER_PORT` name the meeting place.
    """
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    if "RANK" not in os.environ:
        names = ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID")
    rank, world, local = (
        int(os.environ.get(name, default)) for name, default in zip(names, ("0", "1", "0"), strict=True)
    )
    if world == 1 or ("RANK" not in os.environ and "MASTER_ADDR" not in os.environ):
        return Processes(0, 1, torch.device(accelerator))
    device = torch.device("cpu")
    if accelerator == "cuda":
        device = torch.device("cuda", local % torch.cuda.device_count())
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if accelerator == "cuda" else "gloo", rank=rank, world_size=world, timeout=PATIENCE)
    return Processes(rank, world, device)


def leave() -> None:
    """Part from the other processes."""
    if dist.is_initialized():
        dist.destroy_process_group()
