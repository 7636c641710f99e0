"""Means over folds and seeds, with the variance that patients bring and the one that training brings.

A fold's test patients rank every learner, and each learner is one draw of training. That is the design of a
multi-reader study, seeds for readers and resolutions for modalities, and it is analysed as one: within a fold after
Obuchowski and Rockette (1995, doi:10.1080/03610919508813243), patients clustered (Obuchowski 1997), and with degrees of
freedom in the manner of Hillis (2007, doi:10.1002/sim.2532). Folds test different patients, so their variances add.
That folds share training images is not accounted for; no unbiased estimate of that exists (Bengio and Grandvalet 2004,
JMLR 5:1089).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from scipy.stats import chi2

from cxrscale.common.rows import MEAN
from cxrscale.evaluate.clustered import Components
from cxrscale.evaluate.intervals import intervals_of

#: One-sided confidence of the bound that a test's own variance over seeds sets to the pooled one, and how many seeds
#: it takes: by chance three are too often alike.
OWN_BOUND, SEEDS_FOR_BOUND = 0.9, 5
#: Seeds that it takes to know how much ways to combine vary with them: two leave one degree of freedom.
LEAST_SEEDS = 3
#: A variance below this is what rounding leaves of sums that cancel.
ROUNDING = 1e-24


@dataclass(frozen=True)
class Spread:
    """What is known of the variance over seeds in one fold.

    covariance: float64 (score, score); NaN where it cannot be known, as with one seed. times_level, times_difference:
    how many times seeds - 1 are the degrees of freedom of the variance of an AUROC and of a difference.
    """

    covariance: np.ndarray
    times_level: int = 1
    times_difference: int = 1

    @property
    def known(self) -> bool:
        return not bool(np.isnan(self.covariance).any())

    def of(self, contrasts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The variance of each contrast (contrast, score), and how many times seeds - 1 its degrees of freedom are."""
        variance = ((contrasts @ self.covariance) * contrasts).sum(axis=1)
        differs = np.abs(contrasts.sum(axis=1)) < 1e-9
        return variance, np.where(differs, self.times_difference, self.times_level)


@dataclass(frozen=True)
class FoldAuroc:
    """AUROCs of several scores in one fold for one finding, each with several seeds: of a model's resolutions, or of
    ways to combine these.

    auroc: float64 (seed, score). covariance, from_positive, from_negative: float64 (seed, score, seed, score), of
    patients: all, and the parts that patients' positive and negative images bring. n_positive, n_negative: patients who
    have such images. spread: over seeds, of this finding until `pooled` over several.
    """

    auroc: np.ndarray
    covariance: np.ndarray
    from_positive: np.ndarray
    from_negative: np.ndarray
    n_positive: int
    n_negative: int
    spread: Spread

    @classmethod
    def of(cls, found: Components, n_seeds: int, spread: Spread | None = None) -> Self:
        """found: of scores in the order seed, score. spread: over seeds; None: `spread_of` this finding."""
        n_positive, n_negative = int(found.with_positive.sum()), int(found.with_negative.sum())
        auroc = found.auroc.reshape(n_seeds, -1)
        shape = auroc.shape

        def part(values: np.ndarray, n: int) -> np.ndarray:
            share = n / (n - 1) if n > 1 else np.nan
            return (share * values.T @ values).reshape(shape * 2)

        return cls(
            auroc,
            found.covariance().reshape(shape * 2),
            part(found.positive, n_positive),
            part(found.negative, n_negative),
            n_positive,
            n_negative,
            spread_of([auroc]) if spread is None else spread,
        )

    def of_seed(self, seed: int) -> Self:
        """The learners of one seed, by its number in the order. They have no spread."""
        own = (slice(seed, seed + 1), slice(None), slice(seed, seed + 1))
        return replace(
            self,
            auroc=self.auroc[[seed]],
            covariance=self.covariance[own],
            from_positive=self.from_positive[own],
            from_negative=self.from_negative[own],
            spread=Spread(np.full_like(self.spread.covariance, np.nan)),
        )


@dataclass(frozen=True)
class Mean:
    """A mean over folds and seeds.

    se_patients: its standard error for these learners, over patients who might have been tested. se_seeds: what other
    seeds add; 0 with one seed a fold, where it cannot be known. df: degrees of freedom of t. n_positive, n_negative:
    patients of all folds who have images with and without the finding. NaN where a class has fewer than two patients.
    """

    value: float
    se_patients: float
    se_seeds: float
    df: float
    n_positive: int
    n_negative: int

    @property
    def se(self) -> float:
        return float(np.hypot(self.se_patients, self.se_seeds))


