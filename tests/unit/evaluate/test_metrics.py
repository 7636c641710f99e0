import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit
from scipy.stats import t
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score, roc_curve

from cxrscale.common import tables
from cxrscale.common.rows import MEAN
from cxrscale.evaluate.auroc import reason_undefined, weighted_auroc
from cxrscale.evaluate.averaging import FoldAuroc, means_over
from cxrscale.evaluate.bootstrap import interval, replicate
from cxrscale.evaluate.clustered import components
from cxrscale.evaluate.contracts import METRICS
from cxrscale.evaluate.metrics import evaluate, fit_operating_point, threshold_at
from cxrscale.evaluate.settings import EvaluationSettings

RNG = np.random.default_rng(0)
PATIENT = np.arange(80) // 2
TARGET = RNG.integers(0, 2, 80)
LOGIT = RNG.normal(TARGET, 1).astype(np.float32)
QUICK = EvaluationSettings(replicates=200)
KEY = ["metric", "finding", "interval"]


def whole(table, split="test", level="image", group="all"):
    chosen = table[(table["split"] == split) & (table["level"] == level) & (table["group"] == group)]
    return chosen.set_index(KEY).sort_index()


@pytest.fixture
def table(write_predictions):
    """Edema is usual, Fracture is ignored in half of the images, the others lack a class."""
    some = [int(t) if i < 40 else None for i, t in enumerate(TARGET)]
    targets = {"Edema": TARGET, "Fracture": some, "None": [0] * 80, "All": [1] * 80, "Ignored": [None] * 80}
    path = write_predictions("p", "test", PATIENT, dict.fromkeys(targets, LOGIT), targets)
    return evaluate(path, ["validate", "test"], QUICK)


