import io

import numpy as np
import pytest
from PIL import Image

from cxrscale.store import pixels
from cxrscale.store.pixels import (
    UnreadableImageError,
    decode,
    decode_into,
    decode_native,
    downscale,
    encode,
    resample,
    to_square,
)


def saved(array_or_image, format_="PNG", **options) -> bytes:
    image = array_or_image if isinstance(array_or_image, Image.Image) else Image.fromarray(array_or_image)
    out = io.BytesIO()
    image.save(out, format_, **options)
    return out.getvalue()


GREY = np.arange(256, dtype=np.uint8).reshape(16, 16)
NOISE = np.random.default_rng(0).integers(0, 256, (64, 48)).astype(np.uint8)


def test_grey_png_is_itself_and_grey_jpeg_is_what_pillow_reads():
    assert (decode_native(saved(GREY)) == GREY).all()
    jpeg = saved(NOISE, "JPEG", quality=90)
    assert np.abs(decode_native(jpeg).astype(int) - np.asarray(Image.open(io.BytesIO(jpeg)))).max() <= 1


@pytest.mark.parametrize(("rgb", "luma"), [((255, 0, 0), 76), ((0, 255, 0), 150), ((0, 0, 255), 29), ((9, 9, 9), 9)])
def test_colour_becomes_luma(rgb, luma):
    """ITU-R BT.601: 0.299 R + 0.587 G + 0.114 B."""
    colour = np.full((8, 8, 3), rgb, np.uint8)
    assert (decode_native(saved(colour)) == luma).all()
    rgba = np.dstack([colour, np.full((8, 8), 128, np.uint8)])
    assert (decode_native(saved(rgba)) == luma).all()


def test_sixteen_bits_are_scaled_by_257():
    wide = GREY.astype(np.uint16) * 257
    assert (decode_native(saved(wide)) == GREY).all()
    assert decode_native(saved(np.array([[0, 128, 129, 65_535]], np.uint16))).tolist() == [[0, 0, 1, 255]]


def test_a_palette_is_looked_up():
    image = Image.fromarray(np.array([[0, 1], [1, 0]], np.uint8), mode="L").convert("P")
    image.putpalette([200, 200, 200, 10, 10, 10] + [0] * 762)
    assert decode_native(saved(image)).tolist() == [[200, 10], [10, 200]]


@pytest.mark.parametrize("format_", ["PNG", "JPEG"])
def test_exif_orientation_is_applied(format_):
    """Orientation 6: the file's left side is shown at the top."""
    lying = np.zeros((16, 32), np.uint8)
    lying[:, 16:] = 200
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = decode_native(saved(lying, format_, exif=exif))
    assert upright.shape == (32, 16)
    assert upright[:15].max() < 10
    assert upright[17:].min() > 190


def test_a_bilevel_image_is_black_and_white():
    assert decode_native(saved(Image.fromarray(GREY > 127))).tolist() == np.where(GREY > 127, 255, 0).tolist()


def apng() -> bytes:
    frames = [Image.fromarray(GREY), Image.fromarray(GREY.T.copy())]
    return saved(frames[0], save_all=True, append_images=frames[1:])


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"no image at all", "cannot be decoded"),
        (b"", "cannot be decoded"),
        (saved(Image.new("CMYK", (8, 8)), "JPEG"), "has the colour mode CMYK; expected grey or RGB"),
        (saved(NOISE, "JPEG")[:-400], "cannot be decoded"),
        (saved(np.dstack([NOISE] * 3), "JPEG")[:-400], "cannot be decoded"),
        (saved(NOISE)[:-400], "cannot be decoded"),
        (saved(NOISE, "TIFF"), "cannot be decoded"),
        (apng(), "has 2 frames; expected one"),
    ],
    ids=["text", "empty", "CMYK", "short grey JPEG", "short RGB JPEG", "short PNG", "TIFF", "two frames"],
)
def test_what_cannot_be_used_says_why(data, reason):
    with pytest.raises(UnreadableImageError, match=reason):
        decode_native(data)


def test_padding_by_hand():
    """Two wide, four high, to four by four: a black column on each side. One row of eight, to four: half as large."""
    square = to_square(np.full((4, 2), 200, np.uint8), 4, "pad", "bilinear")
    assert square.tolist() == [[0, 200, 200, 0]] * 4
    square = to_square(np.full((2, 8), 90, np.uint8), 4, "pad", "area")
    assert square.tolist() == [[0] * 4, [90] * 4, [0] * 4, [0] * 4]


def test_stretching_fills_the_square():
    assert (to_square(np.full((4, 2), 200, np.uint8), 6, "stretch", "lanczos") == 200).all()


def test_area_is_the_mean_of_what_is_covered():
    block = np.array([[0, 20, 100, 100], [40, 60, 100, 100]], np.uint8)
    assert pixels.resample(block, 1, 2, "area").tolist() == [[30, 100]]


def kernel(filter_: str, x: np.ndarray) -> np.ndarray:
    """The textbook kernels at distance x, in output pixels."""
    x = np.abs(x)
    if filter_ == "bilinear":
        return np.clip(1 - x, 0, None)
    if filter_ == "bicubic":  # Keys 1981, a = -0.5
        near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
        return np.where(x < 1, near, np.where(x < 2, far, 0))
    return np.where(x < 3, np.sinc(x) * np.sinc(x / 3), 0)


