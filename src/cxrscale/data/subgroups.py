"""A csv file of subgroups of one's own (sex, age band, scanner), for the evaluation."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from cxrscale.common.errors import StudyError
from cxrscale.common.provenance import file_digest
from cxrscale.data.csv_files import check_unique, csv_header, read_csv
from cxrscale.data.formats import Format, Sources
from cxrscale.data.spelling import Reading, check_same_spelling

KEYS = ("image_id", "study_id", "subject_id")

#: A column with more values is refused: it holds no groups but measurements or ids.
MOST_VALUES = 30


def read_subgroups(path: Path, columns: Sequence[str], reading: Reading) -> pd.DataFrame:
    """The columns named, as text, after the id (image_id, study_id or subject_id) that the file is keyed by.

    `view` is not read: predictions hold it. reading: how ids are taken, and where what was found is noted. Raises
    StudyError for a file without an id, without a column, with an id twice or with a column of more than MOST_VALUES
    values.
    """
    head = csv_header(path)
    key = next((k for k in KEYS if k in head), None)
    if key is None:
        raise StudyError(
            f"{path}: there is no id; it has {head}. Expected a column {', '.join(KEYS[:-1])} or {KEYS[-1]}."
        )
    columns = [c for c in columns if c != "view"]
    if reserved := [c for c in columns if c in KEYS]:
        raise StudyError(
            f"evaluation.groups holds {reserved[0]!r}, which is an id; expected columns of groups of {path}."
        )
    frame = read_csv(path, [key, *columns], reading, groups=columns)
    check_unique(frame, key, path)
    for column in columns:
        if (n := frame[column].nunique()) > MOST_VALUES:
            raise StudyError(
                f"{path}: {column} has {n} values; expected at most {MOST_VALUES} groups. Write bands, not numbers."
            )
    return frame[[key, *columns]]


def read_format_groups(format_: Format, sources: Sources, columns: Sequence[str], reading: Reading) -> pd.DataFrame:
    """The columns named, as text, after image_id, of what the data set itself holds (`formats.Format.groups`)."""
    assert format_.read_groups is not None  # a format that declares groups reads them
    return format_.read_groups(sources, reading)[["image_id", *columns]]


def checked_digest(path: str | None, columns: Sequence[str], exact_ids: bool) -> str | None:
    """SHA-256 of the file, for the rule's params, after it was read once: a mistake in it stops before any job."""
    if path is None:
        return None
    read_subgroups(Path(path), columns, Reading(exact_ids))
    return file_digest(path)


def check_subgroups(subgroups: pd.DataFrame, images: pd.DataFrame, path: Path, reading: Reading) -> None:
    """Note which images have no row in the file. Raises StudyError if none has one, or another spelling may be why.

    subgroups: of `read_subgroups`; images: image_id, study_id and subject_id of those that the study uses.
    """
    key = subgroups.columns[0]
    check_same_spelling(subgroups[key], images[key], f"{path}: {key}", f"the study's {key}", reading)
    held = images[key].isin(subgroups[key])
    if not held.any():
        raise StudyError(
            f"evaluation.subgroups: no {key} of {path} is one of the study's (first: {subgroups[key].iloc[0]!r}; the "
            f"study's: {images[key].iloc[0]!r}). Expected the ids of the data set's own files."
        )
    if not held.all():
        reading.note(
            "subgroups",
            f"{int((~held).sum()):,} of {len(images):,} images have no row in {path.name} (by {key}); in groups of its "
            f"columns they count as not recorded.",
        )
