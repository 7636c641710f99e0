"""Ways to combine learners for one finding: each is fitted on some images and gives log odds for others.

METHODS is the only list of them: a new one is a function of `Evidence` and an entry there.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cached_property

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from cxrscale.combine.simplex import LOGISTIC, MIXTURE, Loss, likelihoods, simplex_weights
from cxrscale.evaluate.auroc import auroc, reason_undefined


@dataclass(frozen=True)
class Combiner:
    """A fitted method.

    scale_weight: float64 (learner,), of the logits or of the probabilities. intercept: in log odds, of the ensemble.
    slope, offset: float64 (learner,), each learner's calibration, applied first. gap: the mean log loss is at most so
    many nats above the least, NaN where no bound is known.
    """

    scale_weight: np.ndarray
    on_logits: bool
    intercept: float = 0.0
    slope: np.ndarray | float = 1.0
    offset: np.ndarray | float = 0.0
    gap: float = float("nan")

    def log_odds(self, logits: np.ndarray) -> np.ndarray:
        """logits: (learner, image). Returns float64 (image,); of probabilities that round to 0 or 1 too."""
        logits = (logits.T * self.slope + self.offset).T
        if self.on_logits:
            return self.intercept + self.scale_weight @ logits
        logits = np.clip(logits, -700, 700)  # whose probabilities are not 0
        return np.log(self.scale_weight @ expit(logits)) - np.log(self.scale_weight @ expit(-logits))


@dataclass(frozen=True, eq=False)
class Evidence:
    """What methods may be fitted on, for one finding. What several need is worked out once, when it is asked for.

    logits: float64 (learner, image) and target: (image,), NaN where ignored, of combine. validate_logits,
    validate_target: the same of validate. tolerance: nats of mean log loss above the least, for scale weights on the
    simplex. Nothing but n_learners, reason and validate_auroc may be asked for where there is a reason.
    """

    logits: np.ndarray
    target: np.ndarray
    validate_logits: np.ndarray
    validate_target: np.ndarray
    tolerance: float

    @property
    def n_learners(self) -> int:
        return len(self.logits)

    @cached_property
    def reason(self) -> str | None:
        """Why nothing can be fitted on combine, or None."""
        reason = reason_undefined(int((self.target == 1).sum()), int((self.target == 0).sum()))
        if reason is not None:
            return f"{reason} to fit on"
        return "one learner: nothing to combine" if self.n_learners == 1 else None

    @cached_property
    def counted(self) -> np.ndarray:
        """bool (image,), images of combine that are not ignored; the following hold them alone."""
        return ~np.isnan(self.target)

    @cached_property
    def rows(self) -> np.ndarray:
        """Logits, float64 (image, learner)."""
        return self.logits[:, self.counted].T

    @cached_property
    def outcome(self) -> np.ndarray:
        """0 or 1, (image,)."""
        return self.target[self.counted]

    @cached_property
    def margins(self) -> np.ndarray:
        """Log odds of what is the case, float64 (image, learner)."""
        return np.where(self.outcome > 0, 1.0, -1.0)[:, None] * self.rows

    @cached_property
    def log_loss(self) -> np.ndarray:
        """Each learner's mean log loss in nats, float64 (learner,)."""
        return np.asarray(np.logaddexp(0, -self.margins).mean(axis=0))

    @cached_property
    def calibration(self) -> tuple[np.ndarray, np.ndarray]:
        """Each learner's slope, 0 or more, and offset (Platt), float64 (learner,)."""
        pairs = [logistic(self.rows[:, [i]], self.outcome, nonnegative=True) for i in range(self.n_learners)]
        return np.array([coefficient[0] for _, coefficient in pairs]), np.array([offset for offset, _ in pairs])

    @cached_property
    def validate_auroc(self) -> np.ndarray:
        """Each learner's AUROC on validate, float64 (learner,); NaN where that has one class."""
        counted = ~np.isnan(self.validate_target)
        return np.array([auroc(logit[counted], self.validate_target[counted]) for logit in self.validate_logits])


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


def _best_single(evidence: Evidence) -> Combiner:
    """The last learner, the largest, where AUROC on validate is undefined."""
    values, k = evidence.validate_auroc, evidence.n_learners
    best = k - 1 if np.isnan(values).all() else int(np.nanargmax(values))
    return Combiner(np.eye(k)[best], on_logits=True)


def _mean(evidence: Evidence) -> Combiner:
    return Combiner(np.full(evidence.n_learners, 1 / evidence.n_learners), on_logits=False)


def _softmax(evidence: Evidence) -> Combiner:
    return _on_simplex(evidence, likelihoods(expit(evidence.rows), evidence.outcome), MIXTURE)


