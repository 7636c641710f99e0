"""The control: is a gain of combining resolutions one of resolution, or one that any ensemble has?

Any k learners combined tend to beat one. So k learners of k resolutions are held against k learners of one resolution
that differ in their seed, fitted in the same way on the same images, with the same seeds on both sides. With the seeds
s_0 ... s_(S-1), S >= k, round t takes the k seeds from s_t on, in a circle: over resolutions, the j-th smallest
resolution with seed s_(t+j); for a control, one resolution with all k of them. Both are averaged over the S rounds, so
that each learner is used equally often. (Learners of one seed share initial weights and the order of images, which
makes them more alike; so seeds differ within both.)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

import numpy as np

from cxrscale.combine.ensembles import FoldScores, LearnerKey, correct
from cxrscale.combine.estimates import Estimate, TrainingVariance, average, contrast, estimate, training_variance
from cxrscale.combine.methods import combining, fit_all
from cxrscale.combine.settings import StackingSettings
from cxrscale.common.rows import CHOSEN, MEAN
from cxrscale.evaluate.auroc import auroc

#: None -> the ensembles over resolutions, resolution -> those of one resolution; a list of learners each.
Groups = dict[int | None, list[list[LearnerKey]]]
#: What an AUROC is of: None -> the ensembles over resolutions, resolution -> its control, CHOSEN -> the chosen control.
Side = int | str | None


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
    """models: model -> its resolutions, seeds and why there is no control. estimates: (model, finding) -> fold -> their
    scores as `places`; draws: what seeds bring to these, see `_by_seed`; chosen: (model, finding, method) -> the
    resolutions that validate chose, by fold."""

    models: dict[str, tuple[list[int], list[int], str | None]] = field(default_factory=dict)
    estimates: dict[tuple[str, str], dict[int, Estimate]] = field(default_factory=dict)
    draws: dict[tuple[str, str], dict[int, list[list[Estimate]]]] = field(default_factory=dict)
    chosen: dict[tuple[str, str, str], list[int]] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)


def places(resolutions: Sequence[int]) -> dict[tuple[Side, str], int]:
    """(side, method) -> where its AUROC is among the scores of an estimate of the control."""
    return {key: i for i, key in enumerate(product([None, *resolutions, CHOSEN], combining()))}


def reason_without(resolutions: Sequence[int], seeds: Sequence[int]) -> str | None:
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
        reason = reason_without(resolutions, seeds)
        result.models[model] = (resolutions, seeds, reason)
        if reason is not None:
            continue
        groups = ensembles_of(model, resolutions, seeds)
        defined, draws = [], []
        for k, finding in enumerate(scores.test.findings):
            if scores.reason(k) is None:
                ensembles = _Ensembles(scores, k, settings.tolerance)
                best = _best(ensembles, groups)
                for method, resolution in best.items():
                    result.chosen.setdefault((model, finding, method), []).append(resolution)
                defined.append(ensembles.estimate(groups, best))
                draws.append(_by_seed(ensembles, defined[-1], model, resolutions, seeds, best))
                result.estimates.setdefault((model, finding), {})[scores.fold] = defined[-1]
                result.draws.setdefault((model, finding), {})[scores.fold] = draws[-1]
        if defined:
            result.estimates.setdefault((model, MEAN), {})[scores.fold] = average(defined)
            result.draws.setdefault((model, MEAN), {})[scores.fold] = [
                [average(findings) for findings in zip(*groups, strict=True)] for groups in zip(*draws, strict=True)
            ]


class _Ensembles:
    """Ensembles for finding k, each fitted on combine once and scored on test and on validate."""

    def __init__(self, scores: FoldScores, k: int, tolerance: float) -> None:
        self.scores, self.k, self.tolerance = scores, k, tolerance
        self.known: dict[tuple[LearnerKey, ...], tuple[Estimate, np.ndarray]] = {}

    def score(self, learners: Sequence[LearnerKey]) -> tuple[Estimate, np.ndarray]:
        """AUROCs of the methods that combine on test, and on validate (NaN where that has one class)."""
        key = tuple(sorted(learners))
        if key not in self.known:
            k, test, validate = self.k, self.scores.test, self.scores.validate
            at = self.scores.members(key)
            fitted = fit_all(self.scores.evidence(key, k, self.tolerance), combining())
            odds = fitted.log_odds(test.logits[at, :, k])
            found = estimate(odds, test.target[:, k], test.patient, int(test.patient.max()) + 1)
            counted = ~np.isnan(validate.target[:, k])
            of_validate = fitted.log_odds(validate.logits[at][:, counted, k])
            selected = np.array([auroc(odds, validate.target[counted, k]) for odds in of_validate])
            self.known[key] = found, selected
        return self.known[key]

    def estimate(self, groups: Groups, best: Mapping[str, int]) -> Estimate:
        """AUROCs as `places`. best: see `_best`."""
        parts = {side: average([self.score(learners)[0] for learners in group]) for side, group in groups.items()}
        picked = [(parts[best[method]], m) for m, method in enumerate(combining())]
        value = np.concatenate([*(p.value for p in parts.values()), [p.value[m] for p, m in picked]])
        influence = [*(p.influence for p in parts.values()), *(p.influence[:, m] for p, m in picked)]
        known = all(p.known for p in parts.values())
        return Estimate(value, np.column_stack(influence), np.empty((len(value), 0)), known)


def _best(ensembles: _Ensembles, groups: Groups) -> dict[str, int]:
    """By method: the resolution whose control does best on validate; the largest where that has one class, as for the
    best single learner."""
    controls = {resolution: group for resolution, group in groups.items() if resolution is not None}
    on_validate = np.array([np.mean([ensembles.score(x)[1] for x in group], axis=0) for group in controls.values()])
    best = [-1 if np.isnan(c).any() else int(np.argmax(c)) for c in on_validate.T]
    return {method: list(controls)[b] for method, b in zip(combining(), best, strict=True)}


def _by_seed(
    ensembles: _Ensembles,
    whole: Estimate,
    model: str,
    resolutions: Sequence[int],
    seeds: Sequence[int],
    best: Mapping[str, int],
) -> list[list[Estimate]]:
    """Groups of one estimate a seed: the mean over groups of their variance over seeds, divided by the number of seeds
    S, is what the chance of training adds to an effect in `whole`.

    With more seeds than resolutions one group, the pseudo-values of the jackknife (Tukey 1958; Efron and Stein 1981,
    doi:10.1214/aos/1176345462): S times the whole less S - 1 times what is estimated without that seed. With as many
    seeds as resolutions, k, a control is one ensemble and no seed can be left out. Then a group for each resolution,
    its learners: were an ensemble's AUROC off by the mean of what its learners are off, the effect would have
    (1 - 1/k) / S times the variance of a learner.
    """
    k, n = len(resolutions), len(seeds)
    if n > k:
        rests = [[s for s in seeds if s != out] for out in seeds]
        left_out = [ensembles.estimate(ensembles_of(model, resolutions, rest), best) for rest in rests]
        return [[combination(n, whole, 1 - n, other) for other in left_out]]
    scale, at = np.sqrt(1 - 1 / k), places(resolutions)
    of_resolutions = [at[None, method] for method in combining()]
    groups = []
    for r in resolutions:
        alone = [ensembles.score([(model, r, s)])[0] for s in seeds]
        group = [combination(0.0, whole, 0.0, whole) for _ in seeds]
        for draw, one in zip(group, alone, strict=True):
            draw.value[of_resolutions], draw.influence[:, of_resolutions] = scale * one.value, scale * one.influence
        groups.append(group)
    return groups


def combination(a: float, first: Estimate, b: float, second: Estimate) -> Estimate:
    """a times the first plus b times the second."""
    value, influence = a * first.value + b * second.value, a * first.influence + b * second.influence
    return Estimate(value, influence, a * first.replicates + b * second.replicates, first.known and second.known)


def _training(groups: Sequence[Sequence[Estimate]], coefficients: np.ndarray) -> TrainingVariance:
    """What training adds to a combination of AUROCs in one fold. groups: see `_by_seed`."""
    n = len(groups[0])
    parts = [
        training_variance(
            np.array([coefficients @ d.value for d in group]),
            np.column_stack([d.influence @ coefficients for d in group]),
        )
        for group in groups
    ]
    return TrainingVariance(float(np.mean(parts)) / n, len(groups) * (n - 1))


def control_rows(result: Controlled, settings: StackingSettings) -> list[dict[str, object]]:
    """Rows of CONTROL."""
    rows: list[dict[str, object]] = []
    for model, (resolutions, seeds, reason) in result.models.items():
        findings = [*result.findings, *([MEAN] if len(result.findings) > 1 else [])]
        for finding in findings:
            folds = list(result.estimates.get((model, finding), {}).values())
            draws = result.draws.get((model, finding), {}).values()
            one = dict(zip(places(resolutions), np.eye(len(places(resolutions))), strict=True))
            sides: list[Side] = [CHOSEN, *resolutions] if reason is None else [CHOSEN]
            for method, control in product(combining(), sides):
                row: dict[str, object] = {
                    "model": model, "finding": finding, "method": method, "control": str(control),
                    "n_learners": len(resolutions), "n_seeds": len(seeds), "n_folds": len(folds),
                    "reason": reason or (None if folds else "AUROC is undefined in every fold"),
                }  # fmt: skip
                rows.append(row)
                if not folds:
                    continue
                if control == CHOSEN and finding != MEAN:
                    row["chosen_px"] = ", ".join(map(str, result.chosen[model, finding, method]))
                ours, theirs = one[None, method], one[control, method]
                effect = contrast(folds, ours - theirs, [_training(of_fold, ours - theirs) for of_fold in draws])
                row |= {
                    "auroc_resolutions": contrast(folds, ours).value,
                    "auroc_control": contrast(folds, theirs).value,
                    "effect": effect.value, "p": effect.p, "reason": effect.reason,
                }  # fmt: skip
                row["lower"], row["upper"] = effect.interval(settings.confidence)
    correct([row for row in rows if row["control"] == CHOSEN], ["model"])
    return rows
