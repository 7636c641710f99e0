import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression

from cxrscale.evaluate.calibration import (
    calibration_error,
    chance_calibration_error,
    equal_mass_bins,
    intercept_fit,
    separated,
    slope_fit,
)


def drawn(n=20_000, seed=0):
    """Logits, and outcomes drawn with just these probabilities."""
    rng = np.random.default_rng(seed)
    x = rng.normal(-1, 1.5, n)
    return x, (rng.random(n) < expit(x)).astype(float)


def test_the_fit_is_that_of_scikit_learn():
    x, y = drawn(500)
    x = 0.5 + 2 * x
    found = slope_fit(x, y).coefficients
    reference = LogisticRegression(C=1e10, tol=1e-10, max_iter=1000).fit(x[:, None], y)
    assert found == pytest.approx([reference.intercept_[0], reference.coef_[0, 0]], rel=1e-4)


def test_the_intercept_by_hand():
    """With every logit 0, probabilities 1 / 2: three of four positive is an intercept of log 3."""
    assert intercept_fit(np.zeros(4), np.array([1.0, 1, 1, 0])).coefficients == pytest.approx([np.log(3)])


def test_a_calibrated_learner_has_slope_1_and_intercept_0():
    x, y = drawn()
    assert slope_fit(x, y).coefficients == pytest.approx([0, 1], abs=0.05)
    assert intercept_fit(x, y).coefficients[0] == pytest.approx(0, abs=0.05)
    # Twice too sure of itself: half the slope. One too high: the intercept takes it back.
    assert slope_fit(2 * x, y).coefficients[1] == pytest.approx(0.5, abs=0.03)
    assert intercept_fit(x + 1, y).coefficients[0] == pytest.approx(-1, abs=0.05)


def test_the_influence_gives_the_spread_over_data_sets_of_clustered_patients():
    """300 data sets of 100 patients, each image twice: the error of the slope is that of the hundred."""
    values, errors = [], []
    for seed in range(300):
        x, y = (np.repeat(a, 2) for a in drawn(100, seed))
        found = slope_fit(x, y)
        by_patient = found.influence.reshape(100, 2, 2).sum(axis=1)
        values.append(found.coefficients[1])
        errors.append(np.sqrt((by_patient[:, 1] ** 2).sum()))
    assert np.median(errors) == pytest.approx(np.std(values), rel=0.15)


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        ([1, 2, 3, 4], [0, 0, 1, 1], True),
        ([1, 2, 3, 4], [1, 1, 0, 0], True),
        ([1, 2, 2, 4], [0, 0, 1, 1], True),
        ([5, 5, 5, 5], [0, 1, 0, 1], True),
        ([1, 3, 2, 4], [0, 0, 1, 1], False),
    ],
)
def test_separated_classes_have_no_fit(x, y, expected):
    x, y = np.array(x, float), np.array(y, float)
    assert separated(x, y) is expected
    if expected:
        with pytest.raises(ValueError, match="separate the classes"):
            slope_fit(x, y)
    else:
        assert np.isfinite(slope_fit(x, y).coefficients).all()


def test_extreme_logits_still_converge():
    x, y = drawn(2000)
    assert slope_fit(30 * x, y).coefficients == pytest.approx(slope_fit(x, y).coefficients / [1, 30], rel=1e-6)
    shifted = slope_fit(x + 40, y).coefficients
    assert shifted[1] == pytest.approx(slope_fit(x, y).coefficients[1], rel=1e-6)


def test_bins_hold_equally_many_and_equal_probabilities_share_one():
    p = np.random.default_rng(0).permutation(np.linspace(0, 1, 10))
    assert np.bincount(equal_mass_bins(p, 3)).tolist() == [3, 4, 3]
    assert (np.argsort(p) == np.argsort(equal_mass_bins(p, 10))).all()
    tied = equal_mass_bins(np.array([0.1, 0.2, 0.2, 0.2, 0.2, 0.9]), 3)
    assert tied.tolist() == [0, 1, 1, 1, 1, 2]


def test_calibration_error_by_hand():
    """Bins {0.1, 0.3} with one positive, {0.6, 0.8} with two: |0.5 - 0.2| / 2 + |1 - 0.7| / 2."""
    p, y = np.array([0.1, 0.3, 0.6, 0.8]), np.array([1.0, 0, 1, 1])
    assert calibration_error(p, y, 2) == pytest.approx(0.3)
    assert calibration_error(p, y, 1) == pytest.approx(0.3)
    assert calibration_error(p, p, 2) == 0


def test_chance_alone_gives_the_calibration_error_of_a_calibrated_learner():
    """Over 200 data sets of 300 patients with one image, and with the same image three times."""
    for copies in (1, 3):
        errors, chances = [], []
        for seed in range(200):
            x, y = (np.repeat(a, copies) for a in drawn(300, seed))
            patient = np.repeat(np.arange(300), copies)
            errors.append(calibration_error(expit(x), y, 10))
            chances.append(chance_calibration_error(expit(x), y, patient, 10))
        assert np.mean(chances) == pytest.approx(np.mean(errors), rel=0.1)
    x, y = drawn(300)
    assert calibration_error(expit(x + 1), y, 10) > 2 * chance_calibration_error(expit(x + 1), y, np.arange(300), 10)


def test_recalibrated_on_itself_a_learner_is_calibrated():
    x, y = drawn(3000)
    x = logit(expit(x)) * 3 + 2
    intercept, slope = slope_fit(x, y).coefficients
    assert slope_fit(intercept + slope * x, y).coefficients == pytest.approx([0, 1], abs=1e-6)
