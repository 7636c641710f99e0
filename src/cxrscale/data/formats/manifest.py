"""A data set of one's own, described by one csv file.

Columns: image_id, subject_id, study_id, path, view, one a finding (1, 0, -1 or blank), and, if wanted, split (train,
validate, test). Paths are relative to the data set's root; images are JPEG or PNG.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from cxrscale.common.errors import StudyError
from cxrscale.common.settings import Text
from cxrscale.data.contracts import SPLITS
from cxrscale.data.csv_files import (
    check_filled,
    check_one_of,
    check_one_patient_an_examination,
    check_paths,
    check_unique,
    csv_header,
    find_source,
    parse_labels,
    read_csv,
)
from cxrscale.data.findings import check_finding_name
from cxrscale.data.formats import Chosen, Format, Sources
from cxrscale.data.spelling import Reading, loosely

COLUMNS = ("image_id", "subject_id", "study_id", "path", "view")


@dataclass(frozen=True)
class Options:
    """What dataset.options may hold."""

    file: Text = "manifest.csv"
    """The csv file, below dataset.root."""


def sources(root: Path, chosen: Chosen) -> Sources:
    """The csv file, under the role "manifest". Raises StudyError if it is missing."""
    return {"manifest": find_source(root, [chosen.options.file])}


def read_images(sources: Sources, reading: Reading) -> pd.DataFrame:
    """The images in file order: the columns of `contracts.IMAGES` without shard and order.

    reading: how ids are taken, and where what was found is noted.
    """
    path = sources["manifest"]
    frame = read_csv(path, COLUMNS, reading, optional=["split"], groups=["view"])
    check_unique(frame, "image_id", path)
    for column in ("subject_id", "study_id"):
        check_filled(frame, column, path)
    check_one_of(frame, "split", SPLITS, path, blank=True)
    check_paths(frame, path)
    check_one_patient_an_examination(frame, path)
    frame["native_height_px"] = pd.array([None] * len(frame), dtype="Int32")
    frame["native_width_px"] = pd.array([None] * len(frame), dtype="Int32")
    return frame.rename(columns={"split": "official_split"})[
        [*COLUMNS[:3], "view", "path", "native_height_px", "native_width_px", "official_split"]
    ]


def read_labels(sources: Sources, findings: Sequence[str] | None, reading: Reading) -> pd.DataFrame:
    """Raw labels per image in file order: the columns of `contracts.LABELS`.

    findings: which columns are findings; None: all but the fixed ones, which is noted.
    Raises StudyError for a value outside the coding, a column that no finding may be called after, or two that differ
    in case or blanks alone.
    """
    path = sources["manifest"]
    taken = findings
    if taken is None:
        taken = [c for c in csv_header(path) if c and c not in (*COLUMNS, "split")]
        _check_taken(taken, path)
        reading.note(
            "findings",
            f"findings is null: {len(taken)} columns of {path.name} are taken for findings: {', '.join(taken)}. "
            f"Name those that are in findings.",
        )
    frame = read_csv(path, [*COLUMNS[:3], *taken], reading)
    check_unique(frame, "image_id", path)
    for column in ("subject_id", "study_id"):
        check_filled(frame, column, path)
    for finding in taken:
        try:
            frame[finding] = parse_labels(frame[finding], path, finding)
        except StudyError as error:
            if findings is not None:
                raise
            raise StudyError(
                f"{error} If {finding} is no finding: findings is null, which takes every column but "
                f"{', '.join((*COLUMNS, 'split'))} for one; name those that are in findings."
            ) from None
    frame["source"] = "manifest"
    return frame.rename(columns={f: f"label:{f}" for f in taken})


def _check_taken(columns: Sequence[str], path: Path) -> None:
    """Raise StudyError unless each column can be a finding, and another one than the others."""
    if not columns:
        raise StudyError(f"{path}: there is no column for a finding besides {', '.join(COLUMNS)} and split.")
    seen: dict[str, str] = {}
    for column in columns:
        if reason := check_finding_name(column):
            raise StudyError(
                f"{path}: a column is no finding: {reason}. Rename it, or name the findings of the study in findings."
            )
        if (other := seen.setdefault(loosely(column), column)) != column:
            raise StudyError(
                f"{path}: the columns {other!r} and {column!r} may be the same finding; expected one spelling. Rename "
                f"or remove one, or name the findings of the study in findings."
            )


FORMAT = Format(
    name="manifest",
    sources=sources,
    image_roles=("manifest",),
    label_roles=("manifest",),
    read_images=read_images,
    read_labels=read_labels,
    options=Options,
    label_sources=("manifest",),
    official_split="sometimes",
)
