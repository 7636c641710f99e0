import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from cxrscale import tables
from cxrscale.evaluation.metrics import MEAN, METRICS, evaluate, reason_undefined

RNG = np.random.default_rng(0)
PATIENT = np.arange(80) // 2
TARGET = RNG.integers(0, 2, 80)
LOGIT = RNG.normal(TARGET, 1).astype(np.float32)


@pytest.fixture
def table(write_predictions):
    """Edema is usual, Fracture is ignored in half of the images, the others lack a class."""
    some = [int(t) if i < 40 else None for i, t in enumerate(TARGET)]
    targets = {"Edema": TARGET, "Fracture": some, "None": [0] * 80, "All": [1] * 80, "Ignored": [None] * 80}
    path = write_predictions("p", "test", PATIENT, dict.fromkeys(targets, LOGIT), targets)
    return evaluate(path, ["validate", "test"], 200, 0.95, 0).set_index(["metric", "finding"])


def test_values_are_those_of_scikit_learn_within_their_interval(table):
    for metric, reference in (("auroc", roc_auc_score), ("average_precision", average_precision_score)):
        for finding, n in (("Edema", 80), ("Fracture", 40)):
            row = table.loc[(metric, finding)]
            assert row["value"] == pytest.approx(reference(TARGET[:n], LOGIT[:n]))
            assert row["lower"] < row["value"] < row["upper"]
            assert (row["n_images"], row["n_patients"]) == (n, n // 2)
            assert (row["n_positive"], row["n_negative"]) == (TARGET[:n].sum(), (1 - TARGET[:n]).sum())
            assert pd.isna(row["reason"])
    assert table.loc[("auroc", "Fracture"), "upper"] - table.loc[("auroc", "Fracture"), "lower"] > (
        table.loc[("auroc", "Edema"), "upper"] - table.loc[("auroc", "Edema"), "lower"]
    )


@pytest.mark.parametrize("metric", ["auroc", "average_precision"])
@pytest.mark.parametrize(
    ("finding", "reason"),
    [("None", "no positive image"), ("All", "no negative image"), ("Ignored", "no image counts")],
)
def test_what_has_no_value_has_a_reason_instead_of_a_number(table, metric, finding, reason):
    row = table.loc[(metric, finding)]
    assert row["reason"] == reason
    assert row[["value", "lower", "upper"]].isna().all()


def test_the_mean_is_over_the_findings_that_have_a_value(table):
    both = table.loc["auroc"].loc[["Edema", "Fracture"], "value"]
    assert table.loc[("auroc", MEAN), "value"] == pytest.approx(both.mean())
    assert table.loc[("auroc", MEAN), "lower"] < both.mean() < table.loc[("auroc", MEAN), "upper"]


def test_the_table_keeps_its_declaration(table, tmp_path):
    tables.write(METRICS, table.reset_index(), tmp_path / "metrics.csv")
    back = tables.read(METRICS, tmp_path / "metrics.csv")
    assert len(back) == 2 * 6
    assert set(back["split"]) == {"test"}  # validate holds no image
    assert back.set_index(["metric", "finding"])["reason"]["auroc", "None"] == "no positive image"


def test_a_rare_finding_has_a_value_without_interval_and_says_why(write_predictions):
    """One positive and one negative of twenty patients: 1 - 2 / e + 1 / e**2 = 0.40 of the replicates draw both, but
    1 - 1 / e = 0.63 draw the positive, which is all that average precision needs."""
    targets = [1, 0] + [None] * 18
    path = write_predictions("p", "test", range(20), {"Rare": np.arange(20)}, {"Rare": targets})
    table = evaluate(path, ["test"], 1000, 0.95, 0).set_index(["metric", "finding"])
    for finding in ("Rare", MEAN):
        row = table.loc[("auroc", finding)]
        assert row["value"] == 0.0
        assert np.isnan(row["lower"])
        assert "no interval" in row["reason"]
        row = table.loc[("average_precision", finding)]
        assert row["value"] == 0.5
        assert row["lower"] <= 0.5 <= row["upper"]
        assert pd.isna(row["reason"])


def test_reasons():
    assert [reason_undefined(*n) for n in [(1, 1), (0, 0), (0, 1), (1, 0)]] == [
        None, "no image counts", "no positive image", "no negative image",
    ]  # fmt: skip
