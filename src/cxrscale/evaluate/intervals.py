"""Intervals from a value and its standard error: the only place where an end of one is computed from these."""

import math

import numpy as np
from scipy import special
from scipy.special import expit, logit

NO_ERROR = "no interval: patients do not differ, or fewer than two count"


def intervals_of(
    value: np.ndarray | float,
    error: np.ndarray | float,
    degrees_of_freedom: np.ndarray | float,
    confidence: float,
    *,
    within_0_and_1: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Values plus and minus quantiles of Student's t (normal ones at infinite degrees of freedom) of their errors.

    value, error, degrees_of_freedom: float, of one shape; fewer than one degree of freedom counts as one.
    within_0_and_1: of a level, as an AUROC is, on the logit scale (the error divided by value * (1 - value), the delta
    method), so that the ends stay within 0 and 1 and, near 1, the interval is longer to the left, as the sampling
    distribution is; Wald's own covers too rarely there (docs/evaluation.md). At exactly 0 or 1 patients say nothing
    about the error, and there is none here. Otherwise of a difference.
    Returns lower and upper ends; NaN where the error is NaN or, of a level, 0.
    """
    value, error = np.asarray(value, dtype=np.float64), np.asarray(error, dtype=np.float64)
    # Below 1 a quantile is beyond use; infinity is the normal distribution's.
    df = np.clip(degrees_of_freedom, 1.0, 1e9)
    width = special.stdtrit(df, (1 + confidence) / 2) * error
    if not within_0_and_1:
        return value - width, value + width
    known = (error > 0) & (value > 0) & (value < 1)
    middle = np.where(known, value, 0.5)
    half = np.where(known, width / (middle * (1 - middle)), np.nan)
    return expit(logit(middle) - half), expit(logit(middle) + half)


def error_interval(
    value: float, error: float, confidence: float, *, within_0_and_1: bool, degrees_of_freedom: float = math.inf
) -> tuple[float, float]:
    """`intervals_of` of one value; NaN, NaN where the error is 0 or NaN."""
    if not error > 0:
        return math.nan, math.nan
    lower, upper = intervals_of(value, error, degrees_of_freedom, confidence, within_0_and_1=within_0_and_1)
    return float(lower), float(upper)
