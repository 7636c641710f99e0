import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from cxrscale.evaluate.clustered import components, delong_covariance, influence_covariance


def by_definition(scores, target, patient):
    """AUROC and Obuchowski's covariance as the paper writes them, pair by pair."""
    positive, negative = np.flatnonzero(target == 1), np.flatnonzero(target == 0)
    m, n, ids = len(positive), len(negative), np.unique(patient)
    psi = [[[float(s[i] > s[j]) + 0.5 * (s[i] == s[j]) for j in negative] for i in positive] for s in scores]
    psi = np.array(psi)  # (learner, positive, negative)
    theta, v10, v01 = psi.mean(axis=(1, 2)), psi.mean(axis=2), psi.mean(axis=1)

    def summed(values, members):
        own = [[patient[k] == c for k in members] for c in ids]
        return np.array(
            [[v[o].sum() - sum(o) * t for o in map(np.array, own)] for v, t in zip(values, theta, strict=True)]
        )

    a, b = summed(v10, positive), summed(v01, negative)  # (learner, patient)
    i10, i01, i = len(set(patient[positive])), len(set(patient[negative])), len(ids)
    s10, s01, s11 = i10 / ((i10 - 1) * m) * a @ a.T, i01 / ((i01 - 1) * n) * b @ b.T, i / (i - 1) * a @ b.T
    return theta, s10 / m + s01 / n + (s11 + s11.T) / (m * n)


def drawn(n=60, seed=0, tied=True):
    rng = np.random.default_rng(seed)
    target = rng.integers(0, 2, n)
    scores = rng.normal(size=(3, n)) + target
    return (np.round(scores, 0) if tied else scores), target, rng.integers(0, n // 3, n)


@pytest.mark.parametrize("seed", range(4))
def test_it_is_obuchowskis_covariance(seed):
    scores, target, patient = drawn(seed=seed, tied=seed % 2 == 0)
    _, patient = np.unique(patient, return_inverse=True)
    found = components(scores, target, patient)
    theta, covariance = by_definition(scores, target, patient)
    assert found.auroc == pytest.approx(theta)
    assert found.auroc == pytest.approx([roc_auc_score(target, s) for s in scores])
    assert found.covariance() == pytest.approx(covariance)
    assert found.influence.sum(axis=0) == pytest.approx(0, abs=1e-12)


def test_plain_delong_agrees_with_an_example_worked_by_hand():
    """Two markers on three diseased and three healthy, by hand: components in quarters of thirds.

    Marker 1: diseased 3, 5, 2, healthy 1, 2, 4. V10 = (2/3, 1, 1/2), V01 = (1, 5/6, 1/3), AUROC 13/18; var(V10) =
    0.0648148, var(V01) = 0.1203704; variance (0.0648148 + 0.1203704) / 3 = 0.0617284.
    """
    score, target = np.array([[3.0, 5, 2, 1, 2, 4]]), np.array([1, 1, 1, 0, 0, 0])
    auroc, covariance = delong_covariance(score, target)
    assert auroc[0] == pytest.approx(13 / 18)
    assert covariance[0, 0] == pytest.approx(0.0617284, abs=1e-7)


def test_each_patient_twice_doubles_the_variance_of_the_naive_one():
    """The same image twice is no new information: the clustered variance stays, DeLong's own halves."""
    scores, target, _ = drawn(n=80, tied=False)
    alone = components(scores, target, np.arange(80)).covariance()
    twice = np.tile(scores, 2), np.tile(target, 2)
    assert components(*twice, np.tile(np.arange(80), 2)).covariance() == pytest.approx(alone)
    assert delong_covariance(*twice)[1] == pytest.approx(alone / 2, rel=0.02)


def test_the_standard_error_is_the_spread_over_data_sets():
    """400 data sets of 100 patients with three images that share a patient's effect."""
    rng = np.random.default_rng(3)
    values, errors = [], []
    for _ in range(400):
        ill = np.repeat(rng.integers(0, 2, 100), 3)
        score = np.repeat(rng.normal(size=100), 3) + 0.5 * rng.normal(size=300) + ill
        found = components(score, ill, np.repeat(np.arange(100), 3))
        values.append(found.auroc[0])
        errors.append(np.sqrt(found.covariance()[0, 0]))
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.1)


def test_influence_gives_nearly_the_same_covariance_and_lines_up_over_findings():
    scores, target, patient = drawn(n=600, seed=5)
    found = components(scores, target, patient, n_patients=210)
    assert found.influence.shape == (210, 3)
    assert influence_covariance(found.influence) == pytest.approx(found.covariance(), rel=0.05)


def test_one_class_and_one_patient():
    with pytest.raises(ValueError, match="4 positive and 0 negative images"):
        components(np.arange(4.0), np.ones(4), np.arange(4))
    assert np.isnan(components(np.arange(4.0), np.array([0, 1, 0, 1]), np.zeros(4, int)).covariance()).all()
