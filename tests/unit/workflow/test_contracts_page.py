"""docs/contracts.md says what the code declares."""

from pathlib import Path

from cxrscale.workflow.contracts_page import TABLES, page


def test_page_is_up_to_date() -> None:
    written = (Path(__file__).parents[2] / "docs/contracts.md").read_text()
    assert written == page() + "\n", "run python -m cxrscale.workflow.contracts_page > docs/contracts.md"


def test_every_column_is_explained() -> None:
    columns = [c for table in TABLES.values() for c in [*table.columns, *table.per_finding]]
    assert len(columns) > 60
    assert all(c.meaning for c in columns)