def level_intervals(means: Sequence[Mean], confidence: float) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper ends of AUROCs, float64 (mean,) each; see `intervals_of`.

    At exactly 1 (or 0), where patients do not differ, the lower (upper) end is a bound: were the chance of a patient of
    the rarer class to be ranked right any smaller, all n of them would be in fewer than (1 - confidence) / 2 of studies
    (Clopper and Pearson's for n of n). NaN with fewer than two patients of a class.
    """
    value, error, df = _errors(means)
    lower, upper = intervals_of(value, error, df, confidence, within_0_and_1=True)
    fewest = np.array([min(m.n_positive, m.n_negative) for m in means])
    bound = ((1 - confidence) / 2) ** (1 / np.maximum(fewest, 1))
    ends = (error == 0) & (fewest > 1)
    lower, upper = np.where(ends & (value == 1), bound, lower), np.where(ends & (value == 1), 1.0, upper)
    return np.where(ends & (value == 0), 0.0, lower), np.where(ends & (value == 0), 1 - bound, upper)


def difference_intervals(means: Sequence[Mean], confidence: float) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper ends of differences of AUROCs, float64 (mean,) each; see `intervals_of`."""
    return intervals_of(*_errors(means), confidence, within_0_and_1=False)


def _errors(means: Sequence[Mean]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return np.array([m.value for m in means]), np.array([m.se for m in means]), np.array([m.df for m in means])


def mean_component(parts: Sequence[Components]) -> Components:
    """The mean AUROC over findings, from their components for the same patients and learners."""
    return Components(
        np.mean([p.auroc for p in parts], axis=0),
        np.mean([p.positive for p in parts], axis=0),
        np.mean([p.negative for p in parts], axis=0),
        np.any([p.with_positive for p in parts], axis=0),
        np.any([p.with_negative for p in parts], axis=0),
    )


def joined(parts: Sequence[Components]) -> Components:
    """Components of other scores for the same images side by side, in the order of `parts`."""
    return replace(
        parts[0],
        auroc=np.concatenate([p.auroc for p in parts]),
        positive=np.concatenate([p.positive for p in parts], axis=1),
        negative=np.concatenate([p.negative for p in parts], axis=1),
    )


def pooled(findings: Mapping[str, Components], n_seeds: int, alike: bool = True) -> dict[str, FoldAuroc]:
    """What is said of a fold: each finding and, named MEAN, the mean over them, with the spread over seeds of all.

    findings: components in the order seed, score, for the same patients and at least one finding. The mean varies over
    seeds no more than its findings do on average: theirs is on the safe side.
    """
    parts = list(findings.values())
    spread = spread_of([part.auroc.reshape(n_seeds, -1) for part in parts], alike)
    together = {**findings, MEAN: mean_component(parts)}
    return {finding: FoldAuroc.of(part, n_seeds, spread) for finding, part in together.items()}


def spread_of(aurocs: Sequence[np.ndarray], alike: bool = True) -> Spread:
    """The mean covariance over seeds, over the findings of a fold and, where scores are alike, over these too.

    aurocs: of each finding, float (seed, score). alike: the scores are resolutions, of which training is taken to be
    as variable at each. Ways to combine are not: one keeps a single learner, another has the mean of all. Of these it
    takes LEAST_SEEDS; with fewer nothing is known.

    Three seeds say next to nothing about a variance by themselves: two degrees of freedom need a t of 30 where normal
    errors need 3. So the mean over pairs of resolutions is taken, the mean square of Obuchowski and Rockette, and over
    findings. The findings of a learner move together: they are counted as one for degrees of freedom.
    """
    auroc = np.stack(aurocs)  # (finding, seed, score)
    n_seeds, n_scores = auroc.shape[1:]
    if n_seeds < (2 if alike else LEAST_SEEDS):
        return Spread(np.full((n_scores, n_scores), np.nan))
    centred = auroc - auroc.mean(axis=1, keepdims=True)
    covariance = np.einsum("fsi,fsj->ij", centred, centred) / (n_seeds - 1) / len(auroc)
    if not alike:
        return Spread(covariance)
    if n_scores > 1:
        # One variance and one covariance for all, so that each difference has the mean over pairs.
        own = np.trace(covariance) / n_scores
        shared = (covariance.sum() - np.trace(covariance)) / (n_scores * (n_scores - 1))
        covariance = np.where(np.eye(n_scores, dtype=bool), own, shared)
    return Spread(covariance, n_scores, max(n_scores - 1, 1))


def means_over(folds: Sequence[FoldAuroc], contrasts: np.ndarray) -> list[Mean]:
    """Means over folds, within them over seeds, of `auroc @ contrast`, for each contrast.

    contrasts: float (contrast, score); a row (0, 1) is the second AUROC, (1, -1) the difference of the first from it.

    In a fold with S seeds let d_s be the contrast, v the clustered variance of its mean over seeds for these learners,
    c the mean covariance of two seeds' d and b the variance of d over seeds: its own or the pooled one, whichever is
    larger, so that neither a chance likeness of few seeds nor quiet neighbours make it small; but no more than the
    upper OWN_BOUND confidence bound of its own from SEEDS_FOR_BOUND seeds on, so that wild neighbours do not hide what
    is certain.
    d_s = truth + training + what the patients do to all learners alike (variance c) + what they do to this one; b
    holds the second and the fourth. So b / S + c estimates the variance of the mean without counting the fourth twice.
    It is not let below v, so that no claim about resolution is firmer than one about the learners. Degrees of freedom
    (Satterthwaite): those of the pooled variance for b, (S - 1) times (resolutions - 1) for a difference; patients of
    a class less one for what that class brings, as Welch's for two samples (Brunner and Munzel 2000,
    doi:10.1002/(SICI)1521-4036(200001)42:1<17::AID-BIMJ17>3.0.CO;2-U): a rare finding has few, however many images
    there are.
    """
    n = len(contrasts)
    value, patients, total, doubt = np.zeros(n), np.zeros(n), np.zeros(n), np.zeros(n)
    for fold in folds:
        d = contrasts @ fold.auroc.T  # (contrast, seed)
        n_seeds = d.shape[1]
        by_seed = _contrasted(fold.covariance, contrasts)  # (contrast, seed, seed)
        v = by_seed.mean(axis=(1, 2))
        whole = v
        if fold.spread.known:
            pooled_b, times = fold.spread.of(contrasts)
            own = d.var(axis=1, ddof=1)
            bound = own * (n_seeds - 1) / chi2.ppf(1 - OWN_BOUND, n_seeds - 1) if n_seeds >= SEEDS_FOR_BOUND else np.inf
            of_seeds = np.maximum(own, np.minimum(pooled_b, bound)) / n_seeds
            shared = (n_seeds**2 * v - np.einsum("css->c", by_seed)) / (n_seeds * (n_seeds - 1))
            whole = np.maximum(of_seeds + np.maximum(shared, 0.0), v)
            doubt += of_seeds**2 / (times * (n_seeds - 1))
        for part, count in ((fold.from_positive, fold.n_positive), (fold.from_negative, fold.n_negative)):
            doubt += _contrasted(part, contrasts).mean(axis=(1, 2)) ** 2 / max(count - 1, 1)
        value += d.mean(axis=1) / len(folds)
        patients += v
        total += whole
    # Rounding may leave a variance of nothing just beside zero.
    of_patients = np.sqrt(np.where(patients < ROUNDING, 0.0, patients)) / len(folds)
    of_seeds = np.sqrt(np.where(total - patients < ROUNDING, 0.0, total - patients)) / len(folds)
    df = np.divide(total**2, doubt, out=np.full(n, np.inf), where=doubt > 0)
    n_positive, n_negative = sum(f.n_positive for f in folds), sum(f.n_negative for f in folds)
    return [
        Mean(float(value[c]), float(of_patients[c]), float(of_seeds[c]), float(df[c]), n_positive, n_negative)
        for c in range(n)
    ]


def _contrasted(covariance: np.ndarray, contrasts: np.ndarray) -> np.ndarray:
    """(seed, score, seed, score) -> (contrast, seed, seed)."""
    half = np.tensordot(contrasts, covariance, axes=(1, 1))  # (contrast, seed, seed, score)
    return (half * contrasts[:, None, None, :]).sum(axis=-1)
