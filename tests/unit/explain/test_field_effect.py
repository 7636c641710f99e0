"""Whether wide fields go with low resolution: points, rank correlation, permutation and interval."""

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from cxrscale.common import tables
from cxrscale.common.rows import ALL_CHANNELS
from cxrscale.explain.contracts import FIELD_EFFECT, FIELD_POINTS
from cxrscale.explain.field_effect import (
    CONSTANT,
    ONE_RESOLUTION,
    TOO_FEW_FINDINGS,
    field_effect,
    field_points,
    spearman,
)
from cxrscale.explain.field_size import NO_EVIDENCE


def fields_of(model, sizes, state="trained"):
    rows = [{"finding": f, "sigma_fraction": s, "reason": None} for f, s in {ALL_CHANNELS: 9.0, **sizes}.items()]
    return pd.DataFrame(rows).assign(model=model, state=state)


def differences_of(model, gains, low=32, reference=128):
    rows = [
        (model, f, *pair, sign * d)
        for f, d in gains.items()
        for pair, sign in (((low, reference), 1), ((reference, low), -1))
    ]
    return pd.DataFrame(rows, columns=["model", "finding", "resolution_px", "against_px", "difference"])


def test_points_average_fields_and_take_the_lowest_against_the_reference(tmp_path):
    fields = pd.concat(
        [
            fields_of("m", {"A": 0.1, "B": 0.3}), fields_of("m", {"A": 0.2, "B": 0.5}),
            fields_of("m", {"A": 0.9, "B": 0.9}, "random"),
            fields_of("n", {"A": np.nan, "B": np.nan}).assign(reason=NO_EVIDENCE),
        ]
    )  # fmt: skip
    between = differences_of("m", {"A": 0.7, "B": 0.7}, low=64)
    differences = pd.concat([between, differences_of("m", {"A": -0.2, "B": 0.05}), differences_of("n", {"A": 0.1})])
    points = field_points(fields, differences, ["A", "B"], {"m": [32, 64, 128], "n": [32, 128]}, 128)
    tables.write(FIELD_POINTS, points, tmp_path / "points.csv")
    by = points.set_index(["model", "finding"])
    assert by.loc[("m", "A"), "field_fraction"] == pytest.approx(0.15)
    assert by.loc[("m", "B"), "field_fraction"] == pytest.approx(0.4)
    assert by.loc["m", "preference"].tolist() == [-0.2, 0.05]
    assert by.loc["m", "n_fields"].tolist() == [2, 2]
    assert by.loc[("n", "A"), "reason"] == NO_EVIDENCE
    assert by.loc[("n", "B"), "reason"] == f"{NO_EVIDENCE}; AUROC is undefined"
    single = field_points(fields, differences, ["A"], {"m": [128]}, 128)
    assert single["reason"].tolist() == [ONE_RESOLUTION]


def points_of(field, preference, model="m"):
    return pd.DataFrame(
        {
            "model": model, "finding": [f"F{k}" for k in range(len(field))], "field_fraction": field,
            "preference": preference, "reason": None,
        }
    )  # fmt: skip


def test_the_correlation_is_spearmans_with_ties():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 6, (20, 14)), rng.integers(0, 6, (20, 14))
    found = spearman(a, b)
    assert found == pytest.approx([spearmanr(x, y).statistic for x, y in zip(a, b, strict=True)])
    assert np.isnan(spearman(np.ones(4), np.arange(4)))


def test_of_six_findings_in_the_same_order_two_of_720_orders_are_as_extreme(tmp_path):
    effect = field_effect(points_of(np.arange(6) ** 2, np.arange(6.0)), 200, 0.95, 0)
    tables.write(FIELD_EFFECT, effect, tmp_path / "effect.csv")
    row = effect.iloc[0]
    assert row["spearman"] == pytest.approx(1)
    assert row["p"] == pytest.approx(2 / 720)
    assert (row["lower"], row["upper"]) == pytest.approx((1, 1))
    assert row["n_findings"] == 6


def test_p_counts_the_orders_that_are_as_extreme():
    field, preference = np.array([1, 5, 2, 7, 3, 9, 4.0]), np.array([2, 4, 1, 3, 9, 8, 5.0])
    row = field_effect(points_of(field, preference), 200, 0.95, 0).iloc[0]
    ranks = preference.argsort().argsort() - 3
    every = np.array(list(itertools.permutations(field.argsort().argsort() - 3))) @ ranks
    observed = (field.argsort().argsort() - 3) @ ranks
    one_sided = min((every >= observed).mean(), (every <= observed).mean())
    assert row["p"] == pytest.approx(2 * one_sided)
    assert row["spearman"] == pytest.approx(spearmanr(field, preference).statistic)
    assert row["lower"] < row["spearman"] < row["upper"]


def test_findings_without_a_relation_rarely_show_one():
    rng = np.random.default_rng(4)
    p = [field_effect(points_of(rng.random(14), rng.random(14)), 100, 0.95, 0).iloc[0]["p"] for _ in range(100)]
    assert 0.3 < np.mean(p) < 0.7
    assert np.mean(np.array(p) < 0.05) < 0.12


def test_too_few_or_equal_findings_give_a_reason():
    few = points_of(np.arange(5.0), [0.1, np.nan, 0.2, 0.3, 0.4]).assign(
        reason=[None, "AUROC is undefined", *[None] * 3]
    )
    assert field_effect(few, 200, 0.95, 0)["reason"].tolist() == [f"{TOO_FEW_FINDINGS} (AUROC is undefined)"]
    equal = points_of(np.ones(6), np.arange(6.0))
    assert field_effect(equal, 200, 0.95, 0)["reason"].tolist() == [CONSTANT]
    both = pd.concat([points_of(np.arange(6), np.arange(6.0), "n"), equal])
    assert field_effect(both, 200, 0.95, 0)["model"].tolist() == ["n", "m"]
