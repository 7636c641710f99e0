"""Images, patients and stores are counted."""

from cxrscale.report.caveats import warnings_of
from cxrscale.report.cells import DASH, Cell
from cxrscale.report.data import bits_table, findings_table, images_table, store_table


def test_pictures_are_counted_by_bits(make_results):
    results = make_results()
    results["index"]["native_bits"] = [8, *[12] * (len(results["index"]) - 1)]
    n = len(results["index"])
    assert bits_table(results).rows == [["8", "1", f"{1 / n:.1%}"], ["12", f"{n - 1}", f"{1 - 1 / n:.1%}"]]


def test_images_out_of_the_store_do_not_count(make_results, make_settings):
    results = make_results()
    results = results.having(index=results["index"].iloc[1:])
    row = images_table(results, make_settings()).cells[0]
    assert row[1] == Cell("1 images", "1 patients")
    assert row[5].text == "1"
    counts = findings_table(results, make_settings()).cells[0]
    assert counts[2].text == "1 / 0"


def test_enlarged_images_are_counted_and_those_left_out_are_named(make_results, make_settings):
    results = make_results()
    cells = store_table(results).cells
    assert [c.text for c in cells[1]] == ["64 px", "40", "0.002 GB", "40", DASH, "39.0 dB"]
    assert cells[1][3].note == "100.0% of the images"
    assert cells[0][4] == Cell("44.0 dB", "least 41.0")
    strict = make_settings(native_at_least_px=64)
    assert "whose native file is smaller than 64 px are left out" in " ".join(warnings_of(results, strict))
    assert images_table(results, strict).cells[0][1].text == "0 images"
