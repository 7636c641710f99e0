"""Notes: what a stage found that changes how its results must be read. They stand in the report's first lines.

A stage that accepts something doubtful (two spellings that were taken for one patient, a view that no group holds)
writes it here instead of into a log alone. A mistake that has one right answer is no note but a StudyError.
"""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from cxrscale.common import tables
from cxrscale.common.tables import Column, Table

logger = logging.getLogger(__name__)

#: What is noted below a study, in the order in which the report shows it; before it comes what the list of images says.
NOTED = ("labels", "inputs", "targets-fold{fold}", "together-fold{fold}", "pictures")

NOTES = Table(
    name="notes",
    file=("{store}/notes.csv", *(f"{{study}}/notes/{of}.csv" for of in NOTED)),
    made_by="`common.notes.write`, where something is found that a reader should know",
    shown=True,
    row="something that a reader must know before trusting the results",
    columns=(
        Column(
            "about", "text", "what it is about: ids, groups, labels, findings, split, views, subgroups, boxes, pictures"
        ),
        Column("note", "text", "in words, with counts; names no image and no patient"),
        Column("examples", "text", "ids or files that it is about, the first of them", null="none are named"),
    ),
)

#: Examples that a note or an error names; the others are counted.
NAMED = 3


class Note(NamedTuple):
    """A row of NOTES. note is shown to whoever reads the report, examples only where ids may be seen."""

    about: str
    note: str
    examples: str | None = None


def write(notes: Iterable[Note], path: str | Path) -> None:
    """Write the table NOTES in the order in which they should be read, and warn of each in the log."""
    notes = list(notes)
    for note in notes:
        logger.warning("%s: %s%s", note.about, note.note, f" ({note.examples})" if note.examples else "")
    tables.write(NOTES, pd.DataFrame(notes, columns=list(Note._fields), dtype="str"), path)


def examples(values: Iterable[object], most: int = NAMED) -> str:
    """'a, b, c and 4 more'."""
    words = [str(value) for value in values]
    shown = ", ".join(words[:most])
    return f"{shown} and {len(words) - most} more" if len(words) > most else shown
