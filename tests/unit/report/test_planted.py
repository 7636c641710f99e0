"""Whether the planted answer was found."""

import pandas as pd
import pytest

from cxrscale.evaluate.verdicts import smallest_sufficient
from cxrscale.report.cells import DASH, Cell
from cxrscale.report.planted import agreement, expected_gain, planted_table


def planted_as(pattern="grating", wavelength=0.0):
    return pd.DataFrame(
        {"finding": ["A"], "pattern": [pattern], "wavelength": [wavelength], "contrast": 0.2, "prevalence": 0.3}
    )


@pytest.fixture
def make_found(make_results):
    """A study of one finding and model whose AUROCs (resolution_px -> value) and differences have such intervals."""

    def make(planted, auroc, half=0.004, reference=96):
        results = make_results(findings=("A",), models=("m",), resolutions=tuple(auroc))
        value = results["averages"]["resolution_px"].map(auroc)
        averages = results["averages"].assign(value=value, lower=value - half, upper=value + half)
        pairs = results["differences"]
        d = pairs["resolution_px"].map(auroc) - pairs["against_px"].map(auroc)
        lower = d - half
        differences = pairs.assign(difference=d, lower=lower, upper=d + half)
        against = zip(pairs["resolution_px"], pairs["against_px"], lower, strict=True)
        ends = {int(r): float(end) for r, against_px, end in against if against_px == reference}
        px, beyond = smallest_sufficient(ends, reference, 0.01)
        sufficient = results["sufficient"].assign(sufficient_px=px, beyond_px=", ".join(map(str, beyond)) or None)
        return results.having(planted=planted, averages=averages, differences=differences, sufficient=sufficient)

    return make


@pytest.fixture
def planted_row(make_found, make_settings):
    """The words of each resolution, planted and found px, and the overall word."""

    def read(planted, auroc, **more):
        table = planted_table(make_found(planted, auroc, **more), make_settings(reference_px=96))
        (row,) = table.cells
        words = [cell.note.split("; ")[-1].split(" (")[0] for cell in row[3:-3]]
        return words, row[-3].text, row[-2].text, row[-1].text

    return read


def test_planted_truth_is_held_against_the_findings(make_results, make_settings, make_pages):
    planted = pd.DataFrame(
        {
            "finding": ["A", "B", "C", "D"], "pattern": ["heart", "grating", "none", "any"],
            "wavelength": [0.0, 0.05, 0.0, 0.0], "contrast": 0.2, "prevalence": 0.3,
        }
    )  # fmt: skip
    results = make_results(findings=("A", "B", "C", "D"), models=("m",)).having(planted=planted)
    table = planted_table(results, make_settings())
    assert table.head[3:] == [
        "32 px minus 64 px", "AUROC at 64 px", "Smallest sufficient: planted", "Found", "Overall",
    ]  # fmt: skip
    rows = {row[0].text: row for row in table.cells}
    minus = "\N{MINUS SIGN}"
    assert rows["A"][2] == Cell("heart")
    assert rows["A"][3:] == [
        Cell(f"{minus}0.000", f"{minus}0.005 to +0.005; as planted"), Cell("0.800", "0.700 to 0.900; as planted"),
        Cell("32 px"), Cell("32 px"), Cell("as planted"),
    ]  # fmt: skip
    assert rows["B"][2] == Cell("grating", "wavelength 0.050: more than 40 px")  # 2 / 0.05
    assert rows["B"][3] == Cell(f"{minus}0.200", f"{minus}0.205 to {minus}0.195; as planted")
    assert [c.text for c in rows["B"][5:]] == ["64 px", "64 px", "as planted"]
    assert [c.text for c in rows["C"][5:]] == [DASH, "32 px", "not as planted"]  # 0.8 - 0.2 > 0.5
    assert rows["D"][7] == Cell("as planted", "gain of combining +0.030 (+0.010 to +0.050)")
    assert "Against the planted truth" in make_pages(results, make_settings())[0]
    chance = results.having(auroc=results["auroc"].assign(joint_lower=0.4, joint_upper=0.6))
    table = planted_table(chance, make_settings())
    assert table.cells[2][7] == Cell("as planted", "all 2 joint 99% intervals hold 0.5")


