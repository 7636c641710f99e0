"""The two tables that every data set becomes, and the checks that all parsers share."""

import csv
import gzip
import hashlib
import re
import unicodedata
import warnings
import zlib
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pandas as pd

from cxrscale.common.errors import StudyError
from cxrscale.data.spelling import IDS, Reading, spelled

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
    """The names of a csv file's columns, without blanks around them. Raises StudyError if the file cannot be read or a
    name stands twice."""
    first = _pandas_csv(path, nrows=1, header=None)
    names = ["" if pd.isna(name) else unicodedata.normalize("NFC", str(name)).strip() for name in first.iloc[0]]
    if twice := [name for name in names if name and names.count(name) > 1]:
        raise StudyError(f"{path}: the column {twice[0]!r} stands twice; expected each column once. It has {names}")
    return names


def read_csv(
    path: Path,
    required: Sequence[str],
    reading: Reading,
    optional: Sequence[str] = (),
    groups: Sequence[str] = (),
) -> pd.DataFrame:
    """Read the named columns of a csv file as text, blank as null, in file order.

    Ids (`spelling.IDS`) and the columns that hold groups are brought to one spelling (see `spelling`); reading: how,
    and where what was found is noted. Raises StudyError that names the file and the missing column, or the row that has
    more or fewer fields than the header, or says why the file cannot be read.
    """
    head = csv_header(path)
    if missing := [name for name in required if name not in head]:
        raise StudyError(f"{path}: there is no column {missing[0]!r}; it has {head}. Expected {', '.join(required)}.")
    check_rows(path, head)
    # All columns and no index: else pandas drops fields too many, or shifts the columns, without a word.
    frame = _pandas_csv(path, index_col=False).set_axis(head, axis=1)
    frame = frame[[c for c in head if c in (*required, *optional)]]
    for name in optional:
        if name not in frame:
            frame[name] = None
    for name in (*IDS, *groups):
        if name in head and name in frame:
            frame[name] = spelled(frame[name], path, reading, partial(line_of, path), name in IDS)
    return frame


#: A label of a last row that has no line break: cut short, it would still say the same.
_WHOLE_LABEL = re.compile(r"-?[01](\.0*)?")


def check_rows(path: Path, head: Sequence[str]) -> None:
    """Raise StudyError if a row has another number of fields than the header, or the file ends within a row.

    A file that was cut short ends within a row. Where that is the last field it cannot be seen, unless the line break
    is missing: such a file is refused, but where the field is a label, which is whole by itself.
    """
    last = ""

    def lines(handle: Iterable[str]) -> Iterator[str]:
        nonlocal last
        for line in handle:
            last = line
            yield line

    begin, width, fields = 1, 0, list[str]()
    try:
        with _opened(path) as handle:
            reader = csv.reader(lines(handle), strict=True)
            next(reader, None)
            begin = reader.line_num + 1
            for row in reader:
                if not _blank(row):
                    # The first row may end with commas too many, if all others do.
                    width = width or max(len(row), len(head))
                    if len(row) != width or any(row[len(head) :]):
                        raise StudyError(
                            f"{path} line {begin}: has {len(row)} fields, expected {len(head)}, as in the header. "
                            f"A file that was cut short ends so: fetch it again; else correct the line."
                        )
                    fields = row[: len(head)]
                begin = reader.line_num + 1
    except csv.Error as error:
        raise StudyError(f"{path} line {begin}: cannot be read as csv: {error}. Fetch the file again.") from error
    except (OSError, EOFError, UnicodeError, zlib.error) as error:
        raise StudyError(f"{path}: cannot be read as csv: {error}. Fetch the file again.") from error
    if not fields:
        raise StudyError(f"{path}: has a header and no row. Fetch the file again, or fill it.")
    whole = head[-1] not in IDS and _WHOLE_LABEL.fullmatch(fields[-1].strip())
    if last and not last.endswith(("\n", "\r")) and not whole:
        raise StudyError(
            f"{path}: the last line has no line break at its end, as in a file that was cut short; {head[-1]} is "
            f"{fields[-1]!r}. Fetch the file again, or, if the line is whole, add a line break."
        )


def _opened(path: Path) -> TextIO:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def _blank(fields: Sequence[str]) -> bool:
    """Whether the fields of a row are those of a blank line."""
    return not fields or (len(fields) == 1 and bool(fields[0]) and not fields[0].strip())


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
    try:
        with _opened(path) as handle:
            reader = csv.reader(handle)
            begin, seen = 1, -1  # the header is the row before the first
            for fields in reader:
                if not _blank(fields):
                    if seen == row:
                        return begin
                    seen += 1
                begin = reader.line_num + 1
    except (OSError, EOFError, UnicodeError, zlib.error, csv.Error):
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


def check_one_patient_an_examination(frame: pd.DataFrame, path: Path) -> None:
    """Raise StudyError if a study belongs to two patients."""
    patients = frame.drop_duplicates(["study_id", "subject_id"])
    twice = patients["study_id"].duplicated()
    if twice.any():
        study = patients.loc[twice, "study_id"].iloc[0]
        names = sorted(patients.loc[patients["study_id"] == study, "subject_id"])
        raise StudyError(
            f"{path}: study_id {study} belongs to the patients {' and '.join(names)}; expected one patient."
        )


def assign_shards(image_ids: Sequence[str], shards: int) -> tuple[np.ndarray, np.ndarray]:
    """Shard and order within it for each image: random-looking, but the same for ever.

    Both come from BLAKE2b of the image id, so that an image that comes or goes changes its own shard only.
    Returns int32 (image,) in [0, shards) and int64 (image,) in [0, 2**63).
    """
    words = b"".join(hashlib.blake2b(i.encode(), digest_size=16, person=b"cxrscale-shard").digest() for i in image_ids)
    pairs = np.frombuffer(words, dtype="<u8").reshape(-1, 2)  # (image, [shard word, order word])
    return (pairs[:, 0] % np.uint64(shards)).astype(np.int32), (pairs[:, 1] >> np.uint64(1)).astype(np.int64)
