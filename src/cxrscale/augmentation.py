"""Augmentation drawn by (seed, epoch, image), in relative units, so that every resolution sees the same.

Flip and rotation are the paper's. Draws are hashes, not a stream: they depend neither on the batch an image is in nor
on the number of workers or GPUs.
"""

import hashlib
import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F


def image_keys(image_ids: Sequence[str]) -> np.ndarray:
    """A 64-bit hash of each image id, uint64 (image,)."""
    return np.frombuffer(
        b"".join(hashlib.blake2b(i.encode(), digest_size=8).digest() for i in image_ids), dtype="<u8"
    ).copy()


def _mix(words: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele et al. 2014, doi:10.1145/2660193.2660195)."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def uniform(keys: np.ndarray, seed: int, epoch: int, stream: int) -> np.ndarray:
    """One number in [0, 1) for each key; streams are independent. uint64 (image,) -> float64 (image,)."""
    with np.errstate(over="ignore"):
        start = np.array([seed], dtype=np.uint64)
        for word in (epoch, stream):
            start = _mix(start + np.uint64(0x9E3779B97F4A7C15) * np.uint64(word + 1))
        return (_mix(_mix(keys ^ start)) >> np.uint64(11)).astype(np.float64) / 2**53


def augment(
    pixels: torch.Tensor,
    keys: np.ndarray,
    seed: int,
    epoch: int,
    flip_probability: float,
    rotation_degrees: float,
) -> torch.Tensor:
    """Flip left to right and rotate about the centre, bilinear, black outside.

    pixels: float32 (image, 1, height_px, width_px) in [0, 1]; keys: uint64 (image,) from `image_keys`.
    Returns a tensor of the same shape, range and device.
    """
    flip = uniform(keys, seed, epoch, stream=0) < flip_probability
    angle = (2 * uniform(keys, seed, epoch, stream=1) - 1) * math.radians(rotation_degrees)
    sign = np.where(flip, -1.0, 1.0)
    cos, sin, zero = np.cos(angle), np.sin(angle), np.zeros_like(angle)
    # Output to input coordinates, both in [-1, 1]; square pictures, so no correction for the aspect.
    theta = np.stack([np.stack([sign * cos, -sign * sin, zero], -1), np.stack([sin, cos, zero], -1)], -2)
    matrix = torch.from_numpy(theta.astype(np.float32)).to(pixels.device)  # (image, 2, 3)
    grid = F.affine_grid(matrix, list(pixels.shape), align_corners=False)
    return F.grid_sample(pixels, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def normalise(pixels: torch.Tensor, mean: float, standard_deviation: float) -> torch.Tensor:
    """float32 in [0, 1] -> float32 with the mean taken off, divided by the standard deviation."""
    return (pixels - mean) / standard_deviation
