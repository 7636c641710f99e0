import io
import re
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

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
from cxrscale.store.settings import Accepted


def saved(array_or_image, format_="PNG", **options) -> bytes:
    image = array_or_image if isinstance(array_or_image, Image.Image) else Image.fromarray(array_or_image)
    out = io.BytesIO()
    image.save(out, format_, **options)
    return out.getvalue()


#: Pictures may be as small and as plain as a test likes.
ANY = Accepted(least_levels=1, least_side_px=1, most_aspect=100)


def decoded(data: bytes, accepted: Accepted = ANY) -> np.ndarray:
    return decode_native(data, accepted).pixels


GREY = np.arange(256, dtype=np.uint8).reshape(16, 16)
NOISE = np.random.default_rng(0).integers(0, 256, (64, 48)).astype(np.uint8)


def test_grey_png_is_itself_and_grey_jpeg_is_what_pillow_reads():
    assert (decoded(saved(GREY)) == GREY).all()
    jpeg = saved(NOISE, "JPEG", quality=90)
    assert np.abs(decoded(jpeg).astype(int) - np.asarray(Image.open(io.BytesIO(jpeg)))).max() <= 1


@pytest.mark.parametrize(("rgb", "luma"), [((255, 0, 0), 76), ((0, 255, 0), 150), ((0, 0, 255), 29), ((9, 9, 9), 9)])
def test_colour_becomes_luma(rgb, luma):
    """ITU-R BT.601: 0.299 R + 0.587 G + 0.114 B."""
    colour = np.full((8, 8, 3), rgb, np.uint8)
    colour[:, 4:] = 0
    expected = np.where(np.arange(8) < 4, luma, 0)
    assert (decoded(saved(colour)) == expected).all()
    rgba = np.dstack([colour, np.full((8, 8), 128, np.uint8)])
    assert (decoded(saved(rgba)) == expected).all()


def test_sixteen_bits_are_scaled_by_257():
    wide = GREY.astype(np.uint16) * 257
    assert (decoded(saved(wide)) == GREY).all()
    assert decoded(saved(np.array([[0, 128, 129, 65_535]], np.uint16))).tolist() == [[0, 0, 1, 255]]


def test_a_palette_is_looked_up():
    image = Image.fromarray(np.array([[0, 1], [1, 0]], np.uint8), mode="L").convert("P")
    image.putpalette([200, 200, 200, 10, 10, 10] + [0] * 762)
    assert decoded(saved(image)).tolist() == [[200, 10], [10, 200]]


@pytest.mark.parametrize("format_", ["PNG", "JPEG"])
def test_exif_orientation_is_applied(format_):
    """Orientation 6: the file's left side is shown at the top."""
    lying = np.zeros((16, 32), np.uint8)
    lying[:, 16:] = 200
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = decoded(saved(lying, format_, exif=exif))
    assert upright.shape == (32, 16)
    assert upright[:15].max() < 10
    assert upright[17:].min() > 190


def test_a_bilevel_image_is_black_and_white():
    assert decoded(saved(Image.fromarray(GREY > 127))).tolist() == np.where(GREY > 127, 255, 0).tolist()


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
        decode_native(data, ANY)


def radiograph_like(height: int, width: int) -> np.ndarray:
    """Power falling with the square of the frequency, as radiographs have it, over most of the grey range."""
    rng = np.random.default_rng(8)
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    noise = np.fft.irfft2(
        np.fft.rfft2(rng.standard_normal((height, width))) / (0.01 + np.hypot(fy, fx)), s=(height, width)
    )
    return np.clip(128 + 40 * noise / noise.std(), 0, 255).astype(np.uint8)


def png(samples: np.ndarray, colour_type: int) -> bytes:
    """A PNG of 16 bits a sample; Pillow writes grey alone. samples: uint16 (h, w) or (h, w, channels)."""
    height, width = samples.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(v)) + k + v + struct.pack(">I", zlib.crc32(k + v)) for k, v in chunks
    )


#: Kind of PNG -> a function that gives one of 16 bits a sample from grey, uint16 (h, w).
SIXTEEN_BITS = {
    "grey": lambda grey: png(grey, 0),
    "colour": lambda grey: png(np.dstack([grey] * 3), 2),
    "grey and alpha": lambda grey: png(np.dstack([grey, ~grey]), 4),
    "colour and alpha": lambda grey: png(np.dstack([grey] * 3 + [~grey]), 6),
}


@pytest.mark.parametrize("kind", SIXTEEN_BITS)
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_the_levels_of_16_bits_a_sample_are_kept(kind, bits):
    """Ten bits in 16 would leave 5 of 256 levels, twelve 17, if 65,535 became 255."""
    grey = np.linspace(0, 2**bits - 1, 64 * 48).round().astype(np.uint16).reshape(64, 48)
    native = decode_native(SIXTEEN_BITS[kind](grey), Accepted())
    assert native.bits == bits
    assert native.pixels.dtype == np.uint8
    assert (native.pixels == np.floor(grey * 255.0 / (2**bits - 1) + 0.5)).all()
    assert len(np.unique(native.pixels)) == 256


