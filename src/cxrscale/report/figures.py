"""Figures of the report: functions that take frames and return a Figure; nothing is read, written or kept.

One look throughout: a resolution is a colour (dark is low), a model is a marker and a line style. The colours are
viridis, which keeps its order for colour-blind readers and in grey print.
"""

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, Rectangle
from matplotlib.ticker import NullFormatter
from PIL import Image

from cxrscale.report.drawing import (
    DRAWN_PX,
    GREY,
    LINES,
    MARKERS,
    legend,
    plain,
    reasons_of,
    resolution_colours,
    say,
    shrink,
)
from cxrscale.report.inputs import ActivationMaps


def auroc_by_resolution(levels: pd.DataFrame, labels: Mapping[str, str], confidence: float) -> Figure:
    """AUROC against resolution, a panel a finding, a line a model.

    levels: a row a (model, finding, resolution_px) with value, lower, upper, reason. labels: finding -> what its panel
    is called, in order. confidence: of the intervals.
    """
    models = list(dict.fromkeys(levels["model"]))
    resolutions = sorted(levels["resolution_px"].unique())
    colours = resolution_colours(resolutions)
    columns = min(3, len(labels))
    rows = -(-len(labels) // columns)
    figure = Figure(figsize=(max(5.0, 3.1 * columns), 0.9 + 2.5 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for number, axis in enumerate(axes.flat):
        if number >= len(labels):
            axis.remove()
            continue
        finding = list(labels)[number]
        here = levels[levels["finding"] == finding]
        axis.set_title(plain(labels[finding]), fontsize=10)
        axis.axhline(0.5, color="0.7", linewidth=0.8, zorder=0)
        for m, model in enumerate(models):
            line = here[(here["model"] == model) & here["value"].notna()].sort_values("resolution_px")
            # Models stand side by side, so that their intervals can be told apart.
            x = line["resolution_px"].to_numpy(float) * 2 ** (0.09 * (m - (len(models) - 1) / 2))
            axis.plot(x, line["value"], linestyle=LINES[m % len(LINES)], color=GREY, linewidth=1, zorder=1)
            for at, row in zip(x, line.itertuples(), strict=True):
                colour = colours[int(row.resolution_px)]
                axis.plot([at, at], [row.lower, row.upper], color=colour, linewidth=1.6, zorder=2)
                axis.plot(at, row.value, MARKERS[m % len(MARKERS)], color=colour, markersize=5.5, zorder=3)
        if here["value"].isna().all():
            say(axis, f"undefined: {reasons_of(here)}")
        axis.set_xscale("log", base=2)
        axis.set_xticks(resolutions, [str(r) for r in resolutions])
        axis.set_xticks([], minor=True)
        axis.set_xlim(min(resolutions) / 1.3, max(resolutions) * 1.3)
        last_of_column = number + columns >= len(labels)
        axis.tick_params(labelbottom=last_of_column)
        axis.set_xlabel("Side of the input [px]" if last_of_column else "")
        axis.set_ylabel("Test AUROC" if number % columns == 0 else "")
    legend(figure, models, [], f"bars: {confidence:.0%} interval, grey line: chance")
    return figure


def differences_to_reference(
    differences: pd.DataFrame, labels: Mapping[str, str], models: Sequence[str], margin: float, confidence: float
) -> Figure:
    """AUROC minus that at the reference, a panel a model, a row a finding, a colour a resolution.

    differences: confirmatory rows of `comparison.DIFFERENCES`. margin: the grey band. A filled dot says that the p of
    its difference, corrected after Holm, lies below 1 - confidence.
    """
    resolutions = sorted(int(r) for r in {*differences["resolution_px"], *differences["against_px"]})
    colours = resolution_colours(resolutions)
    height = 1.6 + max(0.32, 0.17 * max(len(resolutions) - 1, 1)) * len(labels)
    figure = Figure(figsize=(max(6.0, 3.2 + 3.0 * len(models)), height), layout="constrained")
    axes = figure.subplots(1, len(models), squeeze=False, sharex=True, sharey=True)[0]
    for axis, model in zip(axes, models, strict=True):
        here = differences[differences["model"] == model]
        axis.set_title(plain(model), fontsize=10)
        axis.axvspan(-margin, margin, color="0.9", zorder=0)
        axis.axvline(0, color="0.5", linewidth=0.8, zorder=1)
        shown = sorted(here["resolution_px"].unique())
        for y, finding in enumerate(labels):
            rows = here[(here["finding"] == finding) & here["difference"].notna()]
            if rows.empty:
                axis.text(
                    0, y, "undefined", ha="center", va="center", fontsize=8, color=GREY,
                    bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
                )  # fmt: skip
            for row in rows.to_dict("records"):
                resolution = int(row["resolution_px"])
                place = y + 0.6 * ((shown.index(resolution) + 0.5) / len(shown) - 0.5)
                colour = colours[resolution]
                axis.plot([row["lower"], row["upper"]], [place, place], color=colour, linewidth=1.6, zorder=2)
                shown_different = row["p_holm"] <= 1 - confidence
                fill = colour if shown_different else "white"
                axis.plot(row["difference"], place, "o", color=colour, markerfacecolor=fill, markersize=5, zorder=3)
        axis.set_yticks(range(len(labels)), [plain(label) for label in labels.values()])
        axis.set_ylim(len(labels) - 0.5, -0.5)
        reference = f" at {int(here['against_px'].iloc[0])} px" if len(here) else " at the reference"
        axis.set_xlabel(f"Test AUROC minus that{reference}")
    shown_anywhere = [r for r in resolutions if r in set(differences["resolution_px"])]
    note = f"bars: {confidence:.0%} interval, grey band: ± margin {margin:g}, filled: shown (Holm)"
    legend(figure, [], [(r, colours[r]) for r in shown_anywhere], note)
    return figure


#: What each state of a network is called, in the order it comes in.
STATES = {"random": "Random weights", "pretrained": "Pretrained", "trained": "Trained"}


def receptive_fields(maps: Mapping[tuple[str, int], Mapping[str, np.ndarray]], sizes: pd.DataFrame) -> Figure:
    """Effective receptive fields, a row a state, a column a (model, resolution).

    maps: (model, resolution_px) -> state -> energy (height, width). sizes: a row a (model, resolution_px, state) with
    sigma_px, sigma_fraction, centroid_x_fraction, centroid_y_fraction.
    """
    states = [s for s in STATES if any(s in by_state for by_state in maps.values())] or ["trained"]
    figure = Figure(figsize=(1.3 + 1.75 * max(len(maps), 2), 0.7 + 2.1 * len(states)), layout="constrained")
    axes = figure.subplots(len(states), max(len(maps), 1), squeeze=False, sharex=True, sharey=True)
    if not maps:
        say(axes[0, 0], "no map")
    for column, ((model, resolution), by_state) in enumerate(maps.items()):
        for row, state in enumerate(states):
            axis = axes[row, column]
            axis.set_xticks([0, 0.5, 1])
            axis.set_yticks([0, 0.5, 1])
            axis.tick_params(labelsize=8)
            above = f"{plain(model)}\n{resolution} px" if row == 0 else ""
            if row == len(states) - 1:
                axis.set_xlabel("Fraction of width", fontsize=8)
            if column == 0:
                axis.set_ylabel(f"{STATES[state]}\nFraction of height", fontsize=8)
            if state not in by_state:
                axis.set_title(above, fontsize=8)
                axis.set_box_aspect(1)
                say(axis, "no such state" if state == "pretrained" else "no map")
                continue
            # The square root brings out the flanks: it is the gradient's size instead of its energy.
            amplitude = np.sqrt(np.clip(by_state[state], 0, None))
            axis.imshow(amplitude / amplitude.max(), cmap="cividis", vmin=0, vmax=1, extent=(0, 1, 1, 0))
            size = sizes.query("model == @model and resolution_px == @resolution and state == @state").iloc[0]
            centre = (float(size["centroid_x_fraction"]), float(size["centroid_y_fraction"]))
            axis.add_patch(Circle(centre, float(size["sigma_fraction"]), fill=False, color="white", linestyle="--"))
            title = f"σ = {size['sigma_fraction']:.3f} ({size['sigma_px']:.1f} px)"
            axis.set_title(f"{above}\n{title}" if above else title, fontsize=8)
    return figure


def field_effect(points: pd.DataFrame, found: Mapping[str, str]) -> Figure:
    """The size of each finding's receptive field against its preference for low resolution, a panel a model.

    points: rows of `field_effect.FIELD_POINTS`. found: model -> what is said of it below its name.
    """
    models = list(dict.fromkeys(points["model"])) or ["no model"]
    shown = points.dropna(subset=["field_fraction", "preference"])
    numbers = {finding: k + 1 for k, finding in enumerate(dict.fromkeys(shown["finding"]))}
    figure = Figure(figsize=(1.0 + 4.2 * len(models) + 2.0, 4.2), layout="constrained")
    axes = figure.subplots(1, len(models), squeeze=False, sharey=True)[0]
    for axis, model in zip(axes, models, strict=True):
        here = shown[shown["model"] == model]
        axis.set_title(f"{plain(model)}\n{plain(found.get(model, ''))}", fontsize=9)
        axis.axhline(0, color="0.7", linewidth=0.8, zorder=0)
        axis.plot(here["field_fraction"], here["preference"], "o", color=GREY, markersize=5)
        for row in here.itertuples():
            at = (row.field_fraction, row.preference)
            axis.annotate(str(numbers[row.finding]), at, xytext=(4, 3), textcoords="offset points", fontsize=8)
        if here.empty:
            say(axis, "no finding has both a field and an AUROC")
        axis.margins(x=0.12, y=0.12)
        axis.set_xlabel("σ of the finding's field, fraction of the side")
    if len(points):
        lowest, reference = (int(points[c].iloc[0]) for c in ("lowest_px", "reference_px"))
        axes[0].set_ylabel(f"AUROC at {lowest} px minus at {reference} px")
    if numbers:
        entries = [Line2D([], [], linestyle="", label=f"{k}  {plain(finding)}") for finding, k in numbers.items()]
        figure.legend(handles=entries, loc="outside right center", fontsize=8, frameon=False, handlelength=0)
    return figure


MEASURE_NAMES = {"hit": "Hit rate", "energy": "Energy inside", "iou": "IoU"}


def localisation(measured: pd.DataFrame, confidence: float) -> Figure:
    """How well maps point into boxes by resolution: a column a measure, a row a size of box, a line a model.

    measured: a row a (model, resolution_px, size, measure) with value, lower, upper, best, blind, chance.
    """
    sizes = [
        s for s in ("all", "small", "medium", "large") if (measured.loc[measured["size"] == s, "n_maps"] > 0).any()
    ]
    models = list(dict.fromkeys(measured["model"]))
    resolutions = sorted(int(r) for r in measured["resolution_px"].unique())
    colours = resolution_colours(resolutions)
    figure = Figure(figsize=(9.4, 1.0 + 2.3 * max(len(sizes), 1)), layout="constrained")
    if not sizes:
        say(figure.subplots(), "no test image that shows a finding has a box")
        return figure
    axes = figure.subplots(len(sizes), len(MEASURE_NAMES), squeeze=False, sharex=True, sharey=True)
    for y, size in enumerate(sizes):
        for x, (measure, name) in enumerate(MEASURE_NAMES.items()):
            axis = axes[y, x]
            here = measured[(measured["size"] == size) & (measured["measure"] == measure)]
            for m, model in enumerate(models):
                line = here[here["model"] == model].sort_values("resolution_px")
                place = line["resolution_px"] * 2 ** (0.16 * (m - (len(models) - 1) / 2))
                axis.plot(place, line["value"], LINES[m % len(LINES)], color=GREY, linewidth=1, zorder=1)
                # The lower ones wider, so that none hides another.
                for beside, colour, width in (("chance", "0.6", 19), ("blind", "#1a6fdf", 15), ("best", "#e66100", 11)):
                    axis.plot(place, line[beside], "_", color=colour, markersize=width, markeredgewidth=2, zorder=2)
                for at, row in zip(place, line.itertuples(), strict=True):
                    colour = colours[int(row.resolution_px)]
                    axis.plot([at, at], [row.lower, row.upper], color=colour, linewidth=1.6, zorder=3)
                    axis.plot(at, row.value, MARKERS[m % len(MARKERS)], color=colour, markersize=5.5, zorder=4)
            if here["value"].isna().all():
                say(axis, reasons_of(here))
            axis.set_xscale("log", base=2)
            axis.set_xticks(resolutions, [str(r) for r in resolutions])
            axis.set_xticks([], minor=True)
            axis.set_xlim(min(resolutions) / 1.4, max(resolutions) * 1.4)
            axis.set_ylim(-0.03, 1.03)
            if y == 0:
                axis.set_title(name, fontsize=10)
            if y == len(sizes) - 1:
                axis.set_xlabel("Side of the input [px]")
            if x == 0:
                axis.set_ylabel("All boxes" if size == "all" else f"{size.capitalize()} boxes")
    baselines = [("best on the map's grid", "#e66100"), ("one map for all", "#1a6fdf"), ("chance", "0.6")]
    marks = [
        Line2D([], [], marker="_", linestyle="", color=c, markersize=12, markeredgewidth=2, label=n)
        for n, c in baselines
    ]
    legend(figure, models, [], f"bars: {confidence:.0%} interval", marks)
    return figure


def activation_maps(
    learners: Sequence[ActivationMaps],
    boxes: Mapping[tuple[str, str], Sequence[tuple[float, float, float, float]]],
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
            for x_min, y_min, x_max, y_max in boxes.get((finding, image_id), ()):
                for colour, style in (("white", "-"), ("black", (0, (3, 3)))):
                    axis.add_patch(
                        Rectangle(
                            (x_min, y_min), x_max - x_min, y_max - y_min, fill=False, color=colour, linewidth=1.4,
                            linestyle=style,
                        )
                    )  # fmt: skip
            axis.set_xlim(0, 1)
            axis.set_ylim(1, 0)
    return figure


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


def scale_weights(weights: pd.DataFrame, labels: Mapping[str, str]) -> Figure:
    """Weights of the learners, a panel an ensemble, a row a finding, a column a learner: the number and its interval in
    each cell, a star where it says little.

    weights: a row an (ensemble, finding, model, resolution_px) with weight, lower, upper (NaN where not fitted) and
    doubted (bool), averaged over folds and seeds.
    """
    ensembles = list(dict.fromkeys(weights["ensemble"]))
    learners = {e: _learners_of(weights, e) for e in ensembles}
    most = max(map(len, learners.values()), default=1)
    panel = 1.1 + 0.42 * len(labels)
    figure = Figure(figsize=(2.6 + 0.95 * max(most, 3), max(2.2, panel * len(ensembles))), layout="constrained")
    axes = figure.subplots(max(len(ensembles), 1), 1, squeeze=False)[:, 0]
    if not ensembles:
        say(axes[0], "no ensemble")
    for axis, ensemble in zip(axes, ensembles, strict=False):
        here = weights[weights["ensemble"] == ensemble]
        columns = {learner: x for x, learner in enumerate(learners[ensemble])}
        rows = {finding: y for y, finding in enumerate(labels)}
        values = np.full((len(rows), len(columns)), np.nan)
        for cell in here[here["finding"].isin(rows)].itertuples():
            y, x = rows[cell.finding], columns[cell.model, int(cell.resolution_px)]
            values[y, x] = cell.weight
            shade = "black" if cell.weight > 0.55 else "white"
            middle = {"ha": "center", "color": shade}
            star = "*" if cell.doubted else ""
            axis.text(x, y - 0.02, f"{cell.weight:.2f}{star}", va="bottom", fontsize=8, **middle)
            interval = "no interval" if np.isnan(cell.lower) else f"{cell.lower:.2f} to {cell.upper:.2f}"
            axis.text(x, y + 0.08, interval, va="top", fontsize=6, **middle)
        axis.imshow(values, cmap="cividis", vmin=0, vmax=1, aspect="auto")
        several = len({model for model, _ in columns}) > 1
        names = [f"{plain(model)}\n{r} px" if several else f"{r} px" for model, r in columns]
        axis.set_xticks(range(len(columns)), names, fontsize=8)
        axis.set_yticks(range(len(labels)), [plain(label) for label in labels.values()], fontsize=8)
        axis.set_title(plain(ensemble), fontsize=10)
    return figure


def _learners_of(weights: pd.DataFrame, ensemble: str) -> list[tuple[str, int]]:
    here = weights[weights["ensemble"] == ensemble]
    return list(dict.fromkeys(zip(here["model"], here["resolution_px"].astype(int), strict=True)))


def cost_against_auroc(points: pd.DataFrame, confidence: float) -> Figure:
    """Training time against mean test AUROC, a colour a resolution, a marker a model.

    points: a row a (model, resolution_px) with seconds, value, lower, upper; rows without a value are left out.
    """
    figure = Figure(figsize=(6.6, 4.2), layout="constrained")
    axis = figure.subplots()
    models = list(dict.fromkeys(points["model"]))
    colours = resolution_colours(list(points["resolution_px"]))
    shown = points[points["value"].notna()].sort_values("resolution_px")
    for m, model in enumerate(models):
        line = shown[shown["model"] == model]
        axis.plot(line["seconds"], line["value"], LINES[m % len(LINES)], color=GREY, linewidth=1, zorder=1)
        for row in line.itertuples():
            colour = colours[int(row.resolution_px)]
            axis.plot([row.seconds] * 2, [row.lower, row.upper], color=colour, linewidth=1.6, zorder=2)
            axis.plot(row.seconds, row.value, MARKERS[m % len(MARKERS)], color=colour, markersize=7, zorder=3)
    if shown.empty:
        say(axis, "no AUROC has a value")
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter("{x:,.10g}")
    if len(shown):
        low, high = shown["seconds"].min() / 1.5, shown["seconds"].max() * 1.6
        axis.set_xlim(low, high)
        # Numbers between the powers of ten only where there would be too few of those.
        axis.xaxis.set_minor_formatter("{x:,.3g}" if high / low < 20 else NullFormatter())
    axis.set_xlabel("Training time of one learner [s]")
    axis.set_ylabel("Mean test AUROC of all findings")
    legend(figure, models, list(colours.items()), f"bars: {confidence:.0%} interval")
    return figure


def training_curves(history: pd.DataFrame) -> Figure:
    """Mean validation AUROC against epoch, a panel a model, a line a learner, a dot at the best epoch.

    history: a row an epoch of a learner: model, resolution_px, fold, seed, epoch, validation_auroc.
    """
    models = list(dict.fromkeys(history["model"]))
    resolutions = sorted(int(r) for r in history["resolution_px"].unique())
    colours = resolution_colours(resolutions)
    figure = Figure(figsize=(max(5.0, 1.0 + 3.4 * len(models)), 3.6), layout="constrained")
    axes = figure.subplots(1, len(models), squeeze=False, sharex=True, sharey=True)[0]
    for axis, model in zip(axes, models, strict=True):
        here = history[history["model"] == model]
        for key, line in here.groupby(["resolution_px", "fold", "seed"]):
            colour = colours[int(key[0])]
            axis.plot(line["epoch"], line["validation_auroc"], color=colour, linewidth=1.2)
            if line["validation_auroc"].notna().any():
                best = line.loc[line["validation_auroc"].idxmax()]
                axis.plot(best["epoch"], best["validation_auroc"], "o", color=colour, markersize=5)
        axis.set_title(plain(model), fontsize=10)
        axis.set_xlabel("Epoch")
        axis.xaxis.get_major_locator().set_params(integer=True)
    axes[0].set_ylabel("Mean validation AUROC")
    legend(figure, [], [(r, colours[r]) for r in resolutions], "dot: best epoch")
    return figure
