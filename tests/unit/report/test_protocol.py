"""Settings beside the default protocol."""

from cxrscale.common.accepted import Accepted
from cxrscale.report.protocol import protocol_table, provenance_tables


def test_deviations_from_the_default_protocol_are_marked(make_settings):
    table = protocol_table(make_settings())
    assert table.marked == frozenset({2})
    assert [c.text for c in table.cells[2]] == ["training.epochs", "2", "30"]
    assert "1 of 3 deviate" in table.caption


def test_accepted_changes_of_code_are_listed_with_their_reason(make_results):
    results = make_results()
    assert not [t for t in provenance_tables(results) if "Changes of code" in t.caption]
    change = Accepted("train", "1" * 16, "0" * 16, "2026-01-02 03:04", "the sum is taken in another order")
    (table,) = (t for t in provenance_tables(results.having(accepted=[change])) if "Changes of code" in t.caption)
    assert [cell.text for cell in table.cells[0]] == list(change)
