"""The control: zero where resolutions are exchangeable, positive where they see different things."""

import itertools
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from cxrscale.combine.control import Ensembles, by_seed, ensembles_of, places, spread_over_seeds
from cxrscale.combine.methods import PRIMARY, combining
from cxrscale.combine.settings import StackingSettings
from cxrscale.combine.stack import stack
from cxrscale.common.rows import MEAN, STRONGEST
from cxrscale.evaluate.auroc import auroc
from cxrscale.evaluate.averaging import FoldAuroc, joined, means_over
from cxrscale.evaluate.clustered import Components
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
    fixed = control[(control["method"] == PRIMARY) & (control["control"] != STRONGEST) & (control["finding"] != MEAN)]
    assert len(fixed) == 24
    by_finding = fixed.groupby("finding")["effect"].mean()
    assert abs(by_finding.mean()) < 3 * by_finding.std() / np.sqrt(12)
    assert abs(by_finding.mean()) < 0.005
    # Though combining by itself gains much.
    assert gains.set_index(["method", "against", "finding"])["gain"][PRIMARY, "best_single", MEAN] > 0.04
    # It is a gain of resolution only over every control, and against the strongest of them it errs on the low side.
    strongest = control.set_index(["method", "control", "finding"]).loc[PRIMARY, STRONGEST, MEAN]
    assert strongest["effect"] < 0.01
    assert strongest["lower"] < 0.005
    assert strongest["p"] > 0.05


def test_the_effect_is_seen_where_resolutions_see_different_things(simulate):
    control = stack(simulate(3, 2, share=0.8), {0: "combine"}, SETTINGS)["control"]
    means = control[(control["control"] == STRONGEST) & (control["finding"] == MEAN)]
    assert means["method"].tolist() == combining()
    for _, row in means.iterrows():
        assert row["effect"] > 0.03
        assert row["lower"] > 0
        assert row["p"] < 0.01
        assert row["effect"] == pytest.approx(row["auroc_resolutions"] - row["auroc_control"])
    declared = (control["method"] == PRIMARY) & (control["control"] == STRONGEST) & (control["finding"] != MEAN)
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
    strongest = control.loc[STRONGEST]
    assert strongest["auroc_control"] == control["auroc_control"].max()
    assert strongest["strongest_px"] == int(control.drop(STRONGEST)["auroc_control"].idxmax())


def test_a_gain_must_be_one_over_every_control(simulate):
    control = stack(simulate(3, 2, share=0.5), {0: "combine"}, SETTINGS)["control"]
    for _, rows in control.groupby(["finding", "method"]):
        fixed, (_, strongest) = rows[rows["control"] != STRONGEST], *rows[rows["control"] == STRONGEST].iterrows()
        beaten = fixed["p"].where(fixed["effect"] > 0, 1.0)
        assert strongest["p"] == beaten.max()
        for column in ("effect", "lower", "upper", "auroc_control"):
            assert strongest[column] == fixed.loc[fixed["effect"].idxmin(), column]


def test_too_few_patients_say_nothing_of_a_gain(simulate):
    frames = stack(simulate(2, 2, share=0.8), {0: "combine"}, replace(SETTINGS, least_patients=10_000))
    for table in (frames["control"], frames["gains"]):
        assert table["reason"].str.contains("fewer than 10000: no verdict").all()
        assert table["p"].notna().all()
        assert table["p_holm"].isna().all()


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


class SumOfLearners(Ensembles):
    """Ensembles whose AUROC by every method is the sum of a number of each learner. Three patients, all alike."""

    def __init__(self, numbers):
        self.numbers = numbers

    def score(self, learners):
        total = sum(self.numbers[resolution, seed] for _, resolution, seed in learners)
        nothing, present = np.zeros((3, len(combining()))), np.ones(3, dtype=bool)
        return Components(np.full(len(combining()), total), nothing, nothing, present, present)


@pytest.mark.parametrize("n_seeds", [3, 4, 6])
def test_what_a_seed_brings_is_its_learners_part_in_the_effect(n_seeds):
    rng = np.random.default_rng(3)
    resolutions, seeds = [1, 2, 3], list(range(n_seeds))
    numbers = {(r, s): rng.normal() for r, s in itertools.product(resolutions, seeds)}
    brought = by_seed(SumOfLearners(numbers), "m", resolutions, seeds)
    spread = spread_over_seeds(np.array([one.auroc for one in brought]), 3)
    fold, at = FoldAuroc.of(joined(brought), n_seeds, spread=spread), places(resolutions)
    means = [np.mean([numbers[r, s] for s in seeds]) for r in resolutions]
    for r in resolutions:
        effect = np.zeros((1, len(at)))
        effect[0, at[None, "mean"]], effect[0, at[r, "mean"]] = 1, -1
        (found,) = means_over([fold], effect)
        assert found.value == pytest.approx(sum(means) - 3 * means[resolutions.index(r)])
        of_seed = np.array([sum(numbers[x, s] for x in resolutions) - 3 * numbers[r, s] for s in seeds])
        variance, times = np.var(of_seed, ddof=1), 1
        if n_seeds == 3:  # no seed can be left out: its learners alone, of which an ensemble has the mean
            of_seed = of_seed / 3
            between = np.mean([np.var([numbers[x, s] for s in seeds], ddof=1) for x in resolutions])
            assert spread.of(effect)[0] == pytest.approx(between * (1 - 1 / 3))
            variance, times = max(between * (1 - 1 / 3), np.var(of_seed, ddof=1)), 3
        drawn = (fold.auroc @ effect[0]).ravel()
        assert drawn - drawn.mean() == pytest.approx(of_seed - of_seed.mean())
        assert found.se_seeds**2 == pytest.approx(variance / n_seeds)
        assert found.df == pytest.approx(times * (n_seeds - 1))


def test_without_the_seeds_the_table_says_what_is_missing(simulate):
    control = stack(simulate(2, 1, share=0.5), {0: "combine"}, SETTINGS)["control"]
    assert len(control) == 3 * len(combining())  # two findings and their mean
    assert set(control["control"]) == {STRONGEST}
    assert control["effect"].isna().all()
    assert set(control["reason"]) == {"2 learners of one resolution need 2 seeds, there is 1"}
