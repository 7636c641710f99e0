"""What the learners cost."""

import pandas as pd

from cxrscale.report.costs import cost_against_auroc, training_curves

NAN = float("nan")


def test_cost_is_logarithmic_and_leaves_out_what_is_undefined(texts, level):
    points = pd.DataFrame([level("m", "(mean)", 32, 0.7), level("m", "(mean)", 64, NAN)])
    points = points.assign(device_seconds=[10.0, 100.0])
    figure = cost_against_auroc(points, 0.95)
    assert figure.axes[0].get_xscale() == "log"
    assert [line.get_xdata()[0] for line in figure.axes[0].lines if line.get_xdata().size == 1] == [10.0, 10.0]
    assert "Training of one learner [device-seconds]" in texts(figure)
    figure = cost_against_auroc(points.assign(value=NAN), 0.95)
    assert "no AUROC has a value" in texts(figure)


def test_training_curves_mark_the_best_epoch():
    history = pd.DataFrame(
        {
            "model": "m",
            "resolution_px": 32,
            "fold": 0,
            "seed": 0,
            "epoch": [1, 2, 3],
            "validation_auroc": [0.5, 0.7, 0.6],
        }
    )
    figure = training_curves(history)
    dots = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert [float(d.get_xdata()[0]) for d in dots] == [2.0]
