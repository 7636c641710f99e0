"""Ensembles within a fold and seed: per model over its resolutions, and over all (model, resolution) pairs.

Everything is fitted on the combine split and scored on test; the best single learner is chosen on validation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cxrscale.combine.methods import BEST_SINGLE, METHODS, PRIMARY, Evidence, Fitted, Role, fit_all, named
from cxrscale.combine.scale_weights import scale_weight_rows
from cxrscale.combine.settings import StackingSettings
from cxrscale.common.rows import ALL_LEARNERS, MEAN
from cxrscale.common.scope import scope_of
from cxrscale.evaluate.auroc import reason_undefined, weighted_auroc
from cxrscale.evaluate.averaging import (
    FoldAuroc,
    difference_intervals,
    joined,
    level_intervals,
    mean_component,
    means_over,
    pooled,
)
from cxrscale.evaluate.bootstrap import interval, replicate
from cxrscale.evaluate.clustered import Components, counted_components
from cxrscale.evaluate.predictions import Scores, read_scores
from cxrscale.evaluate.verdicts import NO_VARIANCE, holm, p_different, reason_without

NO_VALUE = "AUROC is undefined in every fold"

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


@dataclass(frozen=True)
class Scored:
    """AUROCs on test of the ensembles of one fold, seed and finding, in the order of METHODS. drawn: float64 (method,
    replicate), the patient bootstrap; NaN where exploratory."""

    parts: Components
    drawn: np.ndarray


@dataclass
class Stacked:
    """scale_weights, coefficients, stacked: rows of the tables. scored: ensemble -> fold -> seed -> finding -> its
    AUROCs, findings without a value left out; findings: all; sizes: ensemble -> number of learners."""

    scale_weights: list[dict[str, object]] = field(default_factory=list)
    coefficients: list[dict[str, object]] = field(default_factory=list)
    stacked: list[dict[str, object]] = field(default_factory=list)
    scored: dict[str, dict[int, dict[int, dict[str, Scored]]]] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)
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
    at, seed = scores.members(learners), learners[0][2]
    where: dict[str, object] = {"ensemble": ensemble, "fold": scores.fold, "seed": seed}
    result.findings = list(scores.test.findings)
    found: dict[str, Scored] = {}
    result.scored.setdefault(ensemble, {}).setdefault(scores.fold, {})[seed] = found
    losses: list[np.ndarray] = []
    for k, finding in enumerate(scores.test.findings):
        who = where | {"finding": finding}
        fitted = fit_all(scores.evidence(learners, k, settings.tolerance))
        result.scale_weights += scale_weight_rows(who, learners, fitted, scores.combine.patient, settings)
        result.coefficients += _coefficient_rows(who, learners, fitted)
        reason = scores.reason(k)
        rows = [who | {"method": m, "learner": _picked(fitted, m, learners), "reason": reason} for m in METHODS]
        result.stacked += rows
        if reason is not None:
            continue
        target = scores.test.target[:, k]
        odds = fitted.log_odds(scores.test.logits[at, :, k])  # (method, image)
        found[finding] = _scored(odds, target, scores, settings)
        losses.append(_log_loss(odds, target))
        _fill(rows, found[finding].parts, losses[-1], settings.confidence)
    rows = [where | {"finding": MEAN, "method": m, "reason": None if found else NO_VALUE} for m in METHODS]
    result.stacked += rows
    if found:
        parts = mean_component([one.parts for one in found.values()])
        _fill(rows, parts, np.mean(losses, axis=0), settings.confidence)


def _picked(fitted: Fitted, method: str, learners: Sequence[LearnerKey]) -> str | None:
    """The learner that a method picks; None if it combines them."""
    if METHODS[method].combines:
        return None
    model, px, _ = learners[int(np.argmax(fitted.combiners[method].scale_weight))]
    return f"{model}-{px}"


def _scored(odds: np.ndarray, target: np.ndarray, scores: FoldScores, settings: StackingSettings) -> Scored:
    """odds: (method, image), as METHODS. Exploratory methods are not bootstrapped."""
    patient = scores.test.patient
    drawn = np.full((len(odds), settings.replicates), np.nan)
    chosen = [i for i, method in enumerate(METHODS.values()) if method.role is not Role.EXPLORATORY]
    # One seed a fold, as in the comparison: all findings and ensembles see the same patients in the same replicate.
    drawn[chosen] = replicate(
        weighted_auroc, odds[chosen], target, patient, settings.replicates, settings.seed + scores.fold
    )
    return Scored(counted_components(odds, target, patient, int(patient.max()) + 1), drawn)


def _one_of_each() -> dict[str, np.ndarray]:
    """method -> the contrast that is its AUROC alone."""
    return dict(zip(METHODS, np.eye(len(METHODS)), strict=True))


def _log_loss(odds: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Mean over the images that count, (method,)."""
    counted = ~np.isnan(target)
    sign = np.where(target[counted] > 0, 1.0, -1.0)
    return np.asarray(np.logaddexp(0, -sign * odds[:, counted]).mean(axis=1))


