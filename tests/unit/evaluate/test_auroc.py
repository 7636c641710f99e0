import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from cxrscale.evaluate.auroc import auroc, average_precision, weighted_auroc, weighted_average_precision

PAIRS = [
    (auroc, weighted_auroc, roc_auc_score),
    (average_precision, weighted_average_precision, average_precision_score),
]


def case(seed, ties):
    rng = np.random.default_rng(seed)
    target = rng.integers(0, 2, 60)
    score = rng.normal(target, 1.5)
    return np.round(score) if ties else score, target, rng


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("plain", "weighted", "reference"), PAIRS)
def test_equals_scikit_learn(plain, weighted, reference, ties):
    checked = 0
    for seed in range(10):
        score, target, _ = case(seed, ties)
        assert plain(score, target) == pytest.approx(reference(target, score), abs=1e-12)
        checked += 1
    assert checked == 10


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("plain", "weighted", "reference"), PAIRS)
def test_integer_weights_are_repeated_rows_and_others_those_of_scikit_learn(plain, weighted, reference, ties):
    score, target, rng = case(3, ties)
    counts = rng.integers(0, 4, (5, 60))
    repeated = [plain(np.repeat(score, n), np.repeat(target, n)) for n in counts]
    assert weighted(score, target, counts) == pytest.approx(repeated, abs=1e-12)
    real = rng.random((1, 60))
    assert weighted(score, target, real)[0] == pytest.approx(reference(target, score, sample_weight=real[0]), abs=1e-12)


def test_by_hand():
    """Positives at 3 and 1, negatives at 2 and 1: pairs won 1 + 1 + 0 + 1/2 of four."""
    assert auroc(np.array([3, 1, 2, 1]), np.array([1, 1, 0, 0])) == 2.5 / 4
    assert auroc(np.zeros(4), np.array([1, 1, 0, 0])) == 0.5
    assert average_precision(np.array([3, 1, 2, 0]), np.array([1, 1, 0, 0])) == pytest.approx((1 + 2 / 3) / 2)


@pytest.mark.parametrize(("target", "ap"), [([1, 1], 1.0), ([0, 0], np.nan), ([], np.nan)])
def test_one_class_has_no_auroc_and_no_positive_no_average_precision(target, ap):
    score, target = np.arange(len(target), dtype=float), np.array(target, dtype=float)
    assert np.isnan(auroc(score, target))
    assert average_precision(score, target) == pytest.approx(ap, nan_ok=True)


def test_a_replicate_that_drew_one_class_only_is_nan_alone():
    got = weighted_auroc(np.array([1.0, 2, 3]), np.array([0, 1, 1]), np.array([[1, 1, 1], [0, 2, 1], [3, 0, 0]]))
    assert got == pytest.approx([1.0, np.nan, np.nan], nan_ok=True)


@pytest.mark.parametrize("prevalence", [0.03, 0.5, 0.95])
@pytest.mark.parametrize(("plain", "weighted", "reference"), PAIRS)
def test_many_images_and_either_class_rare(plain, weighted, reference, prevalence):
    """More than a block of running sums, a few ties, weights of a bootstrap in the layout that it hands over."""
    rng = np.random.default_rng(8)
    target = (rng.random(700) < prevalence).astype(int)
    score = np.round(rng.normal(target, 1), 2)
    weight = rng.poisson(1, (700, 6)).astype(np.float32).T
    expected = [reference(target, score, sample_weight=w) for w in weight]
    assert weighted(score, target, weight) == pytest.approx(expected, abs=1e-12)
    assert plain(score, target) == pytest.approx(reference(target, score), abs=1e-12)
