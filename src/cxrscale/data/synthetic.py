"""A synthetic data set with a known answer, in MIMIC-CXR-JPG's exact layout.

Each finding is drawn with a pattern of known spatial scale, in units of the image's width and height, so that which
resolution can show it follows from sampling theory: a grating of wavelength w (a fraction of the width) survives
antialiased downscaling to S pixels only if S > 2 / w. Pictures hold body, lungs, heart, ribs, smooth tissue noise and
film grain, so that they are not trivial. Everything follows from the seed: the same settings give the same bytes.
"""

import csv
import gzip
import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from scipy.special import ndtr, ndtri

from cxrscale.common.errors import StudyError
from cxrscale.data.findings import CHEXPERT_FINDINGS
from cxrscale.data.settings import SYNTHETIC_FILES, Planted, SyntheticSettings

MARKER = "SYNTHETIC"  # its presence says that the folder was made here and may be made again


def make(root: Path, settings: SyntheticSettings) -> int:
    """Write the data set into `root` and return the number of images.

    Beside MIMIC-CXR-JPG's own files: boxes.csv (where each finding was drawn, native pixels, edges inclusive of the
    minimum and exclusive of the maximum) and planted.csv (how). Refuses, with StudyError, a folder that holds
    something it did not make.
    """
    _check_can_be_made(root, settings)
    root.mkdir(parents=True, exist_ok=True)
    (root / MARKER).write_text("Made by cxrscale; no patient is in it. It may be deleted and made again.\n")

    # Streams of their own, so that correlation and label noise at zero leave all else as it is.
    rng, common, noise = (np.random.default_rng(np.random.SeedSequence([settings.seed, s])) for s in (0, 2, 3))
    made = _Made()
    for p in range(settings.patients):
        subject = str(10_000_000 + 37 * p + 11)
        split = rng.choice(["train", "validate", "test"], p=[0.9, 0.03, 0.07])
        for s in range(int(rng.integers(1, 4))):
            examination = str(50_000_000 + 131 * p + 17 * s)
            present = _draw_present(settings, rng, float(common.standard_normal()))
            flipped = noise.random(len(present)) < settings.label_noise
            labelled = {f: shows != bool(flip) for (f, shows), flip in zip(present.items(), flipped, strict=True)}
            for source in made.labels.values():
                source.append([subject, examination, *_label_row(labelled, settings, rng)])
            views = ["PA", "LATERAL"] if rng.random() < 0.4 else [str(rng.choice(["AP", "PA", ""], p=[0.6, 0.3, 0.1]))]
            for view in views:
                dicom = "-".join(f"{word:08x}" for word in rng.integers(0, 2**32, size=5))
                pixels, drawn = draw(view == "LATERAL", present, settings, len(made.names))
                made.add(root, pixels, f"files/p{subject[:2]}/p{subject}/s{examination}/{dicom}.jpg")
                date = 21_000_101 + s
                made.metadata.append([dicom, subject, examination, "CHEST", view, *pixels.shape, date, "80556.875"])
                made.splits.append([dicom, examination, subject, split])
                made.boxes += [[dicom, finding, *box] for finding, box in drawn]
    made.write(root, settings)
    return len(made.names)


def _check_can_be_made(root: Path, settings: SyntheticSettings) -> None:
    if root.exists() and any(root.iterdir()) and not (root / MARKER).is_file():
        raise StudyError(
            f"dataset.root: {root} is not empty and was not made by the synthetic generator. "
            f"Point dataset.root to a new folder."
        )
    unknown = [f for f in settings.planted if f not in CHEXPERT_FINDINGS]
    if unknown:
        raise StudyError(
            f"dataset.synthetic.planted: {unknown[0]!r} is no finding of MIMIC-CXR-JPG; "
            f"expected one of {', '.join(CHEXPERT_FINDINGS)}."
        )
    for finding, how in settings.planted.items():
        if absent := [f for f in how.includes if f not in settings.planted or settings.planted[f].pattern == "any"]:
            raise StudyError(f"dataset.synthetic.planted.{finding}.includes: {absent[0]!r} is not drawn.")


