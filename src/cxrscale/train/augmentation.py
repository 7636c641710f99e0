"""Augmentation drawn by (seed, epoch, image), in relative units, so that every resolution sees the same.

Flip and rotation are the paper's. Draws are hashes, not a stream: they depend neither on the batch an image is in nor
on the number of workers or GPUs.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Augmentation:
    """How a picture is augmented and normalised for training.

    seed, epoch: with the image's key, all that the draws depend on. flip_probability: left to right.
    rotation_degrees: uniform within plus and minus. mean, standard_deviation: of the grey range 0 to 1.
    """

    seed: int
    epoch: int
    flip_probability: float = 0.5
    rotation_degrees: float = 15.0
    mean: float = 0.449
    standard_deviation: float = 0.226

    def matrices(self, keys: np.ndarray) -> np.ndarray:
        """Where each pixel comes from: matrices from output to input coordinates (x right, y down, 0 at the centre).

        keys: uint64 (image,) from `image_keys`. Returns float64 (image, 2, 2).
        """
        flip = uniform(keys, self.seed, self.epoch, stream=0) < self.flip_probability
        angle = (2 * uniform(keys, self.seed, self.epoch, stream=1) - 1) * math.radians(self.rotation_degrees)
        sign = np.where(flip, -1.0, 1.0)
        cos, sin = np.cos(angle), np.sin(angle)
        return np.stack([np.stack([sign * cos, -sign * sin], -1), np.stack([sin, cos], -1)], -2)


def augment(pixels: torch.Tensor, keys: np.ndarray, how: Augmentation) -> torch.Tensor:
    """Flip left to right and rotate about the centre, bilinear, black outside; does not normalise.

    pixels: float32 (image, 1, size_px, size_px) in [0, 1]; keys: uint64 (image,) from `image_keys`.
    Returns a tensor of the same shape, range and device.
    """
    # Square pictures: coordinates in [-1, 1] need no correction for the aspect.
    theta = np.pad(how.matrices(keys), ((0, 0), (0, 0), (0, 1)))
    matrix = torch.from_numpy(theta.astype(np.float32)).to(pixels.device)  # (image, 2, 3)
    grid = F.affine_grid(matrix, list(pixels.shape), align_corners=False)
    return F.grid_sample(pixels, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def normalise(pixels: torch.Tensor, mean: float, standard_deviation: float) -> torch.Tensor:
    """float32 in [0, 1] -> float32 with the mean taken off, divided by the standard deviation."""
    return (pixels - mean) / standard_deviation


def warp(pixels: np.ndarray, matrix: np.ndarray, out: np.ndarray, top: int = 0) -> np.ndarray:
    """`augment` for one picture on the CPU, in grey levels: the same geometry, rounded to whole levels.

    OpenCV's warp of 8-bit pictures is 4 to 7 times as fast as grid_sample. pixels: uint8 (size_px, size_px); matrix:
    float64 (2, 2) from `Augmentation.matrices`; out: uint8 (height_px, size_px), takes the rows from `top` on.
    Returns out, or these rows of pixels if nothing moves.
    """
    if np.array_equal(matrix, np.eye(2)):
        return pixels[top : top + len(out)]
    import cv2

    size = len(pixels)
    centre = (size - 1) / 2
    affine = np.column_stack([matrix, centre - matrix @ [centre, centre - top]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    cv2.warpAffine(
        pixels, affine, (size, len(out)), dst=out, flags=flags, borderMode=cv2.BORDER_CONSTANT, borderValue=0
    )
    return out


#: Rows that are warped and normalised at a time: a strip of 2048 px then fits into a core's first cache.
STRIP_ROWS = 32


def warp_normalised(pixels: np.ndarray, matrix: np.ndarray, how: Augmentation, out: np.ndarray) -> None:
    """Warp and normalise one picture, a strip at a time that stays in the cache between the steps.

    pixels: uint8 (size_px, size_px); matrix: float64 (2, 2) from `Augmentation.matrices`; out: float32 of that shape.
    """
    import cv2

    scale, offset = 1 / (255 * how.standard_deviation), how.mean / how.standard_deviation
    turned = np.empty((STRIP_ROWS, len(pixels)), dtype=np.uint8)
    for top in range(0, len(pixels), STRIP_ROWS):
        strip = out[top : top + STRIP_ROWS]
        grey = warp(pixels, matrix, turned[: len(strip)], top)
        cv2.addWeighted(grey, scale, grey, 0.0, -offset, dst=strip, dtype=cv2.CV_32F)
