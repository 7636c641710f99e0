"""Activation maps: against boxes where there are any, and beside the pictures."""

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from PIL import Image

from cxrscale.common.rows import ALL_FINDINGS, ALL_SIZES
from cxrscale.data.boxes import boxes_by_pair
from cxrscale.explain.contracts import SIZES
from cxrscale.report.cells import Cell, PageTable, average_rows, first_row, measure, number
from cxrscale.report.drawing import (
    DRAWN_PX,
    beside,
    legend,
    line_of_model,
    plain,
    reasons_of,
    resolution_axis,
    resolution_colours,
    say,
    shrink,
)
from cxrscale.report.inputs import (
    ActivationMaps,
    ReportSettings,
    Results,
    averaged_over,
    single_findings,
    values_averaged,
)
from cxrscale.report.sections import Block, Drawn, Section

#: x_min, y_min, x_max, y_max, as fractions of the picture.
Box = tuple[float, float, float, float]

MEASURE_NAMES = {"hit": "Hit rate", "energy": "Energy inside", "iou": "IoU"}
#: Column of a baseline -> its name, colour and width. The lower ones are wider, so that none hides another.
BASELINES = {
    "best": ("best on the map's grid", "#e66100", 11),
    "blind": ("one map for all", "#1a6fdf", 15),
    "chance": ("chance", "0.6", 19),
}


def section(results: Results, settings: ReportSettings) -> Section:
    blocks: list[Block] = []
    if "localisation" in results:
        blocks += [localisation_drawn(results, settings), localisation_table(results, settings)]
    blocks += [activation_drawn(results, settings), activation_table(results)]
    return Section("maps", "Activation maps", blocks, link="Activation maps")


def localisation_frame(results: Results) -> pd.DataFrame:
    """localisation.csv averaged over folds and seeds, a row a (model, resolution_px, finding, size, measure)."""
    by = ["model", "resolution_px", "finding", "size", "measure"]
    averaged = average_rows(results["localisation"], by, ["value", "lower", "upper"])
    others = results["localisation"].groupby(by, sort=False, dropna=False).agg(
        best=("best", "mean"), blind=("blind", "mean"), chance=("chance", "mean"), threshold=("threshold", "mean"),
        n_maps=("n_maps", "sum"), n_against=("n_against", "sum"),
    )  # fmt: skip
    # Seeds of a fold have the same patients, folds others.
    of_folds = results["localisation"].groupby([*by, "fold"], sort=False, dropna=False)["n_patients"].max()
    patients = of_folds.groupby(by, sort=False, dropna=False).sum()
    return averaged.merge(others.join(patients).reset_index(), on=by)


def localisation_table(results: Results, settings: ReportSettings) -> PageTable:
    """All boxes by finding, then all findings by size."""
    frame = localisation_frame(results)
    labels = single_findings(results, settings)
    groups = [(f, ALL_SIZES, f) for f in labels] + [(ALL_FINDINGS, ALL_SIZES, "All findings")]
    groups += [(ALL_FINDINGS, size, f"All findings, {size} boxes") for size in SIZES]
    rows: list[list[Cell | str]] = []
    for model in results.models:
        for resolution in results.resolutions(model):
            for finding, size, called in groups:
                row: list[Cell | str] = [model, f"{resolution} px", called]
                for name in MEASURE_NAMES:
                    found = first_row(
                        frame, model=model, resolution_px=resolution, finding=finding, size=size, measure=name
                    )
                    if found is None or found["n_maps"] == 0:
                        row = []
                        break
                    value = measure(found, "value", "lower", "upper")
                    beside = f"best {number(found['best'], 2)}, one map {number(found['blind'], 2)}"
                    row.append(Cell(value.text, f"{value.note}; {beside}"))
                if row and found is not None:
                    against = Cell(f"{found['n_against']}", f"of {found['n_maps']}")
                    rows.append([*row, number(found["chance"], 2), against, f"{found['n_patients']}"])
    head = [
        "Model", "Resolution", "Finding", *MEASURE_NAMES.values(), "Chance",
        "Maps that speak against throughout", "Patients",
    ]  # fmt: skip
    caption = (
        f"Activation maps of test images against boxes, with {settings.confidence:.0%} intervals (patients as clusters)"
        f"{averaged_over(results)}. Best: what the best map on the same grid reaches. One map: the same for all images "
        "of a finding, the mean of its boxes in combine; a map no better than that may only know where the finding "
        "usually is. Chance: an even map. IoU cuts where it was best on combine."
    )
    return PageTable(caption, head, rows)


