"""Receptive fields: tables, what is said of the claim, figures."""

import numpy as np
import pandas as pd
import pytest

from cxrscale.explain.contracts import FIELD_EFFECT
from cxrscale.explain.field_effect import TOO_FEW_FINDINGS
from cxrscale.report.cells import DASH, Cell
from cxrscale.report.fields import (
    field_effect,
    field_effect_sentences,
    fields_table,
    finding_fields_table,
    receptive_fields,
)

NAN = float("nan")


def test_fields_have_a_row_a_state_and_a_reason_where_there_is_none(make_results, make_settings):
    results = make_results(models=("m",))
    table = fields_table(results)
    assert [[c.text for c in row[:3]] for row in table.cells] == [
        ["m", "32 px", "Random weights"],
        ["m", "32 px", "Trained"],
        ["m", "64 px", "Random weights"],
        ["m", "64 px", "Trained"],
    ]
    assert table.cells[0][3] == Cell("0.250", "8.0 px")
    gone = results["erf"].assign(
        sigma_px=NAN, sigma_fraction=NAN, reason=results["erf"]["finding"].map({"A": "no head"}).fillna("no field")
    )
    changed = results.having(erf=gone)
    assert fields_table(changed).cells[0][3] == Cell(DASH, "no field")
    assert finding_fields_table(changed, make_settings()).cells[0][2] == Cell(DASH, "no head")
    assert finding_fields_table(results, make_settings()).cells[1][4].text == "\N{MINUS SIGN}0.200"  # B needs 64 px


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ([0.8, 0.3, 0.95, 0.01, 14, None], "lose less at low resolution here; none gains; so few findings"),
        ([-0.8, -0.95, -0.3, 0.01, 14, None], "against the claim"),
        ([0.8, 0.3, 0.95, 0.07, 14, None], "neither shown nor refuted"),
        ([0.3, -0.2, 0.7, 0.3, 30, None], "so the claim is neither shown nor refuted."),
        (
            [NAN, NAN, NAN, NAN, 2, TOO_FEW_FINDINGS],
            f"no rank correlation: {TOO_FEW_FINDINGS}: the claim cannot be judged here.",
        ),
    ],
)
def test_the_claim_about_fields_is_said_as_the_numbers_allow(make_results, make_settings, row, said):
    effect = pd.DataFrame([["m", *row]], columns=[c.name for c in FIELD_EFFECT.columns])
    changed = make_results(models=("m",)).having(field_effect=effect)
    sentence = field_effect_sentences(changed, make_settings())["m"]
    assert said in sentence
    assert f"n = {row[4]} findings" in sentence or row[4] < 5


def test_a_preference_for_low_resolution_is_said_only_where_some_finding_gains(make_results, make_settings):
    results = make_results(models=("m",))
    effect = pd.DataFrame([["m", 0.8, 0.3, 0.95, 0.01, 14, None]], columns=[c.name for c in FIELD_EFFECT.columns])
    points = results["field_points"]
    assert not (points["preference"] > 0).any()
    gains = points.assign(preference=[0.1] + [-0.1] * (len(points) - 1))
    sentence = field_effect_sentences(results.having(field_effect=effect, field_points=gains), make_settings())["m"]
    assert "do prefer low resolution here" in sentence


def test_receptive_fields_write_sigma_in_each_panel(texts):
    sizes = pd.DataFrame(
        {
            "model": ["m"] * 3 + ["n"] * 2, "resolution_px": 32,
            "state": ["random", "pretrained", "trained", "random", "trained"],
            "sigma_px": [8.0, 6.0, 4.0, 8.0, 2.0], "sigma_fraction": [0.25, 0.1875, 0.125, 0.25, 0.0625],
            "centroid_x_fraction": 0.5, "centroid_y_fraction": 0.5,
        }
    )  # fmt: skip
    map_ = np.full((32, 32), 1 / 1024)
    maps = {
        ("m", 32): dict.fromkeys(("random", "pretrained", "trained"), map_),
        ("n", 32): dict.fromkeys(("random", "trained"), map_),
    }
    figure = receptive_fields(maps, sizes)
    assert len(figure.axes) == 6
    shown = texts(figure)
    assert "m\n32 px\nσ = 0.250 (8.0 px)" in shown
    assert "σ = 0.188 (6.0 px)" in shown
    assert "σ = 0.062 (2.0 px)" in shown
    assert shown.count("no such state") == 1
    assert len(receptive_fields({("n", 32): maps["n", 32]}, sizes).axes) == 2


def test_field_effect_names_its_points_and_leaves_out_what_is_empty(texts):
    points = pd.DataFrame(
        {
            "model": "m", "finding": ["A", "B", "C"], "reference_px": 64, "lowest_px": 32,
            "field_fraction": [0.1, 0.2, NAN], "preference": [-0.1, 0.0, 0.1],
        }
    )  # fmt: skip
    shown = texts(field_effect(points, {"m": "ρ = 1"}))
    assert {"1", "2", "1  A", "2  B", "m\nρ = 1", "AUROC at 32 px minus at 64 px"} <= set(shown)
    assert not {"3", "3  C"} & set(shown)
    empty = field_effect(points.assign(preference=NAN), {})
    assert "no finding has both a field and an AUROC" in texts(empty)
