"""Ensembles within a fold and seed: per model over its resolutions, and over all (model, resolution) pairs.

Everything is fitted on the combine split and scored on test; the best single learner is chosen on validation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy.special import expit

from cxrscale.combine.contracts import PRIMARY, SEEDS
from cxrscale.combine.estimates import (
    Estimate,
    TrainingVariance,
    average,
    contrast,
    estimate,
    replicates_of,
    training_variance,
)
from cxrscale.combine.methods import METHODS, Combiner, Fitted, best_single, fit, stand_ins
from cxrscale.combine.settings import StackingSettings
from cxrscale.combine.simplex import MIXTURE, likelihoods, simplex_weights
from cxrscale.common.rows import ALL_LEARNERS, MEAN
from cxrscale.evaluate.auroc import weighted_auroc
from cxrscale.evaluate.bootstrap import interval, patient_weights, replicate
from cxrscale.evaluate.metrics import reason_undefined
from cxrscale.evaluate.predictions import Scores
from cxrscale.evaluate.verdicts import holm

#: Methods in the order of the tables, and those that a gain is counted from.
ALL_METHODS = ("best_single", *METHODS)
AGAINST = ("best_single", "mean")
#: Methods whose gains are bootstrapped too; the others are exploratory.
BOOTSTRAPPED = ("best_single", "mean", PRIMARY)


Key = tuple[str, int, int, int]


@dataclass(frozen=True)
class FoldScores:
    """All learners of a fold: (model, resolution_px, seed) in the order of the logits' first axis, by split."""

    fold: int
    learners: Sequence[tuple[str, int, int]]
    validate: Scores
    combine: Scores
    test: Scores

    def members(self, learners: Sequence[tuple[str, int, int]]) -> list[int]:
        return [self.learners.index(learner) for learner in learners]

    def reason(self, k: int) -> str | None:
        """Why finding k has no AUROC on test, or None."""
        target = self.test.target[:, k]
        return reason_undefined(int((target == 1).sum()), int((target == 0).sum()))


def read_fold(predictions: Mapping[Key, Path], fold: int, combine_split: str) -> FoldScores:
    """predictions: (model, resolution_px, fold, seed) -> file."""
    keys = [key for key in predictions if key[2] == fold]
    paths = [predictions[key] for key in keys]
    validate, combine, test = (Scores(paths, split) for split in ("validate", combine_split, "test"))
    return FoldScores(fold, [(model, px, seed) for model, px, _, seed in keys], validate, combine, test)


@dataclass
class Stacked:
    """weights, coefficients, stacked: rows of the tables. estimates: (ensemble, finding) -> fold -> one of each seed,
    their scores as ALL_METHODS; reasons: why some are missing; sizes: ensemble -> number of learners."""

    weights: list[dict[str, object]] = field(default_factory=list)
    coefficients: list[dict[str, object]] = field(default_factory=list)
    stacked: list[dict[str, object]] = field(default_factory=list)
    estimates: dict[tuple[str, str], dict[int, list[Estimate]]] = field(default_factory=dict)
    reasons: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)


def stack_fold(scores: FoldScores, settings: StackingSettings, result: Stacked) -> None:
    """Add to `result` the ensembles of each seed of a fold."""
    models = list(dict.fromkeys(model for model, _, _ in scores.learners))
    for seed in sorted({seed for _, _, seed in scores.learners}):
        for ensemble in [*models, *([ALL_LEARNERS] if len(models) > 1 else [])]:
            learners = [x for x in scores.learners if x[2] == seed and ensemble in (ALL_LEARNERS, x[0])]
            if learners:
                result.sizes[ensemble] = len(learners)
                _stack_one(ensemble, learners, scores, settings, result)


