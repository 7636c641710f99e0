from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import binomtest, chi2

from cxrscale.common.rows import MEAN
from cxrscale.evaluate.auroc import weighted_auroc
from cxrscale.evaluate.averaging import (
    FoldAuroc,
    Mean,
    difference_intervals,
    joined,
    level_intervals,
    mean_component,
    means_over,
    pooled,
    spread_of,
)
from cxrscale.evaluate.bootstrap import replicate
from cxrscale.evaluate.clustered import components

DIFFERENCE = np.array([[1.0, -1.0]])


def by_hand(n_seeds=3, variance=0.0003, covariance=0.0001):
    """Differences of 0, 0.02 and 0.04; patients' variance all at the first resolution."""
    auroc = np.stack([0.8 + 0.02 * np.arange(n_seeds), np.full(n_seeds, 0.8)], axis=1)  # (seed, resolution)
    of_patients = np.zeros((n_seeds, 2, n_seeds, 2))
    of_patients[:, 0, :, 0] = covariance + (variance - covariance) * np.eye(n_seeds)
    nothing = np.zeros_like(of_patients)
    return FoldAuroc(auroc, of_patients, nothing, nothing, 40, 60, spread_of([auroc]))


def test_both_variances_by_hand():
    """b = 0.0004, S = 3, c = 0.0001: variance b / S + c = 0.00023333. Of patients: (3 x 0.0003 + 6 x 0.0001) / 9 =
    0.00016667; seeds bring the rest. df = 0.00023333 ** 2 / ((0.0004 / 3) ** 2 / 2) = 6.125."""
    (mean,) = means_over([by_hand()], DIFFERENCE)
    assert mean.value == pytest.approx(0.02)
    assert mean.se_patients == pytest.approx(0.0129099, abs=1e-7)
    assert mean.se_seeds == pytest.approx(0.0081650, abs=1e-7)
    assert mean.se**2 == pytest.approx(0.00023333, abs=1e-8)
    assert mean.df == pytest.approx(6.125)
    assert (mean.n_positive, mean.n_negative) == (40, 60)


def test_folds_halve_the_variance_and_double_the_degrees_of_freedom():
    (one,), (two,) = means_over([by_hand()], DIFFERENCE), means_over([by_hand()] * 2, DIFFERENCE)
    assert two.value == pytest.approx(one.value)
    assert two.se_patients**2 == pytest.approx(one.se_patients**2 / 2)
    assert two.se_seeds**2 == pytest.approx(one.se_seeds**2 / 2)
    assert two.df == pytest.approx(2 * one.df)
    assert two.n_positive == 80


def test_seeds_that_agree_by_chance_make_nothing_firmer_than_the_learners():
    """Patients' variance of 0.01, uncorrelated over seeds: b / S + c = 0.00013 is below what patients alone do."""
    (mean,) = means_over([by_hand(variance=0.01, covariance=0.0)], DIFFERENCE)
    assert mean.se_patients**2 == pytest.approx(0.01 / 3)
    assert mean.se_seeds == 0


def test_one_seed_knows_no_spread():
    (mean,) = means_over([by_hand(n_seeds=1)], DIFFERENCE)
    assert mean.se_seeds == 0
    assert mean.se_patients**2 == pytest.approx(0.0003)


@pytest.mark.parametrize("n_seeds", [3, 5])
def test_the_larger_spread_counts_own_or_pooled_from_five_seeds_on_within_the_bound_of_its_own(n_seeds):
    quiet, wild = by_hand(n_seeds), by_hand(n_seeds)
    times = np.stack([np.arange(1, n_seeds + 1), np.ones(n_seeds)], axis=1)
    wild = replace(wild, auroc=wild.auroc * times)
    spread = spread_of([quiet.auroc, wild.auroc])
    own = [float((f.auroc @ DIFFERENCE[0]).var(ddof=1)) for f in (quiet, wild)]
    assert spread.of(DIFFERENCE)[0] == pytest.approx([np.mean(own)])
    found = [means_over([replace(f, spread=spread)], DIFFERENCE)[0].se ** 2 - 0.0001 for f in (quiet, wild)]
    bound = own[0] * (n_seeds - 1) / chi2.ppf(0.1, n_seeds - 1) if n_seeds == 5 else np.inf
    assert (bound < np.mean(own)) == (n_seeds == 5)
    assert found == pytest.approx([min(np.mean(own), bound) / n_seeds, own[1] / n_seeds])


