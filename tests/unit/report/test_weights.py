"""Weights of the learners and their calibration, from what the stage writes."""

import pandas as pd

from cxrscale.report.weights import (
    calibration_sentence,
    doubt_sentence,
    learners_calibration_table,
    scale_weights,
    weights_frame,
)

NAN = float("nan")


def test_a_loss_by_learners_that_are_too_sure_is_explained(make_settings, make_stacked):
    found = make_stacked({32: (0.5, 1), 64: (1.5, 20)}, shared=0.0)
    sentence = calibration_sentence(found, make_settings())
    assert sentence.startswith("Fitted weights on probabilities fall behind the best single learner")
    assert "calibration slopes from 0.1" in sentence
    table = learners_calibration_table(found, make_settings())
    assert table.marked == frozenset({1})
    assert [row[1].text for row in table.cells] == ["32 px", "64 px"]
    calm = make_stacked({32: (0.8, 1), 64: (0.8, 1)})
    assert calibration_sentence(calm, make_settings()) is None
    assert learners_calibration_table(calm, make_settings()).marked == frozenset()


def test_learners_that_are_alike_are_starred_and_counted(make_settings, make_stacked):
    found = make_stacked({32: (0.8, 1), 64: (0.8, 1)})
    assert not weights_frame(found)["doubted"].any()
    assert doubt_sentence(found, make_settings()).startswith("For 0 of 2")
    alike = found.having(scale_weights=found["scale_weights"].assign(warning="x"))
    assert weights_frame(alike)["doubted"].all()
    assert doubt_sentence(alike, make_settings()).startswith("For 2 of 2")


def test_weights_stand_in_the_cells(texts):
    rows = [
        {
            "ensemble": e,
            "finding": f,
            "model": "m",
            "resolution_px": r,
            "weight": w,
            "lower": NAN if f == "B" else w - 0.1,
            "upper": NAN if f == "B" else w + 0.1,
            "doubted": r == 64,
        }
        for e in ("m", "(all learners)")
        for f in ("A", "B")
        for r, w in ((32, 0.25), (64, 0.75))
    ]
    figure = scale_weights(pd.DataFrame(rows), {"A": "A", "B": "B"})
    assert len(figure.axes) == 2
    assert texts(figure).count("0.25") == 4
    assert texts(figure).count("0.75*") == 4
    assert texts(figure).count("0.15 to 0.35") == 2
    assert texts(figure).count("no interval") == 4
