"""Receptive fields: how wide they are, and whether findings that need a wide one prefer low resolution."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle

from cxrscale.common.rows import ALL_CHANNELS
from cxrscale.explain.contracts import LENGTHS
from cxrscale.report.cells import (
    DASH,
    Cell,
    PageTable,
    first_row,
    join,
    joined_reasons,
    missing,
    number,
    text_or,
)
from cxrscale.report.drawing import GREY, plain, say
from cxrscale.report.inputs import ReportSettings, Results, averaged_over, single_findings, values_averaged
from cxrscale.report.sections import Drawn, Paragraph, Section

#: What each state of a network is called, in the order it comes in.
STATES = {"random": "Random weights", "pretrained": "Pretrained", "trained": "Trained"}


def section(results: Results, settings: ReportSettings) -> Section:
    said = [
        Markup("<b>{}</b>: {}").format(model, sentence)
        for model, sentence in field_effect_sentences(results, settings).items()
    ]
    asked = Markup("Do findings that need a wide field prefer low resolution?")
    return Section(
        "fields",
        "Receptive fields",
        [
            Paragraph(Markup(" ").join([asked, *said])),
            field_effect_drawn(results, settings),
            finding_fields_table(results, settings),
            fields_table(results),
            receptive_fields_drawn(results),
        ],
        link="Receptive fields",
    )


def fields_frame(results: Results) -> pd.DataFrame:
    """Sizes averaged over folds and seeds, a row a (model, resolution_px, state, finding); centroids as fractions."""
    fields = results["erf"].copy()
    width = fields["sigma_px"] / fields["sigma_fraction"]
    for axis in "xy":
        fields[f"centroid_{axis}_fraction"] = fields[f"centroid_{axis}_px"] / width
    names = [c for c in fields.columns if c.endswith(("_px", "_fraction")) and c != "resolution_px"]
    names += ["edge_ratio", "cut_share"]
    by = ["model", "resolution_px", "state", "finding"]
    reasons = fields.groupby(by, sort=False)["reason"].agg(joined_reasons)
    return fields.groupby(by, sort=False)[names].mean().join(reasons).reset_index()


def network_fields(results: Results) -> pd.DataFrame:
    """The rows of `fields_frame` for all channels together."""
    fields = fields_frame(results)
    return fields[fields["finding"] == ALL_CHANNELS]


def fields_table(results: Results) -> PageTable:
    sizes = network_fields(results)
    rows: list[list[Cell | str]] = []
    for model in results.models:
        for resolution in results.resolutions(model):
            for state, called in STATES.items():
                found = first_row(sizes, model=model, resolution_px=resolution, state=state)
                if found is None:
                    continue
                row: list[Cell | str] = [model, f"{resolution} px", called]
                for name in LENGTHS:
                    fraction, px = found[f"{name}_fraction"], found[f"{name}_px"]
                    note = text_or(found["reason"], "") if missing(fraction) else f"{number(px, 1)} px"
                    row.append(Cell(number(fraction), note))
                rows.append([*row, number(found["edge_ratio"]), number(found["cut_share"])])
    head = [
        "Model", "Resolution", "State", "σ", "Radius of 50% of the energy", "Radius of 95%",
        "Centred square with 20% of the contribution", "30%", "50%", "99%", "At the border", "Cut off",
    ]  # fmt: skip
    images = join(dict.fromkeys(str(n) for n in results["erf"]["n_images"]))
    caption = (
        f"Effective receptive fields as fractions of the side, over {images} validation images a learner"
        f"{averaged_over(results, intervals=False)}. An even map has σ 0.289. At the border: energy per pixel there "
        "over that of the whole map (0: the field ends within the picture; 1: as much at the border as anywhere, so "
        "that the sizes measure the picture). Cut off: the share beyond the border, if the field were a Gaussian."
    )
    return PageTable(caption, head, rows)


def finding_fields_table(results: Results, settings: ReportSettings) -> PageTable:
    """Fields of the findings' evidence, trained, with the preference for low resolution."""
    sizes = fields_frame(results)
    resolutions = sorted(int(r) for r in set(results.learners["resolution_px"]))
    rows: list[list[Cell | str]] = []
    for model in results.models:
        for finding in single_findings(results, settings):
            row: list[Cell | str] = [model, finding]
            for r in resolutions:
                found = first_row(sizes, model=model, resolution_px=r, state="trained", finding=finding)
                if found is None:
                    row.append(Cell(DASH, "not trained"))
                elif missing(found["sigma_fraction"]):
                    row.append(Cell(DASH, text_or(found["reason"], "no reason recorded")))
                else:
                    row.append(Cell(number(found["sigma_fraction"]), f"border {number(found['edge_ratio'], 2)}"))
            point = first_row(results["field_points"], model=model, finding=finding)
            preference = None if point is None else point["preference"]
            note = "" if not missing(preference) else text_or(point and point["reason"], "no reason recorded")
            row.append(Cell(number(preference, signed=True), note))
            rows.append(row)
    first = results["field_points"].iloc[0] if len(results["field_points"]) else None
    what = f"AUROC at {first['lowest_px']} px minus at {first['reference_px']} px" if first is not None else "AUROC"
    head = ["Model", "Finding", *(f"σ at {r} px" for r in resolutions), what]
    caption = (
        "σ of the field of each finding's evidence at the centre, trained, as a fraction of the side"
        f"{averaged_over(results, intervals=False)}; below it the energy at the border."
    )
    return PageTable(caption, head, rows)


