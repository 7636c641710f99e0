"""A data set of one's own, described by one csv file.

Columns: image_id, subject_id, study_id, path, view, one a finding (1, 0, -1 or blank), and, if wanted, split (train,
validate, test). Paths are relative to the data set's root; images are JPEG or PNG.
"""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from cxrscale.datasets.contracts import (
    check_filled,
    check_one_of,
    check_one_patient_a_study,
    check_paths,
    check_unique,
    csv_header,
    find_source,
    parse_labels,
    read_csv,
)
from cxrscale.errors import StudyError

COLUMNS = ("image_id", "subject_id", "study_id", "path", "view")


def sources(root: Path, manifest: str, **_: object) -> dict[str, Path]:
    """The csv file, under the role "manifest". Raises StudyError if it is missing."""
    return {"manifest": find_source(root, [manifest])}


def label_sources(sources: dict[str, Path]) -> dict[str, Path]:
    """Those of the sources that `read_labels` reads."""
    return sources


def image_sources(sources: dict[str, Path]) -> dict[str, Path]:
    """Those of the sources that `read_images` reads."""
    return sources


def read_images(sources: dict[str, Path]) -> pd.DataFrame:
    """The images in file order: the columns of `contracts.IMAGES` without shard and order."""
    path = sources["manifest"]
    frame = read_csv(path, COLUMNS, optional=["split"])
    check_unique(frame, "image_id", path)
    for column in ("subject_id", "study_id"):
        check_filled(frame, column, path)
    check_one_of(frame, "split", ["train", "validate", "combine", "test"], path, blank=True)
    check_paths(frame, path)
    check_one_patient_a_study(frame, path)
    frame["native_height_px"] = pd.array([None] * len(frame), dtype="Int32")
    frame["native_width_px"] = pd.array([None] * len(frame), dtype="Int32")
    return frame.rename(columns={"split": "official_split"})[
        [*COLUMNS[:3], "view", "path", "native_height_px", "native_width_px", "official_split"]
    ]


def read_labels(sources: dict[str, Path], findings: Sequence[str] | None = None) -> pd.DataFrame:
    """Raw labels per image in file order: the columns of `contracts.LABELS`.

    findings: which columns are findings; None: all but the fixed ones.
    """
    path = sources["manifest"]
    if findings is None:
        findings = [c for c in csv_header(path) if c and c not in (*COLUMNS, "split")]
    if not findings:
        raise StudyError(f"{path}: there is no column for a finding besides {', '.join(COLUMNS)} and split.")
    frame = read_csv(path, [*COLUMNS[:3], *findings])
    check_unique(frame, "image_id", path)
    for finding in findings:
        frame[finding] = parse_labels(frame[finding], path, finding)
    return frame.rename(columns={f: f"label:{f}" for f in findings})