def localisation_drawn(results: Results, settings: ReportSettings) -> Drawn:
    frame = localisation_frame(results)
    return Drawn(
        "localisation",
        localisation(frame[frame["finding"] == ALL_FINDINGS], settings.confidence),
        "Maps of test images against boxes, all findings together, by resolution and size of the box. Points: the "
        f"learners' maps, with {settings.confidence:.0%} intervals; orange: the best that a map of the same grid could "
        "do; blue: one map for all images of a finding, the mean of its boxes in combine; grey: an even map."
        + values_averaged(results),
    )


def localisation(measured: pd.DataFrame, confidence: float) -> Figure:
    """How well maps point into boxes by resolution: a column a measure, a row a size of box, a line a model.

    measured: a row a (model, resolution_px, size, measure) with value, lower, upper, best, blind, chance.
    """
    sizes = [
        s for s in ("all", "small", "medium", "large") if (measured.loc[measured["size"] == s, "n_maps"] > 0).any()
    ]
    figure = Figure(figsize=(9.4, 1.0 + 2.3 * max(len(sizes), 1)), layout="constrained")
    if not sizes:
        say(figure.subplots(), "no test image that shows a finding has a box")
        return figure
    models = list(dict.fromkeys(measured["model"]))
    axes = figure.subplots(len(sizes), len(MEASURE_NAMES), squeeze=False, sharex=True, sharey=True)
    for y, size in enumerate(sizes):
        for x, (column, name) in enumerate(MEASURE_NAMES.items()):
            axis = axes[y, x]
            here = measured[(measured["size"] == size) & (measured["measure"] == column)]
            _draw_measure(axis, here, models, sorted(int(r) for r in measured["resolution_px"].unique()))
            if y == 0:
                axis.set_title(name, fontsize=10)
            if y == len(sizes) - 1:
                axis.set_xlabel("Side of the input [px]")
            if x == 0:
                axis.set_ylabel("All boxes" if size == "all" else f"{size.capitalize()} boxes")
    marks = [
        Line2D([], [], marker="_", linestyle="", color=colour, markersize=12, markeredgewidth=2, label=label)
        for label, colour, _ in BASELINES.values()
    ]
    legend(figure, models, [], f"bars: {confidence:.0%} interval", marks)
    return figure


def _draw_measure(axis: Axes, here: pd.DataFrame, models: Sequence[str], resolutions: Sequence[int]) -> None:
    """A measure for boxes of one size."""
    colours = resolution_colours(resolutions)
    for m, model in enumerate(models):
        line = here[here["model"] == model].sort_values("resolution_px")
        place = beside(line["resolution_px"], m, len(models), 0.16)
        for column, (_, colour, width) in reversed(BASELINES.items()):
            # Between the line and what the learners reach.
            axis.plot(place, line[column], "_", color=colour, markersize=width, markeredgewidth=2, zorder=1.5)
        line_of_model(axis, place, line, m, colours)
    if here["value"].isna().all():
        say(axis, reasons_of(here))
    resolution_axis(axis, resolutions, 1.4)
    axis.set_ylim(-0.03, 1.03)


def activation_table(results: Results) -> PageTable:
    """Ids of the pictures in the figure of maps."""
    first = results.activation[0] if results.activation else None
    pairs = zip(first.findings, first.image_ids, strict=True) if first else []
    rows = [[str(f), str(i)] for f, i in pairs]
    return PageTable("Images in the order of the rows.", ["Finding", "image_id"], rows, private=True)


