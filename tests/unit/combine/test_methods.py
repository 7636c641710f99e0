"""Each way to combine for one finding."""

import re
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression

from cxrscale.combine.methods import METHODS, Combiner, Evidence, Role, combining, fit_all, logistic, named
from cxrscale.combine.simplex import mixture_weights
from cxrscale.evaluate.auroc import auroc

N = 600
TARGET = (np.arange(N) % 3 == 0).astype(float)
SIGN = 2 * TARGET - 1
NOISE = np.random.default_rng(4).normal(0, 1, (4, N))
#: (learner, image): strong, weak, weaker, and one that speaks against.
LOGITS = np.array([1.0, 0.5, 0.3, -0.4])[:, None] * SIGN + NOISE - 0.7


def evidence(logits, target, tolerance=1e-8):
    """Of combine and, the same, of validate."""
    return Evidence(logits, target, logits, target, tolerance)


def fit(*given):
    return fit_all(evidence(*given))


def test_softmax_and_mean_are_weighted_means_of_probabilities():
    fitted = fit(LOGITS, TARGET, 1e-10)
    weight = fitted.combiners["softmax"].scale_weight
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
    assert combiner.scale_weight[0] == pytest.approx(grid[np.argmin([loss(w) for w in grid])], abs=2e-3)
    assert 0 < combiner.scale_weight[0] < 1


def test_a_learner_that_is_too_sure_gets_its_weight_once_it_is_calibrated():
    rng = np.random.default_rng(0)
    good, poor = 1.5 * SIGN + rng.normal(size=N) - 1, 0.4 * SIGN + rng.normal(size=N) - 0.7
    fitted = fit(np.stack([12 * good, poor]), TARGET, 1e-10)
    assert fitted.evidence.calibration[0][0] < 0.4  # says that it is too sure
    assert fitted.evidence.log_loss[0] > fitted.evidence.log_loss[1]
    assert fitted.combiners["softmax_calibrated"].scale_weight[0] > 0.8 > fitted.combiners["softmax"].scale_weight[0]
    test = np.random.default_rng(1)
    logits = np.stack([12 * (1.5 * SIGN + test.normal(size=N) - 1), 0.4 * SIGN + test.normal(size=N) - 0.7])
    softmax, calibrated = (
        auroc(fitted.combiners[m].log_odds(logits), TARGET) for m in ("softmax", "softmax_calibrated")
    )
    assert softmax < auroc(logits[0], TARGET) - 0.01
    assert calibrated > auroc(logits[0], TARGET) - 0.005


def test_calibration_finds_the_scale_that_was_planted():
    odds = np.random.default_rng(2).normal(0, 1.5, 40_000)
    target = (np.random.default_rng(3).random(40_000) < expit(odds)).astype(float)
    slope, offset = evidence(np.stack([4 * odds + 2, odds]), target).calibration
    assert slope == pytest.approx([0.25, 1], rel=0.05)
    assert offset == pytest.approx([-0.5, 0], abs=0.05)


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        (np.zeros(N), "no positive image to fit on"),
        (np.ones(N), "no negative image to fit on"),
        (np.full(N, np.nan), "no image counts to fit on"),
    ],
)
def test_all_methods_are_the_mean_with_a_reason_where_nothing_can_be_fitted(target, reason):
    fitted = fit_all(evidence(LOGITS[:3], target), combining())
    assert fitted.evidence.reason == reason
    assert set(fitted.combiners) == set(combining())
    odds = fitted.log_odds(LOGITS[:3])
    assert (odds == odds[0]).all()
    assert fitted.combiners["softmax"].scale_weight == pytest.approx([1 / 3] * 3)


def test_one_learner_is_itself():
    fitted = fit(-LOGITS[:1], TARGET, 1e-8)
    assert fitted.evidence.reason == "one learner: nothing to combine"
    assert fitted.log_odds(LOGITS[:1]) == pytest.approx(np.tile(LOGITS[0], (len(METHODS), 1)))


def test_ignored_images_are_not_fitted_on():
    target = TARGET.copy()
    target[300:] = np.nan
    ignored, absent = fit(LOGITS, target, 1e-8), fit(LOGITS[:, :300], TARGET[:300], 1e-8)
    for method in METHODS:
        assert ignored.combiners[method].scale_weight == pytest.approx(absent.combiners[method].scale_weight)


def test_the_best_single_learner_is_that_of_validation():
    logits = np.stack([NOISE[0], TARGET + NOISE[1], 3 * TARGET + NOISE[2]])

    def best_single(logits, target):
        combiner = METHODS["best_single"].fit(Evidence(LOGITS[:3], TARGET, logits, target, 1e-8))
        assert combiner.log_odds(LOGITS[:3]).tolist() == LOGITS[np.argmax(combiner.scale_weight)].tolist()
        return np.argmax(combiner.scale_weight)

    assert best_single(logits, TARGET) == 2
    assert best_single(logits[::-1], TARGET) == 0
    assert best_single(logits, np.ones(N)) == 2  # undefined: the largest


def test_the_registry_has_one_declared_method_and_its_names():
    assert named(Role.PRIMARY) == ["softmax"]
    assert named(Role.REFERENCE) == ["best_single", "mean"]
    assert combining() == [name for name in METHODS if name != "best_single"]
    assert all(name == method.name for name, method in METHODS.items())
    assert len({method.label for method in METHODS.values()}) == len(METHODS)


def test_the_documentation_says_of_methods_what_their_entries_say():
    page = (Path(__file__).parents[3] / "docs/stacking.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", page, re.MULTILINE))
    assert len(rows) >= 7
    assert rows == {name: METHODS[name].meaning for name in rows}
