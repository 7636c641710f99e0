"""What a store lost: PSNR of its pictures against lossless ways from the native files that the base keeps whole."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

from cxrscale.common import tables
from cxrscale.common.tables import Column, Table
from cxrscale.store.pixels import Accepted, Filter, Geometry, decode_native, psnr_db, resample, to_square
from cxrscale.store.reader import StoreReader
from cxrscale.store.shards import MANIFEST

PSNR = Table(
    name="psnr",
    row="an image of the sample, at one resolution",
    columns=(
        Column("image_id", "text", "the image"),
        Column(
            "jpeg_db", "float64", "PSNR (dB, peak 255) against the same way from native without any JPEG", null="equal"
        ),
        Column(
            "direct_db", "float64", "PSNR (dB) against one step from native to this resolution, no JPEG", null="equal"
        ),
    ),
    key=("image_id",),
)

SUMMARY = Table(
    name="store_summary",
    row="a resolution of the store",
    columns=(
        Column("resolution_px", "int32", "side of the images"),
        Column("images", "int64", "images that the store holds"),
        Column("bytes", "int64", "of their JPEGs"),
        Column("enlarged", "int64", "images that are smaller in their native file than in the store"),
        Column("sampled", "int64", "images that PSNR was measured on"),
        Column("jpeg_db", "float64", "mean of psnr.csv's jpeg_db", null="nothing sampled, or all equal"),
        Column("jpeg_db_least", "float64", "least of them", null="nothing sampled, or all equal"),
        Column("direct_db", "float64", "mean of psnr.csv's direct_db", null="nothing sampled, or all equal"),
        Column("direct_db_least", "float64", "least of them", null="nothing sampled, or all equal"),
    ),
    key=("resolution_px",),
)


def measure(
    sample_paths: Sequence[Path],
    store: StoreReader,
    base_resolution_px: int,
    geometry: Geometry,
    filter_: Filter,
    accepted: Accepted,
) -> pd.DataFrame:
    """Compare the store's pictures of the sample with what they would be without JPEG: the columns of `PSNR`.

    sample_paths: the samples of the base's shards; store: the resolution to be measured. A reduced decode ("dct") is
    held against the area filter. accepted: as ingest had it, so that the native files are decoded to the same grey.
    """
    rows = []
    for path in sample_paths:
        for record in pq.read_table(path, page_checksum_verification=True).to_pylist():
            native, kept = decode_native(record["native"], accepted).pixels, store[record["image_id"]]
            size_px = kept.shape[0]
            base = to_square(native, base_resolution_px, geometry, filter_)
            lossless = resample(base, size_px, size_px, filter_)
            direct = to_square(native, size_px, geometry, filter_)
            rows.append((record["image_id"], psnr_db(kept, lossless), psnr_db(kept, direct)))
    found = pd.DataFrame(rows, columns=[c.name for c in PSNR.columns])
    return found.replace(float("inf"), float("nan"))


def summarise(manifest_path: Path, size_px: int, psnr: pd.DataFrame) -> pd.DataFrame:
    """One row: the columns of `SUMMARY`. size_px: the resolution; psnr: from `measure`."""
    manifest = tables.read(MANIFEST, manifest_path)
    row = {
        "resolution_px": size_px,
        "images": len(manifest),
        "bytes": manifest["length"].sum(),
        "enlarged": (manifest["native_px"] < size_px).sum(),
        "sampled": len(psnr),
        "jpeg_db": psnr["jpeg_db"].mean(),
        "jpeg_db_least": psnr["jpeg_db"].min(),
        "direct_db": psnr["direct_db"].mean(),
        "direct_db_least": psnr["direct_db"].min(),
    }
    return pd.DataFrame([row])
