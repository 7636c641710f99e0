from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from cxrscale.common import tables
from cxrscale.common.rows import MEAN
from cxrscale.evaluate.auroc import auroc
from cxrscale.evaluate.clustered import components
from cxrscale.evaluate.comparison import ModelScores, compare, compare_scores
from cxrscale.evaluate.contracts import AUROC, AVERAGES, DIFFERENCES, SUFFICIENT
from cxrscale.evaluate.settings import ComparisonSettings
from cxrscale.evaluate.verdicts import holm

SETTINGS = ComparisonSettings(reference_px=512, margin_auroc=0.01, least_patients=0, replicates=300)
N = 300
PATIENT = np.arange(N) // 2
TARGET = np.arange(N) // 2 % 2
NOISE = np.random.default_rng(0).normal(0, 1, (3, N))
PAIR = ["finding", "resolution_px", "against_px"]


@pytest.fixture
def study(write_predictions):
    """Coarse is seen at every resolution, Fine not at 128, Empty nowhere: it has no positive image."""

    def write(resolutions=(128, 256, 512), folds=(0,), seeds=(0,), empty=True):
        predictions = {}
        for r in resolutions:
            for fold in folds:
                for seed in seeds:
                    coarse = TARGET * 2 + NOISE[0]
                    fine = NOISE[1] if r == 128 else TARGET * 2 + NOISE[1]
                    name = f"{r}-{fold}-{seed}"
                    targets = {"Coarse": TARGET, "Fine": TARGET} | ({"Empty": [0] * N} if empty else {})
                    logits = {"Coarse": coarse + fold + seed, "Fine": fine, "Empty": NOISE[2]}
                    predictions["m", r, fold, seed] = write_predictions(
                        name, "test", PATIENT, {f: logits[f] for f in targets}, targets
                    )
        return predictions

    return write


def test_a_planted_answer_is_found(study):
    found = compare(study(), SETTINGS)
    by_pair = found.differences.set_index(PAIR)
    assert by_pair.loc[("Fine", 128, 512), "verdict"] == "worse than the reference"
    assert by_pair.loc[("Fine", 256, 512), "verdict"] == "equivalent"
    assert by_pair.loc[("Coarse", 128, 512), "verdict"] == "equivalent"
    enough = found.sufficient.set_index("finding")
    assert enough.loc["Coarse", "sufficient_px"] == 128
    assert enough.loc["Fine", "sufficient_px"] == 256
    assert enough.loc[MEAN, "sufficient_px"] == 256
    assert (enough["reference_px"] == 512).all()
    level = found.levels.set_index(["finding", "resolution_px"])
    expected = auroc(NOISE[1].astype(np.float32), TARGET)
    assert level.loc[("Fine", 128), "value"] == pytest.approx(expected)
    assert enough.loc["Fine", "auroc_lowest"] == pytest.approx(expected)
    defined = level[level["value"].notna()]
    assert len(defined) == 3 * 3
    assert (defined["joint_lower"] <= defined["boot_lower"]).all()
    assert (defined["joint_upper"] >= defined["boot_upper"]).all()
    assert defined["lower"].to_numpy() == pytest.approx(defined["boot_lower"].to_numpy(), abs=0.02)


