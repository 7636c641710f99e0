"""Native files to measure on: synthetic pictures as large as MIMIC-CXR-JPG's, or real ones from a folder."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageFilter

from cxrscale.common import tables
from cxrscale.data.settings import Planted, SyntheticSettings
from cxrscale.data.synthetic import draw
from cxrscale.store.contracts import INDEX
from cxrscale.store.pixels import decode_native, encode
from cxrscale.store.reader import StoreReader
from cxrscale.store.settings import Accepted, BaseSettings, Filter
from cxrscale.store.shards import INDEX_FILE, downscale_shard, index_shards, ingest_shard, shard_name


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


def plain_files(folder: Path, count: int, size_px: int, distinct: int = 8) -> list[Path]:
    """Write `count` square grey JPEGs at quality 95, smooth with grain, `distinct` different ones, without OpenCV."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for _ in range(distinct):
        smooth = Image.fromarray(rng.integers(0, 256, (24, 24), dtype=np.uint8)).resize((size_px, size_px))
        grain = Image.fromarray(rng.integers(96, 160, (size_px, size_px), dtype=np.uint8))
        files.append(encode(np.asarray(Image.blend(smooth, grain.filter(ImageFilter.GaussianBlur(1)), 0.3)), 95))
    paths = [folder / f"{number:04d}.jpg" for number in range(count)]
    for number, path in enumerate(paths):
        path.write_bytes(files[number % distinct])
    return paths


def _drawn(rows_px: int, columns_px: int) -> Iterator[np.ndarray]:
    import cv2

    settings = SyntheticSettings(2, rows_px, columns_px, seed=0, planted={"Fracture": Planted("line", 0.004, 0.2)})
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
        yield from (decode_native(path.read_bytes(), Accepted()).pixels for path in found)


def make_stores(
    native: list[Path], folder: Path, sizes: list[int], filter_: Filter = "bilinear", quality: int = 95
) -> dict[int, StoreReader]:
    """Put native pictures through the store's own code, to every size; the largest is the base.

    "lanczos" is Pillow's, and needs no OpenCV.
    """
    ids = [path.stem for path in native]
    images = pd.DataFrame({"image_id": ids, "path": [p.name for p in native], "shard": 0, "order": range(len(ids))})
    base, *smaller = sorted(sizes, reverse=True)
    paths = {size: folder / str(size) / f"{shard_name(0)}.parquet" for size in sizes}
    settings = BaseSettings(base, "stretch", filter_, quality)
    others = (folder / "sample.parquet", folder / "quarantine.csv")
    ingest_shard(images, 0, native[0].parent, settings, 0.0, paths[base], *others)
    if smaller:
        downscale_shard(paths[base], {size: paths[size] for size in smaller}, filter_, quality)
    for size, path in paths.items():
        tables.write(INDEX, index_shards([path], size, "stretch"), path.parent / INDEX_FILE)
    return {size: StoreReader(path.parent) for size, path in paths.items()}
