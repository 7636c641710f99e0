"""What the page says about ensembles, from what the stage writes."""

import numpy as np
import pandas as pd
import pytest

from cxrscale.combine.methods import METHODS, PRIMARY
from cxrscale.combine.settings import StackingSettings
from cxrscale.combine.stack import stack
from cxrscale.report import combining
from cxrscale.report.inputs import ReportSettings, Results

N = 1200
PATIENT = np.arange(N) // 2
SPLIT = np.array(["validate", "combine", "test", "test"])[PATIENT % 4]
TARGET = np.random.default_rng(0).integers(0, 2, (2, N))
SETTINGS = ReportSettings(
    title="", study="", findings=None, patient_pictures=False, reference_px=64, margin_auroc=0.01, confidence=0.95,
    joint_confidence=0.99, geometry="stretch", native_at_least_px=0, settings=[],
)  # fmt: skip


@pytest.fixture
def results(write_predictions):
    """(strength and scale of the logits by resolution, seeds) -> what the page reads."""

    def make(resolutions, seeds=1, shared=0.8):
        paths = {}
        for r, (strength, scale) in resolutions.items():
            own = np.random.default_rng(r).normal(size=(2, N))
            for s in range(seeds):
                noise = np.random.default_rng([r, s]).normal(size=(2, N))
                odds = strength * (2 * TARGET - 1) + np.sqrt(shared) * own + np.sqrt(1 - shared) * noise
                odds *= scale
                paths["m", r, 0, s] = write_predictions(
                    f"{r}-{s}", SPLIT, PATIENT, {"A": odds[0], "B": odds[1]}, {"A": TARGET[0], "B": TARGET[1]}
                )
        frames = stack(paths, {0: "combine"}, StackingSettings(replicates=100, scale_weight_replicates=100))
        learners = pd.DataFrame(list(paths), columns=["model", "resolution_px", "fold", "seed"])
        targets = {0: pd.DataFrame(columns=[f"{part}:{f}" for part in ("target", "mask") for f in "AB"])}
        return Results(learners, frames, targets, costs=[], field_maps={}, activation=[])

    return make


def test_with_one_seed_a_gain_is_one_of_ensembling(results):
    found = results({32: (0.8, 1), 64: (0.8, 1)})
    assert combining.gains_sentence(found, SETTINGS) == (
        "Findings for which combining by fitted weights is shown to beat the best single learner: 2 of 2 with the 2 "
        "resolutions of m. Any ensemble tends to beat one learner."
    )
    assert combining.control_sentences(found, SETTINGS) == [
        "m: a gain of its 2 resolutions together is one of ensembling; it is not shown to be one of resolution "
        "(2 learners of one resolution need 2 seeds, there is 1)."
    ]
    assert combining.control_table(found, SETTINGS) is None
    assert combining.controls_table(found, SETTINGS) is None


def test_with_seeds_the_control_is_told_and_shown(results):
    found = results({32: (0.8, 1), 64: (0.8, 1)}, seeds=4)
    (sentence,) = combining.control_sentences(found, SETTINGS)
    assert "2 resolutions together, against 2 seeds of the resolution that does best on validation" in sentence
    assert "so combining resolutions gains more than combining seeds; better for" in sentence
    table = combining.control_table(found, SETTINGS)
    assert [row[1].text for row in table.cells] == ["A", "B", "Mean of all findings"]
    assert "p (Holm)" in table.cells[0][4].note
    assert "Holm" not in table.cells[2][4].note
    every = combining.controls_table(found, SETTINGS)
    assert list(every.head[2:]) == ["Chosen on validation", "32 px", "64 px"]
    assert [row[1].text for row in every.cells] == [m.label for m in METHODS.values() if m.combines]


def test_no_gain_of_resolution_is_said_as_such(results):
    found = results({32: (0.8, 1), 64: (0.8, 1)}, seeds=2, shared=0.0)
    (sentence,) = combining.control_sentences(found, SETTINGS)
    assert "which shows no gain of resolution beyond that of ensembling; better for 0" in sentence


def test_tables_hold_every_method_and_finding(results):
    found = results({32: (0.8, 1), 64: (0.8, 1)})
    table = combining.overall_table(found, SETTINGS)
    assert [row[1].text for row in table.cells] == [m.label for m in METHODS.values()]
    assert list(dict.fromkeys(found["gains"]["method"])) == list(METHODS)
    gain = found["gains"].set_index(["finding", "method", "against"]).loc["(mean)", "softmax", "best_single"]
    (cell,) = [row[3] for row in table.cells if row[1].text == METHODS[PRIMARY].label]
    assert cell.text == f"{gain['gain']:+.3f}"
    assert f"{gain['lower']:+.3f} to {gain['upper']:+.3f}; p < 0.001" in cell.note
    assert len(combining.stacking_table(found, SETTINGS).rows) == 2
    assert len(combining.methods_table(found, SETTINGS).rows) == 2


def test_a_loss_by_learners_that_are_too_sure_is_explained(results):
    found = results({32: (0.5, 1), 64: (1.5, 20)}, shared=0.0)
    sentence = combining.calibration_sentence(found, SETTINGS)
    assert sentence.startswith("Fitted weights on probabilities fall behind the best single learner")
    assert "calibration slopes from 0.1" in sentence
    table = combining.calibration_table(found, SETTINGS)
    assert table.marked == frozenset({1})
    assert [row[1].text for row in table.cells] == ["32 px", "64 px"]
    calm = results({32: (0.8, 1), 64: (0.8, 1)})
    assert combining.calibration_sentence(calm, SETTINGS) is None
    assert combining.calibration_table(calm, SETTINGS).marked == frozenset()


def test_learners_that_are_alike_are_starred_and_counted(results):
    found = results({32: (0.8, 1), 64: (0.8, 1)})
    assert not combining.weights_frame(found)["doubted"].any()
    assert combining.doubt_sentence(found, SETTINGS).startswith("For 0 of 2")
    alike = found.having(scale_weights=found["scale_weights"].assign(warning="x"))
    assert combining.weights_frame(alike)["doubted"].all()
    assert combining.doubt_sentence(alike, SETTINGS).startswith("For 2 of 2")


def test_one_learner_is_no_warning_and_no_gain(results):
    found = results({64: (0.8, 1)})
    assert combining.weight_warnings(found, SETTINGS) == []
    assert combining.gains_sentence(found, SETTINGS) == "One learner a model: nothing is combined."
    assert combining.control_sentences(found, SETTINGS) == []
    assert combining.calibration_table(found, SETTINGS).rows[0][2] == "–"
