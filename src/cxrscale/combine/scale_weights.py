"""The scale weights of the declared method: their intervals, and which of them say little."""

from collections.abc import Sequence

import numpy as np
from scipy.special import expit
from scipy.stats import norm

from cxrscale.combine.methods import PRIMARY, Fitted
from cxrscale.combine.settings import StackingSettings
from cxrscale.combine.simplex import MIXTURE, likelihoods, simplex_weights
from cxrscale.evaluate.bootstrap import interval, patient_weights

#: A scale weight below this is none, for the question whether it means anything.
COUNTS = 0.01


def scale_weight_rows(
    who: dict[str, object],
    learners: Sequence[tuple[str, int, int]],
    fitted: Fitted,
    patient: np.ndarray,
    settings: StackingSettings,
) -> list[dict[str, object]]:
    """Rows of SCALE_WEIGHTS for one finding.

    who: the columns that say which ensemble. learners: (model, resolution_px, seed), as in `fitted`. patient: int
    (image,), of all images of combine.
    """
    evidence, combiner = fitted.evidence, fitted.combiners[PRIMARY]
    weight = combiner.scale_weight
    rows = [
        who | {"model": model, "resolution_px": px, "weight": w, "reason": evidence.reason}
        for (model, px, _), w in zip(learners, weight, strict=True)
    ]
    if evidence.reason is not None:
        return rows
    likelihood = likelihoods(expit(evidence.rows), evidence.outcome)
    rng = np.random.default_rng([settings.seed, int(str(who["fold"]))])
    draws = patient_weights(patient, settings.scale_weight_replicates, rng)[:, evidence.counted]
    draws = draws[draws.sum(axis=1) > 0].astype(np.float64)
    refits = simplex_weights(likelihood, MIXTURE, draws, start=weight, tolerance=settings.tolerance).weight
    spare = stand_ins(likelihood, weight, patient[evidence.counted], settings.confidence, settings.tolerance)
    names = [f"{model} at {px} px" for model, px, _ in learners]
    slope, offset = evidence.calibration
    for i, row in enumerate(rows):
        row["lower"], row["upper"] = interval(refits[:, i], settings.confidence)
        row["gap"] = combiner.gap
        row["log_loss"], row["slope"], row["intercept"] = evidence.log_loss[i], slope[i], offset[i]
        if i in spare:
            row["warning"] = f"{names[spare[i]]} takes its place without a visible loss"
        elif i in spare.values() and weight[i] < min(weight[j] for j in spare if spare[j] == i):
            row["warning"] = f"could take the place of {names[next(j for j in spare if spare[j] == i)]}"
    return rows


def stand_ins(
    likelihood: np.ndarray, weight: np.ndarray, patient: np.ndarray, confidence: float, tolerance: float = 1e-8
) -> dict[int, int]:
    """Learners whose scale weight says little: each can be left out and another takes its place at no visible loss.

    A learner with a scale weight that counts is left out and the others are refitted. With d_p the log loss that this
    adds over patient p's images, and s the standard error of their sum, sum(d_p) / s is half the z value of the score
    test of "its scale weight is 0" while the loss is small, whatever the dependence within a patient; so the learner
    can be left out unless 2 sum(d_p) / s passes the one-sided normal quantile of `confidence` (docs/stacking.md).

    likelihood: (image, learner), see `simplex.likelihoods`; weight: (learner,), the optimum; patient: int (image,).
    Returns learner -> the one whose scale weight rises most.
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
