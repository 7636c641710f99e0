"""Weights on the simplex against hand, grid, EM and scipy's general solver."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit

from cxrscale.combine import simplex
from cxrscale.combine.simplex import LOGISTIC, MIXTURE, likelihoods, mixture_weights, simplex_weights

N = 400
TARGET = np.arange(N) % 2
NOISE = np.random.default_rng(1).normal(0, 1, (4, N))


def probabilities(strength):
    """(image, learner): learners whose logits hold the target with these strengths."""
    return expit(np.stack([s * (2 * TARGET - 1) + NOISE[k] for k, s in enumerate(strength)], axis=1))


def random_rows(seed, loss):
    """(image, learner), as the loss takes them."""
    rng = np.random.default_rng(seed)
    target = rng.integers(0, 2, 150)
    shared = rng.normal(0, 1, (150, 1))
    logits = shared + rng.normal(0, 0.5, (150, 5)) + (2 * target[:, None] - 1) * rng.uniform(0, 1.5, 5)
    return likelihoods(expit(logits), target) if loss is MIXTURE else (2 * target[:, None] - 1) * logits


def mean_loss(weight, rows, loss):
    return loss.value(rows @ weight).mean()


def test_two_learners_by_hand():
    # Twice A gives 0.8 to what is the case and B 0.2, once the other way round: 2 log(0.2 + 0.6 w) + log(0.8 - 0.6 w)
    # is largest where 2 (0.8 - 0.6 w) = 0.2 + 0.6 w, that is w = 7 / 9.
    probability = np.array([[0.8, 0.2], [0.2, 0.8], [0.2, 0.8]])
    assert mixture_weights(probability, np.array([1, 0, 1]), 1e-14) == pytest.approx([7 / 9, 2 / 9], abs=1e-7)


@pytest.mark.parametrize("strength", [(1.0, 0.8, 0.1), (0.5, 0.5, 0.5), (2.0, -1.0, 0.0)])
def test_weights_are_the_best_of_a_grid_and_meet_the_kkt_conditions(strength):
    probability = probabilities(strength)
    weight = mixture_weights(probability, TARGET)
    assert weight.sum() == pytest.approx(1)
    assert (weight >= 0).all()
    steps = range(51)
    grid = np.array([(a, b, 50 - a - b) for a in steps for b in steps if a + b <= 50]) / 50
    rows = likelihoods(probability, TARGET)
    values = [mean_loss(w, rows, MIXTURE) for w in grid]
    assert len(values) == 1326
    assert mean_loss(weight, rows, MIXTURE) <= min(values) + 1e-8
    assert np.abs(weight - grid[np.argmin(values)]).max() <= 0.04
    # The likelihood's gradient along each weight is 1 where the weight is used, at most 1 where it is not.
    gradient = (rows / (rows @ weight)[:, None]).mean(axis=0)
    assert (gradient <= 1 + 1e-8).all()
    assert gradient[weight > 0.01] == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("loss", [MIXTURE, LOGISTIC], ids=["mixture", "logistic"])
@pytest.mark.parametrize("seed", range(5))
def test_no_worse_than_scipys_general_solver_and_as_close_as_it_says(seed, loss):
    rows = random_rows(seed, loss)
    found = simplex_weights(rows, loss)
    assert found.gap[0] <= 1e-8
    general = minimize(
        mean_loss, np.full(5, 0.2), (rows, loss), method="SLSQP", bounds=[(0, 1)] * 5,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1}, options={"ftol": 1e-15, "maxiter": 500},
    )  # fmt: skip
    assert mean_loss(found.weight[0], rows, loss) <= general.fun + 1e-8
    assert found.weight[0] == pytest.approx(general.x, abs=2e-3)


def test_expectation_maximisation_creeps_to_the_same_place():
    rows = random_rows(3, MIXTURE)
    weight = np.full(5, 0.2)
    for _ in range(20_000):
        weight = weight * (rows / (rows @ weight)[:, None]).mean(axis=0)
    assert mean_loss(simplex_weights(rows, MIXTURE).weight[0], rows, MIXTURE) <= mean_loss(weight, rows, MIXTURE) + 1e-8


@pytest.mark.parametrize("loss", [MIXTURE, LOGISTIC], ids=["mixture", "logistic"])
def test_the_gap_bounds_the_loss_above_the_least_before_convergence_too(monkeypatch, loss):
    rows = random_rows(1, loss)
    least = mean_loss(simplex_weights(rows, loss, tolerance=1e-13).weight[0], rows, loss)
    monkeypatch.setattr(simplex, "MOST_STEPS", 1)
    early = simplex_weights(rows, loss)
    assert early.gap[0] > 1e-3
    assert 0 <= mean_loss(early.weight[0], rows, loss) - least <= early.gap[0]


@pytest.mark.parametrize("loss", [MIXTURE, LOGISTIC], ids=["mixture", "logistic"])
def test_many_draws_at_once_are_each_solved_as_if_alone(monkeypatch, loss):
    rows = random_rows(2, loss)
    draws = np.random.default_rng(0).integers(0, 4, (7, len(rows)))
    monkeypatch.setattr(simplex, "CHUNK", 3 * len(rows))  # more than one chunk
    together = simplex_weights(rows, loss, draws, start=np.array([0.6, 0.1, 0.1, 0.1, 0.1]))
    assert together.weight.shape == (7, 5)
    assert together.gap.max() <= 1e-8
    for drawn, weight in zip(draws, together.weight, strict=True):
        alone = simplex_weights(np.repeat(rows, drawn, axis=0), loss, tolerance=1e-12).weight[0]
        assert weight == pytest.approx(alone, abs=2e-3)


def test_equal_learners_keep_equal_weights_and_a_useless_one_gets_none():
    same = probabilities([1.0])
    assert mixture_weights(np.hstack([same, same]), TARGET) == pytest.approx([0.5, 0.5])
    against = np.column_stack([np.where(TARGET > 0, 0.9, 0.1), np.where(TARGET > 0, 0.1, 0.9)])
    assert mixture_weights(against, TARGET) == pytest.approx([1, 0], abs=1e-6)


def test_certain_and_wrong_probabilities_give_finite_weights():
    probability = np.column_stack([TARGET, 1 - TARGET]).astype(float)
    assert mixture_weights(probability, TARGET) == pytest.approx([1, 0], abs=1e-6)


def test_constant_learners_and_few_images_are_no_trouble():
    assert mixture_weights(np.full((N, 3), 0.3), TARGET) == pytest.approx([1 / 3] * 3)
    assert simplex_weights(np.zeros((5, 3)), LOGISTIC).weight[0] == pytest.approx([1 / 3] * 3)
    assert mixture_weights(np.array([[0.9, 0.2]]), np.array([1])) == pytest.approx([1, 0], abs=1e-6)
