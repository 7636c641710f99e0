"""Metrics of one learner, with intervals, and with a reason wherever there is no value.

Thresholds and recalibration are fitted on the combine split and applied to test; nothing is fitted on test.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import expit

from cxrscale.common.rows import ALL_IMAGES, MEAN
from cxrscale.data.splits import combine_split
from cxrscale.evaluate.auroc import (
    NOT_FINITE,
    average_precision,
    reason_undefined,
    weighted_auroc,
    weighted_average_precision,
)
from cxrscale.evaluate.averaging import FoldAuroc, Mean, level_intervals, mean_component, means_over
from cxrscale.evaluate.bootstrap import drawn_weights, interval
from cxrscale.evaluate.calibration import (
    calibration_error,
    chance_calibration_error,
    intercept_fit,
    slope_fit,
)
from cxrscale.evaluate.clustered import Components, components, delong_covariance, influence_covariance
from cxrscale.evaluate.contracts import METRICS
from cxrscale.evaluate.intervals import NO_ERROR, error_interval
from cxrscale.evaluate.levels import LEVELS, Sample, group_masks
from cxrscale.evaluate.predictions import read_scores
from cxrscale.evaluate.settings import EvaluationSettings

#: Metrics with a bootstrap interval, and what computes them under weights.
RESAMPLED = {"auroc": weighted_auroc, "average_precision": weighted_average_precision}

#: The kinds of interval of each metric; "clustered" where not named.
INTERVALS: Mapping[str, Sequence[str]] = {
    "auroc": ("clustered", "bootstrap", "delong"),
    "average_precision": ("bootstrap",),
    "calibration_error": ("none",),
    "calibration_error_chance": ("none",),
    "recalibrated_calibration_error": ("none",),
    "recalibrated_calibration_error_chance": ("none",),
    "threshold": ("none",),
}

#: Those between 0 and 1 have their interval on the logit scale.
UNBOUNDED = ("calibration_slope", "calibration_intercept")


@dataclass(frozen=True)
class MetricValue:
    """A metric's value (NaN with a reason where undefined), and what its intervals are made of.

    influence: float64 (patient,), what each patient adds, or None. errors: kind of interval -> standard error and its
    degrees of freedom. components, mean: of an AUROC, whose clustered interval comes from `averaging`.
    """

    value: float
    reason: str | None = None
    influence: np.ndarray | None = None
    components: Components | None = None
    mean: Mean | None = None
    errors: Mapping[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class OperatingPoint:
    """What was fitted on the combine split for one finding: the threshold (an image is flagged above it) and the
    recalibration (intercept, slope); each with the reason where it could not be."""

    split: str
    threshold: float | None
    threshold_reason: str | None
    recalibration: tuple[float, float] | None
    recalibration_reason: str | None


def threshold_at(logit: np.ndarray, target: np.ndarray, specificity: float) -> float:
    """The smallest logit of a negative such that, if what lies above it is flagged, at least this share of negatives
    is not. There must be a negative."""
    negative = np.sort(logit[target == 0])
    return float(negative[math.ceil(round(specificity * len(negative), 9)) - 1])


def fit_operating_point(logit: np.ndarray, target: np.ndarray, split: str, specificity: float) -> OperatingPoint:
    """Threshold and recalibration of one finding. target: (image,), NaN where ignored."""
    counted = ~np.isnan(target)
    logit, target = logit[counted], target[counted]
    reason = reason_undefined(int((target == 1).sum()), int((target == 0).sum()))
    if not np.isfinite(logit).all():
        reason = NOT_FINITE
    threshold, recalibration = None, None
    if reason is None:
        threshold = threshold_at(logit, target, specificity)
        try:
            intercept, slope = slope_fit(logit, target).coefficients
            recalibration = float(intercept), float(slope)
        except ValueError as error:
            return OperatingPoint(split, threshold, None, None, f"cannot be recalibrated on {split}: {error}")
    return OperatingPoint(
        split, threshold, reason and f"{split}: {reason}", recalibration, reason and f"{split}: {reason}"
    )


class _Finding:
    """The estimates of one finding's metrics on one sample."""

    def __init__(self, sample: Sample, k: int, n_patients: int, bins: int) -> None:
        counted = ~np.isnan(sample.target[:, k])
        self.counted, self.n_patients, self.bins = counted, n_patients, bins
        self.logit, self.target, self.patient = (
            sample.logits[counted, k],
            sample.target[counted, k],
            sample.patient[counted],
        )
        self.present = np.bincount(self.patient, minlength=n_patients) > 0
        self.n_positive, self.n_negative = int((self.target == 1).sum()), int((self.target == 0).sum())
        self.reason = reason_undefined(self.n_positive, self.n_negative)
        if not np.isfinite(self.logit).all():
            self.reason = NOT_FINITE

    def estimates(self, fitted: OperatingPoint | None) -> dict[str, MetricValue]:
        found = {
            "auroc": self.auroc(),
            "average_precision": self.average_precision(),
            **self.calibration("", self.logit),
        }
        if fitted is not None:
            found |= self.at_threshold(fitted)
            if fitted.recalibration is None:
                undefined = MetricValue(math.nan, fitted.recalibration_reason)
                found |= {f"recalibrated_{name}": undefined for name in self.calibration("", self.logit)}
            else:
                intercept, slope = fitted.recalibration
                found |= self.calibration("recalibrated_", intercept + slope * self.logit)
        return found

    def auroc(self) -> MetricValue:
        if self.reason:
            return MetricValue(math.nan, self.reason)
        parts = components(self.logit[None], self.target, self.patient, self.n_patients)
        delong = _root(delong_covariance(self.logit[None], self.target)[1][0, 0])
        return _auroc(parts, {"delong": (delong, math.inf)})

    def average_precision(self) -> MetricValue:
        if self.reason:
            return MetricValue(math.nan, self.reason)
        return MetricValue(average_precision(self.logit, self.target))

    def calibration(self, prefix: str, logit: np.ndarray) -> dict[str, MetricValue]:
        names = ["brier", "calibration_error", "calibration_error_chance", "calibration_slope", "calibration_intercept"]
        if self.reason:
            return {prefix + name: MetricValue(math.nan, self.reason) for name in names}
        probability = expit(logit)
        values = [
            self.mean((probability - self.target) ** 2),
            MetricValue(calibration_error(probability, self.target, self.bins)),
            MetricValue(chance_calibration_error(probability, self.target, self.patient, self.bins)),
        ]
        for fitting in (slope_fit, intercept_fit):
            try:
                fitted = fitting(logit, self.target)
                influence = self.by_patient(fitted.influence[:, -1])
                values.append(_metric_value(float(fitted.coefficients[-1]), influence, self.present))
            except ValueError as error:
                values.append(MetricValue(math.nan, str(error)))
        return {prefix + name: value for name, value in zip(names, values, strict=True)}

    def at_threshold(self, fitted: OperatingPoint) -> dict[str, MetricValue]:
        reason = self.reason or fitted.threshold_reason
        if reason or fitted.threshold is None:
            return {name: MetricValue(math.nan, reason) for name in ("sensitivity", "specificity")}
        flagged = self.logit > fitted.threshold
        return {
            "sensitivity": self.mean(flagged.astype(np.float64), self.target == 1),
            "specificity": self.mean((~flagged).astype(np.float64), self.target == 0),
        }

    def mean(self, values: np.ndarray, among: np.ndarray | None = None) -> MetricValue:
        """The mean over images, a ratio of two sums over patients."""
        among = np.ones(len(values), dtype=bool) if among is None else among
        mean = float(values[among].mean())
        present = np.bincount(self.patient[among], minlength=self.n_patients) > 0
        return _metric_value(mean, self.by_patient((values - mean) * among / among.sum()), present)

    def by_patient(self, influence: np.ndarray) -> np.ndarray:
        return np.bincount(self.patient, weights=influence, minlength=self.n_patients)