def test_the_pooled_spread_is_the_mean_over_pairs():
    aurocs = np.random.default_rng(0).normal(size=(3, 4, 5))  # (finding, seed, resolution)
    variance, times = spread_of(list(aurocs)).of(np.array([[1, -1, 0, 0, 0], [0, 0, 1, 0, -1], [1, 0, 0, 0, 0]]))
    pairs = [(a[:, i] - a[:, j]).var(ddof=1) for a in aurocs for i, j in combinations(range(5), 2)]
    assert len(pairs) == 30
    assert variance == pytest.approx([np.mean(pairs), np.mean(pairs), aurocs.var(axis=1, ddof=1).mean()])
    assert times.tolist() == [4, 4, 5]


def test_scores_that_are_not_alike_are_pooled_over_findings_alone():
    aurocs = np.random.default_rng(0).normal(size=(3, 4, 5)) * [1, 1, 1, 1, 9]
    contrasts = np.array([[1, -1, 0, 0, 0], [1, 0, 0, 0, -1], [0, 0, 0, 0, 1]])
    variance, times = spread_of(list(aurocs), alike=False).of(contrasts)
    assert variance == pytest.approx([np.mean([(a @ c).var(ddof=1) for a in aurocs]) for c in contrasts])
    assert times.tolist() == [1, 1, 1]
    assert not spread_of([a[:2] for a in aurocs], alike=False).known


def test_all_findings_and_their_mean_have_the_spread_of_all():
    scores, target, patient = drawn(0.7)
    parts = {name: components(scores, t, patient, 400) for name, t in (("a", target), ("b", 1 - target))}
    found = pooled(parts, 2)
    assert list(found) == ["a", "b", MEAN]
    assert found[MEAN].auroc == pytest.approx((found["a"].auroc + found["b"].auroc) / 2)
    expected = spread_of([found["a"].auroc, found["b"].auroc]).covariance
    assert all((f.spread.covariance == expected).all() for f in found.values())


def test_scores_side_by_side_are_those_of_one_call():
    scores, target, patient = drawn(0.7)
    together, apart = components(scores, target, patient), [components(s[None], target, patient) for s in scores]
    assert joined(apart).auroc == pytest.approx(together.auroc)
    assert joined(apart).covariance() == pytest.approx(together.covariance())


def test_intervals_of_levels_stay_within_their_range_and_those_of_differences_are_even():
    means = [Mean(0.95, 0.04, 0.0, 10, 40, 60), Mean(0.6, 0.03, 0.04, np.inf, 40, 60)]
    lower, upper = level_intervals(means, 0.95)
    # By hand: logit(.95) = 2.944, 2.228 x .04 / .0475 = 1.876; 1.960 x .05 / .24 = .408 about .405.
    assert lower == pytest.approx([expit(2.9444 - 1.8763), expit(0.4055 - 0.4083)], abs=1e-4)
    assert upper == pytest.approx([expit(2.9444 + 1.8763), expit(0.4055 + 0.4083)], abs=1e-4)
    lower, upper = difference_intervals(means, 0.95)
    assert lower == pytest.approx([0.95 - 2.22814 * 0.04, 0.6 - 1.95996 * 0.05], abs=1e-5)
    assert upper + lower == pytest.approx([1.9, 1.2])
    nothing = [Mean(0.7, np.nan, 0.0, np.inf, 1, 60), Mean(1.0, np.nan, 0.0, np.inf, 1, 60)]
    assert np.isnan(level_intervals(nothing, 0.95)).all()


