"""Finds the parser of a data set's format, and the csv files that it reads."""

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

from cxrscale.common.provenance import file_digest


def module_name(format_: str) -> str:
    """The module that reads a format: "mimic-cxr-jpg" is read by cxrscale.data.formats.mimic_cxr_jpg."""
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
