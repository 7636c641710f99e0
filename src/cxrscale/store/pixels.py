"""Pixels: reading native files as 8-bit grey, geometry, resampling, and the JPEG of the store."""

import io
import warnings
from collections.abc import Sequence
from threading import Lock
from typing import Literal, NamedTuple

import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from cxrscale.store.damage import JPEG_START, PNG_START, UnreadableImageError, check_jpeg, check_png
from cxrscale.store.settings import Accepted, Filter, Geometry, Quality

Bits = int | Literal["auto"]

PAD_FILL = 0  # black, as outside the collimated field
BITS = (8, 10, 12, 14, 16)  # what detectors give; "auto" takes one of them

_MODES = ("1", "L", "LA", "P", "RGB", "RGBA")  # and 16-bit grey
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_WARNINGS = Lock()  # which warnings are errors is set for all threads of a process


class Native(NamedTuple):
    """A native file as 8-bit grey, uint8 (height_px, width_px), and the bits a sample that it was scaled by."""

    pixels: np.ndarray
    bits: int


def decode_native(data: bytes, accepted: Accepted) -> Native:
    """Decode a native JPEG or PNG of a radiograph to 8-bit grey.

    Colour is turned to luma (ITU-R BT.601), transparency is ignored; 8 bits a sample stay as they are, 16 are scaled
    as `Accepted` says (nothing is windowed); EXIF orientation is applied.
    Raises UnreadableImageError for anything else: not an image, several frames, CMYK, floating point; any sign of
    damage, a decoder's warning is one; a picture that `accepted` does not allow.
    """
    try:
        native, alpha_varies = _decode(data, accepted.bits)
    except (UnreadableImageError, MemoryError, ImportError):
        raise
    except Exception as error:  # decoders raise anything at damaged bytes, and one picture must not stop a shard
        raise UnreadableImageError(f"cannot be decoded: {str(error) or type(error).__name__}") from error
    _check_content(native, alpha_varies, accepted)
    return native


def _decode(data: bytes, bits: Bits) -> tuple[Native, bool]:
    """The upright picture, and whether its transparency differs between pixels."""
    if not data.startswith((JPEG_START, PNG_START)):
        raise UnreadableImageError("cannot be decoded: it is no JPEG or PNG file")
    with _WARNINGS, warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            image: Image.Image = Image.open(io.BytesIO(data), formats=["JPEG", "PNG"])
        except UnidentifiedImageError:
            raise UnreadableImageError(
                "cannot be decoded: its header is damaged, or is that of a rare kind (a JPEG of 12 bits)"
            ) from None
        frames = getattr(image, "n_frames", 1)
        if frames > 1:
            raise UnreadableImageError(f"has {frames} frames; expected one")
        if image.mode not in _MODES and not image.mode.startswith("I"):
            raise UnreadableImageError(f"has the colour mode {image.mode}; expected grey or RGB")
        is_png = data.startswith(PNG_START)
        if is_png:
            check_png(data)
            image.load()
        orientation = image.getexif().get(0x0112, 1)
    if image.mode == "P":  # by way of RGBA, since Pillow warns where a palette's transparency is dropped
        image = image.convert("RGBA")
    if not is_png:  # libjpeg-turbo gives the luma of a colour JPEG as it is stored, in less time than its colours
        native = Native(simplejpeg.decode_jpeg(data, colorspace="GRAY", strict=True)[:, :, 0], 8)
        check_jpeg(data)
    elif data[24] == 16:  # the header's bits a sample
        native = _to_eight_bits(*_sixteen_bits(data, image), bits)
    else:
        native = Native(np.array(image.convert("L")), 8)
    if orientation in _TURNS:
        turned = Image.fromarray(native.pixels).transpose(_TURNS[orientation])
        native = native._replace(pixels=np.array(turned))
    if not image.has_transparency_data or image.mode.startswith("I"):
        return native, False
    least, most = image.convert("RGBA").getchannel("A").getextrema()
    return native, least != most


def _sixteen_bits(data: bytes, image: Image.Image) -> tuple[np.ndarray, int]:
    """Of a PNG of 16 bits a sample: its luma, uint16 (height_px, width_px), and the largest sample of its colours.

    image: the same, loaded by Pillow, which keeps 16 bits of grey alone.
    """
    if image.mode.startswith("I"):
        grey = np.asarray(image).astype(np.uint16)
        return grey, int(grey.max())
    import cv2

    samples = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if samples is None or samples.dtype != np.uint16 or samples.ndim != 3:
        raise UnreadableImageError("cannot be decoded: its 16 bits a sample cannot be read")
    blue, green, red = (samples[:, :, channel].astype(np.uint32) for channel in range(3))
    luma = (red * 19_595 + green * 38_470 + blue * 7_471 + 32_768) >> 16  # Pillow's weights; they fill 32 bits
    return luma.astype(np.uint16), int(samples[:, :, :3].max())


def _to_eight_bits(values: np.ndarray, largest: int, asked: Bits) -> Native:
    bits = next(b for b in BITS if largest < 2**b) if asked == "auto" else asked
    top: int = 2**bits - 1
    if largest > top:
        raise UnreadableImageError(f"holds the value {largest}; store.bits {bits} allows {top} at most")
    table = (np.arange(top + 1) * 255 + top // 2) // top
    return Native(table.astype(np.uint8)[values], bits)


def _check_content(native: Native, alpha_varies: bool, accepted: Accepted) -> None:
    """Raise UnreadableImageError if the picture can show nothing, or is no radiograph by its shape."""
    height, width = native.pixels.shape
    if min(height, width) < accepted.least_side_px:
        raise UnreadableImageError(
            f"is {height} x {width} px; expected a shorter side of {accepted.least_side_px} px (store.least_side_px)"
        )
    if max(height, width) > accepted.most_aspect * min(height, width):
        raise UnreadableImageError(
            f"is {height} x {width} px; expected a longer side of at most {accepted.most_aspect:g} times the shorter "
            f"(store.most_aspect)"
        )
    # 8 million pixels take Pillow 2.6 ms, OpenCV 2.4, np.bincount 17, np.unique 28.
    found = [grey for grey, count in enumerate(Image.fromarray(native.pixels).histogram()) if count]
    if len(found) == 1 and alpha_varies:
        raise UnreadableImageError("shows something in its transparency (alpha) alone")
    if len(found) == 1:
        raise UnreadableImageError({0: "is all black", 255: "is all white"}.get(found[0], "is of one grey"))
    if len(found) < accepted.least_levels:
        scaled = f" of {native.bits} bits a sample" if native.bits > 8 else ""
        raise UnreadableImageError(
            f"has {len(found)} grey levels{scaled}; expected {accepted.least_levels} (store.least_levels)"
        )


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
