"""The bootstrap with patients as the unit: images of one patient are drawn or left together."""

from collections.abc import Callable, Iterator

import numpy as np

#: Replicates computed at once: fewer fit the cache worse, more take more memory (50 MB of weights for 50,000 images).
CHUNK = 250

Statistic = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def patient_weights(patient: np.ndarray, replicates: int, rng: np.random.Generator) -> np.ndarray:
    """How often each replicate draws each image, patients drawn with replacement.

    patient: int (image,), numbered from 0 without gaps. Returns float32 (replicate, image), replicate by replicate in
    memory, which the statistics are fastest with.
    """
    n_patients = int(patient.max()) + 1 if len(patient) else 0
    if not n_patients:
        return np.zeros((replicates, 0), dtype=np.float32)
    drawn = rng.integers(0, n_patients, (replicates, n_patients))
    drawn += np.arange(replicates)[:, None] * n_patients
    times = np.bincount(drawn.ravel(), minlength=replicates * n_patients).reshape(replicates, n_patients)
    return np.ascontiguousarray(times.astype(np.float32).T)[patient].T


def drawn_weights(patient: np.ndarray, replicates: int, seed: int) -> Iterator[tuple[slice, np.ndarray]]:
    """The weights of all replicates in chunks: which replicates, and their `patient_weights`. A function of the seed
    and of the number of patients alone."""
    rng = np.random.default_rng(seed)
    for start in range(0, replicates, CHUNK):
        some = slice(start, min(start + CHUNK, replicates))
        yield some, patient_weights(patient, some.stop - some.start, rng)


def replicate(
    statistic: Statistic,
    scores: np.ndarray,
    target: np.ndarray,
    patient: np.ndarray,
    replicates: int,
    seed: int,
) -> np.ndarray:
    """A statistic of several score vectors under the same patient draws, so that their differences are paired.

    statistic: (score, target, weight) -> (replicate,), as `auroc.weighted_auroc`. scores: (learner, image); target:
    (image,), NaN where ignored; patient: (image,). Patients are drawn among all of `patient`, the ignored images'
    too, so that findings share their draws. Returns float64 (learner, replicate), NaN where undefined.
    """
    counted = ~np.isnan(target)
    found = np.empty((len(scores), replicates))
    for some, weight in drawn_weights(patient, replicates, seed):
        if not counted.all():
            weight = weight.T[counted].T
        for k, score in enumerate(scores):
            found[k, some] = statistic(score[counted], target[counted], weight)
    return found


def interval(replicates: np.ndarray, confidence: float) -> tuple[float, float]:
    """Percentile interval over the defined replicates; NaN, NaN if fewer than half are defined."""
    defined = replicates[~np.isnan(replicates)]
    if len(defined) < max(2, len(replicates) / 2):
        return float("nan"), float("nan")
    tail = (1 - confidence) / 2
    lower, upper = np.quantile(defined, [tail, 1 - tail])
    return float(lower), float(upper)


def joint_intervals(value: np.ndarray, replicates: np.ndarray, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    """Intervals that hold all values at once with the confidence asked for (max-t bootstrap, Westfall and Young 1993).

    value: (estimate,); replicates: (estimate, replicate), paired. Returns lower and upper (estimate,).
    """
    replicates = replicates[:, ~np.isnan(replicates).any(axis=0)]  # undefined for one, undefined for all
    if not replicates.shape[1]:
        return np.full(len(value), np.nan), np.full(len(value), np.nan)
    error = np.std(replicates, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        deviation = np.where(error[:, None] > 0, np.abs(replicates - value[:, None]) / error[:, None], 0.0)
    largest = np.max(deviation, axis=0)  # (replicate,)
    width = np.quantile(largest, confidence) * error
    return value - width, value + width
