"""Settings beside the default protocol."""

from cxrscale.report.protocol import protocol_table


def test_deviations_from_the_default_protocol_are_marked(make_settings):
    table = protocol_table(make_settings())
    assert table.marked == frozenset({2})
    assert [c.text for c in table.cells[2]] == ["training.epochs", "2", "30"]
    assert "1 of 3 deviate" in table.caption