def activation_drawn(results: Results, settings: ReportSettings) -> Drawn:
    """The figure that holds pictures of patients."""
    boxes: Mapping[tuple[str, str], Sequence[Box]] = {}
    if results.boxes is not None:
        wanted = {i for learner in results.activation for i in learner.image_ids}
        drawn = results.boxes[results.boxes["image_id"].isin(wanted)]
        boxes = boxes_by_pair(drawn, results["index"], settings.geometry)
    first = results.learners.iloc[0]
    return Drawn(
        "cam",
        activation_maps(results.activation, boxes),
        f"Class activation maps of fold {first['fold']}, seed {first['seed']}. A row is a test image that shows the "
        "finding named: the picture, then each learner's map enlarged to the same size; orange speaks for the finding, "
        "blue against it; each panel is scaled to its own largest value, so strength does not compare between panels. "
        "The map's own grid stands below each panel: finer is not sharper than that."
        + ("" if results.boxes is None else " Dashed boxes are where the finding is."),
        private=True,
    )


def activation_maps(
    learners: Sequence[ActivationMaps],
    boxes: Mapping[tuple[str, str], Sequence[Box]],
) -> Figure:
    """The pictures of one fold with their maps, a row an (image, finding): the picture, then a column a learner.

    boxes: (finding, image_id) -> where the finding is, as `boxes.box_fractions` gives them. Maps of every grid are
    enlarged to the same size.
    """
    rows = list(dict.fromkeys((f, i) for x in learners for f, i in zip(x.findings, x.image_ids, strict=True)))
    columns = 1 + len(learners)
    figure = Figure(figsize=(1.2 + 1.7 * max(columns, 2), 0.9 + 1.85 * max(len(rows), 1)), layout="constrained")
    if not rows:
        say(figure.subplots(), "no test image shows a finding")
        return figure
    axes = figure.subplots(len(rows), columns, squeeze=False)
    finest = max(learners, key=lambda learner: learner.resolution_px)
    for column, learner in enumerate([finest, *learners]):
        found = {key: k for k, key in enumerate(zip(learner.findings, learner.image_ids, strict=True))}
        for row, (finding, image_id) in enumerate(rows):
            axis = axes[row, column]
            axis.set_xticks([])
            axis.set_yticks([])
            if row == 0:
                name = "The picture" if column == 0 else plain(learner.model)
                axis.set_title(f"{name}\n{learner.resolution_px} px", fontsize=8)
            if column == 0:
                axis.set_ylabel(plain(finding), fontsize=8)
            if (finding, image_id) not in found:
                say(axis, "no map")
                continue
            k = found[finding, image_id]
            axis.imshow(shrink(learner.pictures[k]), cmap="gray", vmin=0, vmax=255, extent=(0, 1, 1, 0), aspect="equal")
            if column:
                axis.imshow(_overlay(learner.maps[k]), extent=(0, 1, 1, 0), aspect="equal")
                grid_rows, grid_columns = learner.maps[k].shape
                against = "" if learner.maps[k].max() > 0 else ", all against"
                axis.set_xlabel(f"map {grid_rows} × {grid_columns}{against}", fontsize=7)
            _draw_boxes(axis, boxes.get((finding, image_id), ()))
            axis.set_xlim(0, 1)
            axis.set_ylim(1, 0)
    return figure


def _draw_boxes(axis: Axes, boxes: Sequence[Box]) -> None:
    """Black dashes on white, seen on every ground."""
    for x_min, y_min, x_max, y_max in boxes:
        for colour, style in (("white", "-"), ("black", (0, (3, 3)))):
            axis.add_patch(
                Rectangle(
                    (x_min, y_min), x_max - x_min, y_max - y_min, fill=False, color=colour, linewidth=1.4,
                    linestyle=style,
                )
            )  # fmt: skip


def _overlay(map_: np.ndarray) -> np.ndarray:
    """A map (rows, columns), scaled up bilinearly, as float (height, width, RGBA): orange speaks for the finding,
    blue against it, the more opaque the more; full where the map is largest."""
    grid = Image.fromarray(np.asarray(map_, dtype=np.float32))
    large = np.asarray(grid.resize((DRAWN_PX, DRAWN_PX), Image.Resampling.BILINEAR))
    largest = float(np.abs(map_).max())
    signed = large / largest if largest > 0 else large
    orange, blue = (np.array(matplotlib.colors.to_rgb(c)) for c in ("#e66100", "#1a6fdf"))
    colour = np.where(signed[..., None] >= 0, orange, blue)
    return np.dstack([colour, 0.5 * np.clip(np.abs(signed), 0, 1)])
