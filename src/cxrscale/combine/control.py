"""The control: is a gain of combining resolutions one of resolution, or one that any ensemble has?

Any k learners combined tend to beat one. So k learners of k resolutions are held against k learners of one resolution
that differ in their seed, fitted in the same way on the same images, with the same seeds on both sides. With the seeds
s_0 ... s_(S-1), S >= k, round t takes the k seeds from s_t on, in a circle: over resolutions, the j-th smallest
resolution with seed s_(t+j); for a control, one resolution with all k of them. Both are averaged over the S rounds, so
that each learner is used equally often. (Learners of one seed share initial weights and the order of images, which
makes them more alike; so seeds differ within both.)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product

import numpy as np

from cxrscale.combine.ensembles import NO_VALUE, FoldScores, LearnerKey, correct
from cxrscale.combine.methods import combining, fit_all
from cxrscale.combine.settings import StackingSettings
from cxrscale.common.rows import MEAN, STRONGEST
from cxrscale.evaluate.averaging import FoldAuroc, Spread, difference_intervals, joined, mean_component, means_over
from cxrscale.evaluate.clustered import Components, counted_components
from cxrscale.evaluate.verdicts import NO_VARIANCE, p_different, reason_without

#: None -> the ensembles over resolutions, resolution -> those of one resolution; a list of learners each.
Groups = dict[int | None, list[list[LearnerKey]]]


def ensembles_of(model: str, resolutions: Sequence[int], seeds: Sequence[int]) -> Groups:
    """The ensembles of all rounds.

    Where S = k all rounds of a control are the same k seeds, and one stands for them.
    """
    k, n = len(resolutions), len(seeds)
    rounds = [[seeds[(t + j) % n] for j in range(k)] for t in range(n)]
    over = [[(model, r, s) for r, s in zip(resolutions, chosen, strict=True)] for chosen in rounds]
    ones = rounds if n > k else rounds[:1]
    return {None: over, **{r: [[(model, r, s) for s in chosen] for chosen in ones] for r in resolutions}}


@dataclass
class Controlled:
    """models: model -> its resolutions, seeds and why there is no control. folds: (model, finding) -> of each fold,
    what every seed brings to the AUROCs in the order of `places`."""

    models: dict[str, tuple[list[int], list[int], str | None]] = field(default_factory=dict)
    folds: dict[tuple[str, str], list[FoldAuroc]] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)


def places(resolutions: Sequence[int]) -> dict[tuple[int | None, str], int]:
    """(None: the ensembles over resolutions, else the control's resolution; method) -> where its AUROC is."""
    return {key: i for i, key in enumerate(product([None, *resolutions], combining()))}


def reason_for_none(resolutions: Sequence[int], seeds: Sequence[int]) -> str | None:
    """Why a model's resolutions have no control, or None if they have."""
    k = len(resolutions)
    if k < 2:
        return "one resolution only: nothing is combined"
    if len(seeds) < k:
        return f"{k} learners of one resolution need {k} seeds, there {'is' if len(seeds) == 1 else 'are'} {len(seeds)}"
    return None


def control_fold(scores: FoldScores, settings: StackingSettings, result: Controlled) -> None:
    """Add to `result` what a fold says about each model."""
    result.findings = list(scores.test.findings)
    for model in dict.fromkeys(m for m, _, _ in scores.learners):
        resolutions = sorted({px for m, px, _ in scores.learners if m == model})
        by_resolution = [{s for m, px, s in scores.learners if (m, px) == (model, r)} for r in resolutions]
        seeds = sorted(set.intersection(*by_resolution))
        reason = reason_for_none(resolutions, seeds)
        result.models[model] = (resolutions, seeds, reason)
        if reason is not None:
            continue
        brought = {}
        for k, finding in enumerate(scores.test.findings):
            if scores.reason(k) is None:
                ensembles = Ensembles(scores, k, settings.tolerance)
                brought[finding] = by_seed(ensembles, model, resolutions, seeds)
        if brought:
            brought[MEAN] = [mean_component(of_findings) for of_findings in zip(*brought.values(), strict=True)]
        for finding, of_seeds in brought.items():
            spread = spread_over_seeds(np.array([one.auroc for one in of_seeds]), len(resolutions))
            found = FoldAuroc.of(joined(of_seeds), len(seeds), spread=spread)
            result.folds.setdefault((model, finding), []).append(found)


class Ensembles:
    """Ensembles for finding k, each fitted on combine once and scored on test."""

    def __init__(self, scores: FoldScores, k: int, tolerance: float) -> None:
        self.scores, self.k, self.tolerance = scores, k, tolerance
        self.known: dict[tuple[LearnerKey, ...], Components] = {}

    def score(self, learners: Sequence[LearnerKey]) -> Components:
        """AUROCs of the methods that combine."""
        key = tuple(sorted(learners))
        if key not in self.known:
            k, test = self.k, self.scores.test
            fitted = fit_all(self.scores.evidence(key, k, self.tolerance), combining())
            odds = fitted.log_odds(test.logits[self.scores.members(key), :, k])
            n_patients = int(test.patient.max()) + 1
            self.known[key] = counted_components(odds, test.target[:, k], test.patient, n_patients)
        return self.known[key]

    def of(self, groups: Groups) -> Components:
        """AUROCs in the order of `places`, the mean over the ensembles of each group."""
        return joined([mean_component([self.score(learners) for learners in group]) for group in groups.values()])


def by_seed(ensembles: Ensembles, model: str, resolutions: Sequence[int], seeds: Sequence[int]) -> list[Components]:
    """What each seed brings to the AUROCs of `places`: their mean over seeds is the AUROCs of all rounds, and their
    variance over seeds is the chance of training.

    With more seeds than resolutions, the pseudo-values of the jackknife (Tukey 1958; Efron and Stein 1981,
    doi:10.1214/aos/1176345462): with S seeds, S times the whole less S - 1 times what is estimated without that seed.
    With as many seeds as resolutions a control is one ensemble and no seed can be left out. Then the learners of the
    seed by themselves, on their mean over the resolutions and on each: were an ensemble's AUROC off by the mean of what
    its learners are off, that would be its part. Both are shifted so that their mean is the whole.
    """
    n = len(seeds)
    whole = ensembles.of(ensembles_of(model, resolutions, seeds))
    if n > len(resolutions):
        rests = [[s for s in seeds if s != out] for out in seeds]
        others = [ensembles.of(ensembles_of(model, resolutions, rest)) for rest in rests]
        brought = [_sum((n, whole), (1 - n, other)) for other in others]
    else:
        alone = [[ensembles.score([(model, r, s)]) for r in resolutions] for s in seeds]
        brought = [joined([mean_component(of_seed), *of_seed]) for of_seed in alone]
    mean = mean_component(brought)
    return [_sum((1, one), (-1, mean), (1, whole)) for one in brought]


def spread_over_seeds(brought: np.ndarray, n_resolutions: int) -> Spread:
    """Their variance over seeds; each finding's own. brought: (seed, score), see `by_seed`.

    What a resolution brings counts as far as the ensemble uses it: one that hardly learns a finding does not blur what
    is known about the others, so nothing is pooled over resolutions. With as many seeds as resolutions the learners
    stand alone, k of a seed independent of each other, and their mean variance s is taken: that of each control, with k
    times a seed's degree of freedom. An effect then has the variance (1 - 1/k) s.
    """
    n_seeds, n_scores = brought.shape
    covariance = np.atleast_2d(np.cov(brought, rowvar=False))
    if n_seeds > n_resolutions:
        return Spread(covariance)
    of_each = covariance.reshape(n_resolutions + 1, -1, n_resolutions + 1, n_scores // (n_resolutions + 1))
    shared = np.mean([of_each[r, :, r, :] for r in range(1, n_resolutions + 1)], axis=0)  # (method, method)
    sides = np.eye(n_resolutions + 1)
    sides[0, :] = sides[:, 0] = 1 / n_resolutions
    return Spread(np.kron(sides, shared), n_resolutions, n_resolutions)


def _sum(*terms: tuple[float, Components]) -> Components:
    """The sum of components times numbers; of the same patients and as many scores."""
    return replace(
        terms[0][1],
        auroc=np.sum([factor * term.auroc for factor, term in terms], axis=0),
        positive=np.sum([factor * term.positive for factor, term in terms], axis=0),
        negative=np.sum([factor * term.negative for factor, term in terms], axis=0),
    )


def control_rows(result: Controlled, settings: StackingSettings) -> list[dict[str, object]]:
    """Rows of CONTROL."""
    rows: list[dict[str, object]] = []
    for model, (resolutions, seeds, reason) in result.models.items():
        for finding in [*result.findings, *([MEAN] if len(result.findings) > 1 else [])]:
            folds = result.folds.get((model, finding), [])
            for method in combining():
                who: dict[str, object] = {
                    "model": model, "finding": finding, "method": method, "n_learners": len(resolutions),
                    "n_seeds": len(seeds), "n_folds": len(folds),
                    "reason": reason or (None if folds else NO_VALUE),
                }  # fmt: skip
                fixed = [who | {"control": str(r)} for r in resolutions] if reason is None else []
                strongest = who | {"control": STRONGEST}
                if folds:
                    _fill(fixed, folds, method, resolutions, settings)
                    strongest |= _strongest(fixed)
                rows += [strongest, *fixed]
    correct([row for row in rows if row["control"] == STRONGEST], ["model"])
    return rows


def _fill(
    rows: Sequence[dict[str, object]],
    folds: Sequence[FoldAuroc],
    method: str,
    resolutions: Sequence[int],
    settings: StackingSettings,
) -> None:
    """Put effects into the rows of one finding and method, a row a control."""
    one = dict(zip(places(resolutions), np.eye(len(places(resolutions))), strict=True))
    ours, theirs = one[None, method], np.array([one[r, method] for r in resolutions])
    effects, controls = means_over(folds, ours - theirs), means_over(folds, theirs)
    (over,) = means_over(folds, ours[None])
    lower, upper = difference_intervals(effects, settings.confidence)
    p = p_different(effects)
    for i, row in enumerate(rows):
        row |= {
            "auroc_resolutions": over.value, "auroc_control": controls[i].value, "effect": effects[i].value,
            "lower": lower[i], "upper": upper[i], "p": p[i],
            "reason": NO_VARIANCE if np.isnan(p[i]) else reason_without(effects[i], settings.least_patients),
        }  # fmt: skip


def _strongest(fixed: Sequence[Mapping[str, object]]) -> dict[str, object]:
    """The row of the strongest control, with the p of a gain over every one of them: the largest (Berger 1982,
    doi:10.2307/2530565). It needs no correction for the number of controls, and says nothing of a loss."""
    row = dict(min(fixed, key=lambda control: float(str(control["effect"]))))
    p = [float(str(c["p"])) if float(str(c["effect"])) > 0 else 1.0 for c in fixed]
    return row | {"control": STRONGEST, "strongest_px": int(str(row["control"])), "p": float(np.max(p))}
