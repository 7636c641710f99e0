"""The effect of resolution: learners of one model that differ in nothing else, compared within a fold, on patients.

Folds are never pooled: AUROCs are computed within a fold and seed and then averaged, with both sources of variance
(`averaging`). Learners of a fold rank the same patients, so that differences are paired. What is said of them is
decided in `verdicts`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cxrscale.common.rows import MEAN
from cxrscale.common.scope import scope_of
from cxrscale.common.tables import Table
from cxrscale.evaluate import verdicts
from cxrscale.evaluate.auroc import reason_undefined, weighted_auroc
from cxrscale.evaluate.averaging import FoldAuroc, Mean, difference_intervals, level_intervals, means_over, pooled
from cxrscale.evaluate.bootstrap import interval, joint_intervals, replicate
from cxrscale.evaluate.clustered import Components, counted_components
from cxrscale.evaluate.contracts import AUROC, AVERAGES, CONFIRMATORY, DIFFERENCES, EXPLORATORY, SUFFICIENT
from cxrscale.evaluate.predictions import read_scores
from cxrscale.evaluate.settings import ComparisonSettings

NOWHERE = "AUROC is undefined in every fold"


@dataclass(frozen=True)
class ModelScores:
    """What a model's learners say of the test images of a fold.

    logits: float (learner, image, finding), learners in the order seed, then resolution. target: float (image,
    finding), 0 or 1, NaN where ignored. patient: int (image,), numbered from 0.
    """

    model: str
    fold: int
    seeds: Sequence[int]
    resolutions_px: Sequence[int]
    findings: Sequence[str]
    logits: np.ndarray
    target: np.ndarray
    patient: np.ndarray


@dataclass(frozen=True)
class Comparison:
    """The tables AUROC, AVERAGES, DIFFERENCES and SUFFICIENT."""

    levels: pd.DataFrame
    averages: pd.DataFrame
    differences: pd.DataFrame
    sufficient: pd.DataFrame


@dataclass(frozen=True)
class _Measured:
    """A finding in a fold. boot: (seed, resolution, replicate), NaN replicates where there is no bootstrap."""

    fold: FoldAuroc
    boot: np.ndarray


Row = dict[str, Any]


def compare(predictions: Mapping[tuple[str, int, int, int], Path], settings: ComparisonSettings) -> Comparison:
    """Compare the resolutions of each model on test. predictions: (model, resolution_px, fold, seed) -> file."""

    def read() -> Iterable[ModelScores]:
        for model, fold in dict.fromkeys((key[0], key[2]) for key in predictions):
            mine = [key for key in predictions if (key[0], key[2]) == (model, fold)]
            seeds, resolutions = sorted({key[3] for key in mine}), sorted({key[1] for key in mine})
            paths = [predictions[model, r, fold, s] for s in seeds for r in resolutions]
            test = read_scores(paths, ["test"], settings.native_at_least_px)["test"]
            yield ModelScores(model, fold, seeds, resolutions, test.findings, test.logits, test.target, test.patient)

    return compare_scores(read(), settings)


def compare_scores(folds: Iterable[ModelScores], settings: ComparisonSettings) -> Comparison:
    """The comparison of what learners say; `compare` without files. All folds of a model have its resolutions."""
    levels: list[Row] = []
    measured: dict[str, dict[str, list[_Measured | None]]] = {}  # model -> finding -> folds
    resolutions: dict[str, Sequence[int]] = {}
    for fold in folds:
        resolutions[fold.model] = fold.resolutions_px
        rows, found = _measure(fold, settings)
        levels += rows
        for finding, value in found.items():
            measured.setdefault(fold.model, {}).setdefault(finding, []).append(value)
    averages: list[Row] = []
    differences: list[Row] = []
    for model, findings in measured.items():
        for finding, folds_ in findings.items():
            usable = [m for m in folds_ if m is not None]
            averages += _averages(model, finding, resolutions[model], usable, settings)
            differences += _differences(model, finding, resolutions[model], usable, settings)
    _judge(differences, settings)
    sufficient = [
        _sufficient(model, finding, averages, differences, settings)
        for model in measured
        for finding in measured[model]
    ]
    return Comparison(
        _frame(AUROC, levels),
        _frame(AVERAGES, averages),
        _frame(DIFFERENCES, differences),
        _frame(SUFFICIENT, sufficient),
    )


def _frame(table: Table, rows: Sequence[Row]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=[c.name for c in table.columns])


def _measure(fold: ModelScores, settings: ComparisonSettings) -> tuple[list[Row], dict[str, _Measured | None]]:
    """Rows of AUROC, and finding -> what was measured, None where AUROC is undefined."""
    found: dict[str, _Measured | None] = {}
    rows: list[Row] = []
    shape = (len(fold.seeds), len(fold.resolutions_px))
    n_patients = int(fold.patient.max()) + 1 if len(fold.patient) else 0

    def add(finding: str, value: _Measured | None, n_positive: int, n_negative: int, reason: str | None) -> None:
        found[finding] = value
        for s, seed in enumerate(fold.seeds):
            for resolution in fold.resolutions_px:
                row: Row = {
                    "model": fold.model, "finding": finding, "fold": fold.fold, "seed": seed,
                    "resolution_px": resolution, "n_positive": n_positive, "n_negative": n_negative, "reason": reason,
                }  # fmt: skip
                rows.append(row)
            if value is not None:
                _describe_levels(rows[-shape[1] :], value, s, settings)

    boots: dict[str, np.ndarray] = {}
    parts: dict[str, Components] = {}
    counts: dict[str, tuple[int, int]] = {}
    for k, finding in enumerate(fold.findings):
        target = fold.target[:, k]
        counts[finding] = int((target == 1).sum()), int((target == 0).sum())
        if reason_undefined(*counts[finding]) is not None:
            continue
        logits = fold.logits[:, :, k]
        parts[finding] = counted_components(logits, target, fold.patient, n_patients)
        boots[finding] = np.full((*shape, 1), np.nan)
        if settings.replicates:
            # One seed a fold: all models, seeds and findings see the same patients in the same replicate.
            boot = replicate(
                weighted_auroc, logits, target, fold.patient, settings.replicates, settings.seed + fold.fold
            )
            boots[finding] = boot.reshape(*shape, -1)
    if parts:
        positive = (fold.target == 1).any(axis=1)
        counts[MEAN] = int(positive.sum()), int((~positive).sum())
        # A replicate that lacks a class of one finding lacks the mean.
        boots[MEAN] = np.mean(list(boots.values()), axis=0)
    aurocs = pooled(parts, len(fold.seeds)) if parts else {}
    for finding, (n_positive, n_negative) in counts.items():
        value = _Measured(aurocs[finding], boots[finding]) if finding in aurocs else None
        add(finding, value, n_positive, n_negative, None if value else reason_undefined(n_positive, n_negative))
    return rows, found


def _describe_levels(rows: Sequence[Row], measured: _Measured, seed: int, settings: ComparisonSettings) -> None:
    """Fill in value and intervals of the learners of one seed, a row a resolution."""
    one = measured.fold.of_seed(seed)
    means = means_over([one], np.eye(len(rows)))
    boot = measured.boot[seed]
    joint = (np.full(len(rows), np.nan),) * 2
    if settings.replicates:
        joint = joint_intervals(one.auroc[0], boot, settings.joint_confidence)
    _put_levels(rows, means, boot, settings.confidence)
    for r, row in enumerate(rows):
        row["joint_lower"], row["joint_upper"] = joint[0][r], joint[1][r]


def _put_levels(rows: Sequence[Row], means: Sequence[Mean], boot: np.ndarray, confidence: float) -> None:
    """Fill in AUROCs and their intervals, a row a resolution. boot: (resolution, replicate)."""
    for r, (row, mean, lower, upper) in enumerate(zip(rows, means, *level_intervals(means, confidence), strict=True)):
        row |= {"value": mean.value, "lower": lower, "upper": upper}
        row["boot_lower"], row["boot_upper"] = interval(boot[r], confidence)
        if np.isnan(lower):
            row["reason"] = verdicts.NO_VARIANCE


def _over(usable: Sequence[_Measured]) -> Row:
    seeds = min((m.fold.auroc.shape[0] for m in usable), default=0)
    return {"n_folds": len(usable), "n_seeds": seeds, "scope": scope_of(seeds)}


def _described(mean: Mean) -> Row:
    return {
        "se_patients": mean.se_patients,
        "se_seeds": mean.se_seeds,
        "df": mean.df if np.isfinite(mean.df) else np.nan,
    }


def _averages(
    model: str, finding: str, resolutions: Sequence[int], usable: Sequence[_Measured], settings: ComparisonSettings
) -> list[Row]:
    rows: list[Row] = [{"model": model, "finding": finding, "resolution_px": r} | _over(usable) for r in resolutions]
    if not usable:
        return [row | {"reason": NOWHERE} for row in rows]
    means = means_over([m.fold for m in usable], np.eye(len(resolutions)))
    boot = np.mean([m.boot.mean(axis=0) for m in usable], axis=0)  # (resolution, replicate)
    for row, mean in zip(rows, means, strict=True):
        row |= _described(mean)
    _put_levels(rows, means, boot, settings.confidence)
    return rows


def _differences(
    model: str, finding: str, resolutions: Sequence[int], usable: Sequence[_Measured], settings: ComparisonSettings
) -> list[Row]:
    """All pairs, without what needs the whole family."""
    if not usable or len(resolutions) < 2:
        return []
    reference = settings.reference_px
    pairs = [(r, reference) for r in resolutions if r != reference]
    pairs += [(a, b) for a, b in combinations(sorted(resolutions), 2) if reference not in (a, b)]
    at = dict(zip(resolutions, np.eye(len(resolutions)), strict=True))
    means = means_over([m.fold for m in usable], np.array([at[a] - at[b] for a, b in pairs]))
    boot = np.mean([m.boot.mean(axis=0) for m in usable], axis=0)  # (resolution, replicate)
    lower, upper = difference_intervals(means, settings.confidence)
    different, equivalent = verdicts.p_different(means), verdicts.p_equivalent(means, settings.margin_auroc)
    rows: list[Row] = []
    for i, ((a, b), mean) in enumerate(zip(pairs, means, strict=True)):
        row: Row = {
            "model": model, "finding": finding, "resolution_px": a, "against_px": b,
            "kind": CONFIRMATORY if b == reference else EXPLORATORY, "difference": mean.value,
        }  # fmt: skip
        row |= _described(mean) | _over(usable)
        row["boot_lower"], row["boot_upper"] = interval((at[a] - at[b]) @ boot, settings.confidence)
        if np.isnan(different[i]):
            row["reason"] = verdicts.NO_VARIANCE
        else:
            row["lower"], row["upper"] = lower[i], upper[i]
            row["p"], row["p_equivalence"] = different[i], equivalent[i]
            row["reason"] = verdicts.reason_without(mean, settings.least_patients)
        rows.append(row)
    return rows


def _judge(rows: Sequence[Row], settings: ComparisonSettings) -> None:
    """Corrected p and verdicts. The mean over findings answers a question of its own and is a family of its own."""
    for of_mean in (False, True):
        family = [
            row
            for row in rows
            if row["kind"] == CONFIRMATORY and (row["finding"] == MEAN) == of_mean and row.get("reason") is None
        ]
        corrected = verdicts.holm(np.array([row["p"] for row in family], dtype=np.float64))
        for row, value in zip(family, corrected, strict=True):
            row["p_holm"] = value
            row["verdict"] = verdicts.verdict(
                row["difference"], row["lower"], row["upper"], row["p_holm"],
                settings.margin_auroc, settings.confidence, below=row["resolution_px"] < settings.reference_px,
            )  # fmt: skip


def _sufficient(
    model: str, finding: str, averages: Sequence[Row], differences: Sequence[Row], settings: ComparisonSettings
) -> Row:
    reference = settings.reference_px
    summary: Row = {"model": model, "finding": finding, "reference_px": reference}
    mine = [row for row in averages if (row["model"], row["finding"]) == (model, finding)]
    if not mine[0]["n_folds"]:
        return summary | {"reason": NOWHERE}
    values = {row["resolution_px"]: row["value"] for row in mine}
    summary |= {"auroc_lowest": values[min(values)], "auroc_reference": values[reference]}
    against = [
        row for row in differences if (row["model"], row["finding"], row["kind"]) == (model, finding, CONFIRMATORY)
    ]
    if reasons := dict.fromkeys(str(row["reason"]) for row in against if row.get("reason")):
        return summary | {"reason": "; ".join(reasons)}
    lower = {row["resolution_px"]: row["lower"] for row in against}
    found, beyond = verdicts.smallest_sufficient(lower, reference, settings.margin_auroc)
    return summary | {"sufficient_px": found, "beyond_px": ", ".join(map(str, beyond)) or None}