def weights(n_in: int, n_out: int, filter_: str) -> np.ndarray:
    """Float64 weights (n_out, n_in) of one axis: the kernel widened by the reduction, or the share that is covered."""
    scale = n_in / n_out
    found = np.zeros((n_out, n_in))
    for i in range(n_out):
        if filter_ == "area":
            found[i] = np.clip(
                np.minimum(np.arange(n_in) + 1, (i + 1) * scale) - np.maximum(np.arange(n_in), i * scale), 0, None
            )
        else:
            found[i] = kernel(filter_, (np.arange(n_in) + 0.5 - (i + 0.5) * scale) / max(scale, 1))
    return found / found.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("filter_", ["area", "bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize(
    "size", [(204, 204), (51, 64), (153, 255), (306, 100), (400, 300), (400, 100), (100, 400)], ids=str
)
def test_resampling_equals_a_float64_reference(filter_, size):
    """Within 1.5 grey levels: half a level for each of the two passes, each rounded, and the lobes of the kernels.

    The picture keeps off black and white, since 8-bit passes clip what a kernel with lobes overshoots.
    """
    picture = np.random.default_rng(3).integers(80, 176, (306, 255)).astype(np.uint8)
    expected = weights(306, size[0], filter_) @ picture @ weights(255, size[1], filter_).T
    assert np.abs(pixels.resample(picture, *size, filter_) - expected).max() <= 1.5


def radiograph_like(height: int, width: int) -> np.ndarray:
    """Power falling with the square of the frequency, as radiographs have it, over most of the grey range."""
    rng = np.random.default_rng(8)
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    noise = np.fft.irfft2(
        np.fft.rfft2(rng.standard_normal((height, width))) / (0.01 + np.hypot(fy, fx)), s=(height, width)
    )
    return np.clip(128 + 40 * noise / noise.std(), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("size_px", "levels", "least_db"), [(256, 1.5, 35), (128, 1.5, 35), (64, 0.6, 50), (96, 6, 30)]
)
def test_a_reduced_decode_is_near_the_area_filter(size_px, levels, least_db):
    """At a half and a quarter 1.5 grey levels off on average; at an eighth, both are the mean of a block. Between, the
    area filter takes the rest in a second step, which softens."""
    jpeg = pixels.encode(radiograph_like(512, 512), 95)
    (reduced,), (area,) = (pixels.downscale(jpeg, [size_px], f) for f in ("dct", "area"))
    assert reduced.shape == (size_px, size_px)
    assert np.abs(reduced.astype(int) - area).mean() < levels
    assert pixels.psnr_db(reduced, area) > least_db


@pytest.mark.parametrize("filter_", ["area", "bilinear", "lanczos", "dct"])
def test_sizes_made_together_are_those_made_alone(filter_):
    jpeg = pixels.encode(radiograph_like(256, 256), 90)
    together = pixels.downscale(jpeg, [128, 100, 32], filter_)
    for size_px, picture in zip([128, 100, 32], together, strict=True):
        assert (picture == pixels.downscale(jpeg, [size_px], filter_)[0]).all()


def test_psnr_by_hand():
    assert pixels.psnr_db(np.full((2, 2), 12, np.uint8), np.full((2, 2), 10, np.uint8)) == pytest.approx(
        42.1102, abs=1e-4
    )
    assert pixels.psnr_db(GREY, GREY) == float("inf")


@pytest.mark.parametrize("filter_", ["area", "bilinear", "bicubic", "lanczos"])
def test_every_filter_is_antialiased(filter_):
    """A chequerboard of single pixels is far above the limit of a quarter of its size: only its mean may be left."""
    board = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)
    small = pixels.resample(board, 16, 16, filter_)
    assert np.abs(small.astype(float) - 127.5).max() < 4


def test_the_stores_jpeg_returns_nearly_what_it_was_given_and_damage_is_an_error():
    smooth = np.clip(np.add.outer(np.arange(64), np.arange(48)) * 2, 0, 255).astype(np.uint8)
    data = pixels.encode(smooth, 95)
    assert np.abs(pixels.decode(data).astype(int) - smooth).max() <= 4
    assert len(pixels.encode(NOISE, 50)) < len(pixels.encode(NOISE, 95))
    with pytest.raises(ValueError, match=r"\w"):
        pixels.decode(data[: len(data) // 2])


def test_a_lossless_store_gives_back_what_went_in_and_finds_damage():
    data = encode(NOISE, "lossless")
    assert np.array_equal(decode(data), NOISE)
    out = np.empty_like(NOISE)
    decode_into(memoryview(data), out)
    assert np.array_equal(out, NOISE)
    assert np.array_equal(downscale(data, [16], "area")[0], resample(NOISE, 16, 16, "area"))
    with pytest.raises(ValueError, match="expected 8 x 8"):
        decode_into(data, np.empty((8, 8), np.uint8))
    with pytest.raises(ValueError, match="no whole PNG in 8-bit grey"):
        decode(data[:200])