def test_numbers_are_those_of_the_clustered_variance(study):
    found = compare(study(empty=False), SETTINGS)
    row = found.differences.set_index(PAIR).loc[("Fine", 128, 512)]
    logits = np.stack([NOISE[1], TARGET * 2 + NOISE[1]]).astype(np.float32)
    covariance = components(logits, TARGET, PATIENT).covariance()
    assert row["se_patients"] ** 2 == pytest.approx(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    assert row["se_seeds"] == 0
    assert row["boot_lower"] == pytest.approx(row["lower"], abs=0.02)
    average = found.averages.set_index(["finding", "resolution_px"]).loc[("Fine", 512)]
    assert average["se_patients"] ** 2 == pytest.approx(covariance[1, 1])


def test_the_family_is_findings_and_models_and_the_mean_is_its_own(study):
    one = study()
    both = one | {("n", *key[1:]): path for key, path in one.items()}
    rows = compare(both, SETTINGS).differences
    tested = rows[(rows["kind"] == "confirmatory") & (rows["finding"] != MEAN)]
    assert len(tested) == 2 * 2 * 2  # models, resolutions below the reference, findings with a value
    assert tested["p_holm"].to_numpy() == pytest.approx(holm(tested["p"].to_numpy(float)))
    assert tested["p_holm"].min() == pytest.approx(8 * tested["p"].min())
    mean = rows[(rows["kind"] == "confirmatory") & (rows["finding"] == MEAN)]
    assert mean["p_holm"].min() == pytest.approx(4 * mean["p"].min())


def test_other_pairs_are_exploratory_and_get_no_verdict(study):
    rows = compare(study(), SETTINGS).differences
    other = rows[rows["kind"] == "exploratory"]
    assert set(zip(other["resolution_px"], other["against_px"], strict=True)) == {(128, 256)}
    assert len(other) == 3
    assert other[["verdict", "p_holm"]].isna().all(axis=None)
    assert other["p"].notna().all()
    assert (rows.loc[rows["kind"] == "confirmatory", "against_px"] == 512).all()


def test_the_reference_is_the_one_named_even_where_another_is_better_on_test(study):
    found = compare(study(), replace(SETTINGS, reference_px=128))
    rows = found.differences.set_index(PAIR)
    assert rows.loc[("Fine", 256, 128), "verdict"] == rows.loc[("Fine", 512, 128), "verdict"] == "better above it"
    assert (found.sufficient["reference_px"] == 128).all()
    assert found.sufficient.set_index("finding").loc["Fine", "sufficient_px"] == 128


def test_better_below_the_reference(study):
    predictions = study(resolutions=(128, 512))
    swapped = {("m", 640 - key[1], *key[2:]): path for key, path in predictions.items()}
    rows = compare(swapped, SETTINGS).differences.set_index(PAIR)
    assert rows.loc[("Fine", 128, 512), "verdict"] == "better below it"


def test_identical_learners_differ_by_exactly_nothing(study):
    rows = compare(study(resolutions=(256, 512)), SETTINGS).differences
    rows = rows[rows["finding"] == "Fine"]
    assert len(rows) == 1
    assert (rows[["difference", "lower", "upper", "boot_lower", "boot_upper"]] == 0).all(axis=None)
    assert rows["p"].item() == 1
    assert rows["verdict"].item() == "equivalent"


def test_undecided_where_patients_are_few():
    rng = np.random.default_rng(0)
    target = (np.arange(60) % 2).astype(float)[:, None]
    logits = rng.normal(size=(2, 60, 1)) + target
    fold = ModelScores("m", 0, [0], [256, 512], ["A"], logits, target, np.arange(60))
    row = compare_scores([fold], replace(SETTINGS, replicates=0)).differences.iloc[0]
    assert row["verdict"] == "undecided"
    assert np.isnan(row["boot_lower"])


def test_a_finding_without_value_has_a_reason(study):
    found = compare(study(), SETTINGS)
    empty = found.levels[found.levels["finding"] == "Empty"]
    assert list(empty["reason"]) == ["no positive image"] * 3
    assert empty["value"].isna().all()
    assert "Empty" not in set(found.differences["finding"])
    row = found.sufficient.set_index("finding").loc["Empty"]
    assert pd.isna(row["sufficient_px"])
    assert row["reason"] == "AUROC is undefined in every fold"
    averaged = found.averages[found.averages["finding"] == "Empty"]
    assert list(averaged["reason"]) == ["AUROC is undefined in every fold"] * 3


def test_folds_and_seeds_are_averaged_never_pooled(study):
    """Logits of other folds lie elsewhere: pooled, they would not rank; averaged, nothing changes."""
    one = compare(study(), SETTINGS).differences.set_index(PAIR)
    many = compare(study(folds=(0, 1), seeds=(0, 5, 7)), SETTINGS).differences.set_index(PAIR)
    assert set(zip(one["n_folds"], one["n_seeds"], one["scope"], strict=True)) == {(1, 1, "these learners")}
    assert set(zip(many["n_folds"], many["n_seeds"], many["scope"], strict=True)) == {(2, 3, "resolution")}
    assert many["difference"].to_dict() == pytest.approx(one["difference"].to_dict())
    # Seeds that say the same add nothing; a second fold is as many patients again.
    fine = ("Fine", 128, 512)
    assert many.loc[fine, "se_patients"] ** 2 == pytest.approx(one.loc[fine, "se_patients"] ** 2 / 2)
    assert many.loc[fine, "se_seeds"] == pytest.approx(0, abs=1e-9)


def test_seeds_that_differ_widen_the_interval():
    rng = np.random.default_rng(3)
    target = (np.arange(2000) % 2).astype(float)[:, None]
    strength = np.array([[1.0, 1.0], [1.0, 1.4], [1.0, 0.6]]).reshape(6, 1, 1)  # seed, then resolution
    logits = rng.normal(size=(2000, 1)) + 0.1 * rng.normal(size=(6, 2000, 1)) + strength * target
    rows = []
    for seeds in ([0], [0, 1, 2]):
        chosen = logits[: 2 * len(seeds)]
        fold = ModelScores("m", 0, seeds, [256, 512], ["A"], chosen, target, np.arange(2000))
        rows.append(compare_scores([fold], replace(SETTINGS, replicates=0)).differences.iloc[0])
    assert rows[0]["se_seeds"] == 0
    assert rows[1]["se_seeds"] > 3 * rows[1]["se_patients"]
    assert rows[1]["df"] == pytest.approx(2, abs=0.2)  # three seeds, two resolutions
    assert rows[1]["verdict"] == "undecided"


def test_the_tables_keep_their_declarations(study, tmp_path):
    found = compare(study(folds=(0, 1)), SETTINGS)
    written = (found.levels, found.averages, found.differences, found.sufficient)
    for table, frame in zip((AUROC, AVERAGES, DIFFERENCES, SUFFICIENT), written, strict=True):
        tables.write(table, frame, tmp_path / f"{table.name}.csv")
        assert len(tables.read(table, tmp_path / f"{table.name}.csv")) == len(frame) > 0


def test_one_resolution_has_nothing_to_compare(study, tmp_path):
    found = compare(study(resolutions=(512,)), SETTINGS)
    assert found.differences.empty
    assert list(found.sufficient["sufficient_px"].dropna()) == [512] * 3
    tables.write(DIFFERENCES, found.differences, tmp_path / "differences.csv")
    assert tables.read(DIFFERENCES, tmp_path / "differences.csv").empty


def rare(write_predictions, target, **changes):
    n = len(target)
    return compare(
        {
            ("m", r, 0, 0): write_predictions(str(r), "test", range(n), {"Rare": NOISE[r // 512][:n]}, {"Rare": target})
            for r in (256, 512)
        },
        replace(SETTINGS, **changes),
    )


def test_replicates_without_a_class_are_left_out(write_predictions):
    """Two positive patients of twenty: (1 - 2 / 20) ** 20 = 0.12 of the replicates draw neither."""
    levels = rare(write_predictions, [1, 1] + [0] * 18).levels
    assert len(levels) == 4
    names = ["value", "lower", "upper", "boot_lower", "boot_upper", "joint_lower", "joint_upper"]
    assert levels[names].notna().all(axis=None)


def test_without_a_variance_there_is_a_reason_and_no_sufficient_resolution(write_predictions):
    found = rare(write_predictions, [1, 0] + [None] * 18)
    for table in (found.levels, found.averages, found.differences, found.sufficient):
        assert len(table) >= 2
        assert all("no interval" in reason for reason in table["reason"])
    assert found.levels["value"].notna().all()
    assert found.levels["lower"].isna().all()
    assert found.differences[["p", "verdict", "lower"]].isna().all(axis=None)
    assert found.sufficient["sufficient_px"].isna().all()


def test_too_few_patients_for_a_verdict(write_predictions):
    found = rare(write_predictions, [1] * 5 + [0] * 15, least_patients=6)
    assert set(found.differences["reason"]) == {"5 patients with the finding, fewer than 6: no verdict"}
    assert found.differences[["verdict", "p_holm"]].isna().all(axis=None)
    assert found.differences[["p", "lower", "upper"]].notna().all(axis=None)
    assert set(found.sufficient["reason"]) == set(found.differences["reason"])
    enough = rare(write_predictions, [1] * 5 + [0] * 15, least_patients=5)
    assert enough.differences["verdict"].notna().all()