def test_a_perfect_auroc_has_a_bound():
    """40 of 40 patients: 0.025 ** (1 / 40) = 0.9119, as Clopper and Pearson's."""
    perfect, useless = Mean(1.0, 0.0, 0.0, np.inf, 40, 60), Mean(0.0, 0.0, 0.0, np.inf, 60, 40)
    lower, upper = level_intervals([perfect, useless], 0.95)
    assert lower == pytest.approx([0.9119, 0], abs=1e-4)
    assert upper == pytest.approx([1, 0.0881], abs=1e-4)
    assert lower[0] == pytest.approx(binomtest(40, 40).proportion_ci(0.95).low)


def drawn(shared, seed=0):
    """Two learners of 400 patients with two images each; shared: of their scores' variance."""
    rng = np.random.default_rng(seed)
    patient, target = np.repeat(np.arange(400), 2), np.repeat(np.arange(400) % 3 == 0, 2).astype(float)
    common = rng.normal(size=400)[patient] + rng.normal(size=800)
    own = rng.normal(size=(2, 800))
    return np.sqrt(shared / 2) * common + np.sqrt(1 - shared) * own + target, target, patient


def test_what_both_learners_see_cancels():
    levels, differences = [], []
    for shared in (0.0, 0.95):
        fold = FoldAuroc.of(components(*drawn(shared)), 1)
        levels.append(means_over([fold], np.eye(2))[0].se)
        differences.append(means_over([fold], DIFFERENCE)[0].se)
    assert differences[0] > 1.2 * levels[0]  # independent: sqrt 2
    assert differences[1] < 0.4 * levels[1]


def test_the_standard_error_agrees_with_the_bootstrap():
    scores, target, patient = drawn(0.7)
    (mean,) = means_over([FoldAuroc.of(components(scores, target, patient), 1)], DIFFERENCE)
    boot = replicate(weighted_auroc, scores, target, patient, 1000, 0)
    assert mean.se == pytest.approx((boot[0] - boot[1]).std(), rel=0.1)
    # Patients have positive images only or negative ones only: the degrees of freedom of Welch and Satterthwaite.
    assert 133 < mean.df < 399


def test_the_mean_over_findings_is_the_mean_of_what_patients_add():
    rng = np.random.default_rng(1)
    scores, target, patient = drawn(0.7)
    other = rng.integers(0, 2, 800).astype(float)
    parts = [components(scores, t, patient, 400) for t in (target, other)]
    found = mean_component(parts)
    assert found.auroc == pytest.approx((parts[0].auroc + parts[1].auroc) / 2)
    expected = (parts[0].influence + parts[1].influence) / 2
    assert found.covariance() == pytest.approx(expected.T @ expected, rel=0.02)


def test_a_single_patient_of_a_class_has_no_variance():
    target = np.array([1.0, 0, 0, 0])
    fold = FoldAuroc.of(components(np.arange(8.0).reshape(2, 4), target, np.arange(4)), 1)
    assert np.isnan(means_over([fold], DIFFERENCE)[0].se)


def test_degrees_of_freedom_are_those_of_welchs_test():
    """By hand: variances a and b of 4 and 3 patients: (a + b)^2 / (a^2 / 3 + b^2 / 2). More images of the
    same patients add none."""
    score, target = np.array([[3.0, 5, 2, 4, 1, 2, 4.5]]), np.array([1, 1, 1, 1, 0, 0, 0])
    found = components(score, target, np.arange(7))
    below = [np.mean([(s > n) + 0.5 * (s == n) for n in (1, 2, 4.5)]) for s in (3, 5, 2, 4)]
    above = [np.mean([(s > n) + 0.5 * (s == n) for s in (3, 5, 2, 4)]) for n in (1, 2, 4.5)]
    a, b = np.var(below, ddof=1) / 4, np.var(above, ddof=1) / 3
    (mean,) = means_over([FoldAuroc.of(found, 1)], np.eye(1))
    assert mean.df == pytest.approx((a + b) ** 2 / (a**2 / 3 + b**2 / 2))
    many = components(np.tile(score, 50), np.tile(target, 50), np.tile(np.arange(7), 50))
    assert means_over([FoldAuroc.of(many, 1)], np.eye(1))[0].df == pytest.approx(mean.df)
