"""Notes: what a stage found that changes how its results must be read. They stand in the report's first lines.

A stage that accepts something doubtful (two spellings that were taken for one patient, a view that no group holds)
writes it here instead of into a log alone. A mistake that has one right answer is no note but a StudyError.
"""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from cxrscale import tables
from cxrscale.tables import Column, Table

NOTES = Table(
    name="notes",
    row="something that a reader must know before trusting the results",
    columns=(
        Column("about", "text", "what it is about: ids, labels, findings, split, views, subgroups, boxes, pictures"),
        Column("note", "text", "in words, with counts and the first examples"),
    ),
)

#: Examples that a note or an error names; the others are counted.
NAMED = 3


def write(notes: Iterable[tuple[str, str]], path: str | Path) -> None:
    """Write the table NOTES. notes: (about, note) in the order they should be read; none makes an empty table."""
    tables.write(NOTES, pd.DataFrame(list(notes), columns=[c.name for c in NOTES.columns], dtype="str"), path)


def examples(values: Iterable[object], most: int = NAMED) -> str:
    """'a, b, c and 4 more'."""
    words = [str(value) for value in values]
    shown = ", ".join(words[:most])
    return f"{shown} and {len(words) - most} more" if len(words) > most else shown
