"""Tables with a stated meaning: what each column is, its type, its unit and what an empty value says.

Each stage declares the tables it writes as a `Table`. `write` refuses a frame that breaks the declaration, `read`
refuses a file that does, so that a mistake stops at the stage that made it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cxrscale.common.atomic import replacing
from cxrscale.common.errors import StudyError

TYPES: dict[str, pa.DataType] = {
    "text": pa.string(),
    "int8": pa.int8(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "float32": pa.float32(),
    "float64": pa.float64(),
    "bool": pa.bool_(),
}


@dataclass(frozen=True)
class Column:
    """name, type (a key of TYPES), meaning with its unit, and the meaning of null ("" if null is not allowed).

    The two meanings are words for readers: the digest of code (`provenance`) leaves them out.
    """

    name: str
    type: str
    meaning: str
    null: str = ""


@dataclass(frozen=True)
class Table:
    """The declaration of a file: its name and place, what one row is, its columns and which of them identify a row.

    file: a pattern of `places`, or several, in the order in which they are read; "" if the user names the file. row:
    what one row is. made_by: where in `cxrscale` it is made, for who follows a number to its formula. Both are words
    for readers, which the digest of code leaves out. per_finding: columns that stand once for each finding; "{finding}"
    in the name is replaced. Their findings are those of the frame that is written. shown: the report reads it, so that
    it is made anew when the table changes.
    """

    name: str
    file: str | tuple[str, ...]
    row: str
    columns: Sequence[Column]
    key: Sequence[str] = ()
    per_finding: Sequence[Column] = field(default=())
    shown: bool = False
    made_by: str = ""

    @property
    def files(self) -> tuple[str, ...]:
        """The patterns of its files."""
        return (self.file,) if isinstance(self.file, str) else self.file

    @property
    def names(self) -> list[str]:
        """The names of its columns, without those per finding."""
        return [c.name for c in self.columns]

    def findings(self, columns: Iterable[str]) -> list[str]:
        """The findings whose columns are among `columns`, in order of appearance."""
        known = {c.name for c in self.columns}
        if not self.per_finding:
            return []
        prefix, suffix = self.per_finding[0].name.split("{finding}")
        return [
            c[len(prefix) : len(c) - len(suffix)]
            for c in columns
            if c not in known and c.startswith(prefix) and c.endswith(suffix)
        ]

    def expanded(self, findings: Iterable[str]) -> list[Column]:
        """All columns, those per finding written out, grouped by column then finding."""
        findings = list(findings)
        return [
            *self.columns,
            *(Column(c.name.format(finding=f), c.type, c.meaning, c.null) for c in self.per_finding for f in findings),
        ]


def _arrow(table: Table, frame: pd.DataFrame, where: str) -> pa.Table:
    columns = table.expanded(table.findings(map(str, frame.columns)))
    names = [c.name for c in columns]
    if missing := [n for n in names if n not in frame.columns]:
        raise StudyError(f"{where}: {table.name} lacks the column {missing[0]!r}; it has {list(frame.columns)}")
    if extra := [c for c in frame.columns if c not in names]:
        raise StudyError(f"{where}: {table.name} knows no column {extra[0]!r}; it knows {names}")
    for column in columns:
        if not column.null and frame[column.name].isna().any():
            row = int(frame[column.name].isna().to_numpy().argmax())
            raise StudyError(f"{where}: {table.name} row {row}: {column.name} is empty, which it may not be")
    if table.key and frame.duplicated(list(table.key)).any():
        twice = frame.loc[frame.duplicated(list(table.key)), list(table.key)].iloc[0].to_dict()
        raise StudyError(f"{where}: {table.name} holds {twice} twice")
    return pa.table([_array(table, column, frame[column.name], where) for column in columns], names=names)


def _array(table: Table, column: Column, values: pd.Series, where: str) -> pa.Array:
    try:
        return pa.array(values, type=TYPES[column.type], from_pandas=True)
    except (pa.ArrowException, OverflowError) as error:
        raise StudyError(f"{where}: {table.name}: {column.name} holds what is no {column.type}: {error}") from error


def write(table: Table, frame: pd.DataFrame, path: str | Path, float_format: str | None = "%.10g") -> None:
    """Write a frame as Parquet or, if the path ends in .csv, as csv; whole or not at all.

    float_format: of a csv's numbers; None: as many digits as tell them from all others. Raises StudyError if the frame
    breaks the declaration.
    """
    arrow = _arrow(table, frame, str(path))
    with replacing(path) as temporary:
        if Path(path).suffix == ".csv":
            arrow.to_pandas().to_csv(temporary, index=False, lineterminator="\n", float_format=float_format)
        else:
            pq.write_table(arrow, temporary, compression="zstd")


def read(table: Table, path: str | Path, columns: list[str] | None = None) -> pd.DataFrame:
    """Read what `write` wrote. columns: only these (the declaration is then not checked in full)."""
    path = Path(path)
    if not path.is_file():
        raise StudyError(f"{path}: there is no such file; {table.name} should be there")
    if path.suffix == ".csv":
        try:
            head = pd.read_csv(path, nrows=0).columns
            text = {c.name: str for c in table.expanded(table.findings(head)) if c.type == "text"}
            frame = pd.read_csv(path, dtype=text, keep_default_na=False, na_values=[""])
        except ValueError as error:
            raise StudyError(f"{path}: {table.name} cannot be read as csv: {error}") from error
        return _arrow(table, frame, str(path)).to_pandas() if columns is None else frame[columns]
    frame = pq.read_table(path, columns=columns).to_pandas()
    if columns is None:
        _arrow(table, frame, str(path))
    return frame


def settings_from(cls: Any, values: dict[str, Any]) -> Any:
    """Make a dataclass of plain values, refusing unknown and missing names with one message."""
    try:
        return cls(**values)
    except TypeError as error:
        raise StudyError(f"{cls.__name__}: {error}") from error
