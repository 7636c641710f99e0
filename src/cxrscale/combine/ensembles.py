"""Ensembles within a fold and seed: per model over its resolutions, and over all (model, resolution) pairs.

Everything is fitted on the combine split and scored on test; the best single learner is chosen on validation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cxrscale.combine.contracts import SEEDS
from cxrscale.combine.estimates import (
    Estimate,
    TrainingVariance,
    average,
    contrast,
    estimate,
    replicates_of,
    training_variance,
)
from cxrscale.combine.methods import BEST_SINGLE, METHODS, PRIMARY, Evidence, Fitted, Role, fit_all, named
from cxrscale.combine.scale_weights import scale_weight_rows
from cxrscale.combine.settings import StackingSettings
from cxrscale.common.rows import ALL_LEARNERS, MEAN
from cxrscale.evaluate.auroc import reason_undefined, weighted_auroc
from cxrscale.evaluate.bootstrap import interval, replicate
from cxrscale.evaluate.predictions import Scores, read_scores
from cxrscale.evaluate.verdicts import holm

#: model, resolution_px, seed: a learner of a fold.
LearnerKey = tuple[str, int, int]
#: model, resolution_px, fold, seed.
Key = tuple[str, int, int, int]


@dataclass(frozen=True)
class FoldScores:
    """All learners of a fold: (model, resolution_px, seed) in the order of the logits' first axis, by split."""

    fold: int
    learners: Sequence[LearnerKey]
    validate: Scores
    combine: Scores
    test: Scores

    def members(self, learners: Sequence[LearnerKey]) -> list[int]:
        return [self.learners.index(learner) for learner in learners]

    def evidence(self, learners: Sequence[LearnerKey], k: int, tolerance: float) -> Evidence:
        """What an ensemble of these learners is fitted on for finding k."""
        at, validate, combine = self.members(learners), self.validate, self.combine
        return Evidence(
            combine.logits[at, :, k],
            combine.target[:, k],
            validate.logits[at, :, k],
            validate.target[:, k],
            tolerance,
        )

    def reason(self, k: int) -> str | None:
        """Why finding k has no AUROC on test, or None."""
        target = self.test.target[:, k]
        return reason_undefined(int((target == 1).sum()), int((target == 0).sum()))


def read_fold(predictions: Mapping[Key, Path], fold: int, combine_split: str) -> FoldScores:
    """predictions: (model, resolution_px, fold, seed) -> file."""
    keys = [key for key in predictions if key[2] == fold]
    paths = [predictions[key] for key in keys]
    scores = read_scores(paths, ("validate", combine_split, "test"))
    learners = [(model, px, seed) for model, px, _, seed in keys]
    return FoldScores(fold, learners, scores["validate"], scores[combine_split], scores["test"])


@dataclass
class Stacked:
    """scale_weights, coefficients, stacked: rows of the tables. estimates: (ensemble, finding) -> fold -> one of each
    seed, their scores as METHODS; reasons: why some are missing; sizes: ensemble -> number of learners."""

    scale_weights: list[dict[str, object]] = field(default_factory=list)
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
    learners: Sequence[LearnerKey],
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
        fitted = fit_all(scores.evidence(learners, k, settings.tolerance))
        result.scale_weights += scale_weight_rows(who, learners, fitted, scores.combine.patient, settings)
        result.coefficients += _coefficient_rows(who, learners, fitted)
        reason = scores.reason(k)
        rows = [who | {"method": m, "learner": _picked(fitted, m, learners), "reason": reason} for m in METHODS]
        result.stacked += rows
        by_fold = result.estimates.setdefault((ensemble, finding), {})
        if reason is not None:
            result.reasons.setdefault((ensemble, finding), []).append(reason)
            continue
        target = scores.test.target[:, k]
        odds = fitted.log_odds(scores.test.logits[at, :, k])  # (method, image)
        found = _estimate(odds, target, scores, settings)
        by_fold.setdefault(scores.fold, []).append(found)
        defined.append(found)
        losses.append(_log_loss(odds, target))
        _fill(rows, found, losses[-1], settings.confidence)
    reason = None if defined else "no finding has a value"
    rows = [where | {"finding": MEAN, "method": m, "reason": reason} for m in METHODS]
    result.stacked += rows
    by_fold = result.estimates.setdefault((ensemble, MEAN), {})
    if defined:
        mean = average(defined)
        by_fold.setdefault(scores.fold, []).append(mean)
        _fill(rows, mean, np.mean(losses, axis=0), settings.confidence)
    else:
        result.reasons.setdefault((ensemble, MEAN), []).append("no finding has a value")