def _softmax_calibrated(evidence: Evidence) -> Combiner:
    slope, offset = evidence.calibration
    rows = likelihoods(expit(evidence.rows * slope + offset), evidence.outcome)
    return _on_simplex(evidence, rows, MIXTURE, slope, offset)


def _convex_logits(evidence: Evidence) -> Combiner:
    return _on_simplex(evidence, evidence.margins, LOGISTIC)


def _nonnegative(evidence: Evidence) -> Combiner:
    intercept, coefficient = logistic(evidence.rows, evidence.outcome, nonnegative=True)
    return Combiner(coefficient, on_logits=True, intercept=intercept)


def _logistic(evidence: Evidence) -> Combiner:
    intercept, coefficient = logistic(evidence.rows, evidence.outcome, nonnegative=False)
    return Combiner(coefficient, on_logits=True, intercept=intercept)


def _on_simplex(
    evidence: Evidence, rows: np.ndarray, loss: Loss, slope: np.ndarray | float = 1.0, offset: np.ndarray | float = 0.0
) -> Combiner:
    found = simplex_weights(rows, loss, tolerance=evidence.tolerance)
    return Combiner(found.weight[0], loss is LOGISTIC, slope=slope, offset=offset, gap=float(found.gap[0]))


class Role(Enum):
    """What a study asks a method for."""

    #: The declared one, the paper's: only its tests are corrected for the number of findings. There is one.
    PRIMARY = "primary"
    #: Gains are counted from it.
    REFERENCE = "reference"
    #: Shown beside them, with its coefficients; without the bootstrap.
    EXPLORATORY = "exploratory"


@dataclass(frozen=True)
class Method:
    """A way to combine learners. label: what the page calls it. meaning: a phrase on what it is. combines: whether it
    is an ensemble, which has a control and is the plain mean where nothing can be fitted; else it picks one learner."""

    name: str
    label: str
    meaning: str
    fit: Callable[[Evidence], Combiner]
    role: Role = Role.EXPLORATORY
    combines: bool = True


BEST_SINGLE, EQUAL, CALIBRATED = "best_single", "mean", "softmax_calibrated"

#: name -> method, in the order of the tables.
METHODS: Mapping[str, Method] = {
    method.name: method
    for method in (
        Method(
            BEST_SINGLE,
            "Best single learner (by validation)",
            "the learner with the highest AUROC on validation",
            _best_single,
            Role.REFERENCE,
            combines=False,
        ),
        Method(
            EQUAL,
            "Equal weights (mean of probabilities)",
            "plain mean of the probabilities",
            _mean,
            Role.REFERENCE,
        ),
        Method(
            "softmax",
            "Fitted weights on probabilities (softmax, the paper's)",
            "the paper's: scale weights of 0 or more, sum 1, on the probabilities, by cross-entropy",
            _softmax,
            Role.PRIMARY,
        ),
        Method(
            CALIBRATED,
            "The same, each learner calibrated first",
            "the same, after each learner's logits were calibrated on combine (Platt: slope of 0 or more, intercept)",
            _softmax_calibrated,
        ),
        Method(
            "convex_logits",
            "Fitted weights on logits (sum 1)",
            "scale weights of 0 or more, sum 1, on the logits, and nothing else",
            _convex_logits,
        ),
        Method(
            "nonnegative",
            "Non-negative logistic regression",
            "logistic regression on the logits, coefficients of 0 or more, intercept free",
            _nonnegative,
        ),
        Method(
            "logistic",
            "Logistic regression",
            "logistic regression without bounds",
            _logistic,
        ),
    )
}


def named(*roles: Role) -> list[str]:
    """The methods that have one of these roles."""
    return [m.name for m in METHODS.values() if m.role in roles]


def combining() -> list[str]:
    """The methods that combine learners, those of the control."""
    return [m.name for m in METHODS.values() if m.combines]


(PRIMARY,) = named(Role.PRIMARY)


@dataclass(frozen=True)
class Fitted:
    """combiners: by method."""

    evidence: Evidence
    combiners: dict[str, Combiner]

    def log_odds(self, logits: np.ndarray) -> np.ndarray:
        """logits: (learner, image). Returns float64 (method, image), in the order of `combiners`."""
        return np.stack([combiner.log_odds(logits) for combiner in self.combiners.values()])


def fit_all(evidence: Evidence, methods: Iterable[str] | None = None) -> Fitted:
    """Fit the methods named, or all. Where `evidence.reason` says that nothing can be fitted, those that combine are
    the plain mean."""

    def fitted(method: Method) -> Combiner:
        return _mean(evidence) if method.combines and evidence.reason is not None else method.fit(evidence)

    return Fitted(evidence, {name: fitted(METHODS[name]) for name in (METHODS if methods is None else methods)})
