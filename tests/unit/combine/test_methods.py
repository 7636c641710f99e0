"""Each way to combine for one finding."""

import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression

from cxrscale.combine.methods import METHODS, Combiner, best_single, fit, logistic, stand_ins
from cxrscale.combine.simplex import likelihoods, mixture_weights
from cxrscale.evaluate.auroc import auroc

N = 600
TARGET = (np.arange(N) % 3 == 0).astype(float)
SIGN = 2 * TARGET - 1
NOISE = np.random.default_rng(4).normal(0, 1, (4, N))
#: (learner, image): strong, weak, weaker, and one that speaks against.
LOGITS = np.array([1.0, 0.5, 0.3, -0.4])[:, None] * SIGN + NOISE - 0.7


def test_softmax_and_mean_are_weighted_means_of_probabilities():
    fitted = fit(LOGITS, TARGET, 1e-10)
    weight = fitted.combiners["softmax"].weight
    assert weight == pytest.approx(mixture_weights(expit(LOGITS.T), TARGET), abs=1e-3)
    assert expit(fitted.combiners["softmax"].log_odds(LOGITS)) == pytest.approx(weight @ expit(LOGITS))
    assert expit(fitted.combiners["mean"].log_odds(LOGITS)) == pytest.approx(expit(LOGITS).mean(axis=0))
    assert fitted.log_odds(LOGITS).shape == (len(METHODS), N)


def test_probabilities_that_round_to_one_are_still_told_apart():
    logits = np.array([[40.0, 50.0, -800.0], [45.0, 60.0, -900.0]])
    odds = Combiner(np.array([0.5, 0.5]), on_logits=False).log_odds(logits)
    assert np.isfinite(odds).all()
    assert odds[1] - odds[0] > 9
    small = np.array([[1.0, -2.0], [0.5, 3.0]])
    plain = logit(0.3 * expit(small[0]) + 0.7 * expit(small[1]))
    assert Combiner(np.array([0.3, 0.7]), on_logits=False).log_odds(small) == pytest.approx(plain)


def test_logistic_regression_is_scikit_learns_on_standardised_logits():
    rows = LOGITS.T * np.array([1, 5, 0.2, 1])
    intercept, coefficient = logistic(rows, TARGET, nonnegative=False)
    scaled = (rows - rows.mean(axis=0)) / rows.std(axis=0)
    reference = LogisticRegression(C=1.0, tol=1e-10, max_iter=10_000).fit(scaled, TARGET)
    assert coefficient * rows.std(axis=0) == pytest.approx(reference.coef_[0], abs=1e-5)
    assert intercept + rows @ coefficient == pytest.approx(reference.decision_function(scaled), abs=1e-4)
    assert coefficient[3] < 0


def test_non_negative_coefficients_are_those_without_the_learner_that_speaks_against():
    intercept, coefficient = logistic(LOGITS.T, TARGET, nonnegative=True)
    assert coefficient[3] == 0
    assert (coefficient >= 0).all()
    free = logistic(LOGITS[:3].T, TARGET, nonnegative=False)
    assert (free[1] > 0).all()  # so that the bound binds for the last alone
    assert coefficient[:3] == pytest.approx(free[1], abs=1e-5)
    assert intercept == pytest.approx(free[0], abs=1e-5)


def test_separated_classes_and_constant_learners_stay_finite():
    rows = np.column_stack([SIGN, np.full(N, 0.1), 0.1 + 0.2 * np.ones(N)])
    for nonnegative in (True, False):
        intercept, coefficient = logistic(rows, TARGET, nonnegative)
        assert np.isfinite([intercept, *coefficient]).all()
        assert coefficient[0] > 2
        assert coefficient[1:].tolist() == [0, 0]


def test_convex_weights_on_logits_are_the_best_of_a_grid():
    combiner = fit(LOGITS[:2], TARGET, 1e-12).combiners["convex_logits"]
    assert combiner.intercept == 0

    def loss(w):
        return np.logaddexp(0, -SIGN * (w * LOGITS[0] + (1 - w) * LOGITS[1])).mean()

    grid = np.linspace(0, 1, 1001)
    assert combiner.weight[0] == pytest.approx(grid[np.argmin([loss(w) for w in grid])], abs=2e-3)
    assert 0 < combiner.weight[0] < 1


def test_a_learner_that_is_too_sure_gets_its_weight_once_it_is_calibrated():
    rng = np.random.default_rng(0)
    good, poor = 1.5 * SIGN + rng.normal(size=N) - 1, 0.4 * SIGN + rng.normal(size=N) - 0.7
    fitted = fit(np.stack([12 * good, poor]), TARGET, 1e-10)
    assert fitted.slope[0] < 0.4  # says that it is too sure
    assert fitted.log_loss[0] > fitted.log_loss[1]
    assert fitted.combiners["softmax_calibrated"].weight[0] > 0.8 > fitted.combiners["softmax"].weight[0]
    test = np.random.default_rng(1)
    logits = np.stack([12 * (1.5 * SIGN + test.normal(size=N) - 1), 0.4 * SIGN + test.normal(size=N) - 0.7])
    softmax, calibrated = (auroc(fitted.combiners[m].log_odds(logits), TARGET) for m in METHODS[1:3])
    assert softmax < auroc(logits[0], TARGET) - 0.01
    assert calibrated > auroc(logits[0], TARGET) - 0.005


def test_calibration_finds_the_scale_that_was_planted():
    odds = np.random.default_rng(2).normal(0, 1.5, 40_000)
    target = (np.random.default_rng(3).random(40_000) < expit(odds)).astype(float)
    fitted = fit(np.stack([4 * odds + 2, odds]), target, 1e-8)
    assert fitted.slope == pytest.approx([0.25, 1], rel=0.05)
    assert fitted.offset == pytest.approx([-0.5, 0], abs=0.05)


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        (np.zeros(N), "no positive image to fit on"),
        (np.ones(N), "no negative image to fit on"),
        (np.full(N, np.nan), "no image counts to fit on"),
    ],
)
def test_all_methods_are_the_mean_with_a_reason_where_nothing_can_be_fitted(target, reason):
    fitted = fit(LOGITS[:3], target, 1e-8)
    assert fitted.reason == reason
    assert set(fitted.combiners) == set(METHODS)
    odds = fitted.log_odds(LOGITS[:3])
    assert (odds == odds[0]).all()
    assert fitted.combiners["softmax"].weight == pytest.approx([1 / 3] * 3)


def test_one_learner_is_itself():
    fitted = fit(-LOGITS[:1], TARGET, 1e-8)
    assert fitted.reason == "one learner: nothing to combine"
    assert fitted.log_odds(LOGITS[:1]) == pytest.approx(np.tile(LOGITS[0], (len(METHODS), 1)))


def test_ignored_images_are_not_fitted_on():
    target = TARGET.copy()
    target[300:] = np.nan
    ignored, absent = fit(LOGITS, target, 1e-8), fit(LOGITS[:, :300], TARGET[:300], 1e-8)
    for method in METHODS:
        assert ignored.combiners[method].weight == pytest.approx(absent.combiners[method].weight)


def test_the_best_single_learner_is_that_of_validation():
    logits = np.stack([NOISE[0], TARGET + NOISE[1], 3 * TARGET + NOISE[2]])
    assert best_single(logits, TARGET) == 2
    assert best_single(logits[::-1], TARGET) == 0
    assert best_single(logits, np.ones(N)) == 2  # undefined: the largest


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
    assert weight[0] == pytest.approx(weight[1])
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