def _metric_value(value: float, influence: np.ndarray, present: np.ndarray) -> MetricValue:
    """With the error that follows from the influence. present: bool (patient,), the patients who count."""
    error = _root(influence_covariance(influence[present, None])[0, 0])
    return MetricValue(value, None, influence, errors={"clustered": (error, float(present.sum() - 1))})


def _auroc(parts: Components, checks: Mapping[str, tuple[float, float]] | None = None) -> MetricValue:
    """An AUROC of one learner, with the error that the comparison and stacking take for it (`averaging`)."""
    (mean,) = means_over([FoldAuroc.of(parts, 1)], np.eye(1))
    return MetricValue(mean.value, None, components=parts, mean=mean, errors=dict(checks or {}))


def _root(variance: float) -> float:
    return math.sqrt(variance) if variance > 0 else math.nan


def metrics_of_sample(
    sample: Sample, findings: Sequence[str], fitted: Mapping[str, OperatingPoint], settings: EvaluationSettings
) -> list[dict[str, object]]:
    """Rows of METRICS without split, level and group. fitted: finding -> what was fitted on combine; {}: nothing, the
    sample is not of test."""
    n_patients = int(sample.patient.max()) + 1
    scored = [_Finding(sample, k, n_patients, settings.calibration_bins) for k in range(len(findings))]
    estimates = [s.estimates(fitted.get(f)) for f, s in zip(findings, scored, strict=True)]
    drawn = _replicates(sample, scored, settings)  # metric -> (finding, replicate)
    rows: list[dict[str, object]] = []
    for metric in estimates[0]:
        defined = [i for i, e in enumerate(estimates) if not math.isnan(e[metric].value)]
        for i, (finding, one) in enumerate(zip(findings, scored, strict=True)):
            who = {
                "finding": finding, "metric": metric, "n_images": int(one.counted.sum()),
                "n_patients": int(one.present.sum()), "n_positive": one.n_positive, "n_negative": one.n_negative,
            }  # fmt: skip
            boot = drawn[metric][i] if metric in drawn else None
            rows += _rows(who, metric, estimates[i][metric], boot, settings.confidence)
        shown = (sample.target == 1).any(axis=1)
        who = {
            "finding": MEAN, "metric": metric, "n_images": len(sample.patient), "n_patients": n_patients,
            "n_positive": int(shown.sum()), "n_negative": int((~shown).sum()),
        }  # fmt: skip
        present = np.any([scored[i].present for i in defined], axis=0) if defined else np.zeros(n_patients, dtype=bool)
        mean = _mean([estimates[i][metric] for i in defined], present)
        boot = drawn[metric][defined].mean(axis=0) if metric in drawn and defined else None
        rows += _rows(who, metric, mean, boot, settings.confidence)
    return rows


