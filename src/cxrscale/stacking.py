"""Combining learners whose weights can be read.

The paper's stack: for each finding, weights over the learners (0 or more, sum 1) on their *probabilities*, fitted by
binary cross-entropy. That is the maximum likelihood of a mixture's weights, a convex problem, solved here by
expectation-maximisation to convergence, without a learning rate.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from cxrscale.evaluation.auroc import auroc, weighted_auroc
from cxrscale.evaluation.bootstrap import interval, replicate
from cxrscale.evaluation.metrics import reason_undefined
from cxrscale.predictions import Scores
from cxrscale.tables import Column, Table

ALL = "(all learners)"

_SET = (
    Column("ensemble", "text", f"a model (its resolutions are combined), or {ALL}"),
    Column("fold", "int32", "the fold"),
    Column("seed", "int32", "the seed of the learners"),
    Column("finding", "text", "the finding"),
)

WEIGHTS = Table(
    name="weights",
    row="a learner's weight in an ensemble for a finding",
    columns=(
        *_SET,
        Column("model", "text", "the learner's model"),
        Column("resolution_px", "int32", "the learner's resolution"),
        Column("weight", "float64", "0 to 1, sum 1 over the ensemble"),
        Column("reason", "text", "why the weights are equal instead of fitted", null="they are fitted"),
    ),
    key=("ensemble", "fold", "seed", "finding", "model", "resolution_px"),
)

STACKED = Table(
    name="stacked",
    row="a way of combining for a finding, scored on test",
    columns=(
        *_SET,
        Column("method", "text", "best_single (by validation), mean or softmax"),
        Column("auroc", "float64", "test AUROC", null="undefined, see reason"),
        Column("lower", "float64", "lower end of its interval", null="undefined, see reason"),
        Column("upper", "float64", "upper end of its interval", null="undefined, see reason"),
        Column("gain", "float64", "AUROC minus that of best_single", null="undefined, see reason"),
        Column("gain_lower", "float64", "lower end of its interval", null="undefined, see reason"),
        Column("gain_upper", "float64", "upper end of its interval", null="undefined, see reason"),
        Column("learner", "text", "best_single: the learner chosen, as model-resolution", null="other methods"),
        Column("reason", "text", "why a value is empty", null="nothing is empty"),
    ),
    key=("ensemble", "fold", "seed", "finding", "method"),
)


@dataclass(frozen=True)
class StackingSettings:
    """tolerance: of the mean log likelihood between two steps, in nats; the rest as in the comparison."""

    tolerance: float
    max_steps: int
    replicates: int
    confidence: float
    seed: int


def mixture_weights(
    probability: np.ndarray, target: np.ndarray, tolerance: float = 1e-10, max_steps: int = 20_000
) -> np.ndarray:
    """Weights w (0 or more, sum 1) that minimise the binary cross-entropy of the mixture sum_k w_k p_k.

    probability: float (image, learner) in [0, 1]; target: 0 or 1 (image,). Expectation-maximisation from equal
    weights (Dempster et al. 1977); ends when the mean log likelihood gains less than `tolerance`.
    Returns float64 (learner,).
    """
    likelihood = np.where(np.asarray(target)[:, None] > 0, probability, 1 - probability)
    likelihood = np.clip(likelihood, 1e-12, None)
    weight = np.full(probability.shape[1], 1 / probability.shape[1])
    before = -np.inf
    for _ in range(max_steps):
        mixed = likelihood @ weight  # (image,)
        now = float(np.log(mixed).mean())
        if now - before < tolerance:
            break
        before = now
        weight = weight * (likelihood / mixed[:, None]).mean(axis=0)
        weight /= weight.sum()
    return weight


def sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))


def stack(
    predictions: Mapping[tuple[str, int, int, int], Path],
    combine_split: Mapping[int, str],
    settings: StackingSettings,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Fit on the combine split, score on test, within a fold and seed: per model over its resolutions, and all.

    predictions: (model, resolution_px, fold, seed) -> file; combine_split: fold -> the split that weights are fitted
    on. Returns the tables WEIGHTS and STACKED.
    """
    weights: list[dict[str, object]] = []
    scored: list[dict[str, object]] = []
    models = list(dict.fromkeys(key[0] for key in predictions))
    for fold, seed in sorted({key[2:] for key in predictions}):
        for ensemble in [*models, *([ALL] if len(models) > 1 else [])]:
            learners = [
                key for key in predictions if key[2:] == (fold, seed) and (ensemble == ALL or key[0] == ensemble)
            ]
            paths = [predictions[key] for key in learners]
            validate, combine, test = (Scores(paths, s) for s in ("validate", combine_split[fold], "test"))
            for k, finding in enumerate(test.findings):
                who = {"ensemble": ensemble, "fold": fold, "seed": seed, "finding": finding}
                weight, reason = fit_weights(combine.logits[:, :, k], combine.target[:, k], settings)
                for key, value in zip(learners, weight, strict=True):
                    weights.append(who | {"model": key[0], "resolution_px": key[1], "weight": value, "reason": reason})
                best = best_single(validate.logits[:, :, k], validate.target[:, k])
                scored += _score(who, learners, test, k, weight, best, settings)
    return (
        pd.DataFrame(weights, columns=[c.name for c in WEIGHTS.columns]),
        pd.DataFrame(scored, columns=[c.name for c in STACKED.columns]),
    )


