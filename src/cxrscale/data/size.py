"""How large a data set is, before and after it was read. No script imports it: it is no part of any result."""

import gzip
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from cxrscale.data import formats as lookup


def count_images(index: Path, format_: str, root: Path, options: dict[str, Any]) -> int:
    """How many images the data set has: the rows of the store's index, before it is made those of the csv file.

    For what jobs ask of a cluster alone: a quoted line break in the csv counts as a row.
    """
    if index.is_file():
        return int(pq.read_metadata(index).num_rows)
    reader = lookup.parser(format_)
    listing = next(iter(reader.image_sources(reader.sources(root, **options)).values()))
    with gzip.open(listing) if listing.suffix == ".gz" else listing.open("rb") as lines:
        return max(sum(1 for _ in lines) - 1, 0)
