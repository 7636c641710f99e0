"""How values are written, and the tables and cells of the page."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd

DASH = "–"


@dataclass(frozen=True)
class Cell:
    """A value in a table with a smaller note below it."""

    text: str
    note: str = ""


@dataclass(frozen=True)
class PageTable:
    """A table of the page; cells that are text become Cells. marked: numbers of the rows that stand out. private: it
    names patients or their images."""

    kind: ClassVar[str] = "table"
    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[Cell | str]]
    marked: frozenset[int] = frozenset()
    private: bool = False

    @property
    def cells(self) -> list[list[Cell]]:
        return [[c if isinstance(c, Cell) else Cell(str(c)) for c in row] for row in self.rows]


def missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value)) or value is pd.NA


def text_or(value: Any, otherwise: str) -> str:
    return otherwise if missing(value) else str(value)


def number(value: Any, digits: int = 3, signed: bool = False) -> str:
    """A number with fixed decimals and a true minus; a dash for a missing one."""
    if missing(value):
        return DASH
    shown = f"{float(value):{'+' if signed else ''},.{digits}f}"
    return shown.replace("-", "\N{MINUS SIGN}")


def measure(row: Mapping[str, Any], value: str, lower: str, upper: str, signed: bool = False) -> Cell:
    """A value with its interval below; a dash with the reason where it is empty."""
    reason = text_or(row.get("reason"), "no reason recorded")
    if missing(row[value]):
        return Cell(DASH, reason)
    if missing(row[lower]) or missing(row[upper]):
        return Cell(number(row[value], signed=signed), f"no interval: {reason}")
    interval = f"{number(row[lower], signed=signed)} to {number(row[upper], signed=signed)}"
    return Cell(number(row[value], signed=signed), interval)


def join(parts: Iterable[Any]) -> str:
    """'a, b and c'."""
    words = [str(p) for p in parts]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else ""


def joined_reasons(reasons: pd.Series) -> str | None:
    return "; ".join(dict.fromkeys(reasons.dropna().astype(str))) or None


def average_rows(frame: pd.DataFrame, by: Sequence[str], values: Sequence[str]) -> pd.DataFrame:
    """Means over folds and seeds, of the rows whose first value is defined.

    An interval's ends are averaged too, which is its width if the folds' errors moved together: on the wide side.
    They are empty if one of the averaged rows lacks them. Returns by, values, n (rows averaged), reason.
    """
    rows = []
    for key, group in frame.groupby(list(by), sort=False, dropna=False):
        defined = group[group[values[0]].notna()]
        row = dict(zip(by, key if isinstance(key, tuple) else (key,), strict=True))
        row |= {v: defined[v].mean(skipna=False) if len(defined) else math.nan for v in values}
        rows.append(row | {"n": len(defined), "reason": joined_reasons(group["reason"])})
    return pd.DataFrame(rows, columns=[*by, *values, "n", "reason"])


def p_text(p: Any, called: str = "p") -> str:
    """A p value as it is written: "p = 0.012", "p < 0.001"."""
    if missing(p):
        return "no p"
    return f"{called} < 0.001" if p < 0.001 else f"{called} = {p:.3f}"


def first_row(frame: pd.DataFrame, **where: Any) -> dict[str, Any] | None:
    """The first row with these values, or None."""
    chosen = np.ones(len(frame), dtype=bool)
    for name, value in where.items():
        chosen &= (frame[name] == value).to_numpy(dtype=bool)
    found = frame[chosen]
    return {str(k): v for k, v in found.iloc[0].to_dict().items()} if len(found) else None
