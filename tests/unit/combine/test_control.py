"""The control: zero where resolutions are exchangeable, positive where they see different things."""

import itertools
from collections import Counter

import numpy as np
import pytest

from cxrscale.combine import control as control_module
from cxrscale.combine.control import ensembles_of, places
from cxrscale.combine.estimates import Estimate
from cxrscale.combine.methods import PRIMARY, combining
from cxrscale.combine.settings import StackingSettings
from cxrscale.combine.stack import stack
from cxrscale.common.rows import CHOSEN, MEAN
from cxrscale.evaluate.auroc import auroc
from cxrscale.evaluate.predictions import read_scores

SETTINGS = StackingSettings(tolerance=1e-6, scale_weight_replicates=100, replicates=100, confidence=0.95, seed=0)
N = 1200
PATIENT = np.arange(N) // 2
SPLIT = np.array(["validate", "combine", "test", "test"])[PATIENT % 4]


@pytest.fixture
def simulate(write_predictions):
    """(findings, seeds, shares) -> predictions: two resolutions; `shares` of what a learner gets wrong is the same in
    all learners of its resolution, the rest its own."""

    def make(findings, seeds, share, resolutions=(256, 512)):
        rng = np.random.default_rng(7)
        target = rng.integers(0, 2, (findings, N))
        of_resolution = {r: rng.normal(size=(findings, N)) for r in resolutions}
        paths = {}
        for r, seed in itertools.product(resolutions, range(seeds)):
            wrong = np.sqrt(share) * of_resolution[r] + np.sqrt(1 - share) * rng.normal(size=(findings, N))
            odds = 0.8 * (2 * target - 1) + wrong
            paths["a", r, 0, seed] = write_predictions(
                f"{r}-{seed}", SPLIT, PATIENT, {f"F{f}": odds[f] for f in range(findings)},
                {f"F{f}": target[f] for f in range(findings)},
            )  # fmt: skip
        return paths

    return make


def test_the_effect_is_nothing_where_resolutions_are_exchangeable(simulate):
    frames = stack(simulate(12, 2, share=0.0), {0: "combine"}, SETTINGS)
    control, gains = frames["control"], frames["gains"]
    fixed = control[(control["method"] == PRIMARY) & (control["control"] != CHOSEN) & (control["finding"] != MEAN)]
    assert len(fixed) == 24
    by_finding = fixed.groupby("finding")["effect"].mean()
    assert abs(by_finding.mean()) < 3 * by_finding.std() / np.sqrt(12)
    assert abs(by_finding.mean()) < 0.005
    # Though combining by itself gains much.
    assert gains.set_index(["method", "against", "finding"])["gain"][PRIMARY, "best_single", MEAN] > 0.04
    # Validation's choice among controls can only help the control, so the effect errs on the low side.
    chosen = control.set_index(["method", "control", "finding"]).loc[PRIMARY, CHOSEN, MEAN]
    assert chosen["effect"] < 0.01
    assert chosen["lower"] < 0.005


def test_the_effect_is_seen_where_resolutions_see_different_things(simulate):
    control = stack(simulate(3, 2, share=0.8), {0: "combine"}, SETTINGS)["control"]
    means = control[(control["control"] == CHOSEN) & (control["finding"] == MEAN)]
    assert means["method"].tolist() == combining()
    for _, row in means.iterrows():
        assert row["effect"] > 0.03
        assert row["lower"] > 0
        assert row["p"] < 0.01
        assert row["effect"] == pytest.approx(row["auroc_resolutions"] - row["auroc_control"])
    declared = (control["method"] == PRIMARY) & (control["control"] == CHOSEN) & (control["finding"] != MEAN)
    assert declared.sum() == 3
    assert (control["p_holm"] >= control["p"])[declared].all()
    assert control["p_holm"][~declared].isna().all()


