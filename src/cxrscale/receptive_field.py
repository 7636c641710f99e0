"""Effective receptive fields: which input pixels the centre of the last feature map depends on."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch

from cxrscale.errors import StudyError
from cxrscale.tables import Column, Table

FIELDS = Table(
    name="erf",
    row="the effective receptive field of a learner in one state",
    columns=(
        Column("state", "text", "initial (before training) or trained"),
        Column(
            "sigma_px",
            "float64",
            "standard deviation of an isotropic Gaussian of the same second moments, pixels",
        ),
        Column("sigma_fraction", "float64", "the same as a fraction of the input's width"),
        Column("radius50_px", "float64", "radius about the centroid that holds half the energy, pixels"),
        Column("radius50_fraction", "float64", "the same as a fraction of the input's width"),
        Column("centroid_x_px", "float64", "centroid, pixels from the left edge"),
        Column("centroid_y_px", "float64", "centroid, pixels from the upper edge"),
        Column("n_images", "int64", "images averaged over"),
    ),
    key=("state",),
)


@dataclass(frozen=True)
class FieldSize:
    """Sizes of one map, in pixels: sigma, the radius of half the energy, and the centroid (x, y)."""

    sigma_px: float
    radius50_px: float
    centroid_px: tuple[float, float]


def effective_receptive_field(
    features: Callable[[torch.Tensor], torch.Tensor], batches: Iterable[torch.Tensor]
) -> np.ndarray:
    """Mean squared gradient of the centre of the feature map with respect to the input (Luo et al. 2016,
    arXiv:1701.04128), as the paper takes it: summed over channels, squared, averaged over images.

    features: maps float32 (image, 1, height_px, width_px) to (image, channel, rows, columns); where a side of the
    feature map is even, the centre is the middle two units of that side together. batches: pictures, normalised as in
    training. Returns float64 (height_px, width_px), sum 1. Raises StudyError if every gradient is zero.
    """
    total: np.ndarray | None = None
    n_images = 0
    for batch in batches:
        x = batch.detach().requires_grad_(True)
        out = features(x)  # (image, channel, rows, columns)
        rows, columns = _middle(out.shape[2]), _middle(out.shape[3])
        out[:, :, rows, columns].sum().backward()
        assert x.grad is not None
        squared = x.grad.double().square().sum(dim=(0, 1)).cpu().numpy()
        total = squared if total is None else total + squared
        n_images += len(batch)
    if total is None or not total.sum() > 0:
        raise StudyError(f"the gradient at the centre is zero for all {n_images} images: no receptive field.")
    return total / total.sum()


def _middle(length: int) -> slice:
    return slice((length - 1) // 2, length // 2 + 1)


def field_size(energy: np.ndarray) -> FieldSize:
    """Sizes of a map that sums to 1, (height_px, width_px), about its centroid.

    sigma follows from the second moments: for an isotropic Gaussian the mean squared distance is 2 sigma^2. The
    radius is interpolated linearly in the energy that lies within each distance.
    """
    y, x = np.mgrid[0 : energy.shape[0], 0 : energy.shape[1]] + 0.5
    cx, cy = float((energy * x).sum()), float((energy * y).sum())
    distance = np.hypot(x - cx, y - cy)
    sigma = float(np.sqrt((energy * distance**2).sum() / 2))
    order = np.argsort(distance, axis=None)
    within = np.cumsum(energy.ravel()[order])
    radius = float(np.interp(0.5, within, distance.ravel()[order]))
    return FieldSize(sigma, radius, (cx, cy))