def field_effect_words(row: Mapping[Any, Any]) -> str:
    """'ρ = 0.31 (−0.2 to 0.7), p = 0.28, n = 14', or why there is none."""
    if missing(row["spearman"]):
        return f"no rank correlation: {text_or(row['reason'], 'no reason recorded')}"
    ends = (
        f"{number(row['lower'], 2)} to {number(row['upper'], 2)}"
        if not missing(row["lower"])
        else f"no interval: {text_or(row['reason'], 'no reason recorded')}"
    )
    return f"ρ = {number(row['spearman'], 2)} ({ends}), p = {number(row['p'], 3)}, n = {row['n_findings']} findings"


def field_effect_sentences(results: Results, settings: ReportSettings) -> dict[str, str]:
    """model -> what the study says of the claim that findings which need a wide field prefer low resolution."""
    said = {}
    for row in results["field_effect"].to_dict("records"):
        words = field_effect_words(row)
        if missing(row["spearman"]) or missing(row["lower"]):
            verdict = "the claim cannot be judged here"
        elif row["lower"] > 0 and row["p"] < 1 - settings.confidence:
            points = results["field_points"]
            gains = points.loc[points["model"] == row["model"], "preference"] > 0
            verdict = (
                "so findings with wide fields do prefer low resolution here" if gains.any()
                else "so findings with wide fields lose less at low resolution here; none gains"
            )  # fmt: skip
        elif row["upper"] < 0 and row["p"] < 1 - settings.confidence:
            verdict = "so findings with wide fields prefer high resolution here, against the claim"
        else:
            verdict = "so the claim is neither shown nor refuted"
        few = (
            "; so few findings leave much to chance" if 0 < row["n_findings"] < 20 and not missing(row["lower"]) else ""
        )
        said[str(row["model"])] = f"{words}: {verdict}{few}."
    return said


def field_effect_drawn(results: Results, settings: ReportSettings) -> Drawn:
    found = {str(row["model"]): field_effect_words(row) for row in results["field_effect"].to_dict("records")}
    return Drawn(
        "field_effect",
        field_effect(results["field_points"], found),
        "The paper's claim as a number: each finding's field at the reference resolution (trained, of the finding's "
        "own evidence) against what it gains from low resolution. If findings that need a wide field prefer low "
        "resolution, the points rise to the right. ρ is Spearman's rank correlation with its "
        f"{settings.confidence:.0%} interval (findings drawn anew), p by permutation of findings, two-sided."
        + values_averaged(results),
    )


def field_effect(points: pd.DataFrame, found: Mapping[str, str]) -> Figure:
    """The size of each finding's receptive field against its preference for low resolution, a panel a model.

    points: rows of `explain.contracts.FIELD_POINTS`. found: model -> what is said of it below its name.
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


def receptive_fields_drawn(results: Results) -> Drawn:
    return Drawn(
        "erf",
        receptive_fields(results.field_maps, network_fields(results)),
        "Effective receptive fields: which input pixels the centre of the last feature map depends on, with random "
        "weights, pretrained ones where the model has them, and trained. Before training, batch statistics are those "
        "of the images, so that states differ in weights only. The square root of the energy is drawn, scaled to its "
        "maximum in each panel; the dashed circle has the radius σ. A smaller σ as a fraction of the width says that "
        "the network sees less of the picture at once." + values_averaged(results),
    )


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
            size = sizes.query("model == @model and resolution_px == @resolution and state == @state").iloc[0]
            _draw_field(axis, by_state[state], size)
            title = f"σ = {size['sigma_fraction']:.3f} ({size['sigma_px']:.1f} px)"
            axis.set_title(f"{above}\n{title}" if above else title, fontsize=8)
    return figure


def _draw_field(axis: Axes, energy: np.ndarray, size: pd.Series) -> None:
    """The map with its circle."""
    # The square root brings out the flanks: it is the gradient's size instead of its energy.
    amplitude = np.sqrt(np.clip(energy, 0, None))
    axis.imshow(amplitude / amplitude.max(), cmap="cividis", vmin=0, vmax=1, extent=(0, 1, 1, 0))
    centre = (float(size["centroid_x_fraction"]), float(size["centroid_y_fraction"]))
    axis.add_patch(Circle(centre, float(size["sigma_fraction"]), fill=False, color="white", linestyle="--"))
