"""Running statistics of batch normalisation, taken for the very weights that are validated and kept.

An average that moves during training belongs to weights of before: with eight groups an update and momentum 0.1 to
those of the last two updates, and a moving average of weights never gets its own. So they are computed once the
weights stand still, from a fixed sample of training images ("precise" statistics, Wu & Johnson 2021, Rethinking
"Batch" in BatchNorm, arXiv:2105.07576). Each layer normalises by its groups meanwhile, so that one pass is enough.
"""

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import nn

from cxrscale.train.normalisation import Division, keeps_statistics

#: Of each layer, float64 (2, channel + 1): sums of values and of squares; last column: the number of values a channel.
Sums = Mapping[nn.Module, torch.Tensor]


def take_statistics(model: nn.Module, batches: Iterable[torch.Tensor]) -> None:
    """Set all running statistics to mean and variance over all images; returns with the model in evaluation mode.

    batches: float32 (image, 1, height_px, width_px), normalised as in training, each of whole groups. Frozen layers are
    left alone.
    """
    set_statistics(note_statistics(model, batches))


@torch.no_grad()
def note_statistics(model: nn.Module, batches: Iterable[torch.Tensor]) -> Sums:
    """What each layer sees in these batches, normalised by their groups; returns with the model in evaluation mode.

    Sums of all images, in float64: so neither micro-batch nor number of processes matters.
    """
    norms = [m for m in model.modules() if keeps_statistics(m) and not getattr(m, "frozen", False)]
    model.eval()
    if not norms:
        return {}
    sums = {
        norm: torch.zeros(2, len(norm.running_mean) + 1, dtype=torch.float64, device=norm.running_mean.device)  # type: ignore[arg-type]
        for norm in norms
    }

    def note(norm: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        division = getattr(norm, "division", None)
        for group in given[0].split(division.rows(given[0]) if isinstance(division, Division) else len(given[0])):
            over = [d for d in range(group.ndim) if d != 1]
            variance, mean = (found.double() for found in torch.var_mean(group.float(), over, correction=0))
            n = group.numel() // group.shape[1]
            sums[norm] += n * torch.cat([torch.stack([mean, variance + mean**2]), mean.new_ones(2, 1)], dim=1)

    hooks = [norm.register_forward_pre_hook(note) for norm in norms]
    try:
        for norm in norms:
            norm.training = True
        for batch in batches:
            model(batch)
    finally:
        for hook in hooks:
            hook.remove()
        model.eval()
    return sums


@torch.no_grad()
def set_statistics(sums: Sums, add_up: Callable[[torch.Tensor], None] | None = None) -> None:
    """Set the layers' running statistics: means and total variances, within groups and between them.

    add_up: sums a tensor over all processes, in place. Raises ValueError if no process saw an image.
    """
    if not sums:
        return
    together = torch.cat(list(sums.values()), dim=1)
    if add_up is not None:
        add_up(together)
    for norm, total in zip(sums, together.split([s.shape[1] for s in sums.values()], dim=1), strict=True):
        if not total[0, -1]:
            raise ValueError("statistics of no images")
        mean, square = total[:, :-1] / total[:, -1:]
        norm.running_mean.copy_(mean)  # type: ignore[operator]
        norm.running_var.copy_(square - mean**2)  # type: ignore[operator]