def _mean(estimates: Sequence[MetricValue], present: np.ndarray) -> MetricValue:
    """Of the estimates that have a value. Findings of the same patients depend on each other; their influences add."""
    if not estimates:
        return MetricValue(math.nan, "no finding has a value")
    if parts := [e.components for e in estimates if e.components is not None]:
        return _auroc(mean_component(parts))
    value = float(np.mean([e.value for e in estimates]))
    influences = [e.influence for e in estimates if e.influence is not None]
    if len(influences) < len(estimates):
        return MetricValue(value)
    return _metric_value(value, np.mean(influences, axis=0), present)


def _replicates(sample: Sample, scored: Sequence[_Finding], settings: EvaluationSettings) -> dict[str, np.ndarray]:
    found = {metric: np.full((len(scored), settings.replicates), np.nan) for metric in RESAMPLED}
    for some, weight in drawn_weights(sample.patient, settings.replicates, settings.seed):
        for i, one in enumerate(scored):
            if one.reason is None:
                own = weight if one.counted.all() else weight.T[one.counted].T
                for metric, statistic in RESAMPLED.items():
                    found[metric][i, some] = statistic(one.logit, one.target, own)
    return found


def _rows(
    who: dict[str, object],
    metric: str,
    estimate: MetricValue,
    boot: np.ndarray | None,
    confidence: float,
) -> list[dict[str, object]]:
    """A row a kind of interval."""
    rows = []
    for kind in INTERVALS.get(metric, ("clustered",)):
        if kind == "delong" and who["finding"] == MEAN:
            continue  # a check of single values
        row = who | {"interval": kind, "value": estimate.value, "reason": estimate.reason}
        if estimate.reason is None and kind != "none":
            if kind == "bootstrap" and boot is not None:
                lower, upper = interval(boot, confidence)
                lacks = "lack a class of some finding" if who["finding"] == MEAN else "hold one class only"
                reason = f"most bootstrap replicates {lacks}: no interval"
                if lower == upper:
                    lower, upper, reason = math.nan, math.nan, NO_ERROR
            elif kind == "clustered" and estimate.mean is not None:
                (lower,), (upper,) = level_intervals([estimate.mean], confidence)
                reason = NO_ERROR
            else:
                error, degrees = estimate.errors.get(kind, (math.nan, math.nan))
                bounded = not metric.endswith(UNBOUNDED)
                lower, upper = error_interval(
                    estimate.value, error, confidence, within_0_and_1=bounded, degrees_of_freedom=degrees
                )
                reason = NO_ERROR
            row |= {"lower": lower, "upper": upper, "reason": reason if math.isnan(lower) else None}
        rows.append(row)
    return rows