def _stack_one(
    ensemble: str,
    learners: Sequence[tuple[str, int, int]],
    scores: FoldScores,
    settings: StackingSettings,
    result: Stacked,
) -> None:
    at = scores.members(learners)
    where: dict[str, object] = {"ensemble": ensemble, "fold": scores.fold, "seed": learners[0][2]}
    defined: list[Estimate] = []
    losses: list[np.ndarray] = []
    for k, finding in enumerate(scores.test.findings):
        who = where | {"finding": finding}
        fitted = fit(scores.combine.logits[at, :, k], scores.combine.target[:, k], settings.tolerance)
        result.weights += _weight_rows(who, learners, fitted, scores.combine, at, k, settings)
        result.coefficients += _coefficient_rows(who, learners, fitted)
        best = best_single(scores.validate.logits[at, :, k], scores.validate.target[:, k])
        names = {"best_single": f"{learners[best][0]}-{learners[best][1]}"}
        rows = [who | {"method": m, "learner": names.get(m), "reason": scores.reason(k)} for m in ALL_METHODS]
        result.stacked += rows
        by_fold = result.estimates.setdefault((ensemble, finding), {})
        if (reason := scores.reason(k)) is not None:
            result.reasons.setdefault((ensemble, finding), []).append(reason)
            continue
        target = scores.test.target[:, k]
        single = Combiner(np.eye(len(learners))[best], on_logits=True).log_odds(scores.test.logits[at, :, k])
        odds = np.vstack([single, fitted.log_odds(scores.test.logits[at, :, k])])  # (method, image)
        found = _estimate(odds, target, scores, settings)
        by_fold.setdefault(scores.fold, []).append(found)
        defined.append(found)
        losses.append(_log_loss(odds, target))
        _fill(rows, found, losses[-1], settings.confidence)
    reason = None if defined else "no finding has a value"
    rows = [where | {"finding": MEAN, "method": m, "reason": reason} for m in ALL_METHODS]
    result.stacked += rows
    by_fold = result.estimates.setdefault((ensemble, MEAN), {})
    if defined:
        mean = average(defined)
        by_fold.setdefault(scores.fold, []).append(mean)
        _fill(rows, mean, np.mean(losses, axis=0), settings.confidence)
    else:
        result.reasons.setdefault((ensemble, MEAN), []).append("no finding has a value")


def _estimate(odds: np.ndarray, target: np.ndarray, scores: FoldScores, settings: StackingSettings) -> Estimate:
    patient = scores.test.patient
    drawn = np.full((len(odds), settings.replicates), np.nan)
    chosen = [ALL_METHODS.index(m) for m in BOOTSTRAPPED]
    # One seed a fold, as in the comparison: all findings and ensembles see the same patients in the same replicate.
    drawn[chosen] = replicate(
        weighted_auroc, odds[chosen], target, patient, settings.replicates, settings.seed + scores.fold
    )
    return estimate(odds, target, patient, int(patient.max()) + 1, drawn)


