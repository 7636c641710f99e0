"""How large a data set is, before and after it was read. No script imports it: it is no part of any result."""

import gzip
from pathlib import Path

import pyarrow.parquet as pq

from cxrscale.data.formats import Chosen, Format


def count_images(listed: Path, format_: Format, root: Path, chosen: Chosen) -> int:
    """How many images the data set has: the rows of the list of images, before it is made those of the csv file.

    For what jobs ask of a cluster alone: a quoted line break in the csv counts as a row.
    """
    if listed.is_file():
        return int(pq.read_metadata(listed).num_rows)
    listing = format_.sources(root, chosen)[format_.image_roles[0]]
    with gzip.open(listing) if listing.suffix == ".gz" else listing.open("rb") as lines:
        return max(sum(1 for _ in lines) - 1, 0)
