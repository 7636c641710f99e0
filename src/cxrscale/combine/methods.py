"""Ways to combine learners for one finding: each is fitted on some images and gives log odds for others."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit
from scipy.stats import norm

from cxrscale.combine.simplex import LOGISTIC, MIXTURE, Solution, likelihoods, simplex_weights
from cxrscale.evaluate.auroc import auroc
from cxrscale.evaluate.metrics import reason_undefined

#: Ways to combine, in the order of the tables; the declared one is `stacking.PRIMARY`.
METHODS = ("mean", "softmax", "softmax_calibrated", "convex_logits", "nonnegative", "logistic")
#: A weight below this is no weight, for the question whether it means anything.
COUNTS = 0.01


@dataclass(frozen=True)
class Combiner:
    """weight: float64 (learner,), of the logits or of the probabilities. intercept: in log odds, of the ensemble.
    slope, offset: float64 (learner,), each learner's calibration, applied first."""

    weight: np.ndarray
    on_logits: bool
    intercept: float = 0.0
    slope: np.ndarray | float = 1.0
    offset: np.ndarray | float = 0.0

    def log_odds(self, logits: np.ndarray) -> np.ndarray:
        """logits: (learner, image). Returns float64 (image,); of probabilities that round to 0 or 1 too."""
        logits = (logits.T * self.slope + self.offset).T
        if self.on_logits:
            return self.intercept + self.weight @ logits
        logits = np.clip(logits, -700, 700)  # whose probabilities are not 0
        return np.log(self.weight @ expit(logits)) - np.log(self.weight @ expit(-logits))


@dataclass(frozen=True)
class Fitted:
    """combiners: by method. solution: of the softmax weights. slope, offset, log_loss: (learner,), each learner's
    calibration and its mean log loss in nats, NaN if not fitted. reason: why all methods are the plain mean, or None.
    """

    combiners: dict[str, Combiner]
    solution: Solution | None = None
    slope: np.ndarray = field(default_factory=lambda: np.array([]))
    offset: np.ndarray = field(default_factory=lambda: np.array([]))
    log_loss: np.ndarray = field(default_factory=lambda: np.array([]))
    reason: str | None = None

    def log_odds(self, logits: np.ndarray, methods: Sequence[str] = METHODS) -> np.ndarray:
        """logits: (learner, image). Returns float64 (method, image)."""
        return np.stack([self.combiners[m].log_odds(logits) for m in methods])


def fit(logits: np.ndarray, target: np.ndarray, tolerance: float) -> Fitted:
    """Fit all methods for one finding. logits: (learner, image); target: (image,), NaN where ignored; tolerance: nats
    of mean log loss above the least, for weights on the simplex.

    Where nothing can be fitted (one class, one learner), all methods are the plain mean, and a reason is given.
    """
    k = len(logits)
    equal = np.full(k, 1 / k)
    counted = ~np.isnan(target)
    reason = reason_undefined(int((target == 1).sum()), int((target == 0).sum()))
    reason = f"{reason} to fit on" if reason else "one learner: nothing to combine" if k == 1 else None
    mean = Combiner(equal, on_logits=False)
    if reason is not None:
        return Fitted(dict.fromkeys(METHODS, mean), reason=reason)
    target, rows = target[counted], logits[:, counted].T  # (image, learner)
    sign = np.where(target > 0, 1.0, -1.0)[:, None]
    softmax = simplex_weights(likelihoods(expit(rows), target), MIXTURE, tolerance=tolerance)
    pairs = [logistic(rows[:, [i]], target, nonnegative=True) for i in range(k)]
    offset, slope = np.array([p[0] for p in pairs]), np.array([p[1][0] for p in pairs])
    calibrated = simplex_weights(likelihoods(expit(rows * slope + offset), target), MIXTURE, tolerance=tolerance)
    convex = simplex_weights(sign * rows, LOGISTIC, tolerance=tolerance)
    nonnegative, free = (logistic(rows, target, nonnegative=n) for n in (True, False))
    return Fitted(
        {
            "mean": mean,
            "softmax": Combiner(softmax.weight[0], on_logits=False),
            "softmax_calibrated": Combiner(calibrated.weight[0], on_logits=False, slope=slope, offset=offset),
            "convex_logits": Combiner(convex.weight[0], on_logits=True),
            "nonnegative": Combiner(nonnegative[1], on_logits=True, intercept=nonnegative[0]),
            "logistic": Combiner(free[1], on_logits=True, intercept=free[0]),
        },
        softmax,
        slope,
        offset,
        np.logaddexp(0, -sign * rows).mean(axis=0),
    )


