"""Area under the ROC curve and average precision, plain and with case weights.

With integer weights (how often a bootstrap replicate drew each image) one sort serves all replicates.
"""

import numpy as np


def auroc(score: np.ndarray, target: np.ndarray) -> float:
    """Probability that a positive scores above a negative, ties counted half (Mann-Whitney).

    score: float (image,); target: 0 or 1 (image,). Returns NaN if there is one class only.
    """
    return float(weighted_auroc(score, target, np.ones((1, len(score))))[0])


def average_precision(score: np.ndarray, target: np.ndarray) -> float:
    """Mean precision at each positive, as scikit-learn's average_precision_score. NaN without a positive."""
    return float(weighted_average_precision(score, target, np.ones((1, len(score))))[0])


def weighted_auroc(score: np.ndarray, target: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """AUROC under each row of weights.

    score, target: (image,); weight: (replicate, image), 0 or more. Returns float64 (replicate,), NaN where a
    replicate holds one class only.
    """
    order, first = _sorted_ties(score)
    positive = np.asarray(target)[order] > 0
    weight = weight[:, order]
    negative_at = np.add.reduceat(weight * ~positive, first, axis=1) if len(first) else weight[:, :0]
    positive_at = np.add.reduceat(weight * positive, first, axis=1) if len(first) else weight[:, :0]
    below = np.cumsum(negative_at, axis=1) - negative_at / 2  # (replicate, distinct score)
    total = positive_at.sum(axis=1) * negative_at.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(total > 0, (positive_at * below).sum(axis=1) / total, np.nan)


def weighted_average_precision(score: np.ndarray, target: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Average precision under each row of weights; arguments and result as `weighted_auroc`."""
    order, first = _sorted_ties(-np.asarray(score))
    positive = np.asarray(target)[order] > 0
    weight = weight[:, order]
    all_at = np.add.reduceat(weight, first, axis=1) if len(first) else weight[:, :0]
    positive_at = np.add.reduceat(weight * positive, first, axis=1) if len(first) else weight[:, :0]
    true, flagged = np.cumsum(positive_at, axis=1), np.cumsum(all_at, axis=1)
    total = positive_at.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.where(flagged > 0, true / flagged, 0.0)
        return np.where(total > 0, (positive_at * precision).sum(axis=1) / total, np.nan)


def _sorted_ties(score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The order that sorts the scores, and where each distinct value begins in it."""
    order = np.argsort(score, kind="stable")
    ranked = np.asarray(score)[order]
    first = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]]) if len(ranked) else np.array([], dtype=np.int64)
    return order, first
