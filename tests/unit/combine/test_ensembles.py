"""Ensembles within a fold, and their gains averaged over folds and seeds."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from cxrscale.combine.contracts import COEFFICIENTS, CONTROL, GAINS, SCALE_WEIGHTS, STACKED
from cxrscale.combine.methods import METHODS, PRIMARY, Combiner, Method, combining
from cxrscale.combine.settings import StackingSettings
from cxrscale.combine.stack import stack
from cxrscale.common import tables
from cxrscale.common.rows import ALL_LEARNERS, MEAN
from cxrscale.evaluate.auroc import auroc
from cxrscale.evaluate.comparison import compare
from cxrscale.evaluate.metrics import evaluate
from cxrscale.evaluate.predictions import read_scores
from cxrscale.evaluate.settings import ComparisonSettings, EvaluationSettings

SETTINGS = StackingSettings(tolerance=1e-8, scale_weight_replicates=100, replicates=200, confidence=0.95, seed=0)
N = 400
TARGET = np.arange(N) % 2
NOISE = np.random.default_rng(1).normal(0, 1, (4, N))
SPLIT = np.array(["validate", "combine", "test", "test"])[np.arange(N) // 2 % 4]


@pytest.fixture
def predictions(write_predictions):
    """Only (a, 512) sees anything. Rare has no positive image in combine, Never none at all."""
    rare = np.where(SPLIT == "combine", 0, TARGET)
    paths = {}
    for k, (model, r) in enumerate([("a", 256), ("a", 512), ("b", 256), ("b", 512)]):
        logit = NOISE[k] + (4 * TARGET - 2 if (model, r) == ("a", 512) else 0)
        paths[model, r, 0, 0] = write_predictions(
            f"{model}{r}", SPLIT, np.arange(N) // 2, {"Edema": logit, "Rare": logit, "Never": logit},
            {"Edema": TARGET, "Rare": rare, "Never": [0] * N},
        )  # fmt: skip
    return paths


def test_weights_land_on_the_learner_that_sees(predictions, tmp_path):
    frames = stack(predictions, {0: "combine"}, SETTINGS)
    weights, scored = frames["scale_weights"], frames["stacked"]
    at = weights.set_index(["ensemble", "finding", "model", "resolution_px"])
    assert at["weight"]["a", "Edema", "a", 512] > 0.9
    assert at["weight"][ALL_LEARNERS, "Edema", "a", 512] > 0.9
    assert at["lower"][ALL_LEARNERS, "Edema", "a", 512] > 0.8
    assert weights.groupby(["ensemble", "finding"])["weight"].sum().tolist() == pytest.approx([1.0] * 9)
    fitted = weights[weights["reason"].isna()]
    assert (fitted["lower"] <= fitted["weight"] + 1e-9).all()
    assert (fitted["weight"] <= fitted["upper"] + 1e-9).all()
    assert (fitted["gap"] <= 1e-8).all()
    rare = weights[(weights["finding"] == "Rare") & (weights["ensemble"] == ALL_LEARNERS)]
    assert rare["weight"].tolist() == [0.25] * 4
    assert set(rare["reason"]) == {"no positive image to fit on"}
    assert rare["lower"].isna().all()

    row = scored.set_index(["ensemble", "finding", "method"])
    assert row["learner"][ALL_LEARNERS, "Edema", "best_single"] == "a-512"
    assert row["gain"]["a", "Edema", "best_single"] == 0
    for method in combining():
        one = row.loc[("a", "Edema", method)]
        assert one["gain"] == pytest.approx(one["auroc"] - row["auroc"]["a", "Edema", "best_single"])
        assert one["gain_lower"] <= one["gain"] <= one["gain_upper"]
        assert (
            row["auroc"][ALL_LEARNERS, "Rare", method] == row["auroc"][ALL_LEARNERS, "Rare", "mean"]
        )  # nothing to fit on
    never = scored[scored["finding"] == "Never"]
    assert len(never) == 3 * len(METHODS)
    assert never["auroc"].isna().all()
    assert set(never["reason"]) == {"no positive image"}
    mean = row.loc[(ALL_LEARNERS, MEAN, "softmax")]  # of the two findings that have a value
    assert mean["auroc"] == pytest.approx(row["auroc"].loc[ALL_LEARNERS, ["Edema", "Rare"], "softmax"].mean())
    assert mean["log_loss"] == pytest.approx(row["log_loss"].loc[ALL_LEARNERS, ["Edema", "Rare"], "softmax"].mean())

    for table in (SCALE_WEIGHTS, COEFFICIENTS, STACKED, GAINS, CONTROL):
        tables.write(table, frames[table.name], tmp_path / f"{table.name}.csv")
        assert len(tables.read(table, tmp_path / f"{table.name}.csv")) == len(frames[table.name]) > 0


def test_the_weighted_mean_of_probabilities_is_what_is_scored(predictions):
    frames = stack(predictions, {0: "validate"}, SETTINGS)
    weights, scored = frames["scale_weights"], frames["stacked"]
    edema = weights[(weights["finding"] == "Edema") & (weights["ensemble"] == "b")]["weight"].to_numpy()
    mixed = edema @ expit(NOISE[2:].astype(np.float32).astype(float))[:, SPLIT == "test"]
    target = TARGET[SPLIT == "test"]
    row = scored.set_index(["ensemble", "finding", "method"])
    assert row["auroc"]["b", "Edema", "softmax"] == pytest.approx(auroc(mixed, target))
    expected = -np.log(np.where(target > 0, mixed, 1 - mixed)).mean()
    assert row["log_loss"]["b", "Edema", "softmax"] == pytest.approx(expected)


def test_a_single_model_has_no_ensemble_of_all(predictions):
    frames = stack({k: v for k, v in predictions.items() if k[0] == "b"}, {0: "combine"}, SETTINGS)
    for name in ("scale_weights", "coefficients", "stacked", "gains"):
        assert set(frames[name]["ensemble"]) == {"b"}


def test_one_resolution_is_combined_with_nothing(predictions):
    frames = stack({("a", 512, 0, 0): predictions["a", 512, 0, 0]}, {0: "combine"}, SETTINGS)
    assert frames["scale_weights"]["weight"].tolist() == [1, 1, 1]
    assert frames["scale_weights"]["reason"].notna().all()
    edema = frames["gains"][frames["gains"]["finding"] == "Edema"]
    assert (edema["gain"] == 0).all()
    assert (edema["p"] == 1).all()
    assert set(frames["control"]["reason"]) == {"one resolution only: nothing is combined"}


@pytest.fixture
def study(write_predictions):
    """Two folds with other patients, two seeds, resolutions 256 and 512 that see halves of it. Returns (combine and
    test targets to lay over) -> predictions."""

    def make(name="", test=None, combine=None):
        paths = {}
        for fold in (0, 1):
            target = np.random.default_rng(fold).integers(0, 2, N)
            shown = target.copy()
            if test is not None:
                shown[SPLIT == "test"] = test
            if combine is not None:
                shown[SPLIT == "combine"] = combine
            for r in (256, 512):
                for seed in (0, 1):
                    rng = np.random.default_rng([fold, r, seed])
                    odds = {f: (2 * target - 1) * 0.7 + rng.normal(0, 1, N) for f in ("A", "B")}
                    paths["a", r, fold, seed] = write_predictions(
                        f"{name}{r}-{fold}-{seed}", SPLIT, 1000 * fold + np.arange(N) // 2, odds,
                        {"A": shown, "B": 1 - shown if test is None and combine is None else shown},
                    )  # fmt: skip
        return paths

    return make


BOTH = {0: "combine", 1: "combine"}


def test_gains_are_averaged_over_folds_and_seeds_with_holm_for_the_primary_method(study):
    frames = stack(study(), BOTH, SETTINGS)
    each = frames["stacked"].set_index(["finding", "method", "fold", "seed"])["auroc"].sort_index()
    gains = frames["gains"].set_index(["finding", "method", "against"])
    for finding in ("A", "B", MEAN):
        row = gains.loc[finding, "softmax", "best_single"]
        assert row["n_pairs"] == 4
        assert row["n_learners"] == 2
        assert row["auroc"] == pytest.approx(each[finding, "softmax"].mean())
        assert row["gain"] == pytest.approx((each[finding, "softmax"] - each[finding, "best_single"]).mean())
        assert row["lower"] < row["gain"] < row["upper"]
        # The bootstrap and the clustered variance are two ways to the same interval.
        width = row["upper"] - row["lower"]
        assert row["boot_upper"] - row["boot_lower"] == pytest.approx(width, rel=0.3)
        by_fold = (each[finding, "softmax"] - each[finding, "best_single"]).unstack("seed")
        assert row["sd_seeds"] == pytest.approx(np.sqrt(by_fold.var(axis=1).mean()))
    p, corrected = (gains.loc[[(f, PRIMARY, "best_single") for f in "AB"], name] for name in ("p", "p_holm"))
    assert corrected.min() == pytest.approx(min(1, 2 * p.min()))
    assert corrected.max() == pytest.approx(max(corrected.min(), p.max()))
    rows = frames["gains"]
    assert rows["p_holm"][(rows["method"] != PRIMARY) | (rows["finding"] == MEAN)].isna().all()


def test_nothing_is_fitted_on_test(study):
    changed = np.random.default_rng(9).integers(0, 2, (SPLIT == "test").sum())
    before, after = stack(study("x", test=1 - changed), BOTH, SETTINGS), stack(study("y", test=changed), BOTH, SETTINGS)
    for name in ("scale_weights", "coefficients"):
        pd.testing.assert_frame_equal(before[name], after[name])
    singles = [f["stacked"]["learner"].dropna() for f in (before, after)]
    pd.testing.assert_series_equal(*singles)
    assert not before["stacked"]["auroc"].equals(after["stacked"]["auroc"])
    refitted = stack(study("z", combine=np.arange((SPLIT == "combine").sum()) % 2), BOTH, SETTINGS)
    assert not refitted["scale_weights"]["weight"].equals(before["scale_weights"]["weight"])


def test_learners_that_are_alike_are_warned_of(write_predictions):
    paths = {}
    n = 4 * N
    target, half = np.arange(n) % 2, np.arange(n) // 8 % 2  # which half of the patients a resolution sees
    for r, sees in ((256, half), (512, half), (1024, 1 - half)):
        logit = (2 * target - 1) * np.where(sees, 2.5, 0.3) + 0.3 * np.tile(NOISE[0], 4)
        paths["a", r, 0, 0] = write_predictions(
            f"{r}", np.tile(SPLIT, 4), np.arange(n) // 2, {"A": logit}, {"A": target}
        )
    row = stack(paths, {0: "combine"}, SETTINGS)["scale_weights"].set_index("resolution_px")
    assert row["warning"][256] == "a at 512 px takes its place without a visible loss"
    assert row["warning"][512] == "a at 256 px takes its place without a visible loss"
    assert pd.isna(row["warning"][1024])
    assert row["lower"][1024] > 0.2


def test_a_method_needs_no_more_than_its_entry(study, monkeypatch):
    def by_validation(evidence):
        above = np.clip(np.nan_to_num(evidence.validate_auroc - 0.5), 1e-6, None)  # equal if all are NaN
        return Combiner(above / above.sum(), on_logits=False)

    before = stack(study("x"), BOTH, SETTINGS)
    method = Method("method_of_a_test", "Weights by validation AUROC", "proportional to AUROC less 0.5", by_validation)
    monkeypatch.setitem(METHODS, method.name, method)
    paths = study("y")
    after = stack(paths, BOTH, SETTINGS)
    for name in ("coefficients", "stacked", "gains", "control"):
        own = after[name]["method"] == method.name
        assert own.any(), name
        others, known = (f.astype(object).where(f.notna(), None) for f in (after[name][~own], before[name]))
        pd.testing.assert_frame_equal(others.reset_index(drop=True), known)
    pd.testing.assert_frame_equal(after["scale_weights"], before["scale_weights"])
    for name, column in (("stacked", "auroc"), ("gains", "gain"), ("control", "effect")):
        assert after[name].loc[after[name]["method"] == method.name, column].notna().all()
    gains = after["gains"][after["gains"]["method"] == method.name]
    assert set(gains["against"]) == {"best_single", "mean"}
    assert gains[["boot_lower", "p_holm"]].isna().all(axis=None)
    found = after["coefficients"].query("method == 'method_of_a_test' and fold == 1 and seed == 0 and finding == 'A'")
    above = [
        auroc(scores.logits[0, :, 0], scores.target[:, 0]) - 0.5
        for scores in (read_scores([paths["a", r, 1, 0]], ["validate"])["validate"] for r in (256, 512))
    ]
    assert found["coefficient"].tolist() == pytest.approx(np.array(above) / sum(above))


@pytest.mark.parametrize("seeds", [1, 3])
def test_one_auroc_has_one_interval_in_all_tables(write_predictions, seeds):
    """Of a learner, and of a resolution over seeds, where nothing else is combined with it."""
    rng = np.random.default_rng(0)
    paths = {}
    for seed in range(seeds):
        logits = {f: (1.5 + k) * TARGET + rng.normal(0, 1, N) for k, f in enumerate("AB")}
        patient = np.arange(N) // 2
        paths["a", 512, 0, seed] = write_predictions(f"{seed}", SPLIT, patient, logits, {"A": TARGET, "B": 1 - TARGET})
    stacked = stack(paths, {0: "combine"}, SETTINGS)
    compared = compare(paths, ComparisonSettings(reference_px=512, replicates=100))
    single = stacked["stacked"][stacked["stacked"]["method"] == "best_single"]
    singles, levels = (frame.set_index(["finding", "seed"]) for frame in (single, compared.levels))
    over_seeds = stacked["gains"][stacked["gains"]["method"] == "best_single"].set_index("finding")
    averages = compared.averages.set_index("finding")
    for finding in ("A", "B", MEAN):
        for seed in range(seeds):
            metrics = evaluate(paths["a", 512, 0, seed], ["test"], EvaluationSettings(replicates=100))
            mine = metrics.set_index(["metric", "level", "group", "interval", "finding", "split"])
            row = mine.loc["auroc", "image", "all", "clustered", finding, "test"]
            learner = [row["value"], row["lower"], row["upper"]]
            assert levels.loc[(finding, seed), ["value", "lower", "upper"]].tolist() == pytest.approx(learner)
            assert singles.loc[(finding, seed), ["auroc", "lower", "upper"]].tolist() == pytest.approx(learner)
        resolution = averages.loc[finding, ["value", "lower", "upper"]].tolist()
        assert over_seeds.loc[finding, ["auroc", "auroc_lower", "auroc_upper"]].tolist() == pytest.approx(resolution)
        if seeds == 1:
            assert resolution == pytest.approx(learner)
        else:
            assert resolution[1] < learner[1] or resolution[2] > learner[2]
