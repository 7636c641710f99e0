"""What the page says about ensembles, from what the stage writes."""

from cxrscale.combine.methods import METHODS, PRIMARY
from cxrscale.report.combining import (
    control_sentences,
    control_table,
    controls_table,
    gains_sentence,
    methods_table,
    overall_table,
    stacking_table,
)
from cxrscale.report.weights import learners_calibration_table, weight_warnings


def test_with_one_seed_a_gain_is_one_of_ensembling(make_settings, make_stacked):
    found = make_stacked({32: (0.8, 1), 64: (0.8, 1)})
    assert gains_sentence(found, make_settings()) == (
        "Findings for which combining by fitted weights is shown to beat the best single learner: 2 of 2 with the 2 "
        "resolutions of m. Any ensemble tends to beat one learner."
    )
    assert control_sentences(found, make_settings()) == [
        "m: a gain of its 2 resolutions together is one of ensembling; it is not shown to be one of resolution "
        "(2 learners of one resolution need 2 seeds, there is 1)."
    ]
    assert control_table(found, make_settings()) is None
    assert controls_table(found, make_settings()) is None


def test_with_seeds_the_control_is_told_and_shown(make_settings, make_stacked):
    found = make_stacked({32: (0.8, 1), 64: (0.8, 1)}, seeds=4)
    (sentence,) = control_sentences(found, make_settings())
    assert (
        "2 resolutions together, against 2 seeds of one resolution for all findings, the one that does best so, "
        in sentence
    )
    assert "so combining resolutions gains more than combining seeds of any one; a gain over every single" in sentence
    table = control_table(found, make_settings())
    assert [row[1].text for row in table.cells] == ["A", "B", "Mean of all findings"]
    assert "p (Holm)" in table.cells[0][4].note
    assert "Holm" not in table.cells[2][4].note
    every = controls_table(found, make_settings())
    assert list(every.head[2:]) == ["The strongest", "32 px", "64 px"]
    assert [row[1].text for row in every.cells] == [m.label for m in METHODS.values() if m.combines]


def test_no_gain_of_resolution_is_said_as_such(make_settings, make_stacked):
    found = make_stacked({32: (0.8, 1), 64: (0.8, 1)}, seeds=2, shared=0.0)
    (sentence,) = control_sentences(found, make_settings())
    assert "which shows no gain of resolution beyond that of ensembling; a gain over every single" in sentence
    assert "is shown for 0 of 2 findings" in sentence


def test_a_control_that_does_better_is_never_a_loss_that_was_shown(make_settings, make_stacked):
    found = make_stacked({32: (0.1, 1), 64: (1.5, 1)}, seeds=4)
    strongest = found["control"].set_index(["control", "method", "finding"]).loc["(strongest)", PRIMARY, "(mean)"]
    assert strongest["effect"] < -0.01
    assert (strongest["strongest_px"], strongest["p"]) == (64, 1)
    (sentence,) = control_sentences(found, make_settings())
    assert "which shows no gain of resolution beyond that of ensembling" in sentence
    assert "worse" not in sentence


def test_tables_hold_every_method_and_finding(make_settings, make_stacked):
    found = make_stacked({32: (0.8, 1), 64: (0.8, 1)})
    table = overall_table(found, make_settings())
    assert [row[1].text for row in table.cells] == [m.label for m in METHODS.values()]
    assert list(dict.fromkeys(found["gains"]["method"])) == list(METHODS)
    gain = found["gains"].set_index(["finding", "method", "against"]).loc["(mean)", PRIMARY, "best_single"]
    (cell,) = [row[3] for row in table.cells if row[1].text == METHODS[PRIMARY].label]
    assert cell.text == f"{gain['gain']:+.3f}"
    assert f"{gain['lower']:+.3f} to {gain['upper']:+.3f}; p < 0.001" in cell.note
    assert len(stacking_table(found, make_settings()).rows) == 2
    assert len(methods_table(found, make_settings()).rows) == 2


def test_one_learner_is_no_warning_and_no_gain(make_settings, make_stacked):
    found = make_stacked({64: (0.8, 1)})
    assert weight_warnings(found, make_settings()) == []
    assert gains_sentence(found, make_settings()) == "One learner a model: nothing is combined."
    assert control_sentences(found, make_settings()) == []
    assert learners_calibration_table(found, make_settings()).rows[0][2] == "–"
