"""Intervals from a value and its standard error."""

import math

import numpy as np
from scipy.special import expit, logit
from scipy.stats import t

NO_ERROR = "no interval: patients do not differ, or fewer than two count"


def error_interval(
    value: float, error: float, confidence: float, *, within_0_and_1: bool, degrees_of_freedom: float = math.inf
) -> tuple[float, float]:
    """value plus and minus quantiles of Student's t (normal ones at infinite degrees of freedom) of its standard error.

    within_0_and_1: on the logit scale (the error divided by value * (1 - value), the delta method), so that the ends
    stay within 0 and 1 and, near 1, the interval is longer to the left, as the sampling distribution is; Wald's own
    covers too rarely there (docs/evaluation.md). Returns NaN, NaN where the error is 0 or NaN.
    """
    if not error > 0 or (within_0_and_1 and not 0 < value < 1):
        return math.nan, math.nan
    width = t.ppf((1 + confidence) / 2, degrees_of_freedom) * error
    if not within_0_and_1:
        return float(value - width), float(value + width)
    lower, upper = expit(logit(value) + np.array([-1, 1]) * width / (value * (1 - value)))
    return float(lower), float(upper)
