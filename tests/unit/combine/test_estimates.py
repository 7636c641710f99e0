"""Averages and differences of AUROCs, with errors that count patients."""

from math import erfc

import numpy as np
import pytest

from cxrscale.combine.estimates import (
    ALIKE,
    TOO_FEW,
    Contrast,
    TrainingVariance,
    average,
    contrast,
    estimate,
    replicates_of,
    training_variance,
)
from cxrscale.evaluate.auroc import auroc, weighted_auroc
from cxrscale.evaluate.bootstrap import replicate

PATIENT = np.arange(900) // 3


def drawn(seed, findings=1):
    """Scores (finding, 2, image) and targets (finding, image); images of a patient are alike."""
    rng = np.random.default_rng(seed)
    own = rng.normal(size=(findings, 1, 300))[:, :, PATIENT]
    target = (rng.random((findings, 300)) < 0.3).astype(float)[:, PATIENT]
    scores = np.array([1.2, 0.9])[:, None] * target[:, None] + own + rng.normal(size=(findings, 2, 900))
    return scores, target


def test_the_error_of_a_macro_difference_is_the_patient_bootstraps():
    scores, target = drawn(0, findings=3)
    boot = [replicate(weighted_auroc, s, t, PATIENT, 1000, 0) for s, t in zip(scores, target, strict=True)]
    parts = [estimate(s, t, PATIENT, 300, b) for s, t, b in zip(scores, target, boot, strict=True)]
    mean = average(parts)
    against = np.array([1.0, -1.0])
    found = contrast([mean], against)
    expected = np.mean([auroc(s[0], t) - auroc(s[1], t) for s, t in zip(scores, target, strict=True)])
    assert found.value == pytest.approx(expected)
    assert found.error == pytest.approx(replicates_of([mean], against).std(), rel=0.1)
    assert found.p == pytest.approx(erfc(abs(found.value) / found.error / 2**0.5))


def test_folds_are_independent_and_seeds_share_their_patients():
    (first,), (target,) = drawn(1)
    (second,), (other,) = drawn(2)
    one, two = estimate(first, target, PATIENT, 300), estimate(second, other, PATIENT, 300)
    against = np.array([1.0, -1.0])
    a, b = contrast([one], against), contrast([two], against)
    both = contrast([one, two], against)
    assert both.value == pytest.approx((a.value + b.value) / 2)
    assert both.error == pytest.approx(np.hypot(a.error, b.error) / 2)
    twice = contrast([average([one, one])], against)  # the same seed twice says no more than once
    assert (twice.value, twice.error) == pytest.approx((a.value, a.error))


def test_scores_that_rank_alike_have_no_p_and_one_patient_of_a_class_no_error():
    (scores,), (target,) = drawn(3)
    same = contrast([estimate(np.stack([scores[0], np.exp(scores[0])]), target, PATIENT, 300)], np.array([1.0, -1.0]))
    assert (same.value, same.error, same.reason) == (0, 0, ALIKE)
    assert np.isnan(same.p)
    lone = np.where(PATIENT == 5, 1.0, 0.0)
    few = contrast([estimate(scores, lone, PATIENT, 300)], np.array([1.0, 0.0]))
    assert few.reason == TOO_FEW
    assert np.isnan([few.error, few.p, *few.interval(0.95)]).all()


def test_levels_stay_within_their_range():
    lower, upper = Contrast(0.99, 0.02, None).level_interval(0.95)
    assert 0.5 < lower < 0.99 < upper < 1
    assert Contrast(1.0, 0.0, None).level_interval(0.95) == (1, 1)


def test_the_variance_of_training_is_what_patients_do_not_explain():
    # Learners of one strength: their AUROCs differ by their own errors on the test images alone.
    rng = np.random.default_rng(5)
    found = {0.0: [], 0.15: []}
    for luck, variances in found.items():
        for _ in range(60):
            target = (np.arange(900) % 3 == 0).astype(float)
            strength = 1 + luck * rng.normal(size=(4, 1))
            scores = strength * target + 0.5 * rng.normal(size=300)[PATIENT] + rng.normal(size=(4, 900))
            one = estimate(scores, target, PATIENT, 300)
            variances.append(training_variance(one.value, one.influence))
    # Slope of AUROC = Phi(d) in the strength, d = strength / sqrt(2 * 1.25): phi(d) / sqrt(2.5) = 0.207.
    assert np.mean(found[0.15]) == pytest.approx((0.15 * 0.207) ** 2, rel=0.35)
    assert np.mean(found[0.0]) < 0.1 * np.mean(found[0.15])


def test_the_chance_of_training_widens_an_interval_by_its_degrees_of_freedom():
    (scores,), (target,) = drawn(4)
    fold = estimate(scores, target, PATIENT, 300)
    against = np.array([1.0, -1.0])
    alone = contrast([fold], against)
    assert alone.freedom == float("inf")
    same = alone.error**2
    both = contrast([fold], against, [TrainingVariance(same, 3)])
    assert both.error == pytest.approx(2**0.5 * alone.error)
    assert both.freedom == pytest.approx(4 * 3)  # (1 + 1)^2 / (1^2 / 3)
    assert both.interval(0.95)[1] - both.value == pytest.approx(2.178813 * both.error)  # t table, 12
    two = contrast([fold, fold], against, [TrainingVariance(same, 3)] * 2)
    assert two.error == pytest.approx(both.error / 2**0.5)
    assert two.freedom == pytest.approx(24)