def fit_weights(logits: np.ndarray, target: np.ndarray, settings: StackingSettings) -> tuple[np.ndarray, str | None]:
    """Weights for one finding; equal ones, with the reason, where the split cannot fit any.

    logits: (learner, image); target: (image,), NaN where ignored.
    """
    counted = ~np.isnan(target)
    reason = reason_undefined(int((target == 1).sum()), int((target == 0).sum()))
    if reason is not None:
        return np.full(len(logits), 1 / len(logits)), f"{reason} to fit on"
    probability = sigmoid(logits[:, counted].T)
    return mixture_weights(probability, target[counted], settings.tolerance, settings.max_steps), None


def best_single(logits: np.ndarray, target: np.ndarray) -> int:
    """Index of the learner with the highest AUROC on validation; the last (largest) where it is undefined."""
    counted = ~np.isnan(target)
    values = [auroc(logit[counted], target[counted]) for logit in logits]
    return len(logits) - 1 if np.isnan(values).all() else int(np.nanargmax(values))


def _score(
    who: dict[str, object],
    learners: Sequence[tuple[str, int, int, int]],
    test: Scores,
    k: int,
    weight: np.ndarray,
    best: int,
    settings: StackingSettings,
) -> list[dict[str, object]]:
    target, probability = test.target[:, k], sigmoid(test.logits[:, :, k])
    combined = {
        "best_single": probability[best],
        "mean": probability.mean(axis=0),
        "softmax": weight @ probability,
    }
    name = f"{learners[best][0]}-{learners[best][1]}"
    reason = reason_undefined(int((target == 1).sum()), int((target == 0).sum()))
    rows = [
        who | {"method": method, "learner": name if method == "best_single" else None, "reason": reason}
        for method in combined
    ]
    if reason is not None:
        return rows
    counted = ~np.isnan(target)
    scores = np.stack(list(combined.values()))
    boot = replicate(
        weighted_auroc,
        scores,
        target,
        test.patient,
        settings.replicates,
        settings.seed + int(str(who["fold"])),
    )
    values = [auroc(score[counted], target[counted]) for score in scores]
    for i, row in enumerate(rows):
        row["auroc"], row["gain"] = values[i], values[i] - values[0]
        row["lower"], row["upper"] = interval(boot[i], settings.confidence)
        row["gain_lower"], row["gain_upper"] = interval(boot[i] - boot[0], settings.confidence)
    return rows
