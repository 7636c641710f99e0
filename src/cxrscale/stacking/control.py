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

import numpy as np

from cxrscale.evaluation.auroc import auroc
from cxrscale.evaluation.metrics import MEAN
from cxrscale.stacking import CHOSEN
from cxrscale.stacking.ensembles import FoldScores, StackingSettings, correct
from cxrscale.stacking.estimates import Estimate, Training, average, contrast, estimate, training_variance
from cxrscale.stacking.methods import METHODS, fit

Learner = tuple[str, int, int]


def ensembles_of(model: str, resolutions: Sequence[int], seeds: Sequence[int]) -> dict[int | None, list[list[Learner]]]:
    """None -> the ensembles over resolutions, resolution -> those of one resolution; a list of learners each.

    Where S = k all rounds of a control are the same k seeds, and one stands for them.
    """
    k, n = len(resolutions), len(seeds)
    rounds = [[seeds[(t + j) % n] for j in range(k)] for t in range(n)]
    over = [[(model, r, s) for r, s in zip(resolutions, chosen, strict=True)] for chosen in rounds]
    ones = rounds if n > k else rounds[:1]
    return {None: over, **{r: [[(model, r, s) for s in chosen] for chosen in ones] for r in resolutions}}


@dataclass(frozen=True)
class Stake:
    """singles: AUROCs of the learners themselves for a finding, by resolution and then seed. share: float64 (control,
    method, resolution), by how much an effect is off where the AUROCs of a resolution are off by one: 1 for that of the
    control, less the share of its learners in the weights of the ensemble over resolutions. The last control is the
    chosen one."""

    singles: Estimate
    share: np.ndarray


@dataclass
class Controlled:
    """model -> its resolutions, seeds and why there is no control; estimates: (model, finding) -> fold -> of the
    methods of the ensembles over resolutions, of each control, and of the chosen one; stakes: the same of what training
    may add; chosen: (model, finding, method) -> the resolutions that validate chose, by fold."""

    models: dict[str, tuple[list[int], list[int], str | None]] = field(default_factory=dict)
    estimates: dict[tuple[str, str], dict[int, Estimate]] = field(default_factory=dict)
    stakes: dict[tuple[str, str], dict[int, list[Stake]]] = field(default_factory=dict)
    chosen: dict[tuple[str, str, str], list[int]] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)


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
        alone = scores.members([(model, r, s) for r in resolutions for s in seeds])
        defined, stakes = [], []
        for k, finding in enumerate(scores.test.findings):
            if scores.reason(k) is None:
                found, share = _estimate(model, finding, k, groups, scores, settings, result)
                result.estimates.setdefault((model, finding), {})[scores.fold] = found
                defined.append(found)
                patient = scores.test.patient
                logits, target = scores.test.logits[alone, :, k], scores.test.target[:, k]
                stakes.append(Stake(estimate(logits, target, patient, int(patient.max()) + 1), share))
                result.stakes.setdefault((model, finding), {})[scores.fold] = [stakes[-1]]
        if defined:
            result.stakes.setdefault((model, MEAN), {})[scores.fold] = stakes
            result.estimates.setdefault((model, MEAN), {})[scores.fold] = average(defined)