def _fill(rows: Sequence[dict[str, object]], parts: Components, losses: np.ndarray, confidence: float) -> None:
    """Put values and intervals into the rows of one fold, seed and finding, a row a method."""
    levels = np.eye(len(METHODS))
    means = means_over([FoldAuroc.of(parts, 1)], np.concatenate([levels, levels - _one_of_each()[BEST_SINGLE]]))
    aurocs, gains = means[: len(METHODS)], means[len(METHODS) :]
    lower, upper = level_intervals(aurocs, confidence)
    gain_lower, gain_upper = difference_intervals(gains, confidence)
    for i, row in enumerate(rows):
        row |= {
            "auroc": aurocs[i].value, "lower": lower[i], "upper": upper[i], "log_loss": losses[i],
            "gain": gains[i].value, "gain_lower": gain_lower[i], "gain_upper": gain_upper[i],
            "reason": NO_VARIANCE if np.isnan(lower[i]) else None,
        }  # fmt: skip


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
    """Rows of GAINS: averaged over seeds within a fold, then over folds, with both variances (`averaging`)."""
    rows: list[dict[str, object]] = []
    for ensemble, folds in result.scored.items():
        measured = {fold: _with_seeds(list(seeds.values())) for fold, seeds in folds.items()}
        for finding in [*result.findings, MEAN]:
            usable = [fold for fold, found in measured.items() if finding in found]
            drawn = [
                np.mean([_drawn(found, finding) for found in folds[fold].values()], axis=0) for fold in usable
            ]  # (method, replicate) each
            who = {"ensemble": ensemble, "finding": finding, "n_learners": result.sizes[ensemble]}
            rows += _gains(who, [measured[fold][finding] for fold in usable], drawn, settings)
    correct(rows, ["ensemble", "against"])
    return rows


def _with_seeds(seeds: Sequence[Mapping[str, Scored]]) -> dict[str, FoldAuroc]:
    """What is said of the findings of a fold and of their mean; {} without a finding that has a value."""
    parts = {finding: joined([found[finding].parts for found in seeds]) for finding in seeds[0]}
    return pooled(parts, len(seeds), alike=False) if parts else {}


def _drawn(found: Mapping[str, Scored], finding: str) -> np.ndarray:
    return np.mean([one.drawn for one in found.values()], axis=0) if finding == MEAN else found[finding].drawn


def _gains(
    who: dict[str, object], folds: Sequence[FoldAuroc], drawn: Sequence[np.ndarray], settings: StackingSettings
) -> list[dict[str, object]]:
    """Rows of one ensemble and finding. drawn: of each fold, (method, replicate)."""
    one, bootstrapped = _one_of_each(), named(Role.PRIMARY, Role.REFERENCE)
    pairs = [(m, a) for m in METHODS for a in named(Role.REFERENCE) if m != a]
    # With two seeds the chance of training is unknown: they count as one.
    scope = scope_of(min((len(fold.auroc) if fold.spread.known else 1 for fold in folds), default=0))
    n_pairs = sum(len(fold.auroc) for fold in folds)
    rows = [who | {"method": m, "against": a, "n_pairs": n_pairs, "scope": scope, "reason": NO_VALUE} for m, a in pairs]
    if not folds:
        return rows
    levels = means_over(folds, np.array([one[m] for m, _ in pairs]))
    gains = means_over(folds, np.array([one[m] - one[a] for m, a in pairs]))
    auroc_lower, auroc_upper = level_intervals(levels, settings.confidence)
    lower, upper = difference_intervals(gains, settings.confidence)
    p = p_different(gains)
    for i, (row, (method, against)) in enumerate(zip(rows, pairs, strict=True)):
        row |= {
            "auroc": levels[i].value, "auroc_lower": auroc_lower[i], "auroc_upper": auroc_upper[i],
            "gain": gains[i].value, "lower": lower[i], "upper": upper[i], "p": p[i],
            "reason": NO_VARIANCE if np.isnan(p[i]) else reason_without(gains[i], settings.least_patients),
        }  # fmt: skip
        if method in bootstrapped:
            difference = one[method] - one[against]
            used = np.flatnonzero(difference)  # all others need no replicates
            differences = np.mean([difference[used] @ d[used] for d in drawn], axis=0)
            row["boot_lower"], row["boot_upper"] = interval(differences, settings.confidence)
        row["sd_seeds"] = _spread_over_seeds([fold.auroc @ (one[method] - one[against]) for fold in folds])
    return rows


def correct(rows: Sequence[dict[str, object]], family: Sequence[str]) -> None:
    """Put Holm's p over findings into the rows of the primary method about which something may be said, for each value
    of the family's columns."""
    groups: dict[tuple[object, ...], list[dict[str, object]]] = {}
    for row in rows:
        if row["method"] == PRIMARY and row["finding"] != MEAN and row["reason"] is None:
            groups.setdefault(tuple(row[name] for name in family), []).append(row)
    for members in groups.values():
        adjusted = holm(np.array([row["p"] for row in members], dtype=np.float64))
        for row, value in zip(members, adjusted, strict=True):
            row["p_holm"] = value


def _spread_over_seeds(folds: Sequence[np.ndarray]) -> float:
    """Standard deviation over seeds within a fold, pooled over folds; NaN with one seed each. folds: (seed,) each."""
    several = [np.var(values, ddof=1) for values in folds if len(values) > 1]
    return float(np.sqrt(np.mean(several))) if several else float("nan")