def test_every_resolution_as_planted_is_as_planted(planted_row):
    good = ["as planted"] * 3
    found = planted_row(planted_as(wavelength=0.055), {32: 0.6, 48: 0.99, 96: 0.99})
    assert found == (good, "48 px", "48 px", "as planted")
    found = planted_row(planted_as(wavelength=0.025), {32: 0.5, 48: 0.6, 96: 0.99})
    assert found == (good, "96 px", "96 px", "as planted")
    assert planted_row(planted_as("heart"), {32: 0.99, 48: 0.99, 96: 0.99}) == (good, "32 px", "32 px", "as planted")


def test_a_resolution_that_holds_the_stripes_but_is_at_chance_is_not_as_planted(planted_row):
    """DenseNet121 in the demo as it was: lesions need 36 px, and at 48 px it had learned nothing."""
    words, needed, found, overall = planted_row(planted_as(wavelength=0.055), {32: 0.505, 48: 0.502, 96: 0.995})
    assert words == ["as planted", "not as planted", "as planted"]
    assert (needed, found, overall) == ("48 px", "96 px", "not as planted")


def test_a_resolution_in_the_middle_that_shows_what_it_cannot_hold_is_not_as_planted(planted_row):
    words, needed, found, overall = planted_row(planted_as(wavelength=0.025), {32: 0.5, 48: 0.988, 96: 0.99})
    assert words == ["as planted", "not as planted", "as planted"]
    assert (needed, found, overall) == ("96 px", "48 px", "not as planted")
    # And one in the middle that is better than the reference, where all should be alike.
    words, needed, found, overall = planted_row(planted_as("heart"), {32: 0.9, 48: 0.97, 96: 0.9})
    assert words == ["as planted", "not as planted", "as planted"]
    assert overall == "not as planted"


def test_a_coarse_finding_learned_at_the_lowest_but_lost_in_the_middle_is_not_as_planted(planted_row):
    words, needed, found, overall = planted_row(planted_as("effusion"), {32: 0.99, 48: 0.7, 96: 0.99})
    assert words == ["as planted", "not as planted", "as planted"]
    assert needed == "32 px"
    assert found == "96 px"
    assert overall == "not as planted"


def test_nothing_learned_is_undecided(planted_row):
    words, _, found, overall = planted_row(planted_as("heart"), {32: 0.502, 48: 0.502, 96: 0.502})
    assert words == ["undecided"] * 3
    assert found == "32 px, without meaning"
    assert overall == "undecided"
    wide = planted_row(planted_as(wavelength=0.055), {32: 0.6, 48: 0.985, 96: 0.99}, half=0.02)
    assert wide == (["as planted", "undecided", "as planted"], "48 px", "96 px", "undecided")


def test_one_resolution_alone_is_held_against_nothing(make_settings, make_found):
    results = make_found(planted_as("heart"), {96: 0.99})
    (row,) = planted_table(results, make_settings(reference_px=96)).cells
    assert row[-1] == Cell(DASH, "no smaller resolution was tried")


def test_what_sampling_theory_expects():
    assert expected_gain("grating", 40, 32, 64) == "a gain"
    assert expected_gain("grating", 20, 32, 64) == "no gain"
    assert expected_gain("line", 100, 32, 64) == "visible at neither"
    assert expected_gain("heart", None, 32, 64) == "no gain"
    assert expected_gain("relation", None, 32, 64) == "no gain, or a loss"


def test_what_agrees_with_what_was_expected():
    def word(expected, lower, upper, seen=True):
        return agreement(expected, {"lower": lower, "upper": upper, "reason": None}, 0.01, seen).text

    assert word("no gain", -0.005, 0.005) == "as planted"
    assert word("no gain", -0.005, 0.005, seen=False) == "undecided"
    assert word("no gain", -0.02, 0.02) == "undecided"
    assert word("no gain", -0.1, -0.02) == "not as planted"
    assert word("no gain", 0.02, 0.1) == "not as planted"
    assert word("no gain, or a loss", 0.02, 0.1) == "as planted"
    assert word("visible at neither", -0.005, 0.005, seen=False) == "as planted"
    assert word("visible at neither", 0.02, 0.1) == "not as planted"
    assert word("a gain", -0.1, -0.02, seen=False) == "as planted"
    assert word("a gain", -0.1, 0.02) == "undecided"
    assert word("a gain", -0.005, -0.001) == "not as planted"  # shown to be enough
    assert word("a gain", 0.02, 0.1) == "not as planted"
    assert agreement("a gain", None, 0.01, seen=True) == Cell(DASH, "no difference was computed")
