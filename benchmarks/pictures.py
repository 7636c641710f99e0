"""Native files to measure on: synthetic pictures as large as MIMIC-CXR-JPG's, or real ones from a folder."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from cxrscale.datasets.synthetic import Planted, SyntheticSettings, draw
from cxrscale.store.pixels import decode_native, encode


def native_files(
    folder: Path, count: int, pictures: Path | None = None, rows_px: int = 3056, columns_px: int = 2544
) -> list[Path]:
    """Write `count` grey JPEGs at quality 95 into `folder`, each fourth drawn or read, the others its mirror images.

    Drawn ones are histogram-equalised as MIMIC-CXR-JPG's are. The generator's film grain compresses badly, so it is
    blurred by 0.8 px: a file of 3056 x 2544 px then takes about 1.5 MB, as in MIMIC-CXR-JPG.
    pictures: take the .jpg files below this folder instead, in the order of their names.
    """
    sources = _read(pictures) if pictures else _drawn(rows_px, columns_px)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(count):
        if number % 4 == 0:
            pixels = next(sources)
        mirrored = pixels[:: 1 - 2 * (number % 2), :: 1 - (number % 4 & 2)]
        paths.append(folder / f"{number:04d}.jpg")
        paths[-1].write_bytes(encode(mirrored, 95))
    return paths


def _drawn(rows_px: int, columns_px: int) -> Iterator[np.ndarray]:
    settings = SyntheticSettings(2, rows_px, columns_px, 0, planted={"Fracture": Planted("line", 0.004, 0.2)})
    number = 0
    while True:
        pixels = cv2.GaussianBlur(draw(False, {"Fracture": True}, settings, number)[0], (0, 0), 0.8)
        below = np.bincount(pixels.ravel(), minlength=256).cumsum()
        yield (below * 255 // below[-1]).astype(np.uint8)[pixels]
        number += 1


def _read(pictures: Path) -> Iterator[np.ndarray]:
    found = sorted([*pictures.rglob("*.jpg"), *pictures.rglob("*.jpeg")])
    if not found:
        raise SystemExit(f"{pictures}: holds no .jpg")
    while True:
        yield from (decode_native(path.read_bytes()) for path in found)
