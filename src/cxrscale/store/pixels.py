"""Pixels: reading native files as 8-bit grey, geometry, resampling, and the JPEG of the store."""

import io
from typing import Literal

import numpy as np
import simplejpeg
from PIL import Image, ImageOps

Filter = Literal["area", "bilinear", "bicubic", "lanczos"]
Geometry = Literal["stretch", "pad"]

#: Pillow scales every filter's support with the reduction, so that all of them are antialiased.
PILLOW_FILTERS = {
    "area": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}

PAD_FILL = 0  # black, as outside the collimated field


class UnreadableImageError(Exception):
    """An image file that cannot be used; the message is the reason that quarantine.csv states."""


def decode_native(data: bytes) -> np.ndarray:
    """Decode a native JPEG or PNG of a radiograph to 8-bit grey.

    Colour is turned to luma (ITU-R BT.601); 16 bits are scaled so that 65,535 becomes 255 (the file's own range is
    kept: no windowing); EXIF orientation is applied. Returns uint8 (height_px, width_px).
    Raises UnreadableImageError for anything else: not an image, truncated, several frames, CMYK, floating point.
    """
    try:
        with Image.open(io.BytesIO(data), formats=["JPEG", "PNG"]) as image:
            frames = getattr(image, "n_frames", 1)
            if frames > 1:
                raise UnreadableImageError(f"has {frames} frames; expected one")
            if image.format == "JPEG" and image.mode == "L" and not image.getexif().get(0x0112, 1) > 1:
                return simplejpeg.decode_jpeg(data, colorspace="GRAY")[:, :, 0]
            image.load()
            upright = ImageOps.exif_transpose(image)
    except UnreadableImageError:
        raise
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UnreadableImageError(f"cannot be decoded: {error}") from error
    if upright.mode.startswith("I"):  # 16-bit grey
        values = np.asarray(upright, dtype=np.int64)
        if values.min() < 0 or values.max() > 65_535:
            raise UnreadableImageError("has values outside 16 bits")
        return ((values * 255 + 32_767) // 65_535).astype(np.uint8)
    if upright.mode in ("L", "1", "P", "RGB", "LA", "RGBA"):
        return np.asarray(upright.convert("L"))
    raise UnreadableImageError(f"has the colour mode {upright.mode}; expected grey or RGB")


def resample(pixels: np.ndarray, height_px: int, width_px: int, filter_: Filter) -> np.ndarray:
    """Resample with antialiasing, stretching to the size asked for. uint8 (h, w) -> uint8 (height_px, width_px)."""
    if pixels.shape == (height_px, width_px):
        return pixels
    resized = Image.fromarray(pixels).resize((width_px, height_px), PILLOW_FILTERS[filter_])
    return np.asarray(resized)


def to_square(pixels: np.ndarray, size_px: int, geometry: Geometry, filter_: Filter) -> np.ndarray:
    """Bring a picture to size_px x size_px: "stretch" ignores the aspect ratio (as the paper does), "pad" keeps it,
    centres the picture and fills with black.
    """
    if geometry == "stretch":
        return resample(pixels, size_px, size_px, filter_)
    height, width = pixels.shape
    scale = size_px / max(height, width)
    inner_height, inner_width = (max(1, round(side * scale)) for side in (height, width))
    square = np.full((size_px, size_px), PAD_FILL, dtype=np.uint8)
    top, left = (size_px - inner_height) // 2, (size_px - inner_width) // 2
    square[top : top + inner_height, left : left + inner_width] = resample(pixels, inner_height, inner_width, filter_)
    return square


def encode(pixels: np.ndarray, quality: int) -> bytes:
    """Encode uint8 (height_px, width_px) as a grey JPEG; quality 1 to 100 on libjpeg's scale."""
    return simplejpeg.encode_jpeg(np.ascontiguousarray(pixels)[:, :, None], quality=quality, colorspace="GRAY")


def decode(data: bytes | memoryview) -> np.ndarray:
    """Decode a grey JPEG of the store. Returns uint8 (height_px, width_px). Raises ValueError if it is damaged."""
    return simplejpeg.decode_jpeg(data, colorspace="GRAY", strict=True)[:, :, 0]


def decode_into(data: bytes | memoryview, out: np.ndarray) -> None:
    """Decode a grey JPEG of the store into out, uint8 (height_px, width_px), contiguous.

    Raises ValueError if it is damaged or has another size.
    """
    decoded = simplejpeg.decode_jpeg(data, colorspace="GRAY", strict=True, buffer=out)
    if decoded.shape[:2] != out.shape:
        raise ValueError(f"it has {decoded.shape[0]} x {decoded.shape[1]} px, expected {out.shape[0]} x {out.shape[1]}")