def test_values_are_those_of_scikit_learn_within_their_intervals(table):
    rows = whole(table)
    for finding, n in (("Edema", 80), ("Fracture", 40)):
        y, x = TARGET[:n], LOGIT[:n].astype(float)
        expected = {
            "auroc": roc_auc_score(y, x),
            "average_precision": average_precision_score(y, x),
            "brier": brier_score_loss(y, expit(x)),
        }
        checked = 0
        for metric, value in expected.items():
            for kind, row in rows.loc[(metric, finding)].iterrows():
                assert row["value"] == pytest.approx(value), kind
                assert row["lower"] < row["value"] < row["upper"]
                assert (row["n_images"], row["n_patients"]) == (n, n // 2)
                assert (row["n_positive"], row["n_negative"]) == (y.sum(), (1 - y).sum())
                assert pd.isna(row["reason"])
                checked += 1
        assert checked == 5
    width = rows["upper"] - rows["lower"]
    for metric, kind in (("auroc", "clustered"), ("auroc", "bootstrap"), ("average_precision", "bootstrap")):
        assert width[metric, "Fracture", kind] > width[metric, "Edema", kind]


def test_intervals_of_auroc_are_what_their_names_say(table):
    rows = whole(table).loc[("auroc", "Edema")]
    patient = np.unique([f"p{p}" for p in PATIENT], return_inverse=True)[1]  # draws follow the order of the ids
    found = components(LOGIT[None], TARGET, patient)
    a, error = found.auroc[0], np.sqrt(found.covariance()[0, 0])
    (mean,) = means_over([FoldAuroc.of(found, 1)], np.eye(1))
    width = t.ppf(0.975, mean.df) * error / (a * (1 - a))
    ends = expit(logit(a) + np.array([-width, width]))
    assert rows.loc["clustered", ["lower", "upper"]].tolist() == pytest.approx(ends, abs=1e-6)
    boot = replicate(weighted_auroc, LOGIT[None], TARGET.astype(float), patient, 200, 0)[0]
    assert rows.loc["bootstrap", ["lower", "upper"]].tolist() == pytest.approx(interval(boot, 0.95))


@pytest.mark.parametrize(
    ("finding", "reason"),
    [("None", "no positive image"), ("All", "no negative image"), ("Ignored", "no image counts")],
)
def test_what_has_no_value_has_a_reason_instead_of_a_number(table, finding, reason):
    rows = whole(table).xs(finding, level="finding")
    assert len(rows) >= 14
    scored = rows[~rows.index.get_level_values("metric").str.startswith(("recal", "sens", "spec"))]
    assert set(scored["reason"]) == {reason}
    assert rows[["value", "lower", "upper"]].isna().all(axis=None)
    assert rows["reason"].notna().all()


def test_the_mean_is_over_the_findings_that_have_a_value(table):
    rows = whole(table)
    for kind in ("clustered", "bootstrap"):
        both = rows.loc[[("auroc", f, kind) for f in ("Edema", "Fracture")], "value"]
        mean = rows.loc[("auroc", MEAN, kind)]
        assert mean["value"] == pytest.approx(both.mean())
        assert mean["lower"] < both.mean() < mean["upper"]
    clustered, boot = (rows.loc[("auroc", MEAN, kind)] for kind in ("clustered", "bootstrap"))
    assert clustered["upper"] - clustered["lower"] == pytest.approx(boot["upper"] - boot["lower"], rel=0.15)
    assert ("auroc", MEAN, "delong") not in rows.index


def test_the_table_keeps_its_declaration(table, tmp_path):
    tables.write(METRICS, table, tmp_path / "metrics.csv")
    back = tables.read(METRICS, tmp_path / "metrics.csv")
    assert len(back) == len(table)
    assert set(back["split"]) == {"test", "validate"}
    assert set(back.loc[back["split"] == "validate", "metric"]) == {"threshold"}  # validate holds no image
    assert whole(back).loc[("auroc", "None", "clustered"), "reason"] == "no positive image"


def test_a_rare_finding_has_a_value_without_interval_and_says_why(write_predictions):
    """One positive and one negative of twenty patients: 1 - 2 / e + 1 / e**2 = 0.40 of the replicates draw both, but
    1 - 1 / e = 0.63 draw the positive, which is all that average precision needs."""
    targets = [1, 0] + [None] * 18
    logits = {"Rare": np.arange(20)}
    path = write_predictions("p", "test", range(20), logits, {"Rare": targets})
    rows = whole(evaluate(path, ["test"], EvaluationSettings(replicates=1000)))
    for finding in ("Rare", MEAN):
        for kind in ("clustered", "bootstrap"):
            row = rows.loc[("auroc", finding, kind)]
            assert row["value"] == 0.0
            assert np.isnan(row["lower"])
            assert "no interval" in row["reason"]
        row = rows.loc[("average_precision", finding, "bootstrap")]
        assert row["value"] == 0.5
        assert row["lower"] <= 0.5 <= row["upper"]
        assert pd.isna(row["reason"])


def test_reasons():
    assert [reason_undefined(*n) for n in [(1, 1), (0, 0), (0, 1), (1, 0)]] == [
        None, "no image counts", "no positive image", "no negative image",
    ]  # fmt: skip


def test_a_learner_that_diverged_has_no_value(write_predictions):
    logits = LOGIT.copy()
    logits[3] = np.inf
    path = write_predictions("p", ["combine"] * 40 + ["test"] * 40, PATIENT, {"Edema": logits}, {"Edema": TARGET})
    table = evaluate(path, ["combine", "test"], QUICK)
    combine, test = whole(table, "combine"), whole(table, "test")
    assert combine.loc[("auroc", "Edema", "clustered"), "reason"] == "a logit is not finite"
    assert test.loc[("auroc", "Edema", "clustered"), "value"] > 0
    assert test.loc[("sensitivity", "Edema", "clustered"), "reason"] == "combine: a logit is not finite"


def test_the_threshold_by_hand():
    """Of ten negatives 0 to 9, nine lie at or below 8; of three equal ones all or none are flagged."""
    logits, target = np.arange(12.0), np.r_[np.zeros(10), 1, 1]
    assert threshold_at(logits, target, 0.9) == 8
    assert threshold_at(logits, target, 0.91) == 9
    assert threshold_at(np.array([1.0, 5, 5, 5]), np.zeros(4), 0.5) == 5
    assert fit_operating_point(logits, target, "combine", 0.9).recalibration is None  # separated
    assert (
        fit_operating_point(logits[10:], target[10:], "combine", 0.9).threshold_reason == "combine: no negative image"
    )


def test_the_threshold_has_the_sensitivity_of_scikit_learns_curve_on_its_own_split():
    negatives = int((TARGET == 0).sum())
    threshold = threshold_at(LOGIT, TARGET, 0.9)
    false_share, true_share, _ = roc_curve(TARGET, LOGIT, drop_intermediate=False)
    allowed = false_share <= (negatives - np.ceil(0.9 * negatives)) / negatives + 1e-12
    assert (LOGIT[TARGET == 1] > threshold).mean() == true_share[allowed].max()
    assert (LOGIT[TARGET == 0] <= threshold).mean() >= 0.9


def test_threshold_and_recalibration_come_from_combine_alone(write_predictions):
    """Another test split, with every label turned round, moves neither."""
    split = ["combine"] * 40 + ["test"] * 40
    turned = np.r_[TARGET[:40], 1 - TARGET[40:]]
    first, second = (
        evaluate(write_predictions(n, split, PATIENT, {"Edema": LOGIT}, {"Edema": t}), ["combine", "test"], QUICK)
        for n, t in (("a", TARGET), ("b", turned))
    )
    fitted = [whole(t, "combine").loc[("threshold", "Edema", "none"), "value"] for t in (first, second)]
    assert fitted[0] == fitted[1] == threshold_at(LOGIT[:40], TARGET[:40], 0.9)
    one, two = (whole(t) for t in (first, second))
    flagged = LOGIT[40:] > fitted[0]
    assert one.loc[("sensitivity", "Edema", "clustered"), "value"] == flagged[TARGET[40:] == 1].mean()
    assert two.loc[("sensitivity", "Edema", "clustered"), "value"] == flagged[TARGET[40:] == 0].mean()
    assert one.loc[("specificity", "Edema", "clustered"), "value"] == (~flagged[TARGET[40:] == 0]).mean()
    # Brier of p for 1 and of p for 0 differ by 1 - 2 p: the recalibrated p are the same in both.
    intercept, slope = fit_operating_point(LOGIT[:40].astype(float), TARGET[:40], "combine", 0.9).recalibration
    p = expit(intercept + slope * LOGIT[40:].astype(float))
    for rows, y in ((one, TARGET[40:]), (two, turned[40:])):
        brier = rows.loc[("recalibrated_brier", "Edema", "clustered"), "value"]
        assert brier == pytest.approx(brier_score_loss(y, p))
    assert not {"sensitivity", "recalibrated_brier"} & set(whole(first, "combine").reset_index()["metric"])


def test_without_combine_the_threshold_is_set_on_validate(write_predictions):
    split = ["validate"] * 40 + ["test"] * 40
    path = write_predictions("p", split, PATIENT, {"Edema": LOGIT}, {"Edema": TARGET})
    table = evaluate(path, ["test"], QUICK)
    assert set(table.loc[table["metric"] == "threshold", "split"]) == {"validate"}


def test_studies_by_hand(write_predictions):
    """Probabilities 0.2 and 0.6 of one study are 0.4; three studies, one of them ignored in one of its images."""
    probability = np.array([0.2, 0.6, 0.3, 0.9, 0.5])
    path = write_predictions(
        "p", "test", [0, 0, 1, 2, 2], {"Edema": logit(probability)}, {"Edema": [1, 1, 0, None, 0]},
        study=[7, 7, 8, 9, 9],
    )  # fmt: skip
    rows = whole(evaluate(path, ["test"], QUICK), level="study")
    # Study means 0.4 (positive), 0.3 and 0.7 (negative).
    row = rows.loc[("brier", "Edema", "clustered")]
    assert row["value"] == pytest.approx((0.6**2 + 0.3**2 + 0.7**2) / 3)
    assert rows.loc[("auroc", "Edema", "clustered"), "value"] == 0.5
    assert row[["n_images", "n_patients", "n_positive", "n_negative"]].tolist() == [3, 3, 1, 2]


def test_groups_are_scored_by_themselves(write_predictions):
    view = ["AP", "PA", "LATERAL", None] * 20
    sex = pd.DataFrame({"subject_id": [f"p{i}" for i in range(39)], "sex": ["F", "M", "F"] * 13})
    path = write_predictions("p", "test", PATIENT, {"Edema": LOGIT}, {"Edema": TARGET}, view=view)
    settings = EvaluationSettings(replicates=100, groups=["view", "sex"])
    table = evaluate(path, ["test"], settings, [sex])
    assert set(table["group"]) == {
        "all", "view: AP", "view: PA", "view: LATERAL", "view: (not recorded)", "view: frontal", "view: lateral",
        "sex: F", "sex: M", "sex: (not recorded)",
    }  # fmt: skip
    number = np.arange(80)
    of = {
        "view: PA": number % 4 == 1,
        "view: frontal": number % 4 < 2,
        "view: (not recorded)": number % 4 == 3,
        "sex: M": (PATIENT % 3 == 1) & (PATIENT < 39),
        "sex: (not recorded)": PATIENT == 39,
    }
    for group, mask in of.items():
        row = whole(table, group=group).loc[("auroc", "Edema", "clustered")]
        assert row["n_images"] == mask.sum()
        if group != "sex: (not recorded)":
            assert row["value"] == pytest.approx(roc_auc_score(TARGET[mask], LOGIT[mask]))


def test_metrics_of_the_splits_before_test_have_no_groups(write_predictions):
    split = ["validate"] * 20 + ["combine"] * 20 + ["test"] * 40
    path = write_predictions("p", split, PATIENT, {"Edema": LOGIT}, {"Edema": TARGET}, view=["AP"] * 80)
    table = evaluate(path, ["validate", "combine", "test"], EvaluationSettings(replicates=100))
    assert set(table.loc[table["split"] != "test", "group"]) == {"all"}
    assert set(table.loc[table["split"] == "test", "group"]) == {"all", "view: AP", "view: frontal"}