def test_plain_means_by_hand(simulate):
    paths = simulate(1, 2, share=0.5)
    control = stack(paths, {0: "combine"}, SETTINGS)["control"]
    control = control[control["method"] == "mean"].set_index("control")
    scores = {key: read_scores([path], ["test"])["test"] for key, path in paths.items()}
    probability = {key[1::2]: 1 / (1 + np.exp(-s.logits[0, :, 0])) for key, s in scores.items()}
    target = scores["a", 256, 0, 0].target[:, 0]

    def mean(*learners):
        return auroc(sum(probability[x] for x in learners), target)

    over = (mean((256, 0), (512, 1)) + mean((256, 1), (512, 0))) / 2
    assert control["auroc_resolutions"].tolist() == pytest.approx([over] * 3)
    assert control["auroc_control"]["256"] == pytest.approx(mean((256, 0), (256, 1)))
    assert control["auroc_control"]["512"] == pytest.approx(mean((512, 0), (512, 1)))
    assert control["auroc_control"][CHOSEN] == control["auroc_control"][control["chosen_px"][CHOSEN]]


@pytest.mark.parametrize("n_seeds", [3, 4, 5])
def test_both_sides_use_every_learner_equally_often_and_the_same_seeds(n_seeds):
    groups = ensembles_of("m", [1, 2, 3], range(n_seeds))
    assert len(groups[None]) == n_seeds
    for resolution, ensembles in groups.items():
        used = Counter(learner for ensemble in ensembles for learner in ensemble)
        assert len(set(used.values())) == 1
        assert len(used) == n_seeds * (3 if resolution is None else 1)
        for ensemble in ensembles:
            assert len({seed for _, _, seed in ensemble}) == 3
            assert {px for _, px, _ in ensemble} == ({1, 2, 3} if resolution is None else {resolution})
    assert len(groups[1]) == (1 if n_seeds == 3 else n_seeds)


class SumOfLearners(control_module._Ensembles):
    """Ensembles whose AUROC by every method is the sum of a number of each learner."""

    def __init__(self, numbers):
        self.numbers = numbers

    def score(self, learners):
        total = sum(self.numbers[resolution, seed] for _, resolution, seed in learners)
        n = len(combining())
        return Estimate(np.full(n, total), np.zeros((3, n)), np.empty((n, 0))), np.full(n, total)


@pytest.mark.parametrize("n_seeds", [3, 4, 6])
def test_what_a_seed_draws_is_its_learners_part_in_the_effect(n_seeds):
    rng = np.random.default_rng(3)
    resolutions, seeds = [1, 2, 3], list(range(n_seeds))
    numbers = {(r, s): rng.normal() for r, s in itertools.product(resolutions, seeds)}
    ensembles = SumOfLearners(numbers)
    groups = ensembles_of("m", resolutions, seeds)
    best = control_module._best(ensembles, groups)
    means = [np.mean([numbers[r, s] for s in seeds]) for r in resolutions]
    assert best == dict.fromkeys(combining(), resolutions[int(np.argmax(means))])
    whole = ensembles.estimate(groups, best)
    draws = control_module._by_seed(ensembles, whole, "m", resolutions, seeds, best)
    at = places(resolutions)
    for side, r in [*zip(resolutions, resolutions, strict=True), (CHOSEN, best["mean"])]:
        effect = np.zeros(len(whole.value))
        effect[at[None, "mean"]], effect[at[side, "mean"]] = 1, -1
        assert effect @ whole.value == pytest.approx(sum(means) - 3 * means[resolutions.index(r)])
        found = control_module._training(draws, effect)
        if n_seeds > 3:
            of_seed = [sum(numbers[x, s] for x in resolutions) - 3 * numbers[r, s] for s in seeds]
            assert [effect @ d.value for d in draws[0]] == pytest.approx(of_seed)
            assert (found.variance, found.freedom) == (pytest.approx(np.var(of_seed, ddof=1) / n_seeds), n_seeds - 1)
        else:  # no seed can be left out: the learners of each resolution stand for it
            between = np.mean([np.var([numbers[x, s] for s in seeds], ddof=1) for x in resolutions])
            assert (found.variance, found.freedom) == (pytest.approx(between * (1 - 1 / 3) / 3), 6)


def test_without_the_seeds_the_table_says_what_is_missing(simulate):
    control = stack(simulate(2, 1, share=0.5), {0: "combine"}, SETTINGS)["control"]
    assert len(control) == 3 * len(combining())  # two findings and their mean
    assert set(control["control"]) == {CHOSEN}
    assert control["effect"].isna().all()
    assert set(control["reason"]) == {"2 learners of one resolution need 2 seeds, there is 1"}
