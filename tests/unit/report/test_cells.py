"""How values are written."""

import numpy as np
import pandas as pd
import pytest

from cxrscale.report.cells import DASH, average_rows, measure, number, p_text

NAN = float("nan")


def test_averages_are_of_defined_values_and_intervals_need_all_ends():
    frame = pd.DataFrame(
        {
            "finding": ["A", "A", "A", "B", "B"], "value": [0.6, 0.8, NAN, 0.5, 0.7],
            "lower": [0.5, 0.7, NAN, 0.4, NAN],
            "reason": [None, None, "no positive image", None, "few"],
        }
    )  # fmt: skip
    averaged = average_rows(frame, ["finding"], ["value", "lower"]).set_index("finding")
    assert averaged.loc["A", "value"] == pytest.approx(0.7)
    assert averaged.loc["A", "lower"] == pytest.approx(0.6)
    assert averaged.loc["A", "n"] == 2
    assert averaged.loc["B", "value"] == pytest.approx(0.6)
    assert np.isnan(averaged.loc["B", "lower"])
    assert measure(dict(averaged.loc["B"]), "value", "lower", "lower").note == "no interval: few"


def test_numbers_have_a_true_minus_and_fixed_decimals():
    assert number(-0.04567, signed=True) == "\N{MINUS SIGN}0.046"
    assert number(0.04567, signed=True) == "+0.046"
    assert number(12345.6, 1) == "12,345.6"
    assert number(None) == number(NAN) == DASH


def test_a_p_value_is_written_with_what_it_is_called():
    assert [p_text(p) for p in (0.0123, 0.0009, NAN)] == ["p = 0.012", "p < 0.001", "no p"]
    assert p_text(0.0123, "p (Holm)") == "p (Holm) = 0.012"
