"""How large effective receptive fields are. Their maps are made by `cxrscale.explain.receptive_field`."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.special import erf

from cxrscale.common.rows import ALL_CHANNELS
from cxrscale.explain.contracts import RADII, SQUARES

NO_FIELD = "every gradient at the centre is zero"
NO_POSITIVE = "no gradient at the centre is positive: no squares"
NO_EVIDENCE = "no linear head on globally averaged features: a finding's evidence has no place of its own"

#: Width of the ring along the border, as a fraction of the side.
RING = 1 / 16


@dataclass(frozen=True)
class ReceptiveField:
    """Two maps of one centre, float64 (height_px, width_px), sum 1.

    energy: mean squared gradient, the paper's. contribution: mean positive part of the gradient, RepLKNet's;
    all 0 if no gradient is positive.
    """

    energy: np.ndarray
    contribution: np.ndarray


def field_size(field: ReceptiveField) -> dict[str, float]:
    """The columns of ERF that say how large a field is, for square pictures.

    Radii and sigma are of the energy, squares of the contribution: NaN where no gradient is positive.
    """
    side = field.energy.shape[1]
    sigma, (cx, cy) = spread(field.energy)
    lengths = {"sigma": sigma}
    lengths |= {f"radius{r * 100:.0f}": radius(field.energy, r) for r in RADII}
    seen = field.contribution.any()
    lengths |= {f"square{s * 100:.0f}": centred_square(field.contribution, s) if seen else np.nan for s in SQUARES}
    sizes: dict[str, float] = {}
    for name, length in lengths.items():
        sizes |= {f"{name}_px": length, f"{name}_fraction": length / side}
    sizes |= {"edge_ratio": edge_ratio(field.energy), "cut_share": cut_share(field.energy)}
    return sizes | {"centroid_x_px": cx, "centroid_y_px": cy}


def field_rows(
    state: str, findings: Sequence[str], fields: Sequence[ReceptiveField | None], n_images: int
) -> list[dict[str, Any]]:
    """Rows of ERF: all channels, then the findings. fields: as `receptive_fields` gives them; where it gave only the
    first, the network has no evidence at a place."""
    rows = []
    for k, (finding, field) in enumerate(zip_longest([ALL_CHANNELS, *findings], fields)):
        row: dict[str, Any] = {"state": state, "finding": finding, "n_images": n_images}
        if field is None:
            row["reason"] = NO_FIELD if k < len(fields) else NO_EVIDENCE
        else:
            row |= field_size(field) | {"reason": None if field.contribution.any() else NO_POSITIVE}
        rows.append(row)
    return rows


def _grid(map_: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[0 : map_.shape[0], 0 : map_.shape[1]] + 0.5
    return y, x


def spread(map_: np.ndarray) -> tuple[float, tuple[float, float]]:
    """Sigma in pixels, and the centroid (x, y), of a map that sums to 1, (height_px, width_px).

    Sigma follows from the second moments about the centroid: for an isotropic Gaussian the mean squared distance is
    2 sigma^2.
    """
    y, x = _grid(map_)
    cx, cy = float((map_ * x).sum()), float((map_ * y).sum())
    return float(np.sqrt((map_ * ((x - cx) ** 2 + (y - cy) ** 2)).sum() / 2)), (cx, cy)


def radius(map_: np.ndarray, share: float) -> float:
    """Radius in pixels about the centroid that holds this share of a map that sums to 1, interpolated linearly in the
    energy that lies within each distance."""
    y, x = _grid(map_)
    _, (cx, cy) = spread(map_)
    distance = np.hypot(x - cx, y - cy)
    order = np.argsort(distance, axis=None)
    return float(np.interp(share, np.cumsum(map_.ravel()[order]), distance.ravel()[order]))


def centred_square(map_: np.ndarray, share: float) -> int:
    """Side in pixels of the smallest square about the middle of a square map that holds at least this share of it.

    RepLKNet's measure (Ding et al. 2022, arXiv:2203.06717, section "ERF"; its area ratio is the square of the
    side's fraction), but of the contribution itself: the published code takes log10(1 + contribution) first, so that
    its sides depend on the scale of the gradients, and odd sides only, about the pixel below and right of the middle.
    To reproduce that, pass the map so transformed. Sides are even where the map's is, odd where that is.
    """
    length = min(map_.shape)
    total = map_.sum()
    for margin in range((length - 1) // 2, -1, -1):
        if map_[margin : map_.shape[0] - margin, margin : map_.shape[1] - margin].sum() >= share * total * (1 - 1e-12):
            return length - 2 * margin
    raise AssertionError("the whole map holds every share")


def edge_ratio(energy: np.ndarray) -> float:
    """Mean energy of the pixels within RING of the border (one pixel at least), over the mean of all pixels."""
    width = max(1, round(min(energy.shape) * RING))
    inner = energy[width:-width, width:-width]
    ring = (energy.sum() - inner.sum()) / (energy.size - inner.size)
    return float(max(ring, 0.0) / energy.mean())


def cut_share(energy: np.ndarray) -> float:
    """Share of the energy that lies beyond the picture, estimated, 0 to 1.

    What is beyond the border was never computed. So this takes a Gaussian about the middle of the picture, of the
    width that, cut off at the borders, has the mean squared distance measured, and says how much of it lies outside.
    A field with long tails has more. 1 where the map is as wide as an even one or wider.
    """
    y, x = _grid(energy)
    height, width = energy.shape
    variance = float((energy * ((y / height - 0.5) ** 2 + (x / width - 0.5) ** 2)).sum() / energy.sum() / 2)
    narrow, wide = 0.01, 50.0  # between which the share grows from 0 to nearly 1
    if variance <= _cut_variance(narrow) or variance >= _cut_variance(wide):
        return float(variance > _cut_variance(narrow))
    sigma = brentq(lambda s: _cut_variance(s) - variance, narrow, wide)
    return float(1 - erf(0.5 / sigma / np.sqrt(2)) ** 2)


def _cut_variance(sigma: float) -> float:
    """Variance of a Gaussian about 0 that is cut off at plus and minus 1/2."""
    a = 0.5 / sigma
    density = np.exp(-(a**2) / 2) / np.sqrt(2 * np.pi)
    return float(sigma**2 * (1 - 2 * a * density / erf(a / np.sqrt(2))))
