"""Finds the parser of a data set's format, and the csv files that it reads."""

import gzip
import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow.parquet as pq

from cxrscale.provenance import file_digest


def module_name(format_: str) -> str:
    """The module that reads a format: "mimic-cxr-jpg" is read by cxrscale.datasets.mimic_cxr_jpg."""
    return f"cxrscale.datasets.{format_.replace('-', '_')}"


def parser(format_: str) -> ModuleType:
    """The parser itself. A rule that uses it names `module_name(format)` in its code digest."""
    return importlib.import_module(module_name(format_))


def source_digests(format_: str, root: Path, options: dict[str, Any]) -> dict[str, dict[str, str]]:
    """SHA-256 of the csv files that labels and images are made from, by role: {"labels": {...}, "images": {...}}.

    They go into the rules' params, so that a rerun follows the content of the csv files, not where they lie or when
    they were copied. Raises StudyError if one is missing.
    """
    reader = parser(format_)
    files = reader.sources(root, **options)
    return {
        "labels": {role: file_digest(path) for role, path in reader.label_sources(files).items()},
        "images": {role: file_digest(path) for role, path in reader.image_sources(files).items()},
    }


def count_images(index: Path, format_: str, root: Path, options: dict[str, Any]) -> int:
    """How many images the data set has: the rows of the store's index, before it is made those of the csv file.

    For what jobs ask of a cluster alone: a quoted line break in the csv counts as a row.
    """
    if index.is_file():
        return int(pq.read_metadata(index).num_rows)
    reader = parser(format_)
    listing = next(iter(reader.image_sources(reader.sources(root, **options)).values()))
    with gzip.open(listing, "rb") if listing.suffix == ".gz" else open(listing, "rb") as lines:
        return max(sum(1 for _ in lines) - 1, 0)
