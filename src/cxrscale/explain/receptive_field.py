"""Effective receptive fields: which input pixels the centre of the last feature map depends on."""

from collections.abc import Callable, Iterable

import torch

from cxrscale.explain.field_size import ReceptiveField


def receptive_fields(
    features: Callable[[torch.Tensor], torch.Tensor],
    batches: Iterable[torch.Tensor],
    evidence: torch.Tensor | None = None,
) -> list[ReceptiveField | None]:
    """Gradients of the centre of the feature map with respect to the input, gathered over images.

    The energy is the gradient squared and averaged over images (Luo et al. 2016, arXiv:1701.04128), of the centre
    summed over channels, as the paper takes it. The contribution is its positive part, averaged over images, as in the
    published code of RepLKNet (Ding et al. 2022, arXiv:2203.06717).

    features: maps float32 (image, 1, height_px, width_px) to (image, channel, rows, columns); where a side of the
    feature map is even, the centre is the middle two units of that side together. batches: pictures, normalised as in
    training. evidence: (finding, channel), how much each channel of the centre speaks for each finding; None: the sum
    over channels alone.
    Returns the field of the sum over channels and then those of the findings; None where every gradient is zero.
    """
    energy: torch.Tensor | None = None
    contribution: torch.Tensor | None = None
    n = 1 if evidence is None else 1 + len(evidence)
    for batch in batches:
        x = batch.detach().requires_grad_(True)
        out = features(x)  # (image, channel, rows, columns)
        rows, columns = _middle(out.shape[2]), _middle(out.shape[3])
        centre = out[:, :, rows, columns].sum(dim=(0, 2, 3))  # (channel,); images do not mix in evaluation mode
        looked_at = [centre.sum()] + ([] if evidence is None else list(evidence.to(centre) @ centre))
        if energy is None or contribution is None:
            energy = torch.zeros((n, *x.shape[2:]), dtype=torch.float64, device=x.device)
            contribution = torch.zeros_like(energy)
        for k, value in enumerate(looked_at):
            (gradient,) = torch.autograd.grad(value, x, retain_graph=k + 1 < n)
            gradient = gradient.double()
            energy[k] += gradient.square().sum(dim=(0, 1))
            contribution[k] += gradient.clamp(min=0).sum(dim=(0, 1))
    if energy is None or contribution is None:
        return [None] * n
    pairs = zip(energy.cpu().numpy(), contribution.cpu().numpy(), strict=True)
    return [ReceptiveField(e / e.sum(), c / max(c.sum(), 1e-300)) if e.sum() > 0 else None for e, c in pairs]


def _middle(length: int) -> slice:
    return slice((length - 1) // 2, length // 2 + 1)
