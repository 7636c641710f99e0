"""The effect of resolution: learners of one model that differ in nothing else, compared within a fold, on patients.

Folds are never pooled: differences are computed within a fold and seed and then averaged. All learners of a fold are
drawn with the same patients in each bootstrap replicate, so that differences are paired.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from cxrscale.evaluation.auroc import auroc, weighted_auroc
from cxrscale.evaluation.bootstrap import interval, joint_intervals, replicate
from cxrscale.evaluation.metrics import MEAN, reason_undefined
from cxrscale.predictions import Scores
from cxrscale.tables import Column, Table

NO_INTERVAL = "most bootstrap replicates lack a class: no interval"

_WHO = (
    Column("model", "text", "timm name"),
    Column("finding", "text", f"the finding; {MEAN}: mean over the findings that have a value"),
)
_WHERE = (Column("fold", "int32", "the fold"), Column("seed", "int32", "the seed of the learners"))
_INTERVAL = (
    Column("lower", "float64", "lower end of the interval", null="undefined, see reason"),
    Column("upper", "float64", "upper end of the interval", null="undefined, see reason"),
)
_REASON = Column("reason", "text", "why a value is empty", null="nothing is empty")

LEVELS = Table(
    name="auroc",
    row="the test AUROC of a learner for a finding",
    columns=(
        *_WHO,
        *_WHERE,
        Column("resolution_px", "int32", "side of the input"),
        Column("value", "float64", "AUROC on test", null="undefined, see reason"),
        *_INTERVAL,
        Column("joint_lower", "float64", "as lower, jointly over the resolutions", null="undefined, see reason"),
        Column("joint_upper", "float64", "as upper, jointly over the resolutions", null="undefined, see reason"),
        Column("n_positive", "int64", "test images with the finding"),
        Column("n_negative", "int64", "test images without it"),
        _REASON,
    ),
    key=("model", "finding", "fold", "seed", "resolution_px"),
)

DIFFERENCES = Table(
    name="differences",
    row="a pair of resolutions of a model, for a finding, averaged over folds and seeds",
    columns=(
        *_WHO,
        Column("resolution_px", "int32", "side of the input"),
        Column("against_px", "int32", "side of the input it is compared with"),
        Column(
            "difference",
            "float64",
            "AUROC at resolution_px minus AUROC at against_px",
            null="undefined, see reason",
        ),
        *_INTERVAL,
        Column("verdict", "text", "worse, better, equivalent or undecided", null="undefined, see reason"),
        Column("n_pairs", "int32", "folds times seeds that were averaged"),
        _REASON,
    ),
    key=("model", "finding", "resolution_px", "against_px"),
)

SUFFICIENT = Table(
    name="sufficient",
    row="a finding of a model",
    columns=(
        *_WHO,
        Column("reference_px", "int32", "the resolution that others are held against"),
        Column(
            "sufficient_px",
            "int32",
            "smallest resolution not inferior to the reference by more than the margin",
            null="undefined, see reason",
        ),
        Column("auroc_lowest", "float64", "mean test AUROC at the lowest resolution", null="undefined"),
        Column("auroc_reference", "float64", "mean test AUROC at the reference", null="undefined"),
        _REASON,
    ),
    key=("model", "finding"),
)


@dataclass(frozen=True)
class ComparisonSettings:
    """reference_px: the resolution that others are held against. margin_auroc: a difference that does not matter.
    confidence: of the intervals; joint_confidence: of those over all resolutions at once."""

    reference_px: int
    margin_auroc: float
    confidence: float
    joint_confidence: float
    replicates: int
    seed: int
    native_at_least_px: int = 0


def verdict(lower: float, upper: float, margin: float) -> str:
    """What an interval of a difference says: within plus and minus the margin is "equivalent", wholly below zero
    "worse", wholly above "better", anything else "undecided"."""
    if lower > -margin and upper < margin:
        return "equivalent"
    if upper < 0:
        return "worse"
    if lower > 0:
        return "better"
    return "undecided"


@dataclass(frozen=True)
class _Drawn:
    """AUROC of the resolutions for one finding in one fold and seed: value (resolution,), boot (resolution,
    replicate)."""

    value: np.ndarray
    boot: np.ndarray


def compare(
    predictions: Mapping[tuple[str, int, int, int], Path], settings: ComparisonSettings
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Compare the resolutions of each model on test.

    predictions: (model, resolution_px, fold, seed) -> file. Returns the tables LEVELS, DIFFERENCES and SUFFICIENT.
    """
    levels, differences, sufficient = [], [], []
    for model in dict.fromkeys(key[0] for key in predictions):
        resolutions = sorted({key[1] for key in predictions if key[0] == model})
        pairs = sorted({key[2:] for key in predictions if key[0] == model})
        drawn: dict[str, list[_Drawn | None]] = {}
        for fold, seed in pairs:
            rows, found = _levels(model, fold, seed, resolutions, predictions, settings)
            levels += rows
            for finding, value in found.items():
                drawn.setdefault(finding, []).append(value)
        for finding, values in drawn.items():
            rows, summary = _differences(model, finding, resolutions, values, settings)
            differences += rows
            sufficient.append(summary)
    return (
        pd.DataFrame(levels, columns=[c.name for c in LEVELS.columns]),
        pd.DataFrame(differences, columns=[c.name for c in DIFFERENCES.columns]),
        pd.DataFrame(sufficient, columns=[c.name for c in SUFFICIENT.columns]),
    )


