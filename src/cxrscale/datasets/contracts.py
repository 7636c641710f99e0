"""The two tables that every data set becomes, and the checks that all parsers share."""

import hashlib
import warnings
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from cxrscale.errors import StudyError
from cxrscale.tables import Column, Table

IMAGES = Table(
    name="images",
    row="an image that the data set names",
    columns=(
        Column("image_id", "text", "the image; MIMIC-CXR-JPG: dicom_id"),
        Column("subject_id", "text", "the patient"),
        Column("study_id", "text", "the study (one examination, one or more images)"),
        Column("view", "text", "projection as the data set names it", null="not recorded"),
        Column("path", "text", "native file, relative to the data set's root, with forward slashes"),
        Column("native_height_px", "int32", "height that the data set states", null="not stated"),
        Column("native_width_px", "int32", "width that the data set states", null="not stated"),
        Column("official_split", "text", "train, validate or test, as published", null="none published"),
        Column("shard", "int32", "shard of the store, a hash of image_id"),
        Column("order", "int64", "place within the shard, ascending, a hash of image_id"),
    ),
    key=("image_id",),
)

LABELS = Table(
    name="labels",
    row="an image whose study has a label row",
    columns=(
        Column("image_id", "text", "the image"),
        Column("subject_id", "text", "the patient"),
        Column("study_id", "text", "the study"),
    ),
    key=("image_id",),
    per_finding=(
        Column(
            "label:{finding}",
            "int8",
            "raw label: 1 present, 0 absent, -1 uncertain",
            null="not mentioned",
        ),
    ),
)

CODING = "1, 0, -1 (uncertain) or blank (not mentioned)"


def find_source(root: Path, names: Sequence[str]) -> Path:
    """The first of `names` that lies in `root`. Raises StudyError that names the root or every name looked for."""
    if not root.is_dir():
        raise StudyError(
            f"dataset.root: there is no folder {root}. Set dataset.root to where the data set lies "
            f"(relative to {Path.cwd()} or absolute)."
        )
    for name in names:
        if (root / name).is_file():
            return root / name
    raise StudyError(
        f"{root} has no {' or '.join(names)}. Get the file from the data set's publisher and put it there."
    )


def read_csv(path: Path, required: Sequence[str], optional: Sequence[str] = ()) -> pd.DataFrame:
    """Read the named columns of a csv file as text, blank as null, in file order.

    Raises StudyError that names the file and the missing column, or says why the file cannot be read.
    """
    try:
        head = list(pd.read_csv(path, nrows=0).columns)
        if missing := [name for name in required if name not in head]:
            raise StudyError(f"{path}: there is no column {missing[0]!r}; it has {head}")
        # All columns and no index: else pandas drops fields too many, or shifts the columns, without a word.
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            frame = pd.read_csv(path, index_col=False, dtype=str, keep_default_na=False, na_values=[""])
    except (OSError, EOFError, ValueError, pd.errors.ParserWarning) as error:
        raise StudyError(f"{path}: cannot be read as csv: {error}. Fetch the file again.") from error
    frame = frame[[c for c in head if c in (*required, *optional)]]
    for name in optional:
        if name not in frame:
            frame[name] = None
    return frame


def parse_labels(raw: pd.Series, path: Path, finding: str) -> pd.Series:
    """Turn a column of text labels into Int8 with nulls. Raises StudyError at the first value outside the coding."""
    values = pd.to_numeric(raw.str.strip(), errors="coerce")
    wrong = (raw.notna() & values.isna()) | (values.notna() & ~values.isin([-1, 0, 1]))
    if wrong.any():
        position = int(wrong.to_numpy().argmax())
        raise StudyError(
            f"{path} line {position + 2}: {finding} is {raw.iloc[position]!r}; expected {CODING}. "
            f"Correct the row or remove it."
        )
    return values.astype("Int8")


def check_filled(frame: pd.DataFrame, column: str, path: Path) -> None:
    """Raise StudyError naming the file and the line if a value of `column` is empty."""
    if frame[column].isna().any():
        line = int(frame[column].isna().to_numpy().argmax()) + 2
        raise StudyError(f"{path} line {line}: {column} is blank; every row needs one.")


def check_unique(frame: pd.DataFrame, column: str, path: Path) -> None:
    """Raise StudyError naming the file and the two lines if a value of `column` is empty or stands twice."""
    check_filled(frame, column, path)
    twice = frame[column].duplicated().to_numpy()
    if twice.any():
        second = int(twice.argmax())
        value = frame[column].iloc[second]
        first = int((frame[column] == value).to_numpy().argmax())
        raise StudyError(
            f"{path} lines {first + 2} and {second + 2}: {column} {value!r} stands twice; "
            f"it must be unique. Remove one of the rows."
        )


def check_paths(frame: pd.DataFrame, path: Path) -> None:
    """Raise StudyError if a path is absolute or leads out of the root by its text (links are not followed)."""
    for line, text in enumerate(frame["path"], start=2):
        if pd.isna(text):
            raise StudyError(f"{path} line {line}: path is blank; expected a path relative to dataset.root.")
        parts = PurePosixPath(text).parts
        if text.startswith(("/", "~")) or "\\" in text or ":" in text[:3] or ".." in parts:
            raise StudyError(
                f"{path} line {line}: path {text!r} leads out of dataset.root; "
                f"expected a path below it, with forward slashes and without '..'."
            )


def check_one_patient_a_study(frame: pd.DataFrame, path: Path) -> None:
    """Raise StudyError if a study belongs to two patients."""
    patients = frame.drop_duplicates(["study_id", "subject_id"])
    twice = patients["study_id"].duplicated()
    if twice.any():
        study = patients.loc[twice, "study_id"].iloc[0]
        names = sorted(patients.loc[patients["study_id"] == study, "subject_id"])
        raise StudyError(f"{path}: study {study} belongs to the patients {' and '.join(names)}; expected one patient.")


def assign_shards(image_ids: Sequence[str], shards: int) -> tuple[np.ndarray, np.ndarray]:
    """Shard and order within it for each image: random-looking, but the same for ever.

    Both come from BLAKE2b of the image id, so that an image that comes or goes changes its own shard only.
    Returns int32 (image,) in [0, shards) and int64 (image,) in [0, 2**63).
    """
    words = b"".join(hashlib.blake2b(i.encode(), digest_size=16, person=b"cxrscale-shard").digest() for i in image_ids)
    pairs = np.frombuffer(words, dtype="<u8").reshape(-1, 2)  # (image, [shard word, order word])
    return (pairs[:, 0] % np.uint64(shards)).astype(np.int32), (pairs[:, 1] >> np.uint64(1)).astype(np.int64)
