"""The two tables that every data set becomes, and the checks that all parsers share."""

import csv
import gzip
import hashlib
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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


def csv_header(path: Path) -> list[str]:
    """The names of a csv file's columns. Raises StudyError if the file cannot be read or a name stands twice."""
    first = _pandas_csv(path, nrows=1, header=None)
    names = ["" if pd.isna(name) else str(name) for name in first.iloc[0]]
    if twice := [name for name in names if name and names.count(name) > 1]:
        raise StudyError(f"{path}: the column {twice[0]!r} stands twice; expected each column once. It has {names}")
    return names


def read_csv(path: Path, required: Sequence[str], optional: Sequence[str] = ()) -> pd.DataFrame:
    """Read the named columns of a csv file as text, blank as null, in file order.

    Raises StudyError that names the file and the missing column, or says why the file cannot be read.
    """
    head = csv_header(path)
    if missing := [name for name in required if name not in head]:
        raise StudyError(f"{path}: there is no column {missing[0]!r}; it has {head}. Expected {', '.join(required)}.")
    # All columns and no index: else pandas drops fields too many, or shifts the columns, without a word.
    frame = _pandas_csv(path, index_col=False)
    frame = frame[[c for c in head if c in (*required, *optional)]]
    for name in optional:
        if name not in frame:
            frame[name] = None
    return frame


def _pandas_csv(path: Path, **options: Any) -> pd.DataFrame:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            return pd.read_csv(path, dtype=str, keep_default_na=False, na_values=[""], **options)
    except (OSError, EOFError, ValueError, zlib.error, pd.errors.ParserWarning) as error:
        raise StudyError(f"{path}: cannot be read as csv: {error}. Fetch the file again.") from error


def line_of(path: Path, row: int) -> int:
    """The line, from 1, on which a row (from 0) of a csv file begins: blank lines and lines within quotes are counted.

    Reads the file again, so it is for messages alone. Where that fails, it says what holds for a plain file.
    """
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8", errors="replace", newline="") as handle:
            reader = csv.reader(handle)
            begin, seen = 1, -1  # the header is the row before the first
            for fields in reader:
                if len(fields) > 1 or (fields and (not fields[0] or fields[0].strip())):  # else a blank line
                    if seen == row:
                        return begin
                    seen += 1
                begin = reader.line_num + 1
    except (OSError, EOFError, zlib.error, csv.Error):
        pass
    return row + 2


def numbers(raw: pd.Series) -> np.ndarray:
    """A column of text as float64 (row,), NaN where it is null or no number. Each distinct text is read once."""
    codes, texts = pd.factorize(raw)
    values = pd.to_numeric(pd.Series(texts, dtype=str).str.strip(), errors="coerce")
    return np.append(values.to_numpy("float64", na_value=np.nan), np.nan)[codes]  # code -1, null, takes the last


def parse_labels(raw: pd.Series, path: Path, finding: str) -> pd.Series:
    """Turn a column of text labels into Int8 with nulls. Raises StudyError at the first value outside the coding."""
    values = numbers(raw)
    wrong = raw.notna().to_numpy() & ~np.isin(values, [-1, 0, 1])
    if wrong.any():
        position = int(wrong.argmax())
        raise StudyError(
            f"{path} line {line_of(path, position)}: {finding} is {raw.iloc[position]!r}; expected {CODING}. "
            f"Correct the row or remove it."
        )
    return pd.Series(values, index=raw.index, name=raw.name).astype("Int8")


def check_filled(frame: pd.DataFrame, column: str, path: Path) -> None:
    """Raise StudyError naming the file and the line if a value of `column` is empty."""
    blank = frame[column].isna().to_numpy()
    if blank.any():
        raise StudyError(f"{path} line {line_of(path, int(blank.argmax()))}: {column} is blank; every row needs one.")


def check_unique(frame: pd.DataFrame, column: str, path: Path) -> None:
    """Raise StudyError naming the file and the two lines if a value of `column` is empty or stands twice."""
    check_filled(frame, column, path)
    twice = frame[column].duplicated().to_numpy()
    if twice.any():
        second = int(twice.argmax())
        value = frame[column].iloc[second]
        first = int((frame[column] == value).to_numpy().argmax())
        raise StudyError(
            f"{path} lines {line_of(path, first)} and {line_of(path, second)}: {column} {value!r} stands twice; "
            f"it must be unique. Remove one of the rows."
        )


def check_one_of(frame: pd.DataFrame, column: str, values: Sequence[str], path: Path, blank: bool = False) -> None:
    """Raise StudyError naming the file and the line if a value of `column` is none of these; blank: or empty."""
    unknown = ~frame[column].isin(list(values)).to_numpy()
    if blank:
        unknown &= frame[column].notna().to_numpy()
    if unknown.any():
        row = int(unknown.argmax())
        names = [*values, "blank"] if blank else list(values)
        raise StudyError(
            f"{path} line {line_of(path, row)}: {column} is {frame[column].iloc[row]!r}; "
            f"expected {', '.join(names[:-1])} or {names[-1]}."
        )


def check_paths(frame: pd.DataFrame, path: Path) -> None:
    """Raise StudyError if a path is absolute or leads out of the root by its text (links are not followed)."""
    text = frame["path"].fillna("").astype(str)
    leaves = (
        text.str.startswith(("/", "~"))
        | text.str.contains("\\", regex=False)
        | text.str.slice(0, 3).str.contains(":", regex=False)
        | ("/" + text + "/").str.contains("/../", regex=False)
    )
    wrong = (frame["path"].isna() | leaves).to_numpy(dtype=bool)
    if wrong.any():
        row = int(wrong.argmax())
        line, named = line_of(path, row), frame["path"].iloc[row]
        if pd.isna(named):
            raise StudyError(f"{path} line {line}: path is blank; expected a path relative to dataset.root.")
        raise StudyError(
            f"{path} line {line}: path {named!r} leads out of dataset.root; "
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
