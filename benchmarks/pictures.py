"""Native files to measure on: synthetic pictures as large as MIMIC-CXR-JPG's, or a folder of real ones."""

from pathlib import Path

import cv2
import numpy as np

from cxrscale.datasets.synthetic import Planted, SyntheticSettings, draw
from cxrscale.store.pixels import encode

ROWS_PX, COLUMNS_PX = 3056, 2544


def native_files(folder: Path, count: int, pictures: Path | None = None) -> list[Path]:
    """`count` grey JPEGs: the first of `pictures` if given, else drawn into `folder`.

    Drawn ones are 3056 x 2544 px, histogram-equalised as MIMIC-CXR-JPG's are. The generator's film grain compresses
    badly, so it is blurred until a file at quality 95 takes about 1.4 MB (MIMIC-CXR-JPG: about 1.5 MB). Each fourth is
    drawn, the others are its mirror images: drawing takes seconds.
    """
    if pictures is not None:
        found = sorted([*pictures.rglob("*.jpg"), *pictures.rglob("*.jpeg")])
        if not found:
            raise SystemExit(f"{pictures}: holds no .jpg")
        return (found * count)[:count]
    folder.mkdir(parents=True, exist_ok=True)
    settings = SyntheticSettings(2, ROWS_PX, COLUMNS_PX, 0, planted={"Fracture": Planted("line", 0.004, 0.2)})
    paths = []
    for number in range(count):
        if number % 4 == 0:
            pixels = equalise(cv2.GaussianBlur(draw(False, {"Fracture": True}, settings, number)[0], (0, 0), 0.8))
        mirrored = pixels[:: 1 - 2 * (number % 2), :: 1 - (number % 4 & 2)]
        paths.append(folder / f"{number:04d}.jpg")
        paths[-1].write_bytes(encode(mirrored, 95))
    return paths


def equalise(pixels: np.ndarray) -> np.ndarray:
    """Histogram equalisation over the whole picture. uint8 in and out."""
    below = np.bincount(pixels.ravel(), minlength=256).cumsum()
    return (below * 255 // below[-1]).astype(np.uint8)[pixels]
