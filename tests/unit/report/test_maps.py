"""Activation maps: against boxes, and beside the pictures."""

import re

import numpy as np
import pandas as pd
import pytest

from cxrscale.explain.localisation import measure_maps, summarise
from cxrscale.report.drawing import DRAWN_PX
from cxrscale.report.inputs import KEY, ActivationMaps
from cxrscale.report.maps import _overlay, activation_maps, localisation, localisation_table

NAN = float("nan")


def test_maps_are_held_against_boxes_where_there_are_any(make_results, make_settings, make_pages, read_page):
    results = make_results(models=("m",))
    pairs = pd.DataFrame(
        {
            "finding": "A", "image_id": [f"x{k}" for k in range(6)], "subject_id": [f"p{k}" for k in range(6)],
            "split": ["combine"] * 2 + ["test"] * 4,
        }
    )  # fmt: skip
    boxes = {("A", i): [(0.0, 0.0, 0.5, 0.5)] for i in pairs["image_id"]}
    maps = [np.array([[1.0, 0.0], [0.0, 0.0]])] * 5 + [np.full((2, 2), -1.0)]
    table = summarise(measure_maps(pairs, maps, boxes), ["A", "B"], [0.02, 0.1], 0.95)
    of_learners = [table.assign(**dict(zip(KEY, k, strict=True))) for k in results.learners.itertuples(index=False)]
    changed = results.having(localisation=pd.concat(of_learners))
    found = localisation_table(changed, make_settings())
    named = [[c.text for c in row[:3]] for row in found.cells]
    assert named[:3] == [
        ["m", "32 px", "A"], ["m", "32 px", "All findings"], ["m", "32 px", "All findings, large boxes"],
    ]  # fmt: skip
    assert len(named) == 6
    # Three hits, and a map that is the same everywhere: a quarter of it lies in the box.
    assert found.cells[0][3].text == "0.812"
    assert "best 1.00, one map 1.00" in found.cells[0][3].note
    assert [c.text for c in found.cells[0][6:]] == ["0.25", "1", "4"]
    text = read_page(make_pages(changed, make_settings())[0]).text
    assert "Activation maps of test images against boxes" in text
    assert not re.search(r"\b(nan|None)\b", text)
    assert "x0" not in text


def test_localisation_has_a_row_a_size_that_occurs_and_a_column_a_measure(texts):
    rows = [
        {
            "model": m, "resolution_px": r, "size": size, "measure": measure, "value": 0.5 if size == "all" else NAN,
            "lower": 0.4, "upper": 0.6, "best": 0.9, "blind": NAN, "chance": 0.1,
            "n_maps": 0 if size == "medium" else 5, "reason": None if size == "all" else "one patient",
        }
        for m in "mn" for r in (32, 64) for size in ("all", "small", "medium") for measure in ("hit", "energy", "iou")
    ]  # fmt: skip
    figure = localisation(pd.DataFrame(rows), 0.95)
    assert len(figure.axes) == 6
    shown = texts(figure)
    assert {"All boxes", "Small boxes", "Hit rate", "IoU", "best on the map's grid", "chance"} <= set(shown)
    assert shown.count("one patient") == 3
    assert "Medium boxes" not in shown
    none = localisation(pd.DataFrame(rows).assign(n_maps=0), 0.95)
    assert "no test image that shows a finding has a box" in texts(none)


def test_activation_maps_stand_beside_the_picture_with_boxes_and_grid(texts):
    pictures = np.full((1, 32, 32), 100, np.uint8)
    maps = {32: np.array([[[1.0, -1.0], [0.0, 0.5]]]), 64: -np.ones((1, 2, 3))}
    learners = [ActivationMaps("m", r, ["A"], ["image-1"], maps[r], pictures) for r in (32, 64)]
    where = [(0.25, 0.5, 0.75, 1.0), (0.0, 0.0, 0.5, 0.25)]
    figure = activation_maps(learners, {("A", "image-1"): where})
    assert len(figure.axes) == 3
    assert [len(axis.images) for axis in figure.axes] == [1, 2, 2]
    for axis in figure.axes:
        found = [(b.get_x(), b.get_y(), b.get_width(), b.get_height()) for b in axis.patches]
        assert found == [(0.25, 0.5, 0.5, 0.5)] * 2 + [(0.0, 0.0, 0.5, 0.25)] * 2
    assert {"The picture\n64 px", "m\n32 px", "m\n64 px", "A", "map 2 × 2", "map 2 × 3, all against"} <= set(
        texts(figure)
    )
    assert "image-1" not in texts(figure)


def test_activation_maps_without_images_say_so(texts):
    empty = ActivationMaps("m", 32, [], [], np.array([]), np.array([]))
    assert "no test image shows a finding" in texts(activation_maps([empty], {}))


def test_overlay_is_bilinear_orange_for_and_blue_against():
    overlay = _overlay(np.array([[1.0, -1.0]]))
    assert overlay.shape == (DRAWN_PX, DRAWN_PX, 4)
    left, right = overlay[0, 0], overlay[0, -1]
    assert left[0] > left[2]
    assert right[2] > right[0]
    assert overlay[0, DRAWN_PX // 2, 3] < 0.02  # zero between the two
    assert left[3] == pytest.approx(right[3])
