"""Metrics of one learner, with intervals, and with a reason wherever there is no value."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from cxrscale.evaluation.auroc import auroc, average_precision, weighted_auroc, weighted_average_precision
from cxrscale.evaluation.bootstrap import interval, replicate
from cxrscale.predictions import Scores
from cxrscale.tables import Column, Table

MEAN = "(mean)"

METRICS = Table(
    name="metrics",
    row="a metric of a finding on a split",
    columns=(
        Column("finding", "text", f"the finding; {MEAN}: mean over the findings that have a value"),
        Column("metric", "text", "auroc or average_precision"),
        Column("split", "text", "validate, combine or test"),
        Column("level", "text", "image: each image counts"),
        Column("group", "text", "all, or a subgroup"),
        Column("value", "float64", "the metric, 0 to 1", null="undefined, see reason"),
        Column("lower", "float64", "lower end of the patient bootstrap's interval", null="undefined, see reason"),
        Column("upper", "float64", "upper end of the interval", null="undefined, see reason"),
        Column("n_images", "int64", "images that count"),
        Column("n_patients", "int64", "patients they belong to"),
        Column("n_positive", "int64", "images with the finding"),
        Column("n_negative", "int64", "images without it"),
        Column("reason", "text", "why a value is empty", null="nothing is empty"),
    ),
    key=("finding", "metric", "split", "level", "group"),
)

STATISTICS = {
    "auroc": (auroc, weighted_auroc),
    "average_precision": (average_precision, weighted_average_precision),
}


def reason_undefined(n_positive: int, n_negative: int) -> str | None:
    """Why AUROC has no value, or None if it has one."""
    if n_positive and n_negative:
        return None
    if not n_positive and not n_negative:
        return "no image counts"
    return "no positive image" if not n_positive else "no negative image"


def metrics_of_split(predictions: Path, split: str, replicates: int, confidence: float, seed: int) -> pd.DataFrame:
    """The columns of METRICS for one split of one learner; empty if the split holds no image."""
    scores = Scores([predictions], split)
    if not len(scores):
        return pd.DataFrame(columns=[c.name for c in METRICS.columns])
    rows = []
    for metric, (plain, weighted) in STATISTICS.items():
        values: list[float] = []
        drawn: list[np.ndarray] = []
        for k, finding in enumerate(scores.findings):
            target, logit = scores.target[:, k], scores.logits[0, :, k]
            counted = ~np.isnan(target)
            n_positive, n_negative = int((target == 1).sum()), int((target == 0).sum())
            row: dict[str, object] = {
                "finding": finding, "metric": metric, "split": split, "level": "image", "group": "all",
                "n_images": int(counted.sum()), "n_patients": len(set(scores.patient[counted])),
                "n_positive": n_positive, "n_negative": n_negative,
                "reason": reason_undefined(n_positive, n_negative),
            }  # fmt: skip
            if row["reason"] is None:
                values.append(plain(logit[counted], target[counted]))
                boot = replicate(weighted, scores.logits[:, :, k], target, scores.patient, replicates, seed)[0]
                row["value"] = values[-1]
                row["lower"], row["upper"] = interval(boot, confidence)
                if np.isnan(boot).mean() > 0.5:
                    row["reason"] = "most bootstrap replicates hold one class only: no interval"
                drawn.append(boot)
            rows.append(row)
        mean: dict[str, object] = {
            "finding": MEAN, "metric": metric, "split": split, "level": "image", "group": "all",
            "n_images": len(scores), "n_patients": len(set(scores.patient)),
            "n_positive": int((scores.target == 1).any(axis=1).sum()),
            "n_negative": int((~(scores.target == 1).any(axis=1)).sum()),
            "reason": None if values else "no finding has a value",
        }  # fmt: skip
        if values:
            mean["value"] = np.mean(values)
            boot = np.mean(drawn, axis=0)
            mean["lower"], mean["upper"] = interval(boot, confidence)
            if np.isnan(boot).mean() > 0.5:
                mean["reason"] = "most bootstrap replicates lack a class of some finding: no interval"
        rows.append(mean)
    return pd.DataFrame(rows, columns=[c.name for c in METRICS.columns])


def evaluate(predictions: Path, splits: Sequence[str], replicates: int, confidence: float, seed: int) -> pd.DataFrame:
    """The metrics of one learner on the splits named: the columns of METRICS."""
    parts = [metrics_of_split(predictions, split, replicates, confidence, seed) for split in splits]
    return pd.concat([p for p in parts if len(p)], ignore_index=True)
