"""The answer: its tables and figures."""

import pandas as pd

from cxrscale.report.answer import auroc_by_resolution, difference_cell, differences_to_reference, pairs_table
from cxrscale.report.cells import DASH, Cell
from cxrscale.report.drawing import resolution_colours
from cxrscale.report.page import summary_lines

NAN = float("nan")


def test_the_answer_stands_in_summary_and_page(make_results, make_settings, make_pages, read_page):
    results = make_results(models=("m",))
    sentence = "32 px suffices for A; 64 px, the reference, is needed for B (every smaller one is worse)."
    assert f"m: {sentence}" in summary_lines(results, make_settings(), "x")
    text = read_page(make_pages(results, make_settings())[0]).text
    assert sentence in text
    assert text.index("The answer") < text.index(sentence) < text.index("What it costs")
    assert "0.800" in text
    assert "\N{MINUS SIGN}0.200" in text  # lowest minus reference, B


def test_a_difference_shows_interval_corrected_p_and_verdict(make_results, make_settings):
    results = make_results(models=("m",))
    cell = difference_cell(results, make_settings(), "m", "B", 32)
    minus = "\N{MINUS SIGN}"
    assert cell == Cell(f"{minus}0.200", f"{minus}0.205 to {minus}0.195; p < 0.001; worse than the reference")
    few = results["differences"].assign(verdict=None, p_holm=NAN, reason="5 patients with the finding: no verdict")
    cell = difference_cell(results.having(differences=few), make_settings(), "m", "B", 32)
    assert cell.note.endswith("; 5 patients with the finding: no verdict")


def test_exploratory_pairs_are_folded_away_marked_and_without_verdict(
    make_results, make_settings, make_pages, read_page
):
    results = make_results(models=("m",), resolutions=(16, 32, 64))
    table = pairs_table(results, make_settings())
    kinds = [row[3].text for row in table.cells]
    assert kinds.count("exploratory") == 3
    assert table.marked == {i for i, kind in enumerate(kinds) if kind == "exploratory"}
    assert all(row[9].text == DASH for row, kind in zip(table.cells, kinds, strict=True) if kind == "exploratory")
    page = read_page(make_pages(results, make_settings())[0])
    assert {"details", "summary"} <= set(page.tags)
    assert "16 minus 32 px" in page.text


def test_auroc_has_a_panel_a_finding_with_its_reason_and_pixels(texts, level):
    rows = [level("m", f, r, 0.7) for f in ("A", "B", "C") for r in (32, 64)]
    rows += [level("m", "$D", r, NAN, "no positive image") for r in (32, 64)]
    labels = {f: f for f in ("A", "B", "C", "$D")}
    figure = auroc_by_resolution(pd.DataFrame(rows), labels, 0.95)
    assert len(figure.axes) == 4
    assert figure.axes[0].get_xscale() == "log"
    shown = texts(figure)
    assert "undefined: no positive image" in shown
    assert r"\$D" in shown
    assert {"32", "64", "Side of the input [px]", "Test AUROC", "m"} <= set(shown)


def test_a_resolution_has_one_colour(level):
    colours = resolution_colours([256, 64, 128])
    assert list(colours) == [64, 128, 256]
    assert len(set(colours.values())) == 3
    figure = auroc_by_resolution(
        pd.DataFrame([level(m, "A", r, 0.7) for m in "mn" for r in (64, 128, 256)]), {"A": "A"}, 0.95
    )
    drawn = [
        line.get_color()
        for line in figure.axes[0].lines
        if line.get_marker() not in ("None", None) and line.get_xdata().size == 1
    ]
    assert drawn == [*colours.values()] * 2


def test_differences_have_a_panel_a_model_and_a_row_a_finding(texts):
    rows = [
        {
            "model": m,
            "finding": "A",
            "resolution_px": r,
            "against_px": 128,
            "difference": -0.1,
            "lower": -0.2,
            "upper": 0.0,
            "p_holm": 0.01 if r == 32 else 0.2,
        }
        for m in "mn"
        for r in (32, 64)
    ]
    figure = differences_to_reference(pd.DataFrame(rows), {"A": "A", "B": "Second"}, ["m", "n"], 0.01, 0.95)
    assert len(figure.axes) == 2
    shown = texts(figure)
    assert shown.count("undefined") == 2  # B, in both panels
    assert {"m", "n", "Second", "32 px", "64 px", "Test AUROC minus that at 128 px"} <= set(shown)
    assert "128 px" not in shown
    dots = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert [dot.get_markerfacecolor() == "white" for dot in dots] == [False, True]  # filled: shown to differ


def test_differences_of_a_single_resolution_are_empty_but_drawn(texts):
    columns = ["model", "finding", "resolution_px", "against_px", "difference", "lower", "upper", "p_holm"]
    figure = differences_to_reference(pd.DataFrame(columns=columns), {"A": "A"}, ["m"], 0.01, 0.95)
    assert "undefined" in texts(figure)
