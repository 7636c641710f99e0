"""Figures: what is drawn for hand-made frames, and where boxes land."""

import numpy as np
import pandas as pd
import pytest

from cxrscale.report import figures
from cxrscale.report.inputs import ActivationMaps

NAN = float("nan")


def level(model: str, finding: str, resolution_px: int, value: float, reason: str | None = None) -> dict[str, object]:
    row = {"model": model, "finding": finding, "resolution_px": resolution_px, "value": value}
    return row | {"lower": value - 0.1, "upper": value + 0.1, "reason": reason}


def texts(figure) -> list[str]:
    """All text of a figure, its legends' too."""
    figure.draw_without_rendering()
    return [t.get_text() for t in figure.findobj(match=lambda artist: hasattr(artist, "get_text")) if t.get_text()]


def test_shrink_averages_blocks():
    assert figures.shrink(np.arange(16).reshape(4, 4), 2).tolist() == [[2.5, 4.5], [10.5, 12.5]]
    assert figures.shrink(np.ones((3, 3)), 3).tolist() == np.ones((3, 3)).tolist()


def test_auroc_has_a_panel_a_finding_with_its_reason_and_pixels():
    rows = [level("m", f, r, 0.7) for f in ("A", "B", "C") for r in (32, 64)]
    rows += [level("m", "$D", r, NAN, "no positive image") for r in (32, 64)]
    labels = {f: f for f in ("A", "B", "C", "$D")}
    figure = figures.auroc_by_resolution(pd.DataFrame(rows), labels, 0.95)
    assert len(figure.axes) == 4
    assert figure.axes[0].get_xscale() == "log"
    shown = texts(figure)
    assert "undefined: no positive image" in shown
    assert r"\$D" in shown
    assert {"32", "64", "Side of the input [px]", "Test AUROC", "m"} <= set(shown)


def test_a_resolution_has_one_colour():
    colours = figures.resolution_colours([256, 64, 128])
    assert list(colours) == [64, 128, 256]
    assert len(set(colours.values())) == 3
    figure = figures.auroc_by_resolution(
        pd.DataFrame([level(m, "A", r, 0.7) for m in "mn" for r in (64, 128, 256)]), {"A": "A"}, 0.95
    )
    drawn = [
        line.get_color()
        for line in figure.axes[0].lines
        if line.get_marker() not in ("None", None) and line.get_xdata().size == 1
    ]
    assert drawn == [*colours.values()] * 2


def test_differences_have_a_panel_a_model_and_a_row_a_finding():
    rows = [
        {
            "model": m,
            "finding": "A",
            "resolution_px": r,
            "against_px": 128,
            "difference": -0.1,
            "lower": -0.2,
            "upper": 0.0,
            "p_holm": 0.01 if r == 32 else 0.2,
        }
        for m in "mn"
        for r in (32, 64)
    ]
    figure = figures.differences_to_reference(pd.DataFrame(rows), {"A": "A", "B": "Second"}, ["m", "n"], 0.01, 0.95)
    assert len(figure.axes) == 2
    shown = texts(figure)
    assert shown.count("undefined") == 2  # B, in both panels
    assert {"m", "n", "Second", "32 px", "64 px", "Test AUROC minus that at 128 px"} <= set(shown)
    assert "128 px" not in shown
    dots = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert [dot.get_markerfacecolor() == "white" for dot in dots] == [False, True]  # filled: shown to differ


def test_differences_of_a_single_resolution_are_empty_but_drawn():
    columns = ["model", "finding", "resolution_px", "against_px", "difference", "lower", "upper", "p_holm"]
    figure = figures.differences_to_reference(pd.DataFrame(columns=columns), {"A": "A"}, ["m"], 0.01, 0.95)
    assert "undefined" in texts(figure)


def test_receptive_fields_write_sigma_in_each_panel():
    sizes = pd.DataFrame(
        {
            "model": ["m"] * 3 + ["n"] * 2, "resolution_px": 32,
            "state": ["random", "pretrained", "trained", "random", "trained"],
            "sigma_px": [8.0, 6.0, 4.0, 8.0, 2.0], "sigma_fraction": [0.25, 0.1875, 0.125, 0.25, 0.0625],
            "centroid_x_fraction": 0.5, "centroid_y_fraction": 0.5,
        }
    )  # fmt: skip
    map_ = np.full((32, 32), 1 / 1024)
    maps = {
        ("m", 32): dict.fromkeys(("random", "pretrained", "trained"), map_),
        ("n", 32): dict.fromkeys(("random", "trained"), map_),
    }
    figure = figures.receptive_fields(maps, sizes)
    assert len(figure.axes) == 6
    shown = texts(figure)
    assert "m\n32 px\nσ = 0.250 (8.0 px)" in shown
    assert "σ = 0.188 (6.0 px)" in shown
    assert "σ = 0.062 (2.0 px)" in shown
    assert shown.count("no such state") == 1
    assert len(figures.receptive_fields({("n", 32): maps["n", 32]}, sizes).axes) == 2


