import numpy as np
import pandas as pd
import pytest

from cxrscale import tables
from cxrscale.evaluation.auroc import auroc
from cxrscale.evaluation.comparison import DIFFERENCES, LEVELS, SUFFICIENT, ComparisonSettings, compare, verdict
from cxrscale.evaluation.metrics import MEAN

SETTINGS = ComparisonSettings(512, 0.01, 0.95, 0.99, 300, 0)
N = 300
PATIENT = np.arange(N) // 2
TARGET = np.arange(N) // 2 % 2
NOISE = np.random.default_rng(0).normal(0, 1, (3, N))


@pytest.mark.parametrize(
    ("lower", "upper", "said"),
    [
        (-0.005, 0.005, "equivalent"),
        (-0.009, -0.001, "equivalent"),
        (-0.03, -0.001, "worse"),
        (0.001, 0.03, "better"),
        (-0.03, 0.005, "undecided"),
        (-0.005, 0.03, "undecided"),
        (-0.01, 0.005, "undecided"),
        (np.nan, np.nan, "undecided"),
    ],
)
def test_verdicts_by_hand(lower, upper, said):
    assert verdict(lower, upper, 0.01) == said


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
    levels, differences, sufficient = compare(study(), SETTINGS)
    by_pair = differences.set_index(["finding", "resolution_px", "against_px"])
    assert by_pair.loc[("Fine", 128, 512), "verdict"] == "worse"
    assert by_pair.loc[("Fine", 512, 128), "verdict"] == "better"
    assert by_pair.loc[("Fine", 256, 512), "verdict"] == "equivalent"
    assert by_pair.loc[("Coarse", 128, 512), "verdict"] == "equivalent"
    enough = sufficient.set_index("finding")
    assert enough.loc["Coarse", "sufficient_px"] == 128
    assert enough.loc["Fine", "sufficient_px"] == 256
    assert enough.loc[MEAN, "sufficient_px"] == 256
    assert (enough["reference_px"] == 512).all()
    level = levels.set_index(["finding", "resolution_px"])
    expected = auroc(NOISE[1].astype(np.float32), TARGET)
    assert level.loc[("Fine", 128), "value"] == pytest.approx(expected)
    assert enough.loc["Fine", "auroc_lowest"] == pytest.approx(expected)
    defined = level[level["value"].notna()]
    assert len(defined) == 3 * 3
    assert (defined["joint_lower"] <= defined["lower"]).all()
    assert (defined["joint_upper"] >= defined["upper"]).all()


def test_identical_learners_differ_by_exactly_nothing(study):
    _, differences, _ = compare(study(resolutions=(256, 512)), SETTINGS)
    rows = differences[differences["finding"] == "Fine"]
    assert len(rows) == 2
    assert (rows[["difference", "lower", "upper"]] == 0).all(axis=None)


def test_differences_are_antisymmetric(study):
    _, differences, _ = compare(study(), SETTINGS)
    rows = differences.set_index(["finding", "resolution_px", "against_px"]).sort_index()
    one, other = rows.loc[("Fine", 128, 512)], rows.loc[("Fine", 512, 128)]
    assert one["difference"] == -other["difference"]
    assert one["lower"] == pytest.approx(-other["upper"])


def test_a_finding_without_value_has_a_reason(study):
    levels, differences, sufficient = compare(study(), SETTINGS)
    empty = levels[levels["finding"] == "Empty"]
    assert list(empty["reason"]) == ["no positive image"] * 3
    assert empty["value"].isna().all()
    assert "Empty" not in set(differences["finding"])
    row = sufficient.set_index("finding").loc["Empty"]
    assert pd.isna(row["sufficient_px"])
    assert row["reason"] == "AUROC is undefined in every fold"


def test_folds_and_seeds_are_averaged_never_pooled(study):
    """Logits of other folds lie elsewhere: pooled, they would not rank; averaged, nothing changes."""
    _, one, _ = compare(study(), SETTINGS)
    _, many, _ = compare(study(folds=(0, 1), seeds=(0, 5)), SETTINGS)
    assert set(one["n_pairs"]) == {1}
    assert set(many["n_pairs"]) == {4}
    keys = ["finding", "resolution_px", "against_px"]
    assert many.set_index(keys)["difference"].to_dict() == pytest.approx(one.set_index(keys)["difference"].to_dict())


def test_the_tables_keep_their_declarations(study, tmp_path):
    written = compare(study(folds=(0, 1)), SETTINGS)
    for table, frame in zip((LEVELS, DIFFERENCES, SUFFICIENT), written, strict=True):
        tables.write(table, frame, tmp_path / f"{table.name}.csv")
        assert len(tables.read(table, tmp_path / f"{table.name}.csv")) == len(frame) > 0


def rare(write_predictions, target):
    n = len(target)
    return compare(
        {
            ("m", r, 0, 0): write_predictions(str(r), "test", range(n), {"Rare": NOISE[0][:n]}, {"Rare": target})
            for r in (256, 512)
        },
        SETTINGS,
    )


def test_replicates_without_a_class_are_left_out(write_predictions):
    """Two positive patients of twenty: (1 - 2 / 20) ** 20 = 0.12 of the replicates draw neither."""
    levels, _, sufficient = rare(write_predictions, [1, 1] + [0] * 18)
    assert len(levels) == 4
    assert levels[["value", "lower", "upper", "joint_lower", "joint_upper"]].notna().all(axis=None)
    assert list(sufficient["sufficient_px"]) == [256, 256]  # the two learners are the same


def test_without_an_interval_there_is_a_reason_and_no_sufficient_resolution(write_predictions):
    """One positive and one negative of twenty patients: 0.40 of the replicates draw both."""
    levels, differences, sufficient = rare(write_predictions, [1, 0] + [None] * 18)
    for table in (levels, differences, sufficient):
        assert len(table) >= 2
        assert all("no interval" in reason for reason in table["reason"])
    assert levels["value"].notna().all()
    assert levels["lower"].isna().all()
    assert differences["verdict"].isna().all()
    assert sufficient["sufficient_px"].isna().all()
