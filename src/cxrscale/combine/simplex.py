"""Scale weights of 0 or more that sum to 1 and minimise a convex loss, with a proof of how close they are.

The paper's softmax weights are the maximum likelihood scale weights of a mixture, a convex problem.
Expectation-maximisation solves it but creeps where one goes to 0; sequential quadratic programming does not (Kim et al.
2020, doi:10.1080/10618600.2019.1689985). The same steps serve convex scale weights on logits. Many weighted copies of a
problem, as a bootstrap needs, are solved at once.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls
from scipy.special import expit

#: Probabilities that a learner gives to what is the case are taken to be at least this, as certain errors cost inf.
LEAST = 1e-12
MOST_STEPS = 100
#: Numbers held at once in (replicate, image) arrays, a matter of memory alone.
CHUNK = 4_000_000


@dataclass(frozen=True)
class Loss:
    """A convex function of the weighted sum of an image's row, its first and its second derivative; all (any,)."""

    value: Callable[[np.ndarray], np.ndarray]
    slope: Callable[[np.ndarray], np.ndarray]
    curvature: Callable[[np.ndarray], np.ndarray]


#: Of the mixture's probability of what is the case.
MIXTURE = Loss(lambda m: -np.log(m), lambda m: -1 / m, lambda m: 1 / (m * m))
#: Of the log odds of what is the case.
LOGISTIC = Loss(lambda m: np.logaddexp(0, -m), lambda m: -expit(-m), lambda m: expit(m) * expit(-m))


@dataclass(frozen=True)
class Solution:
    """weight: float64 (replicate, learner). gap: (replicate,), the mean loss is at most this above the least."""

    weight: np.ndarray
    gap: np.ndarray


