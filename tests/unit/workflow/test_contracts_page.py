"""docs/contracts.md says what the code declares."""

from pathlib import Path

from cxrscale.common.tables import Column, Table
from cxrscale.results import RECORDS, TABLES
from cxrscale.workflow.contracts_page import described, page


def test_page_is_up_to_date() -> None:
    written = (Path(__file__).parents[3] / "docs/contracts.md").read_text()
    assert written == page() + "\n", "run python -m cxrscale.workflow.contracts_page > docs/contracts.md"


def test_every_column_is_explained() -> None:
    columns = [c for table in TABLES.values() for c in [*table.columns, *table.per_finding]]
    columns += [field for record in RECORDS.values() for field in record.fields]
    assert len(columns) > 60
    assert all(c.meaning for c in columns)


TABLE = Table(
    name="rows",
    file="{study}/rows.csv",
    row="a row",
    columns=(Column("id", "text", "who"), Column("note", "text", "words", null="none"), Column("n", "int32", "count")),
    key=("id",),
    per_finding=(Column("x:{finding}", "float32", "value", null="unknown"), Column("y:{finding}", "int8", "flag")),
)


def test_describe_states_every_column_and_what_null_means():
    text = "\n".join(described(TABLE))
    assert "| `note` | text | words | none |" in text
    assert "| `y:{finding}` | int8 | flag | never |" in text
    assert "Unique by: id." in text