@dataclass
class _Made:
    """What is made so far, as rows of the csv files; names, sums: of the pictures."""

    metadata: list[list[Any]] = field(default_factory=list)
    splits: list[list[Any]] = field(default_factory=list)
    boxes: list[list[Any]] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    sums: list[str] = field(default_factory=list)
    labels: dict[str, list[list[str]]] = field(default_factory=lambda: {"chexpert": [], "negbio": []})

    def add(self, root: Path, pixels: np.ndarray, path: str) -> None:
        """Write a picture."""
        data = simplejpeg.encode_jpeg(pixels[:, :, None], quality=95, colorspace="GRAY")
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)
        self.names.append(path)
        self.sums.append(f"{hashlib.sha256(data).hexdigest()}  {path}")

    def write(self, root: Path, settings: SyntheticSettings) -> None:
        """Write the csv files and lists."""
        head = ["dicom_id", "subject_id", "study_id", "PerformedProcedureStepDescription", "ViewPosition", "Rows"]
        _write_csv(root / SYNTHETIC_FILES[0], [*head, "Columns", "StudyDate", "StudyTime"], self.metadata)
        _write_csv(root / SYNTHETIC_FILES[1], ["dicom_id", "study_id", "subject_id", "split"], self.splits)
        for name, source in zip(SYNTHETIC_FILES[2:], self.labels.values(), strict=True):
            _write_csv(root / name, ["subject_id", "study_id", *CHEXPERT_FINDINGS], source)
        _write_csv(root / "boxes.csv", ["image_id", "finding", "x_min", "y_min", "x_max", "y_max"], self.boxes)
        planted_rows = [
            [f, p.pattern, p.wavelength, p.contrast, p.prevalence, "|".join(p.includes)]
            for f, p in settings.planted.items()
        ]
        columns = ["finding", "pattern", "wavelength", "contrast", "prevalence", "includes"]
        _write_csv(root / "planted.csv", columns, planted_rows)
        (root / "IMAGE_FILENAMES").write_text("\n".join(self.names) + "\n")
        (root / "SHA256SUMS.txt").write_text("\n".join(self.sums) + "\n")


def _draw_present(settings: SyntheticSettings, rng: np.random.Generator, common: float) -> dict[str, bool]:
    """Which findings an examination shows. common: what they share, a draw of the standard normal."""
    present = {}
    for finding, planted in settings.planted.items():
        draw = rng.random()
        if settings.correlation and planted.pattern != "none":
            share = settings.correlation
            draw = ndtr(np.sqrt(1 - share) * ndtri(draw) + np.sqrt(share) * common)
        present[finding] = bool(draw < planted.prevalence)
    made = {f: any(present[i] for i in how.includes) for f, how in settings.planted.items() if how.pattern == "any"}
    return present | made


def _label_row(present: Mapping[str, bool], settings: SyntheticSettings, rng: np.random.Generator) -> list[str]:
    row = []
    for finding in CHEXPERT_FINDINGS:
        draws = rng.random(2)  # drawn for every finding, so that one finding more leaves the others as they are
        if finding not in present:
            row.append("1.0" if finding == "No Finding" and not any(present.values()) else "")
        elif draws[0] < settings.uncertain:
            row.append("-1.0")
        elif present[finding]:
            row.append("1.0")
        else:
            row.append("" if draws[1] < settings.unmentioned else "0.0")
    return row


