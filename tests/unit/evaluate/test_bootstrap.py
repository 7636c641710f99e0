import numpy as np
import pytest

from cxrscale.evaluate.auroc import auroc, weighted_auroc
from cxrscale.evaluate.bootstrap import (
    CHUNK,
    drawn_weights,
    interval,
    joint_intervals,
    patient_weights,
    replicate,
)

PATIENT = np.repeat(np.arange(50), np.tile([1, 3], 25))  # 100 images


def test_whole_patients_are_drawn():
    weight = patient_weights(PATIENT, 300, np.random.default_rng(0))
    assert weight.shape == (300, 100)
    per_patient = np.array([np.ptp(weight[:, p == PATIENT], axis=1) for p in range(50)])
    assert per_patient.max() == 0
    first = np.flatnonzero(np.diff(PATIENT, prepend=-1))
    assert (weight[:, first].sum(axis=1) == 50).all()  # as many patients as there are
    assert 0.3 < (weight[:, first] == 0).mean() < 0.43  # 1/e are left out
    assert weight[:, first].mean(axis=0) == pytest.approx(np.ones(50), abs=0.3)


def scores(learners=2, seed=0):
    rng = np.random.default_rng(seed)
    target = rng.integers(0, 2, 100).astype(float)
    return rng.normal(target, 1, (learners, 100)), target


def test_replicates_are_a_function_of_the_seed_and_paired():
    score, target = scores()
    boot = replicate(weighted_auroc, score, target, PATIENT, 250, seed=4)
    assert boot.shape == (2, 250)
    assert (replicate(weighted_auroc, score, target, PATIENT, 250, seed=4) == boot).all()
    assert (replicate(weighted_auroc, score, target, PATIENT, 250, seed=5) != boot).any()
    # A learner drawn alone meets the same patients; so does one held against itself.
    assert (replicate(weighted_auroc, score[1:], target, PATIENT, 250, seed=4)[0] == boot[1]).all()
    twice = replicate(weighted_auroc, score[[0, 0]], target, PATIENT, 250, seed=4)
    assert (twice[0] - twice[1] == 0).all()


def test_replicates_are_the_statistic_of_the_drawn_rows():
    score, target = scores(1)
    boot = replicate(weighted_auroc, score, target, PATIENT, 20, seed=4)[0]
    times = patient_weights(PATIENT, 20, np.random.default_rng(4)).astype(int)
    expected = [auroc(np.repeat(score[0], n), np.repeat(target, n)) for n in times]
    assert boot == pytest.approx(expected, abs=1e-12)


def test_chunks_are_one_stream_of_draws():
    score, target = scores(1)
    boot = replicate(weighted_auroc, score, target, PATIENT, CHUNK + 30, seed=4)[0]
    parts = list(drawn_weights(PATIENT, CHUNK + 30, seed=4))
    assert [part[0] for part in parts] == [slice(0, CHUNK), slice(CHUNK, CHUNK + 30)]
    times = np.concatenate([part[1] for part in parts])
    assert boot == pytest.approx(weighted_auroc(score[0], target, times), abs=1e-12)
    assert len(np.unique(times, axis=0)) == CHUNK + 30
    assert patient_weights(PATIENT[:0], 3, np.random.default_rng(0)).shape == (3, 0)


def test_ignored_images_count_for_nothing_but_move_no_draw():
    score, target = scores(1)
    ignored = target.copy()
    ignored[:10] = np.nan
    boot = replicate(weighted_auroc, score, ignored, PATIENT, 20, seed=4)[0]
    times = patient_weights(PATIENT, 20, np.random.default_rng(4)).astype(int)[:, 10:]
    expected = [auroc(np.repeat(score[0, 10:], n), np.repeat(target[10:], n)) for n in times]
    assert boot == pytest.approx(expected, abs=1e-12)


def test_images_of_one_patient_make_the_interval_wider():
    """Ten copies of each image under one patient hold no more than the image: the interval does not shrink."""
    score, target = scores(1)
    boot = [
        replicate(weighted_auroc, np.repeat(score, 10, axis=1), np.repeat(target, 10), patient, 400, seed=0)[0].std()
        for patient in (np.repeat(np.arange(100), 10), np.arange(1000))
    ]
    single = replicate(weighted_auroc, score, target, np.arange(100), 400, seed=0)[0].std()
    assert boot[0] == pytest.approx(single, rel=1e-6)
    assert boot[1] < 0.5 * single


def test_an_interval_by_hand():
    assert interval(np.arange(101.0), 0.9) == pytest.approx((5, 95))
    assert interval(np.r_[np.arange(101.0), [np.nan] * 50], 0.9) == pytest.approx((5, 95))
    assert np.isnan(interval(np.r_[np.arange(10.0), [np.nan] * 11], 0.9)).all()
    assert np.isnan(interval(np.array([]), 0.9)).all()


def normal(estimates, replicates=4000):
    rng = np.random.default_rng(0)
    value = np.linspace(0.6, 0.8, estimates)
    return value, value[:, None] + rng.normal(0, np.linspace(0.01, 0.03, estimates)[:, None], (estimates, replicates))


def test_joint_intervals_are_wider_than_marginal_ones_and_hold_all_at_once():
    value, boot = normal(5)
    lower, upper = joint_intervals(value, boot, 0.95)
    marginal = np.array([interval(b, 0.95) for b in boot])
    assert (lower < marginal[:, 0]).all()
    assert (upper > marginal[:, 1]).all()
    inside = ((boot >= lower[:, None]) & (boot <= upper[:, None])).all(axis=0).mean()
    assert inside == pytest.approx(0.95, abs=0.002)
    # Five independent normal estimates: the 0.95 ** (1 / 5) quantile, 2.57 standard errors.
    assert (upper - value) / np.linspace(0.01, 0.03, 5) == pytest.approx([2.57] * 5, rel=0.05)


def test_one_joint_interval_is_a_marginal_one():
    value, boot = normal(1)
    lower, upper = joint_intervals(value, boot, 0.95)
    assert (upper - value)[0] / 0.01 == pytest.approx(1.96, rel=0.05)
    assert (value - lower)[0] == pytest.approx((upper - value)[0])


def test_undefined_replicates_are_left_out_of_joint_intervals():
    value, boot = normal(3, 200)
    holes = np.concatenate([boot, np.full((3, 50), np.nan)], axis=1)
    assert np.array_equal(joint_intervals(value, holes, 0.9), joint_intervals(value, boot, 0.9))
    assert np.isnan(joint_intervals(value, holes[:, 200:], 0.9)).all()
