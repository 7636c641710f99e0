"""What a store lost: PSNR of its pictures against lossless ways from the native files that the base keeps whole."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

from cxrscale.common import tables
from cxrscale.store.contracts import INDEX, PSNR
from cxrscale.store.pixels import decode_native, psnr_db, resample, to_square
from cxrscale.store.reader import StoreReader
from cxrscale.store.settings import BaseSettings


def measure(
    sample_paths: Sequence[Path],
    store: StoreReader,
    settings: BaseSettings,
) -> pd.DataFrame:
    """Compare the store's pictures of the sample with what they would be without JPEG: the columns of `PSNR`.

    sample_paths: the samples of the base's shards; store: the resolution to be measured. A reduced decode ("dct") is
    held against the area filter. settings: as ingest had them, so that native files are decoded to the same grey.
    """
    rows = []
    for path in sample_paths:
        for record in pq.read_table(path, page_checksum_verification=True).to_pylist():
            native, kept = decode_native(record["native"], settings).pixels, store[record["image_id"]]
            size_px = kept.shape[0]
            base = to_square(native, settings.base_resolution_px, settings.geometry, settings.filter)
            lossless = resample(base, size_px, size_px, settings.filter)
            direct = to_square(native, size_px, settings.geometry, settings.filter)
            rows.append((record["image_id"], psnr_db(kept, lossless), psnr_db(kept, direct)))
    found = pd.DataFrame(rows, columns=[c.name for c in PSNR.columns])
    return found.replace(float("inf"), float("nan"))


def summary_of(index_path: Path, size_px: int, psnr: pd.DataFrame) -> pd.DataFrame:
    """One row: the columns of `SUMMARY`. size_px: the resolution; psnr: from `measure`."""
    index = tables.read(INDEX, index_path)
    row = {
        "resolution_px": size_px,
        "images": len(index),
        "bytes": index["length"].sum(),
        "enlarged": (index["native_px"] < size_px).sum(),
        "sampled": len(psnr),
        "jpeg_db": psnr["jpeg_db"].mean(),
        "jpeg_db_least": psnr["jpeg_db"].min(),
        "direct_db": psnr["direct_db"].mean(),
        "direct_db_least": psnr["direct_db"].min(),
    }
    return pd.DataFrame([row])
