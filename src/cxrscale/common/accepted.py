"""Changes of code that were examined and found not to change the results of a stage.

Results stay filed under the digest of the code that made them; a change that is accepted lets the digest of the code as
it is now stand for that one. So nothing is made again and nothing is rewritten. The command is
`python -m cxrscale.workflow.accept`.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from cxrscale.common import tables
from cxrscale.common.atomic import is_there
from cxrscale.common.tables import Column, Table

ACCEPTED_CHANGES = Table(
    name="accepted_changes",
    file=("{store}/accepted-changes.csv", "{study}/accepted-changes.csv"),
    made_by="`workflow.accept`, by whoever examined the change",
    row="a change of code that does not change the results of a stage",
    columns=(
        Column("stage", "text", "the rule whose results stay"),
        Column("code", "text", "digest of the code after the change"),
        Column("same_as", "text", "digest of the code whose results it makes"),
        Column("date", "text", "when it was accepted, in UTC"),
        Column("because", "text", "why the results are the same, in words"),
    ),
)


class Accepted(NamedTuple):
    """A row of ACCEPTED_CHANGES."""

    stage: str
    code: str
    same_as: str
    date: str
    because: str


def read(files: Iterable[str | Path]) -> list[Accepted]:
    """The changes that the files list, in their order; a file need not be there."""
    frames = [tables.read(ACCEPTED_CHANGES, path) for path in files if is_there(path)]
    return [Accepted(*map(str, row)) for frame in frames for row in frame.itertuples(index=False)]


def add(changes: Iterable[Accepted], path: str | Path) -> None:
    """Append changes to a file. None is ever taken out: what was accepted stays on record."""
    tables.write(ACCEPTED_CHANGES, pd.DataFrame([*read([path]), *changes], columns=ACCEPTED_CHANGES.names), path)


def stands_for(changes: Iterable[Accepted], stage: str, code: str) -> str:
    """The digest under which results of a stage made by `code` are filed: that of the code that it is the same as, and
    that this is the same as, and so on; `code` itself where nothing was accepted. Of several rows the last counts."""
    same_as: Mapping[str, str] = {change.code: change.same_as for change in changes if change.stage == stage}
    seen = {code}
    while code in same_as and same_as[code] not in seen:
        code = same_as[code]
        seen.add(code)
    return code