def simplex_weights(
    rows: np.ndarray,
    loss: Loss,
    draws: np.ndarray | None = None,
    start: np.ndarray | None = None,
    tolerance: float = 1e-8,
) -> Solution:
    """Scale weights w (0 or more, sum 1) that minimise the weighted mean over images of loss(rows @ w).

    rows: float (image, learner); draws: (replicate, image), how often each replicate holds each image, None: all once;
    start: (learner,), None: equal. Stops where the gap is at most `tolerance` nats, or after MOST_STEPS steps, and says
    the gap. By convexity no scale weights are better by more than gradient . w - min(gradient) (Frank and Wolfe 1956).
    Learners that are exactly alike keep the shares that `start` gives them.
    """
    n_images, k = rows.shape
    draws = np.ones((1, n_images)) if draws is None else draws
    start = np.full(k, 1 / k) if start is None else start
    at = max(1, CHUNK // max(n_images, 1))
    parts = [_solve(rows, loss, draws[i : i + at], start, tolerance) for i in range(0, len(draws), at)]
    return Solution(np.concatenate([p.weight for p in parts]), np.concatenate([p.gap for p in parts]))


def _solve(rows: np.ndarray, loss: Loss, draws: np.ndarray, start: np.ndarray, tolerance: float) -> Solution:
    share = draws / draws.sum(axis=1, keepdims=True)  # (replicate, image)
    k = rows.shape[1]
    upper = np.triu_indices(k)
    products = rows[:, upper[0]] * rows[:, upper[1]]  # (image, pair of learners)
    weight = np.tile(start, (len(draws), 1))
    gap = np.full(len(draws), np.inf)
    live = np.arange(len(draws))  # replicates that are not there yet
    for _ in range(MOST_STEPS):
        margin = weight[live] @ rows.T  # (replicate, image)
        gradient = (share[live] * loss.slope(margin)) @ rows
        gap[live] = (gradient * weight[live]).sum(axis=1) - gradient.min(axis=1)
        going = gap[live] > tolerance
        if not going.any():
            break
        live, margin, gradient = live[going], margin[going], gradient[going]
        curvature = np.empty((len(live), k, k))
        curvature[:, upper[0], upper[1]] = (share[live] * loss.curvature(margin)) @ products
        curvature[:, upper[1], upper[0]] = curvature[:, upper[0], upper[1]]
        step = _newton_target(weight[live], gradient, curvature) - weight[live]
        length = _line_search(rows, loss, share[live], margin, step, (gradient * step).sum(axis=1))
        weight[live] += length[:, None] * step
    return Solution(weight, gap)


def _newton_target(weight: np.ndarray, gradient: np.ndarray, curvature: np.ndarray) -> np.ndarray:
    """Where on the simplex the second-order model about `weight` is least. weight, gradient: (replicate, learner);
    curvature: (replicate, learner, learner).

    With u = v - weight the model is u'Au / 2 + g'u. On the simplex it is v'Qv / 2 for the Q below, up to a constant,
    and v is then the direction of the least x'Qx / 2 - sum(x) over x of 0 or more, which is least squares.
    """
    k = weight.shape[1]
    identity = np.eye(k)
    # What curvature leaves open, as between learners that are alike, stays where it is.
    diagonal = np.einsum("rkk->rk", curvature)
    damped = curvature + (1e-9 * diagonal + 1e-12)[:, None, :] * identity
    tilt = gradient - (gradient * weight).sum(axis=1, keepdims=True)
    reduced = identity - weight[:, :, None] * np.ones(k)  # v -> v - weight
    decrement = (tilt * np.linalg.solve(damped, tilt[:, :, None])[:, :, 0]).sum(axis=1)
    # More than the decrement, so that Q is positive definite.
    scale = diagonal.min(axis=1) + 2 * np.abs(decrement) + 1e-12
    q = (
        np.swapaxes(reduced, 1, 2) @ damped @ reduced
        + tilt[:, :, None]
        + tilt[:, None, :]
        + scale[:, None, None]
    )  # fmt: skip
    unit = 1 / np.sqrt(np.einsum("rkk->rk", q))  # columns of one length: probabilities near 0 make q's range vast
    values, vectors = np.linalg.eigh(q * unit[:, :, None] * unit[:, None, :])
    values = np.sqrt(np.maximum(values, 1e-14 * values[:, -1:]))
    root = values[:, :, None] * np.swapaxes(vectors, 1, 2)  # root' root = q, scaled
    aim = (np.swapaxes(vectors, 1, 2) @ unit[:, :, None])[:, :, 0] / values
    found = np.stack([nnls(r, a, maxiter=100 * k)[0] for r, a in zip(root, aim, strict=True)]) * unit
    return found / found.sum(axis=1, keepdims=True)


def _line_search(
    rows: np.ndarray, loss: Loss, share: np.ndarray, margin: np.ndarray, step: np.ndarray, descent: np.ndarray
) -> np.ndarray:
    """The longest of 1, 1/2, 1/4, ... of each step that lowers its loss enough (Armijo). Returns (replicate,)."""
    along = step @ rows.T  # (replicate, image)
    before = (share * loss.value(margin)).sum(axis=1)
    length = np.ones(len(step))
    open_ = np.arange(len(step))
    for _ in range(40):
        now = (share[open_] * loss.value(margin[open_] + length[open_, None] * along[open_])).sum(axis=1)
        # Close to the least value, rounding hides what a step gains.
        short = now > before[open_] + 1e-4 * length[open_] * descent[open_] + 1e-13 * (1 + np.abs(before[open_]))
        open_ = open_[short]
        if not len(open_):
            break
        length[open_] /= 2
    return length


def likelihoods(probability: np.ndarray, target: np.ndarray) -> np.ndarray:
    """What each learner gives to what is the case. probability: (image, learner) in [0, 1]; target: 0 or 1 (image,).
    Returns float64 (image, learner), at least LEAST."""
    return np.clip(np.where(np.asarray(target)[:, None] > 0, probability, 1 - probability), LEAST, None)


def mixture_weights(probability: np.ndarray, target: np.ndarray, tolerance: float = 1e-8) -> np.ndarray:
    """Scale weights w (0 or more, sum 1) that minimise the binary cross-entropy of the mixture sum_k w_k p_k.

    Arguments as `likelihoods`; tolerance: nats of mean log loss above the least. Returns float64 (learner,).
    """
    return simplex_weights(likelihoods(probability, target), MIXTURE, tolerance=tolerance).weight[0]
