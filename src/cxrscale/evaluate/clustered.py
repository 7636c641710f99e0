"""The variance of AUROC where images of one patient depend on each other, without resampling.

DeLong's components (DeLong et al. 1988, doi:10.2307/2531595), found from ranks in n log n (Sun and Xu 2014,
doi:10.1109/LSP.2014.2337313), are summed by patient before they are squared (Obuchowski 1997, doi:10.2307/2533958).
With one image a patient this is nearly DeLong's own variance, which `delong_covariance` gives as a check.
"""

from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata


@dataclass(frozen=True)
class Components:
    """What AUROC and its variance are made of, for several score vectors of the same images.

    auroc: float64 (learner,). positive, negative: float64 (patient, learner), what a patient's positive and negative
    images add to the deviation of each AUROC from its expectation; their sums over patients are 0. with_positive,
    with_negative: bool (patient,), who has such images.
    """

    auroc: np.ndarray
    positive: np.ndarray
    negative: np.ndarray
    with_positive: np.ndarray
    with_negative: np.ndarray

    @property
    def influence(self) -> np.ndarray:
        """float64 (patient, learner): what each patient adds. AUROC of any linear combination (a mean over findings, a
        difference of resolutions) has the combined influence; see `influence_covariance`.
        """
        return self.positive + self.negative

    def covariance(self) -> np.ndarray:
        """Obuchowski's covariance of the AUROCs, float64 (learner, learner); NaN with fewer than two patients of a
        class.
        """
        positive, negative = self.positive, self.negative
        crossed = positive.T @ negative
        either = self.with_positive | self.with_negative
        return (
            _share(self.with_positive) * (positive.T @ positive)
            + _share(self.with_negative) * (negative.T @ negative)
            + _share(either) * (crossed + crossed.T)
        )


def _share(present: np.ndarray) -> float:
    """n / (n - 1), which makes a variance of n patients unbiased; NaN for fewer than two."""
    n = int(present.sum())
    return n / (n - 1) if n > 1 else float("nan")


def influence_covariance(influence: np.ndarray) -> np.ndarray:
    """Covariance of estimates from what each patient adds to them. influence: (patient, estimate), zero for a patient
    who adds nothing. Returns float64 (estimate, estimate); NaN with fewer than two patients.
    """
    return _share(np.ones(len(influence), dtype=bool)) * (influence.T @ influence)


def components(
    scores: np.ndarray, target: np.ndarray, patient: np.ndarray, n_patients: int | None = None
) -> Components:
    """AUROC (ties count half) and its components by patient.

    scores: float (learner, image), finite; target: 0 or 1 (image,); patient: int (image,), numbered from 0.
    n_patients: length of the patient axis, so that findings with other images line up; None: the largest number + 1.
    Raises ValueError if a class is missing.
    """
    scores, positive = np.atleast_2d(np.asarray(scores, dtype=np.float64)), np.asarray(target) > 0
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    if not n_positive or not n_negative:
        raise ValueError(f"{n_positive} positive and {n_negative} negative images: AUROC is undefined")
    n_patients = int(patient.max()) + 1 if n_patients is None else n_patients
    # Midranks: a positive's rank among all, less that among positives, counts the negatives below it.
    ranks = rankdata(scores, axis=1)
    below = (ranks[:, positive] - rankdata(scores[:, positive], axis=1)) / n_negative  # (learner, positive)
    above = 1 - (ranks[:, ~positive] - rankdata(scores[:, ~positive], axis=1)) / n_positive  # (learner, negative)
    value = below.mean(axis=1)
    return Components(
        value,
        _sum_by_patient((below - value[:, None]) / n_positive, patient[positive], n_patients),
        _sum_by_patient((above - value[:, None]) / n_negative, patient[~positive], n_patients),
        np.bincount(patient[positive], minlength=n_patients) > 0,
        np.bincount(patient[~positive], minlength=n_patients) > 0,
    )


def counted_components(scores: np.ndarray, target: np.ndarray, patient: np.ndarray, n_patients: int) -> Components:
    """`components` of the images that count. target: float (image,), NaN where ignored; else as there."""
    counted = ~np.isnan(target)
    return components(scores[:, counted], target[counted], patient[counted], n_patients)


def _sum_by_patient(values: np.ndarray, patient: np.ndarray, n_patients: int) -> np.ndarray:
    """(learner, image) -> (patient, learner)."""
    return np.stack([np.bincount(patient, weights=row, minlength=n_patients) for row in values], axis=1)


def delong_covariance(scores: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """AUROC (learner,) and DeLong's covariance (learner, learner), every image taken for independent: a check only.

    Arguments and errors as `components`.
    """
    found = components(scores, target, np.arange(np.shape(scores)[-1]))
    positive, negative = found.positive, found.negative
    covariance = _share(found.with_positive) * (positive.T @ positive)
    return found.auroc, covariance + _share(found.with_negative) * (negative.T @ negative)