def _levels(
    model: str,
    fold: int,
    seed: int,
    resolutions: Sequence[int],
    predictions: Mapping[tuple[str, int, int, int], Path],
    settings: ComparisonSettings,
) -> tuple[list[dict[str, object]], dict[str, _Drawn | None]]:
    scores = Scores([predictions[model, r, fold, seed] for r in resolutions], "test", settings.native_at_least_px)
    found: dict[str, _Drawn | None] = {}
    rows: list[dict[str, object]] = []
    defined: list[_Drawn] = []

    def add(finding: str, drawn: _Drawn | None, n_positive: int, n_negative: int, reason: str | None) -> None:
        found[finding] = drawn
        for r, resolution in enumerate(resolutions):
            row: dict[str, object] = {
                "model": model, "finding": finding, "fold": fold, "seed": seed, "resolution_px": resolution,
                "n_positive": n_positive, "n_negative": n_negative, "reason": reason,
            }  # fmt: skip
            if drawn is not None:
                row["value"] = drawn.value[r]
                row["lower"], row["upper"] = interval(drawn.boot[r], settings.confidence)
                if np.isnan(drawn.boot[r]).mean() > 0.5:
                    row["reason"] = NO_INTERVAL
                lower, upper = joint_intervals(drawn.value, drawn.boot, settings.joint_confidence)
                row["joint_lower"], row["joint_upper"] = lower[r], upper[r]
            rows.append(row)

    for k, finding in enumerate(scores.findings):
        target = scores.target[:, k]
        counted = ~np.isnan(target)
        n_positive, n_negative = int((target == 1).sum()), int((target == 0).sum())
        reason = reason_undefined(n_positive, n_negative)
        drawn = None
        if reason is None:
            logits = scores.logits[:, :, k]
            value = np.array([auroc(logit[counted], target[counted]) for logit in logits])
            # One seed a fold: all models and findings see the same patients in the same replicate.
            boot = replicate(weighted_auroc, logits, target, scores.patient, settings.replicates, settings.seed + fold)
            drawn = _Drawn(value, boot)
            defined.append(drawn)
        add(finding, drawn, n_positive, n_negative, reason)
    if defined:
        value = np.mean([d.value for d in defined], axis=0)
        mean = _Drawn(value, np.mean([d.boot for d in defined], axis=0))
        positive = (scores.target == 1).any(axis=1)
        add(MEAN, mean, int(positive.sum()), int((~positive).sum()), None)
    return rows, found


def _differences(
    model: str,
    finding: str,
    resolutions: Sequence[int],
    drawn: Sequence[_Drawn | None],
    settings: ComparisonSettings,
) -> tuple[list[dict[str, object]], dict[str, object]]:
    reference = settings.reference_px
    usable = [d for d in drawn if d is not None]
    summary: dict[str, object] = {"model": model, "finding": finding, "reference_px": reference}
    if not usable:
        return [], summary | {"reason": "AUROC is undefined in every fold"}
    value = np.mean([d.value for d in usable], axis=0)  # (resolution,)
    boot = np.mean([d.boot for d in usable], axis=0)  # (resolution, replicate)
    rows: list[dict[str, object]] = []
    enough = []
    for i, resolution in enumerate(resolutions):
        for j, against in enumerate(resolutions):
            if i == j:
                continue
            lower, upper = interval(boot[i] - boot[j], settings.confidence)
            undefined = bool(np.isnan(lower))
            rows.append(
                {
                    "model": model,
                    "finding": finding,
                    "resolution_px": resolution,
                    "against_px": against,
                    "difference": value[i] - value[j],
                    "lower": lower,
                    "upper": upper,
                    "verdict": None if undefined else verdict(lower, upper, settings.margin_auroc),
                    "n_pairs": len(usable),
                    "reason": NO_INTERVAL if undefined else None,
                }
            )
            if against == reference and lower > -settings.margin_auroc:
                enough.append(resolution)
    at = {r: float(v) for r, v in zip(resolutions, value, strict=True)}
    unknown = any(row["reason"] for row in rows)
    return rows, summary | {
        "sufficient_px": None if unknown else min([*enough, reference]),
        "reason": NO_INTERVAL if unknown else None,
        "auroc_lowest": at[resolutions[0]],
        "auroc_reference": at[reference],
    }