def _write_csv(path: Path, header: list[str], rows: list[list[Any]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    data = text.getvalue().encode()
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)


def draw(
    lateral: bool, present: Mapping[str, bool], settings: SyntheticSettings, number: int
) -> tuple[np.ndarray, list[tuple[str, tuple[int, int, int, int]]]]:
    """Draw one image.

    present: which findings it shows; number: the image's running number, which with the seed fixes all randomness.
    Returns uint8 (rows_px, columns_px) and the boxes (x_min, y_min, x_max, y_max) of the findings that leave a trace;
    one made of others has theirs.
    """
    anatomy, grain, planted = (
        np.random.default_rng(np.random.SeedSequence([settings.seed, 1, number, stream])) for stream in range(3)
    )
    rows = settings.rows_px + int(anatomy.integers(-6, 7))
    columns = settings.columns_px + int(anatomy.integers(-6, 7))
    y, x = np.mgrid[0:rows, 0:columns]
    y, x = (y + 0.5) / rows, (x + 0.5) / columns  # relative: 0 to 1 over the image

    wide_heart = next((p for f, p in settings.planted.items() if present[f] and p.pattern == "heart"), None)
    picture, heart_box, lung_box = _anatomy(x, y, lateral, wide_heart, anatomy)
    boxes: dict[str, tuple[float, float, float, float]] = {}
    for finding, how in settings.planted.items():
        # A stream for each finding: whether one is present moves no other.
        draws = planted.random(8)
        if how.pattern == "relation":
            box = _add_relation(picture, x, y, how.contrast, present[finding], draws)
            if present[finding]:
                boxes[finding] = box
        if how.pattern in ("none", "any", "relation") or not present[finding]:
            continue
        if how.pattern == "heart":
            boxes[finding] = heart_box
        elif how.pattern == "effusion":
            boxes[finding] = _add_effusion(picture, x, y, lung_box, how.contrast, draws)
        else:
            boxes[finding] = _add_stripes(picture, x, y, lung_box, how, draws)

    picture += 0.012 * grain.standard_normal(picture.shape)
    pixels = np.clip(np.round(picture * 255), 0, 255).astype(np.uint8)
    where = [(f, part) for f, how in settings.planted.items() for part in (f, *how.includes) if part in boxes]
    return pixels, [(f, _to_pixels(boxes[part], rows, columns)) for f, part in where]


def _to_pixels(box: tuple[float, float, float, float], rows: int, columns: int) -> tuple[int, int, int, int]:
    x0, y0, x1, y1 = np.clip(box, 0, 1)
    return int(x0 * columns), int(y0 * rows), int(np.ceil(x1 * columns)), int(np.ceil(y1 * rows))


def _soft(distance: np.ndarray, edge: float) -> np.ndarray:
    """1 inside (distance < 1), 0 outside, with a soft edge."""
    return 1 / (1 + np.exp(np.clip((distance - 1) / edge, -40, 40)))


def _ellipse(x: np.ndarray, y: np.ndarray, cx: float, cy: float, rx: float, ry: float) -> np.ndarray:
    return np.hypot((x - cx) / rx, (y - cy) / ry)


def _anatomy(
    x: np.ndarray, y: np.ndarray, lateral: bool, wide_heart: Planted | None, rng: np.random.Generator
) -> tuple[np.ndarray, tuple[float, float, float, float], tuple[float, float, float, float]]:
    """Body, lungs, heart, ribs and tissue. Returns the picture (grey range 0 to 1), the heart's box, the lungs' box."""
    jitter = rng.normal(0, 1, 12)
    cx, cy, size = 0.5 + 0.02 * jitter[0], 0.5 + 0.02 * jitter[1], 1 + 0.04 * jitter[2]
    picture = 0.06 + 0.56 * _soft(_ellipse(x, y, cx, cy + 0.05, 0.46 * size, 0.62 * size), 0.05)
    if lateral:
        lungs = _soft(_ellipse(x, y, cx, cy - 0.02, 0.27 * size, 0.36 * size), 0.08)
        lung_box = (cx - 0.2, cy - 0.27, cx + 0.2, cy + 0.22)
        heart_x = cx - 0.06
    else:
        left = _soft(_ellipse(x, y, cx - 0.19, cy, 0.145 * size, 0.34 * size), 0.08)
        right = _soft(_ellipse(x, y, cx + 0.19, cy, 0.145 * size, 0.34 * size), 0.08)
        lungs = np.maximum(left, right)
        lung_box = (cx - 0.30, cy - 0.27, cx + 0.30, cy + 0.27)
        heart_x = cx + 0.05
    picture -= (0.34 + 0.02 * jitter[3]) * lungs
    rx = (0.24 if wide_heart else 0.125) * size * (1 + 0.05 * jitter[4])
    ry = 0.15 * size * (1 + 0.05 * jitter[5])
    heart_y = cy + 0.14
    brightness = 0.30 + (wide_heart.contrast if wide_heart else 0.0)
    picture += brightness * _soft(_ellipse(x, y, heart_x, heart_y, rx, ry), 0.07) * (0.3 + 0.7 * lungs)
    ribs = np.cos(2 * np.pi * ((y - 0.35 * (x - cx) ** 2 * 4) / (0.105 * size) + 0.5 * jitter[6]))
    picture += 0.035 * lungs * np.clip(ribs, 0, 1) ** 2
    picture += _tissue(x.shape, rng)
    gain, offset = 1 + 0.06 * jitter[7], 0.02 * jitter[8]
    return picture * gain + offset, (heart_x - rx, heart_y - ry, heart_x + rx, heart_y + ry), lung_box


def _tissue(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Smooth noise whose power falls with the square of the frequency, standard deviation 0.03, without fine detail."""
    fy, fx = np.fft.fftfreq(shape[0])[:, None] * shape[0], np.fft.rfftfreq(shape[1])[None, :] * shape[1]
    frequency = np.hypot(fy, fx)  # cycles an image
    noise = np.fft.rfft2(rng.standard_normal(shape))
    field_ = np.fft.irfft2(noise / (2 + frequency) * np.exp(-((frequency / 14) ** 2)), s=shape)
    return 0.03 * field_ / field_.std()


def _add_stripes(
    picture: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    lungs: tuple[float, float, float, float],
    how: Planted,
    draws: np.ndarray,
) -> tuple[float, float, float, float]:
    """Stripes of one wavelength and mean zero: nothing of them is left below their sampling limit."""
    across, along = (0.13, 0.13) if how.pattern == "grating" else (2.0 * how.wavelength, 0.24)
    angle = np.pi * draws[2]
    half_x = np.hypot(across * np.cos(angle), along * np.sin(angle))
    half_y = np.hypot(across * np.sin(angle), along * np.cos(angle))
    x0, y0, x1, y1 = lungs
    cx = x0 + 0.6 * half_x + draws[0] * max(x1 - x0 - 1.2 * half_x, 0)
    cy = y0 + 0.6 * half_y + draws[1] * max(y1 - y0 - 1.2 * half_y, 0)
    u = (x - cx) * np.cos(angle) + (y - cy) * np.sin(angle)
    v = -(x - cx) * np.sin(angle) + (y - cy) * np.cos(angle)
    window = np.exp(-2 * ((u / across) ** 2 + (v / along) ** 2))
    picture += how.contrast * window * np.cos(2 * np.pi * (u / how.wavelength + draws[3]))
    return cx - half_x, cy - half_y, cx + half_x, cy + half_y


def _add_relation(
    picture: np.ndarray, x: np.ndarray, y: np.ndarray, contrast: float, alike: bool, draws: np.ndarray
) -> tuple[float, float, float, float]:
    """Two blobs far apart, at opposite corners of the chest; returns the box that holds both."""
    first = 1.0 if draws[0] < 0.5 else -1.0
    side, radius = (1.0 if draws[1] < 0.5 else -1.0), 0.09
    places = [(0.5 - 0.24 * side, 0.16 + 0.06 * draws[2]), (0.5 + 0.24 * side, 0.84 - 0.06 * draws[3])]
    for (cx, cy), sign in zip(places, (first, first if alike else -first), strict=True):
        picture += sign * contrast * np.exp(-2 * _ellipse(x, y, cx, cy, radius, radius) ** 2)
    (x0, y0), (x1, y1) = places
    return min(x0, x1) - radius, y0 - radius, max(x0, x1) + radius, y1 + radius


def _add_effusion(
    picture: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    lungs: tuple[float, float, float, float],
    contrast: float,
    draws: np.ndarray,
) -> tuple[float, float, float, float]:
    """Fluid at the foot of one lung with a curved, soft upper edge."""
    x0, _, x1, y1 = lungs
    middle = (x0 + x1) / 2
    side = (x0 - 0.05, middle - 0.06) if draws[0] < 0.5 else (middle + 0.06, x1 + 0.05)
    top = y1 - (0.16 + 0.08 * draws[1])
    centre, half = sum(side) / 2, (side[1] - side[0]) / 2
    level = top + 0.05 * np.cos(np.pi * (x - centre) / (2 * half))
    inside = 1 / (1 + np.exp(np.clip((level - y) / 0.012, -40, 40)))
    inside *= 1 / (1 + np.exp(np.clip((np.abs(x - centre) - half) / 0.015, -40, 40)))
    inside *= 1 / (1 + np.exp(np.clip((y - y1 - 0.06) / 0.02, -40, 40)))
    picture += contrast * inside
    return side[0], top, side[1], y1 + 0.06
