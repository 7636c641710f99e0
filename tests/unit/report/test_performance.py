"""How good the learners are."""

from cxrscale.report.cells import DASH, Cell
from cxrscale.report.performance import performance_tables


def test_performance_shows_the_reference_and_says_what_is_missing(make_results, make_settings):
    results = make_results(findings=("A", "B"), models=("m",), undefined=("B",))
    metrics = results["metrics"]
    metrics.loc[metrics["resolution_px"] == 32, "value"] = 0.9  # not the reference
    metrics.loc[metrics["metric"] == "calibration_error_chance", "value"] = 0.02
    by_image, groups, calibration, variance = performance_tables(results, make_settings())
    assert by_image.cells[0][2] == by_image.cells[0][3] == Cell("0.500", "0.400 to 0.600")
    assert by_image.cells[0][6] == Cell(DASH, "not computed")  # no specificity
    assert by_image.cells[1][2] == Cell(DASH, "no positive image")
    assert "at 64 px" in by_image.caption
    assert groups.head == ["Model", "Finding", "All", "view: <AP>"]
    assert calibration.cells[0][3] == Cell("0.500", "by chance 0.020")
    assert calibration.cells[1][3] == Cell(DASH, "no positive image")
    assert [c.text for c in variance.cells[0]] == ["m", "A", "0.500", "0.500", "0.500"]
    without = results.having(metrics=metrics[metrics["group"] == "all"])
    assert len(performance_tables(without, make_settings())) == 3