def evaluate(
    predictions: Path,
    splits: Sequence[str],
    settings: EvaluationSettings,
    subgroups: Sequence[pd.DataFrame] = (),
) -> pd.DataFrame:
    """The metrics of one learner on the splits named: the columns of METRICS. Splits without an image are left out.

    subgroups: of `data.subgroups`, for the columns of settings.groups that are not the view.
    """
    by_split = read_scores([predictions], dict.fromkeys(("combine", "validate", *splits)))
    fit_split = combine_split(pd.concat([scores.rows for scores in by_split.values()]))
    fit_scores = by_split[fit_split]
    fitted: dict[str, dict[str, OperatingPoint]] = {}
    rows: list[dict[str, object]] = []
    everyone = np.ones(len(fit_scores), dtype=bool)
    for level, of_level in LEVELS.items():
        sample = of_level(fit_scores, everyone)
        fitted[level] = {
            f: fit_operating_point(sample.logits[:, k], sample.target[:, k], fit_split, settings.specificity)
            for k, f in enumerate(fit_scores.findings)
        }
        rows += [_threshold_row(sample, k, f, level, fitted[level][f]) for k, f in enumerate(fit_scores.findings)]
    for split in splits:
        scores = by_split[split]
        if not len(scores):
            continue
        groups = {ALL_IMAGES: np.ones(len(scores), dtype=bool)}
        if split == "test":
            groups |= group_masks(scores.rows, settings.groups, subgroups)
        for level, of_level in LEVELS.items():
            for group, mask in groups.items():
                found = metrics_of_sample(
                    of_level(scores, mask), scores.findings, fitted[level] if split == "test" else {}, settings
                )
                rows += [row | {"split": split, "level": level, "group": group} for row in found]
    return pd.DataFrame(rows, columns=[c.name for c in METRICS.columns])


def _threshold_row(sample: Sample, k: int, finding: str, level: str, fitted: OperatingPoint) -> dict[str, object]:
    """The threshold that was fitted, as a logit."""
    counted = ~np.isnan(sample.target[:, k])
    return {
        "finding": finding, "metric": "threshold", "split": fitted.split, "level": level, "group": ALL_IMAGES,
        "interval": "none", "value": fitted.threshold, "n_images": int(counted.sum()),
        "n_patients": len(np.unique(sample.patient[counted])),
        "n_positive": int((sample.target[:, k] == 1).sum()), "n_negative": int((sample.target[:, k] == 0).sum()),
        "reason": fitted.threshold_reason,
    }  # fmt: skip
