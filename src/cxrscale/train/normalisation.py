"""Batch normalisation whose statistics do not depend on how a batch is divided: over groups of images, or none.

A micro-batch of 1 at 2048 px and of 50 at 256 px would be two different networks. With statistics over fixed groups of
images the resolution is the only thing that differs ("ghost batch normalisation", Hoffer et al. 2017,
arXiv:1705.08741), whatever the micro-batch, the number of processes and whether activations are recomputed.

Training uses batch statistics alone and leaves the running ones as they are: `train/statistics.py` takes those.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import BatchNormAct2d, FrozenBatchNormAct2d, convert_sync_batchnorm
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from cxrscale.common.errors import StudyError
from cxrscale.train.settings import Normalisation


@dataclass
class Division:
    """How what is computed at once is divided into groups; all layers of a network share one.

    group_images: images of a group; None: all that come at once. images: that came at once; None: nothing came yet.
    """

    group_images: int | None
    images: int | None = None

    def __call__(self, model: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        """Note the images before a forward pass: some layers see one row an image, others one a token."""
        self.images = len(given[0])

    def rows(self, x: torch.Tensor) -> int:
        """Rows of x, (row, channel, ...), that make a group. All rows of an image are consecutive."""
        if self.group_images is None:
            return len(x)
        if not self.images or len(x) % self.images:
            raise RuntimeError(f"{len(x)} rows of {self.images} images: call the network, not a part of it")
        return len(x) // self.images * self.group_images


#: Kinds of device on which all groups are normalised at once, by `AllGroups`: where it was measured to be faster than
#: torch's kernel once a group (`benchmarks/costs.py`). On a CPU it takes twice as long; no GPU was measured.
AT_ONCE = {"cpu": False, "cuda": False}


class AllGroups(torch.autograd.Function):
    """Batch normalisation of all groups in one step, in as many operations as for one group.

    Keeps for the backward pass what torch's own does: the input, and mean and inverse deviation of each group, float32.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, rows: int, eps: float) -> Any:
        """x: (row, channel, ...), rows of them a group. Returns a tensor of x's shape, dtype and memory format."""
        values, shape, over = _by_group(x, rows)
        variance, mean = torch.var_mean(values.float(), over, correction=0)  # (group, channel)
        inverse = torch.rsqrt(variance + eps)
        scale = inverse * weight
        shift = torch.addcmul(bias, mean, scale, value=-1)
        ctx.save_for_backward(x, weight, mean, inverse)
        ctx.rows = rows
        out = torch.empty_like(x)  # no view: an activation in place follows
        torch.addcmul(shift.view(shape), values, scale.view(shape), out=_by_group(out, rows, _is_channels_last(x))[0])
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        x, weight, mean, inverse = ctx.saved_tensors
        values, shape, over = _by_group(x, ctx.rows)
        if _is_channels_last(x):
            gradient = gradients[0].contiguous(memory_format=torch.channels_last)
        else:
            gradient = gradients[0].contiguous()
        given = _by_group(gradient, ctx.rows, _is_channels_last(x))[0].float()
        n = values.numel() // mean.numel()
        normed = (values - mean.view(shape)).mul_(inverse.view(shape))
        of_bias, of_weight = given.sum(over), (given * normed).sum(over)  # (group, channel)
        scale = inverse * weight
        normed.mul_((of_weight * scale / -n).view(shape)).add_((of_bias * scale / -n).view(shape))
        return _as_before(normed.addcmul_(given, scale.view(shape)), x), of_weight.sum(0), of_bias.sum(0), None, None


def _is_channels_last(x: torch.Tensor) -> bool:
    return x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


def _by_group(
    x: torch.Tensor, rows: int, channels_last: bool | None = None
) -> tuple[torch.Tensor, tuple[int, ...], tuple[int, ...]]:
    """x as (group, row * place, channel) where channels come last, else as (group, row, channel, place); the shape in
    which what each group and channel has one of goes with it; the dimensions that a group's statistics go over."""
    channels, groups = x.shape[1], len(x) // rows
    if _is_channels_last(x) if channels_last is None else channels_last:
        return x.permute(0, 2, 3, 1).reshape(groups, -1, channels), (groups, 1, channels), (1,)
    return x.reshape(groups, rows, channels, -1), (groups, 1, channels, 1), (1, 3)