def logistic(rows: np.ndarray, target: np.ndarray, nonnegative: bool) -> tuple[float, np.ndarray]:
    """Logistic regression, its coefficients 0 or more if asked for. rows: (image, learner); target: 0 or 1 (image,).

    A ridge of sum(b^2) / 2 on the *summed* log loss, b in standard deviations of a learner's logit, keeps it finite
    where the classes come apart; it is scikit-learn's C = 1, and next to nothing with hundreds of images. The intercept
    is free. Returns it and float64 (learner,), for the logits as they are; 0 for a learner that is constant.
    """
    n, k = rows.shape
    centre, spread = rows.mean(axis=0), rows.std(axis=0)
    flat = spread <= 1e-12 * (1 + np.abs(centre))
    scaled = np.where(flat, 0.0, (rows - centre) / np.where(flat, 1.0, spread))
    sign = np.where(target > 0, 1.0, -1.0)

    def loss(b: np.ndarray) -> tuple[float, np.ndarray]:
        margin = sign * (b[0] + scaled @ b[1:])
        pull = -sign * expit(-margin)  # (image,)
        value = np.logaddexp(0, -margin).sum() + b[1:] @ b[1:] / 2
        return value / n, np.r_[pull.sum(), pull @ scaled + b[1:]] / n

    base = np.log((target > 0).sum() / (target <= 0).sum())
    bounds = [(None, None)] + [(0 if nonnegative else None, None)] * k
    found = minimize(
        loss, np.r_[base, np.zeros(k)], jac=True, method="L-BFGS-B", bounds=bounds,
        options={"maxiter": 2000, "maxcor": 20, "ftol": 1e-15, "gtol": 1e-9},
    )  # fmt: skip
    coefficient = np.where(flat, 0.0, found.x[1:] / np.where(flat, 1.0, spread))
    return float(found.x[0] - coefficient @ centre), coefficient


def best_single(logits: np.ndarray, target: np.ndarray) -> int:
    """Index of the learner with the highest AUROC on validation; the last (largest) where it is undefined."""
    counted = ~np.isnan(target)
    values = [auroc(logit[counted], target[counted]) for logit in logits]
    return len(logits) - 1 if np.isnan(values).all() else int(np.nanargmax(values))


def stand_ins(
    likelihood: np.ndarray, weight: np.ndarray, patient: np.ndarray, confidence: float, tolerance: float = 1e-8
) -> dict[int, int]:
    """Learners whose weight says little: each can be left out and another takes its place at no visible loss.

    A learner with a weight that counts is left out and the others are refitted. With d_p the log loss that this adds
    over patient p's images, and s the standard error of their sum, sum(d_p) / s is half the z value of the score test
    of "its weight is 0" while the loss is small, whatever the dependence within a patient; so the learner can be left
    out unless 2 sum(d_p) / s passes the one-sided normal quantile of `confidence` (docs/stacking.md).

    likelihood: (image, learner), see `simplex.likelihoods`; weight: (learner,), the optimum; patient: int (image,).
    Returns learner -> the one whose weight rises most.
    """
    found = {}
    mixed = np.log(likelihood @ weight)
    for learner in np.flatnonzero(weight >= COUNTS) if len(weight) > 1 else []:
        others = np.delete(np.arange(len(weight)), learner)
        without = simplex_weights(likelihood[:, others], MIXTURE, tolerance=tolerance).weight[0]
        added = np.bincount(patient, weights=mixed - np.log(likelihood[:, others] @ without))
        added = added[np.bincount(patient) > 0]
        n = len(added)
        error = np.sqrt(n * added.var(ddof=1)) if n > 1 else np.inf
        if 2 * added.sum() <= norm.ppf(confidence) * error:
            found[int(learner)] = int(others[np.argmax(without - weight[others])])
    return found