def _log_loss(odds: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Mean over the images that count, (method,)."""
    counted = ~np.isnan(target)
    sign = np.where(target[counted] > 0, 1.0, -1.0)
    return np.asarray(np.logaddexp(0, -sign * odds[:, counted]).mean(axis=1))


def _fill(rows: Sequence[dict[str, object]], found: Estimate, losses: np.ndarray, confidence: float) -> None:
    """Put values and intervals into the rows of one fold, seed and finding, a row a method."""
    one = np.eye(len(rows))
    for i, row in enumerate(rows):
        level, gain = contrast([found], one[i]), contrast([found], one[i] - one[0])
        row |= {"auroc": level.value, "log_loss": losses[i], "gain": gain.value, "reason": level.reason}
        row["lower"], row["upper"] = level.level_interval(confidence)
        row["gain_lower"], row["gain_upper"] = gain.interval(confidence)


def _weight_rows(
    who: dict[str, object],
    learners: Sequence[tuple[str, int, int]],
    fitted: Fitted,
    combine: Scores,
    at: Sequence[int],
    k: int,
    settings: StackingSettings,
) -> list[dict[str, object]]:
    weight = fitted.combiners[PRIMARY].weight
    rows = [
        who | {"model": model, "resolution_px": px, "weight": w, "reason": fitted.reason}
        for (model, px, _), w in zip(learners, weight, strict=True)
    ]
    if fitted.solution is None:
        return rows
    target = combine.target[:, k]
    counted = ~np.isnan(target)
    likelihood = likelihoods(expit(combine.logits[at][:, counted, k].T), target[counted])
    rng = np.random.default_rng([settings.seed, int(str(who["fold"]))])
    draws = patient_weights(combine.patient, settings.scale_weight_replicates, rng)[:, counted]
    draws = draws[draws.sum(axis=1) > 0].astype(np.float64)
    refits = simplex_weights(likelihood, MIXTURE, draws, start=weight, tolerance=settings.tolerance).weight
    patient = combine.patient[counted]
    spare = stand_ins(likelihood, weight, patient, settings.confidence, settings.tolerance)
    names = [f"{model} at {px} px" for model, px, _ in learners]
    for i, row in enumerate(rows):
        row["lower"], row["upper"] = interval(refits[:, i], settings.confidence)
        row["gap"] = fitted.solution.gap[0]
        row["log_loss"], row["slope"], row["intercept"] = fitted.log_loss[i], fitted.slope[i], fitted.offset[i]
        if i in spare:
            row["warning"] = f"{names[spare[i]]} takes its place without a visible loss"
        elif i in spare.values() and weight[i] < min(weight[j] for j in spare if spare[j] == i):
            row["warning"] = f"could take the place of {names[next(j for j in spare if spare[j] == i)]}"
    return rows


def _coefficient_rows(
    who: dict[str, object], learners: Sequence[tuple[str, int, int]], fitted: Fitted
) -> list[dict[str, object]]:
    if fitted.reason is not None:
        return []
    return [
        who | {"method": m, "model": model, "resolution_px": px, "coefficient": w, "intercept": combiner.intercept}
        for m, combiner in fitted.combiners.items()
        if m not in BOOTSTRAPPED
        for (model, px, _), w in zip(learners, combiner.weight, strict=True)
    ]


def gain_rows(result: Stacked, settings: StackingSettings) -> list[dict[str, object]]:
    """Rows of GAINS: gains averaged over seeds within a fold, then over folds."""
    one = dict(zip(ALL_METHODS, np.eye(len(ALL_METHODS)), strict=True))
    rows: list[dict[str, object]] = []
    for (ensemble, finding), by_fold in result.estimates.items():
        folds = [average(seeds) for seeds in by_fold.values()]
        for method in ALL_METHODS:
            for against in AGAINST:
                if method == against:
                    continue
                row: dict[str, object] = {
                    "ensemble": ensemble, "finding": finding, "method": method, "against": against,
                    "n_learners": result.sizes[ensemble], "n_pairs": sum(len(s) for s in by_fold.values()),
                    "reason": "; ".join(dict.fromkeys(result.reasons.get((ensemble, finding), []))) or None,
                }  # fmt: skip
                rows.append(row)
                if not folds:
                    continue
                level, gain = (
                    contrast(folds, c, training_of(list(by_fold.values()), c))
                    for c in (one[method], one[method] - one[against])
                )
                row |= {"auroc": level.value, "gain": gain.value, "p": gain.p, "reason": gain.reason}
                row["auroc_lower"], row["auroc_upper"] = level.level_interval(settings.confidence)
                row["lower"], row["upper"] = gain.interval(settings.confidence)
                if method in BOOTSTRAPPED and against in BOOTSTRAPPED:
                    drawn = replicates_of(folds, one[method] - one[against])
                    row["boot_lower"], row["boot_upper"] = interval(drawn, settings.confidence)
                row["sd_seeds"] = _spread_over_seeds(list(by_fold.values()), one[method] - one[against])
    correct(rows, ["ensemble", "against"])
    return rows


def training_of(folds: Sequence[Sequence[Estimate]], coefficients: np.ndarray) -> list[TrainingVariance]:
    """What the chance of training adds to each fold's mean over seeds; nothing with fewer than SEEDS in some fold."""
    if min(len(seeds) for seeds in folds) < SEEDS:
        return []
    return [
        TrainingVariance(
            training_variance(
                np.array([coefficients @ s.value for s in seeds]),
                np.stack([s.influence @ coefficients for s in seeds], axis=1),
            )
            / len(seeds),
            len(seeds) - 1,
        )
        for seeds in folds
    ]


def correct(rows: Sequence[dict[str, object]], family: Sequence[str]) -> None:
    """Put Holm's p over findings into the rows of the primary method, for each value of the family's columns."""
    groups: dict[tuple[object, ...], list[dict[str, object]]] = {}
    for row in rows:
        if row["method"] == PRIMARY and row["finding"] != MEAN:
            groups.setdefault(tuple(row[name] for name in family), []).append(row)
    for members in groups.values():
        adjusted = holm(np.array([row.get("p", np.nan) for row in members], dtype=np.float64))
        for row, value in zip(members, adjusted, strict=True):
            row["p_holm"] = value


def _spread_over_seeds(folds: Sequence[Sequence[Estimate]], coefficients: np.ndarray) -> float:
    """Standard deviation over seeds within a fold, pooled over folds; NaN with one seed each."""
    several = [np.var([coefficients @ s.value for s in seeds], ddof=1) for seeds in folds if len(seeds) > 1]
    return float(np.sqrt(np.mean(several))) if several else float("nan")
