"""The look that figures share."""

import numpy as np
import pandas as pd

from cxrscale.report.answer import auroc_by_resolution
from cxrscale.report.drawing import png_of, shrink


def test_shrink_averages_blocks():
    assert shrink(np.arange(16).reshape(4, 4), 2).tolist() == [[2.5, 4.5], [10.5, 12.5]]
    assert shrink(np.ones((3, 3)), 3).tolist() == np.ones((3, 3)).tolist()


def test_a_figure_gives_the_same_bytes_twice(level):
    levels = pd.DataFrame([level("m", "A", 32, 0.7)])
    first, second = (png_of(auroc_by_resolution(levels, {"A": "A"}, 0.95)) for _ in range(2))
    assert first == second