def test_luma_is_taken_before_bits_are_lost():
    red, green, blue = np.random.default_rng(4).integers(0, 4096, (3, 40, 50)).astype(np.uint16)
    native = decode_native(png(np.dstack([red, green, blue]), 2), Accepted("auto"))
    exact = (0.299 * red + 0.587 * green + 0.114 * blue) * 255 / 4095
    assert native.bits == 12
    assert np.abs(native.pixels - exact).max() < 0.54  # half a level of 8 bits, half one of 12


@pytest.mark.parametrize(
    ("largest", "bits"), [(255, 8), (256, 10), (1023, 10), (1024, 12), (4096, 14), (16_383, 14), (16_384, 16)]
)
def test_the_largest_sample_decides_on_the_bits(largest, bits):
    assert decode_native(png(np.array([[0, largest]], np.uint16), 0), ANY).bits == bits
    red = np.zeros((1, 2, 3), np.uint16)
    red[0, 1, 0] = largest  # its luma fills two bits less
    assert decode_native(png(red, 2), ANY).bits == bits


@pytest.mark.parametrize("kind", SIXTEEN_BITS)
def test_bits_can_be_fixed_and_hold_for_files_of_16_bits_a_sample_alone(kind):
    grey = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    native = decode_native(SIXTEEN_BITS[kind](grey), Accepted(bits=14))
    assert native.bits == 14
    assert (native.pixels == np.floor(grey * 255.0 / 16_383 + 0.5)).all()
    with pytest.raises(UnreadableImageError, match=r"^holds the value 4095; store.bits 10 allows 1023 at most$"):
        decode_native(SIXTEEN_BITS[kind](grey), Accepted(bits=10))
    with pytest.raises(UnreadableImageError, match=r"^has 17 grey levels of 16 bits a sample; expected 32 \(store.lea"):
        decode_native(SIXTEEN_BITS[kind](grey), Accepted(bits=16))
    eight = decode_native(saved(NOISE), Accepted(bits=12))
    assert eight.bits == 8
    assert (eight.pixels == NOISE).all()


def tinted(height: int = 301, width: int = 257) -> Image.Image:
    """A radiograph-like picture whose colours differ, of odd sides."""
    grey = radiograph_like(height, width).astype(int)
    return Image.fromarray(np.dstack([grey * 0.5 + 60, grey * 0.5 + 40, 170 - grey * 0.3]).astype(np.uint8))


JPEGS = {
    "4:2:0": {"subsampling": 2},
    "4:2:2": {"subsampling": 1},
    "4:4:4": {"subsampling": 0},
    "RGB": {"keep_rgb": True},
    "progressive": {"progressive": True},
    "optimised": {"optimize": True},
    "restarts": {"restart_marker_rows": 1},
    "grey": {"mode": "L"},
    "grey progressive": {"mode": "L", "progressive": True},
}


def jpeg(kind: str) -> bytes:
    options = dict(JPEGS[kind])
    return saved(tinted().convert(options.pop("mode", "RGB")), "JPEG", quality=90, **options)


@pytest.mark.parametrize("orientation", [1, 2, 3, 4, 5, 6, 7, 8])
@pytest.mark.parametrize("kind", JPEGS)
def test_a_jpegs_luma_is_that_of_pillows_upright_picture(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = dict(JPEGS[kind])
    data = saved(tinted().convert(options.pop("mode", "RGB")), "JPEG", quality=90, exif=exif, **options)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("L"))
    found = decoded(data, Accepted())
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).max() <= 2


def refused(data: bytes, accepted: Accepted = ANY) -> str:
    with pytest.raises(UnreadableImageError) as error:
        decode_native(data, accepted)
    return str(error.value)


@pytest.mark.parametrize("fraction", [0.35, 0.5, 0.65])
@pytest.mark.parametrize("kind", JPEGS)
def test_a_jpeg_with_a_hole_or_an_end_in_its_middle_is_damaged_whatever_its_mode(kind, fraction):
    data = jpeg(kind)
    at = int(fraction * len(data))
    for damaged in (data[:at] + bytes(200) + data[at + 200 :], data[:at] + b"\xff\xd9" + data[at + 2 :], data[:at]):
        assert refused(damaged).startswith("cannot be decoded: ")


@pytest.mark.parametrize("kind", ["progressive", "grey progressive"])
def test_a_jpeg_that_ends_between_two_scans_is_damaged(kind):
    """libjpeg takes it for a whole, blurred picture and says nothing."""
    data = jpeg(kind)
    begins = [data.rfind(b"\xff\xc4", 0, m.start()) for m in re.finditer(b"\xff\xda", data)]
    assert len(begins) >= 6
    for begin in begins[1:]:
        assert "ends before its last scan" in refused(data[:begin] + b"\xff\xd9")


