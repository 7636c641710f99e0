import numpy as np
import pytest

from cxrscale import tables
from cxrscale.evaluation.auroc import auroc
from cxrscale.stacking import (
    ALL,
    STACKED,
    WEIGHTS,
    StackingSettings,
    best_single,
    fit_weights,
    mixture_weights,
    sigmoid,
    stack,
)

SETTINGS = StackingSettings(1e-12, 20_000, 200, 0.95, 0)
N = 400
TARGET = np.arange(N) % 2
NOISE = np.random.default_rng(1).normal(0, 1, (4, N))


def probabilities(strength):
    """(image, learner): learners whose logits hold the target with these strengths."""
    return sigmoid(np.stack([s * (2 * TARGET - 1) + NOISE[k] for k, s in enumerate(strength)], axis=1))


def mean_log_likelihood(weight, probability):
    mixed = probability @ weight
    return np.log(np.where(TARGET > 0, mixed, 1 - mixed)).mean()


@pytest.mark.parametrize("strength", [(1.0, 0.8, 0.1), (0.5, 0.5, 0.5), (2.0, -1.0, 0.0)])
def test_weights_are_the_best_of_a_grid_and_meet_the_kkt_conditions(strength):
    probability = probabilities(strength)
    weight = mixture_weights(probability, TARGET, 1e-13, 100_000)
    assert weight.sum() == pytest.approx(1)
    assert (weight >= 0).all()
    steps = range(51)
    grid = np.array([(a, b, 50 - a - b) for a in steps for b in steps if a + b <= 50]) / 50
    values = [mean_log_likelihood(w, probability) for w in grid]
    assert len(values) == 1326
    best = mean_log_likelihood(weight, probability)
    assert best >= max(values) - 1e-9
    assert np.abs(weight - grid[np.argmax(values)]).max() <= 0.04
    # The gradient of the likelihood along each weight is 1 where the weight is used, at most 1 where it is not.
    likelihood = np.where(TARGET[:, None] > 0, probability, 1 - probability)
    gradient = (likelihood / (likelihood @ weight)[:, None]).mean(axis=0)
    assert (gradient <= 1 + 1e-4).all()
    assert gradient[weight > 0.01] == pytest.approx(1, abs=1e-4)


def test_equal_learners_keep_equal_weights_and_a_useless_one_gets_none():
    same = probabilities([1.0])
    assert mixture_weights(np.hstack([same, same]), TARGET) == pytest.approx([0.5, 0.5])
    against = np.column_stack([np.where(TARGET > 0, 0.9, 0.1), np.where(TARGET > 0, 0.1, 0.9)])
    assert mixture_weights(against, TARGET) == pytest.approx([1, 0], abs=1e-6)


def test_certain_and_wrong_probabilities_give_finite_weights():
    probability = np.column_stack([TARGET, 1 - TARGET]).astype(float)
    assert mixture_weights(probability, TARGET) == pytest.approx([1, 0], abs=1e-6)


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        (np.zeros(N), "no positive image to fit on"),
        (np.ones(N), "no negative image to fit on"),
        (np.full(N, np.nan), "no image counts to fit on"),
    ],
)
def test_weights_are_equal_with_a_reason_where_nothing_can_be_fitted(target, reason):
    weight, said = fit_weights(NOISE[:3], target, SETTINGS)
    assert weight == pytest.approx([1 / 3] * 3)
    assert said == reason


def test_ignored_images_are_not_fitted_on():
    logits, target = np.stack([TARGET + NOISE[0], NOISE[1]]), TARGET.astype(float)
    target[200:] = np.nan
    expected, _ = fit_weights(logits[:, :200], target[:200], SETTINGS)
    assert fit_weights(logits, target, SETTINGS)[0] == pytest.approx(expected)


def test_the_best_single_learner_is_that_of_validation():
    logits = np.stack([NOISE[0], TARGET + NOISE[1], 3 * TARGET + NOISE[2]])
    assert best_single(logits, TARGET.astype(float)) == 2
    assert best_single(logits[::-1], TARGET.astype(float)) == 0
    assert best_single(logits, np.ones(N)) == 2  # undefined: the largest


@pytest.fixture
def predictions(write_predictions):
    """Only (a, 512) sees anything. Rare has no positive image in combine, Never none at all."""
    split = np.array(["validate", "combine", "test", "test"])[np.arange(N) // 2 % 4]
    rare = np.where(split == "combine", 0, TARGET)
    paths = {}
    for k, (model, r) in enumerate([("a", 256), ("a", 512), ("b", 256), ("b", 512)]):
        logit = NOISE[k] + (4 * TARGET - 2 if (model, r) == ("a", 512) else 0)
        paths[model, r, 0, 0] = write_predictions(
            f"{model}{r}", split, np.arange(N) // 2, {"Edema": logit, "Rare": logit, "Never": logit},
            {"Edema": TARGET, "Rare": rare, "Never": [0] * N},
        )  # fmt: skip
    return paths


def test_weights_land_on_the_learner_that_sees(predictions, tmp_path):
    weights, scored = stack(predictions, {0: "combine"}, SETTINGS)
    at = weights.set_index(["ensemble", "finding", "model", "resolution_px"])
    assert at["weight"]["a", "Edema", "a", 512] > 0.9
    assert at["weight"][ALL, "Edema", "a", 512] > 0.9
    assert weights.groupby(["ensemble", "finding"])["weight"].sum().tolist() == pytest.approx([1.0] * 9)
    rare = weights[(weights["finding"] == "Rare") & (weights["ensemble"] == ALL)]
    assert rare["weight"].tolist() == [0.25] * 4
    assert set(rare["reason"]) == {"no positive image to fit on"}

    row = scored.set_index(["ensemble", "finding", "method"])
    assert row["learner"][ALL, "Edema", "best_single"] == "a-512"
    assert row["gain"]["a", "Edema", "best_single"] == 0
    for method in ("mean", "softmax"):
        one = row.loc[("a", "Edema", method)]
        assert one["gain"] == pytest.approx(one["auroc"] - row["auroc"]["a", "Edema", "best_single"])
        assert one["gain_lower"] <= one["gain"] <= one["gain_upper"]
    never = scored[scored["finding"] == "Never"]
    assert len(never) == 9
    assert never["auroc"].isna().all()
    assert set(never["reason"]) == {"no positive image"}

    for table, frame in ((WEIGHTS, weights), (STACKED, scored)):
        tables.write(table, frame, tmp_path / f"{table.name}.csv")
        assert len(tables.read(table, tmp_path / f"{table.name}.csv")) == len(frame)


def test_the_weighted_mean_of_probabilities_is_what_is_scored(predictions):
    weights, scored = stack(predictions, {0: "validate"}, SETTINGS)
    edema = weights[(weights["finding"] == "Edema") & (weights["ensemble"] == "b")]["weight"].to_numpy()
    test = np.arange(N) // 2 % 4 >= 2
    mixed = edema @ sigmoid(NOISE[2:].astype(np.float32).astype(float))[:, test]
    expected = auroc(mixed, TARGET[test])
    row = scored.set_index(["ensemble", "finding", "method"])
    assert row["auroc"]["b", "Edema", "softmax"] == pytest.approx(expected)


def test_a_single_model_has_no_ensemble_of_all(predictions):
    weights, _ = stack({k: v for k, v in predictions.items() if k[0] == "b"}, {0: "combine"}, SETTINGS)
    assert set(weights["ensemble"]) == {"b"}
