"""Whether predicted probabilities are frequencies.

Slope and intercept are those of Cox (1958, doi:10.1093/biomet/45.3-4.562) as Van Calster et al. (2019,
doi:10.1186/s12916-019-1466-7) define them: the slope of a logistic regression of the outcome on the logit (1 is right,
below 1 over-confident), and the intercept of one whose slope is held at 1, "calibration in the large" (0 is right,
below 0 the learner expects too many positives).
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import expit
from scipy.stats import rankdata

SEPARATED = "the logits separate the classes: no finite fit"


@dataclass(frozen=True)
class LogisticFit:
    """coefficients: float64 (column,). influence: float64 (image, column), what each image adds to them; their
    products summed over patients are the cluster-robust ("sandwich") covariance."""

    coefficients: np.ndarray
    influence: np.ndarray


def logistic_fit(design: np.ndarray, target: np.ndarray, offset: np.ndarray | float = 0.0) -> LogisticFit:
    """Maximum likelihood of a logistic regression, unpenalised, by Newton's method.

    design: float64 (image, column); target: 0 or 1 (image,). Raises ValueError if it does not converge, as where a
    column separates the classes.
    """
    coefficients = np.zeros(design.shape[1])

    def likelihood(at: np.ndarray) -> float:
        linear = offset + design @ at
        return float((target * linear - np.logaddexp(0, linear)).sum())

    now = likelihood(coefficients)
    for _ in range(100):
        probability = expit(offset + design @ coefficients)
        information = (design * (probability * (1 - probability))[:, None]).T @ design
        residual = design * (target - probability)[:, None]  # (image, column)
        try:
            step = np.linalg.solve(information, residual.sum(axis=0))
        except np.linalg.LinAlgError:
            break
        # The likelihood is concave: a shorter step always gains, up to rounding.
        while (after := likelihood(coefficients + step)) < now - 1e-9 * abs(now) and np.abs(step).max() > 1e-12:
            step /= 2
        coefficients, now = coefficients + step, after
        if np.abs(step).max() < 1e-9 * max(1.0, np.abs(coefficients).max()):
            return LogisticFit(coefficients, np.linalg.solve(information, residual.T).T)
    raise ValueError("the logistic regression did not converge; a column may separate the classes")


def separated(logit: np.ndarray, target: np.ndarray) -> bool:
    """Whether some threshold parts the classes (ties with it allowed), so that no finite slope fits best. A constant
    logit does too."""
    positive, negative = logit[target > 0], logit[target == 0]
    return bool(negative.max() <= positive.min() or positive.max() <= negative.min())


def slope_fit(logit: np.ndarray, target: np.ndarray) -> LogisticFit:
    """Intercept and slope of the outcome on the logit, Platt's scaling (Platt 1999) without his smoothed targets.

    Raises ValueError if the classes are separated.
    """
    if separated(logit, target):
        raise ValueError(SEPARATED)
    return logistic_fit(np.stack([np.ones_like(logit), logit], axis=1), target)


def intercept_fit(logit: np.ndarray, target: np.ndarray) -> LogisticFit:
    """Intercept of the outcome with the logit's slope held at 1. Both classes must be there."""
    return logistic_fit(np.ones((len(logit), 1)), target, logit)


def equal_mass_bins(probability: np.ndarray, bins: int) -> np.ndarray:
    """The bin, from 0, of each image: bins hold equally many, up to one; equal probabilities share a bin."""
    return ((rankdata(probability) - 0.5) * bins / len(probability)).astype(np.int64)


def calibration_error(probability: np.ndarray, target: np.ndarray, bins: int) -> float:
    """Expected calibration error over equal-mass bins: the mean over images of |share of positives - mean probability|
    of their bin (Naeini et al. 2015 with the adaptive bins of Nguyen and O'Connor 2015).

    Never negative, so noise alone raises it: read it beside `chance_calibration_error`.
    """
    gap = np.bincount(equal_mass_bins(probability, bins), weights=target - probability, minlength=bins)
    return float(np.abs(gap).sum() / len(target))


def chance_calibration_error(probability: np.ndarray, target: np.ndarray, patient: np.ndarray, bins: int) -> float:
    """The calibration error that sampling alone would give if every bin were calibrated.

    The gap of a bin is a sum over patients, nearly normal; the mean of |N(0, v)| is sqrt(2 v / pi). Its variance v is
    the sum over patients of their squared parts, each about the bin's mean.
    """
    bin_ = equal_mass_bins(probability, bins)
    residual = target - probability
    size = np.maximum(np.bincount(bin_, minlength=bins), 1)
    residual = residual - (np.bincount(bin_, weights=residual, minlength=bins) / size)[bin_]
    cell, number = np.unique(patient * np.int64(bins) + bin_, return_inverse=True)
    of_patient = np.bincount(number, weights=residual)  # (patient and bin,)
    variance = np.bincount(cell % bins, weights=of_patient**2, minlength=bins)
    return float(np.sqrt(2 * variance / np.pi).sum() / len(target))
