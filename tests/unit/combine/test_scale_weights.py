"""Scale weights that say little."""

import numpy as np
import pytest
from scipy.special import expit

from cxrscale.combine.scale_weights import stand_ins
from cxrscale.combine.simplex import likelihoods, mixture_weights

N = 600
TARGET = (np.arange(N) % 3 == 0).astype(float)
SIGN = 2 * TARGET - 1
NOISE = np.random.default_rng(4).normal(0, 1, (4, N))


def doubted(logits, patient, confidence=0.95):
    likelihood = likelihoods(expit(logits.T), TARGET)
    weight = mixture_weights(expit(logits.T), TARGET)
    return stand_ins(likelihood, weight, patient, confidence), weight


def test_identical_learners_are_doubted_and_independent_ones_are_not():
    # A mixture's weights are sharp where each learner is right where the other is not.
    strong = 2.5 * SIGN * np.where(np.arange(N) % 2, 1, 0.1) - 0.2
    other = 2.5 * SIGN * np.where(np.arange(N) % 2, 0.1, 1) - 0.2
    found, weight = doubted(np.stack([strong, other]), np.arange(N))
    assert weight.min() > 0.3
    assert found == {}
    found, weight = doubted(np.stack([strong, strong, other]), np.arange(N))
    assert weight[0] == pytest.approx(weight[1], abs=1e-6)  # flat between them: the solver's tolerance shows
    assert found == {0: 1, 1: 0}


def test_copies_of_a_patients_images_say_no_more_than_one():
    logits = np.stack([1.5 * SIGN, 1.4 * SIGN]) + NOISE[:2] - 0.7
    once, weight = doubted(logits, np.arange(N))
    assert weight.min() > 0.1
    assert once == {1: 0}
    likelihood = np.repeat(likelihoods(expit(logits.T), TARGET), 9, axis=0)
    assert stand_ins(likelihood, weight, np.repeat(np.arange(N), 9), 0.95) == once
    assert stand_ins(likelihood, weight, np.arange(9 * N), 0.95) == {}


def test_a_weight_that_should_be_nothing_is_rarely_believed():
    rng = np.random.default_rng(8)
    believed = 0
    for _ in range(300):
        odds = rng.normal(-0.5, 1.2, 300)
        target = (rng.random(300) < expit(odds)).astype(float)
        probability = expit(np.stack([odds, odds + rng.normal(0, 0.7, 300)], axis=1))
        weight = mixture_weights(probability, target)
        found = stand_ins(likelihoods(probability, target), weight, np.arange(300), 0.95)
        believed += weight[1] >= 0.01 and 1 not in found
    assert believed / 300 < 0.09  # the one-sided 5 % of the test, and chance