def _estimate(
    model: str,
    finding: str,
    k: int,
    groups: Mapping[int | None, list[list[Learner]]],
    scores: FoldScores,
    settings: StackingSettings,
    result: Controlled,
) -> tuple[Estimate, np.ndarray]:
    """AUROCs of (over resolutions, each control in turn, the chosen control) x METHODS, and the share of a Stake."""
    patient = scores.test.patient
    validated = scores.validate.target[:, k]
    counted = ~np.isnan(validated)
    parts, on_validate, weights = [], [], []
    for resolution, ensembles in groups.items():
        found, selected = [], []
        for learners in ensembles:
            at = scores.members(learners)
            fitted = fit(scores.combine.logits[at, :, k], scores.combine.target[:, k], settings.tolerance)
            odds = fitted.log_odds(scores.test.logits[at, :, k])
            if resolution is None:
                weights.append([np.abs(fitted.combiners[m].weight) for m in METHODS])
            found.append(estimate(odds, scores.test.target[:, k], patient, int(patient.max()) + 1))
            validate = fitted.log_odds(scores.validate.logits[at, :, k])
            selected.append([auroc(score[counted], validated[counted]) for score in validate])
        parts.append(average(found))
        on_validate.append(np.mean(selected, axis=0))
    controls = np.array(on_validate[1:])  # (resolution, method)
    # The largest where validate has one class, as for the best single learner.
    best = [len(controls) - 1 if np.isnan(c).any() else int(np.argmax(c)) for c in controls.T]
    for method, b in zip(METHODS, best, strict=True):
        result.chosen.setdefault((model, finding, method), []).append(list(groups)[1 + b])  # type: ignore[arg-type]
    picked = [(1 + b, m) for m, b in enumerate(best)]
    one = np.eye(len(controls))
    # Logistic regression may give no learner any weight: nothing of theirs is then at stake.
    total = np.sum(weights, axis=2, keepdims=True)
    over = np.divide(weights, total, out=np.zeros(np.shape(weights)), where=total > 0).mean(axis=0)
    share = np.stack([*(c - over for c in one), one[best] - over])
    found_all = Estimate(
        np.concatenate([*(p.value for p in parts), [parts[b].value[m] for b, m in picked]]),
        np.column_stack([*(p.influence for p in parts), *(parts[b].influence[:, m] for b, m in picked)]),
        np.empty((len(METHODS) * (len(parts) + 1), 0)),
        all(p.known for p in parts),
    )
    return found_all, share


def _training(stakes: Sequence[Stake], control: int, method: int, n_seeds: int) -> Training:
    """Of the effect in one fold, averaged over the findings of `stakes`.

    Were the AUROC of an ensemble off by the weighted mean of what its learners are off, the effect over S seeds would
    have the variance sum over resolutions of (share^2 V) / S, with V between the seeds of one resolution. A resolution
    without weight in the ensemble that is not the control adds nothing, however much its learners differ.
    """
    share = [s.share[control, method][:, None] for s in stakes]
    k = len(share[0])
    value = np.mean([h * s.singles.value.reshape(k, n_seeds) for h, s in zip(share, stakes, strict=True)], axis=0)
    influence = np.mean(
        [h * s.singles.influence.reshape(-1, k, n_seeds) for h, s in zip(share, stakes, strict=True)], axis=0
    )
    parts = np.array([training_variance(value[r], influence[:, r]) for r in range(k)]) / n_seeds
    squares = np.sum(parts**2)
    return Training(float(parts.sum()), (n_seeds - 1) * (parts.sum() ** 2 / squares if squares > 0 else 1))


def control_rows(result: Controlled, settings: StackingSettings) -> list[dict[str, object]]:
    """Rows of CONTROL."""
    rows: list[dict[str, object]] = []
    for model, (resolutions, seeds, reason) in result.models.items():
        findings = [*result.findings, *([MEAN] if len(result.findings) > 1 else [])]
        for finding in findings:
            folds = list(result.estimates.get((model, finding), {}).values())
            stakes = result.stakes.get((model, finding), {}).values()
            for m, method in enumerate(METHODS):
                for c, control in enumerate([CHOSEN, *map(str, resolutions)] if reason is None else [CHOSEN]):
                    row: dict[str, object] = {
                        "model": model, "finding": finding, "method": method, "control": control,
                        "n_learners": len(resolutions), "n_seeds": len(seeds), "n_folds": len(folds),
                        "reason": reason or (None if folds else "AUROC is undefined in every fold"),
                    }  # fmt: skip
                    rows.append(row)
                    if not folds:
                        continue
                    if control == CHOSEN and finding != MEAN:
                        row["chosen_px"] = ", ".join(map(str, result.chosen[model, finding, method]))
                    one = np.eye(len(folds[0].value))
                    ours, theirs = one[m], one[(c or len(resolutions) + 1) * len(METHODS) + m]
                    training = [_training(at_stake, c - 1, m, len(seeds)) for at_stake in stakes]
                    effect = contrast(folds, ours - theirs, training)
                    row |= {
                        "auroc_resolutions": contrast(folds, ours).value,
                        "auroc_control": contrast(folds, theirs).value,
                        "effect": effect.value, "p": effect.p, "reason": effect.reason,
                    }  # fmt: skip
                    row["lower"], row["upper"] = effect.interval(settings.confidence)
    correct([row for row in rows if row["control"] == CHOSEN], ["model"])
    return rows