@pytest.mark.parametrize("how", [{}, {"optimize": True}, {"progressive": True}])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_flat_parts_of_a_picture_are_no_lost_bytes(mode, how):
    """An optimised coder writes long runs of zeros for a black border."""
    picture = np.zeros((1200, 1200), np.uint8)
    picture[300:700, 400:800] = radiograph_like(400, 400)
    decoded(saved(Image.fromarray(picture).convert(mode), "JPEG", **how), Accepted())


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.mark.parametrize(
    "whole",
    [
        saved(NOISE),
        saved(np.dstack([NOISE] * 3)),
        png(NOISE.astype(np.uint16) * 257, 0),
        png(np.dstack([NOISE] * 3), 2),
    ],
    ids=["grey", "colour", "16-bit grey", "48-bit colour"],
)
def test_a_png_whose_bytes_changed_is_damaged(whole):
    decoded(whole)
    for at in (whole.index(b"IDAT") + 300, len(whole) - 14, len(whole) - 3):  # pixels, their checksum, the end's
        assert "does not match its checksum" in refused(flipped(whole, at))
    assert "ends before its last chunk" in refused(whole[:-12])
    assert "ends before its last chunk" in refused(whole[:-5])


def test_a_decoders_warning_is_damage():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = saved(NOISE, "JPEG", exif=exif.tobytes()[:-12])
    assert refused(data).startswith("cannot be decoded: Corrupt EXIF data")


@pytest.mark.parametrize(
    "error",
    [
        OSError("cannot identify image file <_io.BytesIO object at 0x7f3a5c1b2d40>"),
        struct.error("unpack requires a buffer of 4 bytes\n(in <function f at 0x7F3A5C1B2D40>)"),
        SyntaxError("broken at 0x7f3a5c1b2d40"),
        OverflowError(),
        KeyError(b"?"),
        zlib.error("Error -3"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_a_decoder_raises_is_a_reason_without_an_address(monkeypatch, error):
    def fail(*_, **__):
        raise error

    for module, name, data in [(Image, "open", saved(NOISE)), (pixels.simplejpeg, "decode_jpeg", saved(NOISE, "JPEG"))]:
        with monkeypatch.context() as patched:
            patched.setattr(module, name, fail)
            reason = refused(data)
        assert re.fullmatch(r"cannot be decoded: \w[^\n]*", reason)
        assert "0x" not in reason.lower()


def test_memory_that_is_missing_is_no_fault_of_the_picture(monkeypatch):
    def fail(*_, **__):
        raise MemoryError

    monkeypatch.setattr(pixels.simplejpeg, "decode_jpeg", fail)
    with pytest.raises(MemoryError):
        decoded(saved(NOISE, "JPEG"))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (saved(np.zeros((64, 64), np.uint8)), "is all black"),
        (saved(np.zeros((64, 64, 3), np.uint8), "JPEG"), "is all black"),
        (saved(np.full((64, 64), 255, np.uint8), "JPEG"), "is all white"),
        (png(np.full((64, 64, 3), 65_535, np.uint16), 2), "is all white"),
        (saved(np.full((64, 64, 3), (10, 200, 90), np.uint8)), "is of one grey"),
        (saved(Image.fromarray(NOISE > 127)), "has 2 grey levels; expected 32 (store.least_levels)"),
        (saved(NOISE // 9), "has 29 grey levels; expected 32 (store.least_levels)"),
        (saved(NOISE[:1, :1]), "is 1 x 1 px; expected a shorter side of 32 px (store.least_side_px)"),
        (saved(NOISE[:, :31], "JPEG"), "is 64 x 31 px; expected a shorter side of 32 px (store.least_side_px)"),
        (saved(np.resize(NOISE, (10, 10_000))), "is 10 x 10000 px; expected a shorter side of 32 px (store.least_side"),
        (
            saved(np.resize(NOISE, (161, 40)), "JPEG"),
            "is 161 x 40 px; expected a longer side of at most 4 times the shorter (store.most_aspect)",
        ),
        (saved(np.dstack([NOISE * 0] * 3 + [NOISE])), "shows something in its transparency (alpha) alone"),
        (saved(np.dstack([NOISE * 0 + 9, NOISE])), "shows something in its transparency (alpha) alone"),
        (
            png(np.dstack([NOISE * 0, NOISE]).astype(np.uint16) * 257, 4),
            "shows something in its transparency (alpha) alone",
        ),
        (
            saved(Image.fromarray(NOISE, mode="L").convert("P", palette=0), transparency=bytes(range(256))),
            None,
        ),
    ],
    ids=[
        "black", "black JPEG", "white JPEG", "white 48 bits", "one colour", "mask", "29 levels", "one pixel", "narrow",
        "line", "strip", "RGBA", "LA", "LA of 16 bits", "palette with transparency",
    ],
)  # fmt: skip
def test_pictures_that_can_show_nothing_are_refused(data, reason):
    if reason is None:
        decoded(data, Accepted())
    else:
        assert refused(data, Accepted()).startswith(reason)


def test_a_palette_of_one_colour_may_hide_a_picture_in_its_transparency():
    image = Image.fromarray(NOISE).convert("P")
    image.putpalette([7, 7, 7] * 256)
    assert refused(saved(image)) == "is of one grey"
    assert refused(saved(image, transparency=bytes(range(256)))) == "shows something in its transparency (alpha) alone"


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
