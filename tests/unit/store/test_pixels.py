import io

import numpy as np
import pytest
from PIL import Image

from cxrscale.store import pixels
from cxrscale.store.pixels import UnreadableImageError, decode_native, to_square


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


@pytest.mark.parametrize("filter_", list(pixels.PILLOW_FILTERS))
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
