from itertools import combinations

import numpy as np
import pytest
from scipy.stats import chi2

from cxrscale.evaluate.auroc import weighted_auroc
from cxrscale.evaluate.averaging import FoldAuroc, mean_component, means_over, pooled, spread_of
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
    wild = pooled([FoldAuroc(**{**vars(wild), "auroc": wild.auroc * times})])[0]
    together = pooled([quiet, wild])
    assert together[0].spread == together[1].spread
    own = [float((f.auroc @ DIFFERENCE[0]).var(ddof=1)) for f in (quiet, wild)]
    assert together[0].spread.difference == pytest.approx(np.mean(own))
    found = [means_over([f], DIFFERENCE)[0].se ** 2 - 0.0001 for f in together]
    bound = own[0] * (n_seeds - 1) / chi2.ppf(0.1, n_seeds - 1) if n_seeds == 5 else np.inf
    assert (bound < np.mean(own)) == (n_seeds == 5)
    assert found == pytest.approx([min(np.mean(own), bound) / n_seeds, own[1] / n_seeds])


def test_the_pooled_spread_is_the_mean_over_pairs():
    aurocs = np.random.default_rng(0).normal(size=(3, 4, 5))  # (finding, seed, resolution)
    spread = spread_of(list(aurocs))
    pairs = [(a[:, i] - a[:, j]).var(ddof=1) for a in aurocs for i, j in combinations(range(5), 2)]
    assert len(pairs) == 30
    assert spread.difference == pytest.approx(np.mean(pairs))
    assert spread.level == pytest.approx(aurocs.var(axis=1, ddof=1).mean())
    assert spread.of(np.array([1, -1, 0, 0, 0])) == (spread.difference, 4)
    assert spread.of(np.array([1, 0, 0, 0, 0])) == (spread.level, 5)


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
