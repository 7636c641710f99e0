"""Pixels: reading native files as 8-bit grey, geometry, resampling, and the JPEG of the store."""

import io
from collections.abc import Sequence
from typing import Literal

import numpy as np
import simplejpeg
from PIL import Image, ImageOps

Filter = Literal["area", "bilinear", "bicubic", "lanczos", "dct"]
Geometry = Literal["stretch", "pad"]
Quality = int | Literal["lossless"]

PAD_FILL = 0  # black, as outside the collimated field


class UnreadableImageError(Exception):
    """An image file that cannot be used; the message is the reason that quarantine.csv states."""


def decode_native(data: bytes) -> np.ndarray:
    """Decode a native JPEG or PNG of a radiograph to 8-bit grey.

    Colour is turned to luma (ITU-R BT.601), transparency is ignored; 16 bits are scaled so that 65,535 becomes 255 (the
    file's own range is kept: no windowing); EXIF orientation is applied. Returns uint8 (height_px, width_px).
    Raises UnreadableImageError for anything else: not an image, truncated, several frames, CMYK, floating point.
    """
    try:
        with Image.open(io.BytesIO(data), formats=["JPEG", "PNG"]) as image:
            frames = getattr(image, "n_frames", 1)
            if frames > 1:
                raise UnreadableImageError(f"has {frames} frames; expected one")
            if _is_plain(image):
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
        return np.array(upright.convert("L"))
    raise UnreadableImageError(f"has the colour mode {upright.mode}; expected grey or RGB")


def _is_plain(image: Image.Image) -> bool:
    """Whether an opened file is a grey JPEG that lies upright: libjpeg-turbo decodes it directly."""
    return image.format == "JPEG" and image.mode == "L" and not image.getexif().get(0x0112, 1) > 1


def resample(pixels: np.ndarray, height_px: int, width_px: int, filter_: Filter) -> np.ndarray:
    """Resample with antialiasing, stretching to the size asked for. uint8 (h, w) -> uint8 (height_px, width_px).

    "bilinear" is the triangle, "bicubic" the cubic with a = -0.5 and "lanczos" Lanczos' kernel with three lobes, each
    as wide as the reduction asks (as Pillow has them); "area" is the mean over what an output pixel covers, parts of
    pixels counted by their share. "dct" counts as "area" here: what a reduced decode leaves to do.
    """
    if pixels.shape == (height_px, width_px):
        return pixels
    if filter_ == "lanczos":
        return np.asarray(Image.fromarray(pixels).resize((width_px, height_px), Image.Resampling.LANCZOS))
    import cv2  # the store and training on a CPU need it, training on a GPU does not

    if filter_ in ("bilinear", "bicubic"):
        turned = cv2.transpose(_resample_rows(pixels, height_px, filter_))
        return cv2.transpose(_resample_rows(turned, width_px, filter_))
    height, width = pixels.shape
    if (height_px > height) != (width_px > width):  # OpenCV's mean holds only where both sides shrink, or both grow
        pixels = cv2.resize(pixels, (width_px, height), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(pixels, (width_px, height_px), interpolation=cv2.INTER_AREA))


def _resample_rows(pixels: np.ndarray, height_px: int, filter_: str) -> np.ndarray:
    """Resample along the columns alone. uint8 (h, w) -> uint8 (height_px, w).

    torch's kernels are vectorised over the channels of a colour picture with four of them. Along the columns it does
    not matter which pixels of a row are neighbours, so four of them are passed off as one pixel's channels: a third of
    the time that Pillow takes for grey pictures, and the same values but for rounding.
    """
    import torch  # takes seconds, and only the store's own jobs come here
    import torch.nn.functional as F

    height, width = pixels.shape
    padded = np.pad(pixels, ((0, 0), (0, -width % 4))) if width % 4 else pixels
    channels = torch.from_numpy(padded.reshape(1, height, -1, 4)).permute(0, 3, 1, 2)  # channels last in memory
    size = (height_px, channels.shape[3])
    resampled = F.interpolate(channels, size=size, mode=filter_, antialias=True)
    return resampled.permute(0, 2, 3, 1).reshape(height_px, -1).numpy()[:, :width]


