"""Batch normalisation whose statistics do not depend on how a batch is divided: over groups of images, or none.

A micro-batch of 1 at 2048 px and of 50 at 256 px would be two different networks. With statistics over fixed groups of
images the resolution is the only thing that differs ("ghost batch normalisation", Hoffer et al. 2017,
arXiv:1705.08741), whatever the micro-batch, the number of processes and whether activations are recomputed.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import BatchNormAct2d, convert_sync_batchnorm
from torch import nn

from cxrscale.common.errors import StudyError
from cxrscale.train.settings import Normalisation

_counting = True


@contextlib.contextmanager
def holding_statistics() -> Iterator[None]:
    """Within, forward passes leave running statistics alone: in a backward pass that computes activations again."""
    global _counting
    before, _counting = _counting, False
    try:
        yield
    finally:
        _counting = before


class _Grouped:
    """What both kinds share. The sums of the groups' means and variances wait for `step_statistics`."""

    group_images: int | None  # None: all images that come at once
    frozen: bool
    sums: torch.Tensor  # float32 (2, channel + 1): means, unbiased variances; in the last column the number of groups

    def normalise(self, x: torch.Tensor) -> torch.Tensor:
        norm: Any = self
        if self.frozen or not norm.training:
            return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, False, 0.0, norm.eps)
        groups = x.split(self.group_images or len(x))
        # With momentum 1, torch's "running" statistics are those of the group.
        found = torch.zeros(2, len(groups), x.shape[1], device=x.device)
        done = [
            F.batch_norm(group, found[0, i], found[1, i], norm.weight, norm.bias, True, 1.0, norm.eps)
            for i, group in enumerate(groups)
        ]
        if _counting:
            self.sums[:, :-1] += found.sum(dim=1)
            self.sums[:, -1] += len(groups)
        return done[0] if len(done) == 1 else torch.cat(done)


class GroupedBatchNorm2d(_Grouped, nn.BatchNorm2d):
    """`nn.BatchNorm2d` over groups. In training, running statistics move at `step_statistics` only."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.normalise(x)


class GroupedBatchNormAct2d(_Grouped, BatchNormAct2d):
    """The same for timm's batch normalisation with its activation built in."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.drop(self.normalise(x)))


def set_normalisation(model: nn.Module, kind: Normalisation, group_images: int = 0, processes: int = 1) -> nn.Module:
    """Turn every 2-D batch normalisation of `model`, in place, into the kind asked for. Returns the model.

    group_images: for "groups". processes: how many train together; "synchronised" then needs GPUs, since torch's own
    synchronised normalisation refuses tensors of a CPU. Raises StudyError if the model has none to turn.
    """
    found = sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    if not found and kind in ("frozen", "synchronised"):
        raise StudyError(f"training.normalisation: {kind}, but {type(model).__name__} has no batch normalisation.")
    if kind == "synchronised" and processes > 1:
        return convert_sync_batchnorm(model)
    _convert(model, group_images if kind == "groups" else None, kind == "frozen")
    return model


def _convert(model: nn.Module, group_images: int | None, frozen: bool) -> None:
    children: list[tuple[str, Any]] = list(model.named_children())
    for name, child in children:
        if type(child) in (nn.BatchNorm2d, BatchNormAct2d):
            kind = GroupedBatchNorm2d if type(child) is nn.BatchNorm2d else GroupedBatchNormAct2d
            grouped = kind.__new__(kind)
            grouped.__dict__ = child.__dict__ | {"group_images": group_images, "frozen": frozen}
            # No part of the state dict: at the end of an update, when checkpoints are written, it is zero.
            grouped.register_buffer("sums", torch.zeros(2, child.num_features + 1), persistent=False)
            setattr(model, name, grouped)
        else:
            _convert(child, group_images, frozen)


def discard_statistics(model: nn.Module) -> None:
    """Forget the groups seen since the last step: of an update that was broken off."""
    for module in model.modules():
        if isinstance(module, _Grouped):
            module.sums.zero_()


@torch.no_grad()
def step_statistics(model: nn.Module, add_up: Callable[[torch.Tensor], None] | None = None) -> None:
    """Move the running statistics by the groups seen since the last step, as one average of them all.

    n groups move them as far as n steps of the norm's momentum would, in no order: so neither the micro-batch nor the
    number of processes matters. add_up: sums a tensor over all processes, in place.
    """
    norms: list[Any] = [m for m in model.modules() if isinstance(m, _Grouped) and not m.frozen]
    if not norms:
        return
    together = torch.cat([norm.sums for norm in norms], dim=1)
    if add_up is not None:
        add_up(together)
    totals = together.split([norm.sums.shape[1] for norm in norms], dim=1)
    counts = torch.stack([total[0, -1] for total in totals]).tolist()
    for norm, total, count in zip(norms, totals, counts, strict=True):
        norm.sums.zero_()
        if count:
            norm.num_batches_tracked.add_(int(count))
            if norm.momentum is None:  # a plain average, as torch has it
                share = count / float(norm.num_batches_tracked)
            else:
                share = 1 - (1 - norm.momentum) ** count
            norm.running_mean.lerp_(total[0, :-1] / count, share)
            norm.running_var.lerp_(total[1, :-1] / count, share)