def _as_before(values: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Back from `_by_group` to the shape, dtype and memory format of x."""
    if _is_channels_last(x):
        values = values.view(len(x), *x.shape[2:], x.shape[1]).permute(0, 3, 1, 2)
    return values.reshape(x.shape).to(x.dtype)


class _Grouped:
    """What all kinds share."""

    division: Division
    frozen: bool

    def normalise(self, x: torch.Tensor) -> torch.Tensor:
        norm: Any = self
        if self.frozen or not norm.training:
            return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, False, 0.0, norm.eps)
        rows = self.division.rows(x)
        if AT_ONCE.get(x.device.type) and norm.affine and not len(x) % rows:
            done: torch.Tensor = AllGroups.apply(x, norm.weight, norm.bias, rows, norm.eps)
            return done
        groups = x.split(rows)
        parts = [F.batch_norm(group, None, None, norm.weight, norm.bias, True, 0.0, norm.eps) for group in groups]
        return parts[0] if len(parts) == 1 else torch.cat(parts)


class GroupedBatchNorm1d(_Grouped, nn.BatchNorm1d):
    """`nn.BatchNorm1d` over groups, also where each token of an image is a row."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.normalise(x)


class GroupedBatchNorm2d(_Grouped, nn.BatchNorm2d):
    """`nn.BatchNorm2d` over groups."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.normalise(x)


class GroupedBatchNormAct2d(_Grouped, BatchNormAct2d):
    """The same for timm's batch normalisation with its activation built in."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.drop(self.normalise(x)))


_GROUPED: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm1d: GroupedBatchNorm1d,
    nn.BatchNorm2d: GroupedBatchNorm2d,
    BatchNormAct2d: GroupedBatchNormAct2d,
}


def set_normalisation(model: nn.Module, kind: Normalisation, group_images: int = 0, processes: int = 1) -> nn.Module:
    """Turn every batch normalisation of `model`, in place, into the kind asked for. Returns the model.

    group_images: for "groups". processes: how many train together; "synchronised" then needs GPUs, since torch's own
    synchronised normalisation refuses tensors of a CPU. Raises StudyError if the model has none to turn, or a layer
    whose statistics would depend on the micro-batch.
    """
    norms = [m for m in model.modules() if keeps_statistics(m)]
    if not norms and kind in ("frozen", "synchronised"):
        raise StudyError(f"training.normalisation: {kind}, but {type(model).__name__} has no batch normalisation.")
    foreign = sorted({type(m).__name__ for m in norms if type(m) not in _GROUPED})
    if foreign:
        known = ", ".join(sorted(k.__name__ for k in _GROUPED))
        raise StudyError(
            f"training.normalisation: {type(model).__name__} has layers {', '.join(foreign)}, whose statistics would "
            f"depend on the micro-batch; expected {known}. Leave the model out of the study (models)."
        )
    if kind == "synchronised" and processes > 1:
        return convert_sync_batchnorm(model)
    division = Division(group_images if kind == "groups" else None)
    for norm in norms:
        norm.__class__ = _GROUPED[type(norm)]
        norm.division, norm.frozen = division, kind == "frozen"  # type: ignore[assignment]
    model.register_forward_pre_hook(division)
    return model


def keeps_statistics(module: nn.Module) -> bool:
    """Whether a layer normalises by statistics of a batch in training and by running ones afterwards."""
    if isinstance(module, FrozenBatchNormAct2d):  # never looks at a batch
        return False
    buffers = {name for name, _ in module.named_buffers(recurse=False)}  # by which other families' layers show
    return isinstance(module, _BatchNorm) or bool(buffers & {"running_mean", "running_var"})
