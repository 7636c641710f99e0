"""Area under the ROC curve and average precision, plain and with case weights (how often a bootstrap replicate drew
each image).

Both depend on the images of one class only through their weight between two neighbours of the other class. So the
scores are sorted once, a sparse matrix sums the weights between neighbours for all replicates at once, and what runs
over the sums has as many steps as the rarer class has images.
"""

import numpy as np
from scipy.sparse import csr_array

NOT_FINITE = "a logit is not finite"


def reason_undefined(n_positive: int, n_negative: int) -> str | None:
    """Why AUROC has no value, or None if it has one."""
    if n_positive and n_negative:
        return None
    if not n_positive and not n_negative:
        return "no image counts"
    return "no positive image" if not n_positive else "no negative image"


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
    replicate holds one class only. Sums are taken in the weights' own precision: in float32 whole numbers stay exact
    up to a sum of 2**23 a replicate. Fastest if the weights lie replicate by replicate in memory (`weight.T` is
    contiguous), as `bootstrap.replicate` hands them over.
    """
    score, positive, by_image = _arranged(score, target, weight)
    if 2 * positive.sum() > len(positive):  # the same by symmetry; fewer steps
        score, positive = -score, ~positive
    ranked, others = _ascending(score, positive), _ascending(score, ~positive)
    left, right = (np.searchsorted(score[ranked], score[others], side) for side in ("left", "right"))
    tied = left != right  # counts half on either side
    places = np.concatenate([left, right[tied]])
    share = np.concatenate([np.where(tied, 0.5, 1.0), np.full(tied.sum(), 0.5)])
    between = _sums(places, np.concatenate([others, others[tied]]), share, len(ranked) + 1, by_image)
    below = _running_sum(between)  # (positive + 1, replicate): negatives below each, at last all
    own = by_image[ranked]
    won = np.einsum("ij,ij->j", own, below[:-1], dtype=np.float64)
    total = own.sum(axis=0, dtype=np.float64) * below[-1]
    return np.divide(won, total, out=np.full(len(weight), np.nan), where=total > 0)


def weighted_average_precision(score: np.ndarray, target: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Average precision under each row of weights; arguments and result as `weighted_auroc`."""
    score, positive, by_image = _arranged(score, target, weight)
    ranked, others = _ascending(-score, positive), _ascending(-score, ~positive)
    places = np.searchsorted(-score[ranked], -score[others], "left")
    own = by_image[ranked]
    total = own.sum(axis=0, dtype=np.float64)
    flagged = _running_sum(_sums(places, others, np.ones(len(others)), len(ranked) + 1, by_image))[:-1]
    true = _running_sum(own.copy())
    last = np.searchsorted(-score[ranked], -score[ranked], "right") - 1
    if len(last) and (last != np.arange(len(last))).any():  # equal scores are flagged together
        true = true[last]
    flagged += true
    flagged[flagged == 0] = 1  # none true among none
    precision = np.divide(true, flagged, dtype=np.float64)
    won = np.einsum("ij,ij->j", own, precision)
    return np.divide(won, total, out=np.full(len(weight), np.nan), where=total > 0)


def _arranged(score: np.ndarray, target: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores, whether positive, and weights as floats (image, replicate), contiguous."""
    floats = weight if weight.dtype in (np.float32, np.float64) else weight.astype(np.float64)
    return np.asarray(score, dtype=np.float64), np.asarray(target) > 0, np.ascontiguousarray(floats.T)


def _ascending(score: np.ndarray, members: np.ndarray) -> np.ndarray:
    """Numbers of the members, by ascending score; those of equal scores in any order."""
    numbers = np.flatnonzero(members)
    return numbers[np.argsort(score[numbers])]


def _sums(places: np.ndarray, images: np.ndarray, share: np.ndarray, n_places: int, by_image: np.ndarray) -> np.ndarray:
    """Sum of the weights of the images at each place: (place, replicate). share: the part of each that counts."""
    order = np.argsort(places, kind="stable")
    begin = np.searchsorted(places[order], np.arange(n_places + 1))
    shares = share[order].astype(by_image.dtype)
    return csr_array((shares, images[order], begin), shape=(n_places, len(by_image))) @ by_image


def _running_sum(rows: np.ndarray) -> np.ndarray:
    """np.cumsum(rows, axis=0), in place. Numpy's own goes column by column and takes twice as long."""
    size = 32
    whole = len(rows) // size * size
    blocks = rows[:whole].reshape(-1, size, rows.shape[1])
    for k in range(1, size):
        blocks[:, k] += blocks[:, k - 1]
    for block in range(1, len(blocks)):
        blocks[block] += blocks[block - 1, -1]
    for k in range(max(whole, 1), len(rows)):
        rows[k] += rows[k - 1]
    return rows