def test_field_effect_names_its_points_and_leaves_out_what_is_empty():
    points = pd.DataFrame(
        {
            "model": "m", "finding": ["A", "B", "C"], "reference_px": 64, "lowest_px": 32,
            "field_fraction": [0.1, 0.2, NAN], "preference": [-0.1, 0.0, 0.1],
        }
    )  # fmt: skip
    shown = texts(figures.field_effect(points, {"m": "ρ = 1"}))
    assert {"1", "2", "1  A", "2  B", "m\nρ = 1", "AUROC at 32 px minus at 64 px"} <= set(shown)
    assert not {"3", "3  C"} & set(shown)
    empty = figures.field_effect(points.assign(preference=NAN), {})
    assert "no finding has both a field and an AUROC" in texts(empty)


def test_localisation_has_a_row_a_size_that_occurs_and_a_column_a_measure():
    rows = [
        {
            "model": m, "resolution_px": r, "size": size, "measure": measure, "value": 0.5 if size == "all" else NAN,
            "lower": 0.4, "upper": 0.6, "best": 0.9, "blind": NAN, "chance": 0.1,
            "n_maps": 0 if size == "medium" else 5, "reason": None if size == "all" else "one patient",
        }
        for m in "mn" for r in (32, 64) for size in ("all", "small", "medium") for measure in ("hit", "energy", "iou")
    ]  # fmt: skip
    figure = figures.localisation(pd.DataFrame(rows), 0.95)
    assert len(figure.axes) == 6
    shown = texts(figure)
    assert {"All boxes", "Small boxes", "Hit rate", "IoU", "best on the map's grid", "chance"} <= set(shown)
    assert shown.count("one patient") == 3
    assert "Medium boxes" not in shown
    none = figures.localisation(pd.DataFrame(rows).assign(n_maps=0), 0.95)
    assert "no test image that shows a finding has a box" in texts(none)


def test_activation_maps_stand_beside_the_picture_with_boxes_and_grid():
    pictures = np.full((1, 32, 32), 100, np.uint8)
    maps = {32: np.array([[[1.0, -1.0], [0.0, 0.5]]]), 64: -np.ones((1, 2, 3))}
    learners = [ActivationMaps("m", r, ["A"], ["image-1"], maps[r], pictures) for r in (32, 64)]
    where = [(0.25, 0.5, 0.75, 1.0), (0.0, 0.0, 0.5, 0.25)]
    figure = figures.activation_maps(learners, {("A", "image-1"): where})
    assert len(figure.axes) == 3
    assert [len(axis.images) for axis in figure.axes] == [1, 2, 2]
    for axis in figure.axes:
        found = [(b.get_x(), b.get_y(), b.get_width(), b.get_height()) for b in axis.patches]
        assert found == [(0.25, 0.5, 0.5, 0.5)] * 2 + [(0.0, 0.0, 0.5, 0.25)] * 2
    assert {"The picture\n64 px", "m\n32 px", "m\n64 px", "A", "map 2 × 2", "map 2 × 3, all against"} <= set(
        texts(figure)
    )
    assert "image-1" not in texts(figure)


def test_activation_maps_without_images_say_so():
    empty = ActivationMaps("m", 32, [], [], np.array([]), np.array([]))
    assert "no test image shows a finding" in texts(figures.activation_maps([empty], {}))


def test_overlay_is_bilinear_orange_for_and_blue_against():
    overlay = figures._overlay(np.array([[1.0, -1.0]]))
    assert overlay.shape == (figures.DRAWN_PX, figures.DRAWN_PX, 4)
    left, right = overlay[0, 0], overlay[0, -1]
    assert left[0] > left[2]
    assert right[2] > right[0]
    assert overlay[0, figures.DRAWN_PX // 2, 3] < 0.02  # zero between the two
    assert left[3] == pytest.approx(right[3])


def test_weights_stand_in_the_cells():
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
    figure = figures.scale_weights(pd.DataFrame(rows), {"A": "A", "B": "B"})
    assert len(figure.axes) == 2
    assert texts(figure).count("0.25") == 4
    assert texts(figure).count("0.75*") == 4
    assert texts(figure).count("0.15 to 0.35") == 2
    assert texts(figure).count("no interval") == 4


def test_cost_is_logarithmic_and_leaves_out_what_is_undefined():
    points = pd.DataFrame([level("m", "(mean)", 32, 0.7), level("m", "(mean)", 64, NAN)]).assign(seconds=[10.0, 100.0])
    figure = figures.cost_against_auroc(points, 0.95)
    assert figure.axes[0].get_xscale() == "log"
    assert [line.get_xdata()[0] for line in figure.axes[0].lines if line.get_xdata().size == 1] == [10.0, 10.0]
    assert "Training time of one learner [s]" in texts(figure)
    figure = figures.cost_against_auroc(points.assign(value=NAN), 0.95)
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
    figure = figures.training_curves(history)
    dots = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert [float(d.get_xdata()[0]) for d in dots] == [2.0]


def test_a_figure_gives_the_same_bytes_twice(tmp_path):
    for name in ("a", "b"):
        figures.save(
            figures.auroc_by_resolution(pd.DataFrame([level("m", "A", 32, 0.7)]), {"A": "A"}, 0.95), tmp_path / name
        )
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