def use_one_thread() -> None:
    """Keep torch and OpenCV to one thread in this process: jobs of the store run side by side, one a core."""
    import cv2
    import torch

    cv2.setNumThreads(1)
    torch.set_num_threads(1)


def inner_size(height: int, width: int, size_px: int, geometry: Geometry) -> tuple[int, int]:
    """Height and width that a picture has inside a square of size_px: all of it if stretched, less if padded."""
    if geometry == "stretch":
        return size_px, size_px
    scale = size_px / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def to_square(pixels: np.ndarray, size_px: int, geometry: Geometry, filter_: Filter) -> np.ndarray:
    """Bring a picture to size_px x size_px: "stretch" ignores the aspect ratio (as the paper does), "pad" keeps it,
    centres the picture and fills with black.
    """
    inner_height, inner_width = inner_size(pixels.shape[0], pixels.shape[1], size_px, geometry)
    inner = resample(pixels, inner_height, inner_width, filter_)
    if inner.shape == (size_px, size_px):
        return inner
    square = np.full((size_px, size_px), PAD_FILL, dtype=np.uint8)
    top, left = (size_px - inner_height) // 2, (size_px - inner_width) // 2
    square[top : top + inner_height, left : left + inner_width] = inner
    return square


def encode(pixels: np.ndarray, quality: Quality) -> bytes:
    """Encode uint8 (height_px, width_px) as a grey JPEG (quality 1 to 100 on libjpeg's scale) or, lossless, as PNG."""
    if quality != "lossless":
        return simplejpeg.encode_jpeg(np.ascontiguousarray(pixels)[:, :, None], quality=quality, colorspace="GRAY")
    import cv2

    return cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()


def decode(data: bytes | memoryview, at_least: tuple[int, int] = (0, 0)) -> np.ndarray:
    """Decode a grey JPEG or PNG of the store. Returns uint8 (height_px, width_px). Raises ValueError if it is damaged.

    at_least: (height_px, width_px); if given, a JPEG is decoded at the smallest of libjpeg's scales (eighths, by a
    reduced inverse DCT) that is not below it: most of the filter "dct". A side that is no multiple of eight pixels is
    rounded up, so that the picture is stretched by less than one output pixel.
    """
    if _is_png(data):
        return _decode_png(data)
    height, width = at_least
    return simplejpeg.decode_jpeg(data, "GRAY", min_height=height, min_width=width, strict=True)[:, :, 0]


def decode_into(data: bytes | memoryview, out: np.ndarray) -> None:
    """Decode a grey JPEG or PNG of the store into out, uint8 (height_px, width_px), contiguous.

    Raises ValueError if it is damaged or has another size.
    """
    png = _is_png(data)
    decoded = _decode_png(data) if png else simplejpeg.decode_jpeg(data, colorspace="GRAY", strict=True, buffer=out)
    if decoded.shape[:2] != out.shape:
        raise ValueError(f"it has {decoded.shape[0]} x {decoded.shape[1]} px, expected {out.shape[0]} x {out.shape[1]}")
    if png:
        out[:] = decoded


def _is_png(data: bytes | memoryview) -> bool:
    return data[:8] == b"\x89PNG\r\n\x1a\n"


def _decode_png(data: bytes | memoryview) -> np.ndarray:
    import cv2

    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if decoded is None or decoded.ndim != 2 or decoded.dtype != np.uint8:
        raise ValueError("it is no whole PNG in 8-bit grey")
    return decoded


def downscale(jpeg: bytes, sizes_px: Sequence[int], filter_: Filter) -> list[np.ndarray]:
    """Bring a square grey JPEG of the store to smaller sizes: uint8 (size_px, size_px) for each of sizes_px.

    It is decoded once, but once for each size with the filter "dct". Raises ValueError if it is damaged.
    """
    if filter_ == "dct":
        return [resample(decode(jpeg, (size, size)), size, size, "dct") for size in sizes_px]
    whole = decode(jpeg)
    return [resample(whole, size, size, filter_) for size in sizes_px]


def psnr_db(pixels: np.ndarray, reference: np.ndarray) -> float:
    """Peak signal-to-noise ratio of 8-bit pictures in dB, peak 255; infinite where they are equal."""
    error = np.mean((pixels.astype(np.float64) - reference) ** 2)
    return float(10 * np.log10(255**2 / error)) if error else float("inf")