def _picked(fitted: Fitted, method: str, learners: Sequence[LearnerKey]) -> str | None:
    """The learner that a method picks; None if it combines them."""
    if METHODS[method].combines:
        return None
    model, px, _ = learners[int(np.argmax(fitted.combiners[method].scale_weight))]
    return f"{model}-{px}"


def _estimate(odds: np.ndarray, target: np.ndarray, scores: FoldScores, settings: StackingSettings) -> Estimate:
    """odds: (method, image), as METHODS. Exploratory methods are not bootstrapped."""
    patient = scores.test.patient
    drawn = np.full((len(odds), settings.replicates), np.nan)
    chosen = [i for i, method in enumerate(METHODS.values()) if method.role is not Role.EXPLORATORY]
    # One seed a fold, as in the comparison: all findings and ensembles see the same patients in the same replicate.
    drawn[chosen] = replicate(
        weighted_auroc, odds[chosen], target, patient, settings.replicates, settings.seed + scores.fold
    )
    return estimate(odds, target, patient, int(patient.max()) + 1, drawn)


def _one_of_each() -> dict[str, np.ndarray]:
    """method -> the coefficients of a `contrast` that is its AUROC alone."""
    return dict(zip(METHODS, np.eye(len(METHODS)), strict=True))


def _log_loss(odds: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Mean over the images that count, (method,)."""
    counted = ~np.isnan(target)
    sign = np.where(target[counted] > 0, 1.0, -1.0)
    return np.asarray(np.logaddexp(0, -sign * odds[:, counted]).mean(axis=1))


def _fill(rows: Sequence[dict[str, object]], found: Estimate, losses: np.ndarray, confidence: float) -> None:
    """Put values and intervals into the rows of one fold, seed and finding, a row a method."""
    one = _one_of_each()
    for row, loss in zip(rows, losses, strict=True):
        own = one[str(row["method"])]
        level, gain = contrast([found], own), contrast([found], own - one[BEST_SINGLE])
        row |= {"auroc": level.value, "log_loss": loss, "gain": gain.value, "reason": level.reason}
        row["lower"], row["upper"] = level.level_interval(confidence)
        row["gain_lower"], row["gain_upper"] = gain.interval(confidence)


def _coefficient_rows(
    who: dict[str, object], learners: Sequence[LearnerKey], fitted: Fitted
) -> list[dict[str, object]]:
    if fitted.evidence.reason is not None:
        return []
    return [
        who | {"method": m, "model": model, "resolution_px": px, "coefficient": w, "intercept": combiner.intercept}
        for m, combiner in fitted.combiners.items()
        if METHODS[m].role is Role.EXPLORATORY
        for (model, px, _), w in zip(learners, combiner.scale_weight, strict=True)
    ]


def gain_rows(result: Stacked, settings: StackingSettings) -> list[dict[str, object]]:
    """Rows of GAINS: gains averaged over seeds within a fold, then over folds."""
    one = _one_of_each()
    bootstrapped = named(Role.PRIMARY, Role.REFERENCE)
    rows: list[dict[str, object]] = []
    for (ensemble, finding), by_fold in result.estimates.items():
        folds = [average(seeds) for seeds in by_fold.values()]
        for method in METHODS:
            for against in named(Role.REFERENCE):
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
                if method in bootstrapped:
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
