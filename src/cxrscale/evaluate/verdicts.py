"""From estimates to words: tests, their correction, and what a reader may say about a resolution.

Two kinds of statement, each with its own error:

- A difference ("worse than the reference", "better below it"): p from t, corrected after Holm (1979) over all
  resolutions, findings and models held against the reference, and at least the margin in size as estimated, since a
  difference that is smaller matters to nobody. The chance of one false statement in a whole study without differences
  is at most 1 - confidence.
- Equivalence and non-inferiority: the interval as shown lies within the margin (two one-sided tests, Schuirmann 1987,
  doi:10.1007/BF01068419). The chance of one such statement being false is at most 1 - confidence, and half of that
  where errors are normal; the other half is in reserve for findings that are rare and easy, whose errors are skewed.
  It belongs to each statement by itself, since a reader asks about a finding: it is not corrected over the study.
"""

from collections.abc import Sequence

import numpy as np
from scipy import special

from cxrscale.evaluate.averaging import Mean
from cxrscale.evaluate.contracts import (
    BETTER_ABOVE,
    BETTER_BELOW,
    EQUIVALENT,
    NEEDS,
    UNDECIDED,
    WORSE_ABOVE,
)

NO_VARIANCE = "fewer than two patients of a class, or none whose images rank otherwise: no interval"


def reason_without(mean: Mean, least_patients: int) -> str | None:
    """Why nothing is said of a difference, although it has an interval and p: too few patients of a class; or None."""
    fewest, what = min((mean.n_positive, "with"), (mean.n_negative, "without"))
    if fewest < least_patients:
        return f"{fewest} patients {what} the finding, fewer than {least_patients}: no verdict"
    return None


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's step-down correction. p: float (test,), NaN where there was no test, which then is none of the family."""
    p = np.asarray(p, dtype=np.float64)
    adjusted = np.full(p.shape, np.nan)
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    steps = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * steps), 1.0)
    return adjusted


def p_different(means: Sequence[Mean]) -> np.ndarray:
    """Two-sided p of no difference, float64 (mean,). Without any spread: 1 if there is no difference, else NaN."""
    return 2 * _tail(means, -np.abs([m.value for m in means]))


def p_equivalent(means: Sequence[Mean], margin: float) -> np.ndarray:
    """The larger p of two one-sided tests, of a difference of minus and of plus the margin, float64 (mean,)."""
    return _tail(means, np.abs([m.value for m in means]) - margin)


def _tail(means: Sequence[Mean], distance: np.ndarray) -> np.ndarray:
    """P(T <= distance / standard error)."""
    se, df = np.array([m.se for m in means]), np.array([m.df for m in means])
    with np.errstate(invalid="ignore", divide="ignore"):
        t = distance / se
    p = np.where(np.isnan(t), np.where(se == 0, 0.5, np.nan), special.stdtr(np.clip(df, 1.0, None), t))
    # No spread and yet a difference: patients are too few to show any, which is no evidence.
    flat = (se == 0) & (np.array([m.value for m in means]) != 0)
    return np.where(flat, np.nan, p)


def verdict(
    difference: float, lower: float, upper: float, p_holm: float, margin: float, confidence: float, below: bool = True
) -> str:
    """What may be said of a resolution held against the reference.

    difference: its AUROC minus the reference's, with its interval and corrected p. below: it is smaller than the
    reference. The words exclude each other: an interval within the margin holds its estimate.
    """
    if lower > -margin and upper < margin:
        return EQUIVALENT
    if p_holm <= 1 - confidence and difference <= -margin:
        return NEEDS if below else WORSE_ABOVE
    if p_holm <= 1 - confidence and difference >= margin:
        return BETTER_BELOW if below else BETTER_ABOVE
    return UNDECIDED


def smallest_sufficient(lower: dict[int, float], reference_px: int, margin: float) -> tuple[int, list[int]]:
    """The smallest resolution not inferior to the reference, going down from it and stopping at the first that is not
    shown to be so. lower: resolution_px -> lower end of its difference from the reference, for those below it.

    Going down in a fixed order tests each at the full level and yet bounds the error of the answer (fixed sequence;
    Maurer et al. 1995). Returns it, and those further down that by themselves would be enough.
    """
    found, beyond, open_ = reference_px, [], True
    for resolution in sorted((r for r in lower if r < reference_px), reverse=True):
        enough = lower[resolution] > -margin
        open_ = open_ and enough
        if open_:
            found = resolution
        elif enough:
            beyond.append(resolution)
    return found, sorted(beyond)
