"""AUROCs of several scores for the same test patients, their averages and differences, and what chance allows.

Patients are the unit. Scores of one fold share its patients, so that what each patient adds is averaged over findings
and seeds before it is squared; folds have other patients and count as independent.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student

from cxrscale.evaluate.clustered import components, influence_covariance
from cxrscale.evaluate.intervals import error_interval

TOO_FEW = "fewer than two patients with the finding or without it: no interval"
ALIKE = "the two rank alike on test: no p"


@dataclass(frozen=True)
class Estimate:
    """value: float64 (score,), AUROCs. influence: float64 (patient, score), what each patient adds to the deviation.
    replicates: float64 (score, replicate), the patient bootstrap; NaN or no columns where it was not asked for.
    known: whether the variance is defined."""

    value: np.ndarray
    influence: np.ndarray
    replicates: np.ndarray
    known: bool = True


def estimate(
    scores: np.ndarray, target: np.ndarray, patient: np.ndarray, n_patients: int, replicates: np.ndarray | None = None
) -> Estimate:
    """AUROCs of scores (score, image); target: (image,), NaN where ignored, both classes present; patient: (image,)."""
    counted = ~np.isnan(target)
    found = components(scores[:, counted], target[counted], patient[counted], n_patients)
    known = min(int(found.with_positive.sum()), int(found.with_negative.sum())) > 1
    drawn = np.empty((len(scores), 0)) if replicates is None else replicates
    return Estimate(found.auroc, found.influence, drawn, known)


def average(parts: Sequence[Estimate]) -> Estimate:
    """The mean over findings or seeds of estimates for the same patients."""
    return Estimate(
        np.mean([p.value for p in parts], axis=0),
        np.mean([p.influence for p in parts], axis=0),
        np.mean([p.replicates for p in parts], axis=0),
        all(p.known for p in parts),
    )


@dataclass(frozen=True)
class Contrast:
    """A combination of AUROCs, averaged over folds. error: its standard error, NaN if undefined, with `freedom` degrees
    of freedom (Satterthwaite; inf where patients alone count)."""

    value: float
    error: float
    reason: str | None
    freedom: float = float("inf")

    def interval(self, confidence: float) -> tuple[float, float]:
        width = student.ppf((1 + confidence) / 2, self.freedom) * self.error
        return self.value - width, self.value + width

    def level_interval(self, confidence: float) -> tuple[float, float]:
        """Of an AUROC: symmetric in log odds, so that it stays within 0 and 1."""
        if not (0 < self.value < 1 and self.error > 0):
            return self.interval(confidence)
        return error_interval(self.value, self.error, confidence, within_0_and_1=True, degrees_of_freedom=self.freedom)

    @property
    def p(self) -> float:
        """Two-sided; NaN where there is no error to divide by."""
        return float(2 * student.sf(abs(self.value) / self.error, self.freedom)) if self.error > 0 else float("nan")


@dataclass(frozen=True)
class TrainingVariance:
    """What the chance of training adds to the variance of a fold's estimate, with the degrees of freedom it is known
    by."""

    variance: float
    freedom: float


def contrast(
    folds: Sequence[Estimate], coefficients: np.ndarray, training: Sequence[TrainingVariance] = ()
) -> Contrast:
    """The mean over folds of coefficients . AUROCs. coefficients: (score,); training: of each fold, or nothing."""
    patients = [float(coefficients @ influence_covariance(f.influence) @ coefficients) for f in folds]
    known = all(f.known for f in folds)
    by_training = sum(t.variance for t in training)
    variance = (sum(max(v, 0.0) for v in patients) + by_training) / len(folds) ** 2
    error = float(np.sqrt(variance)) if known else float("nan")
    if error < 1e-12:  # rounding of sums that cancel
        error = 0.0
    freedom = float("inf")
    if by_training > 0:
        freedom = (variance * len(folds) ** 2) ** 2 / sum(t.variance**2 / t.freedom for t in training)
    difference = abs(coefficients.sum()) < 1e-12
    reason = TOO_FEW if not known else ALIKE if difference and error == 0 else None
    return Contrast(float(np.mean([coefficients @ f.value for f in folds])), error, reason, freedom)


def training_variance(value: np.ndarray, influence: np.ndarray) -> float:
    """The variance of a value over seeds beyond what the test patients explain, 0 or more.

    value: (seed,), two or more; influence: (patient, seed). Seeds share the patients; what their errors do not share
    makes values differ without any chance of training, and is subtracted.
    """
    own = influence - influence.mean(axis=1, keepdims=True)
    noise = np.trace(influence_covariance(own)) / (len(value) - 1)
    return float(max(0.0, np.var(value, ddof=1) - noise))


def replicates_of(folds: Sequence[Estimate], coefficients: np.ndarray) -> np.ndarray:
    """The bootstrap of `contrast`, (replicate,). Scores with a coefficient of 0 need no replicates."""
    used = np.flatnonzero(coefficients)
    return np.asarray(np.mean([coefficients[used] @ f.replicates[used] for f in folds], axis=0))
