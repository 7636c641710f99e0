"""Receptive fields and activation maps."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from cxrscale.common.rows import ALL_CHANNELS, ALL_FINDINGS, ALL_SIZES
from cxrscale.data.boxes import boxes_by_pair
from cxrscale.explain.contracts import LENGTHS, SIZES
from cxrscale.report import figures
from cxrscale.report.cells import (
    DASH,
    Cell,
    PageTable,
    average_rows,
    first_row,
    join,
    joined_reasons,
    measure,
    missing,
    number,
    text_or,
)
from cxrscale.report.inputs import ReportSettings, Results, averaged_over, shown_findings


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
            for state, called in figures.STATES.items():
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
    labels = [f for f in shown_findings(results, settings) if f in results.findings]
    rows: list[list[Cell | str]] = []
    for model in results.models:
        for finding in labels:
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
            verdict = "so findings with wide fields do prefer low resolution here"
        elif row["upper"] < 0 and row["p"] < 1 - settings.confidence:
            verdict = "so findings with wide fields prefer high resolution here, against the claim"
        else:
            verdict = "so the claim is neither shown nor refuted"
        few = (
            "; so few findings leave much to chance" if 0 < row["n_findings"] < 20 and not missing(row["lower"]) else ""
        )
        said[str(row["model"])] = f"{words}: {verdict}{few}."
    return said


def draw_field_effect(results: Results) -> Figure:
    found = {str(row["model"]): field_effect_words(row) for row in results["field_effect"].to_dict("records")}
    return figures.field_effect(results["field_points"], found)


def localisation_frame(results: Results) -> pd.DataFrame:
    """localisation.csv averaged over folds and seeds, a row a (model, resolution_px, finding, size, measure)."""
    by = ["model", "resolution_px", "finding", "size", "measure"]
    averaged = average_rows(results["localisation"], by, ["value", "lower", "upper"])
    others = results["localisation"].groupby(by, sort=False, dropna=False).agg(
        best=("best", "mean"), blind=("blind", "mean"), chance=("chance", "mean"), threshold=("threshold", "mean"),
        n_maps=("n_maps", "sum"), n_patients=("n_patients", "sum"), n_against=("n_against", "sum"),
    )  # fmt: skip
    return averaged.merge(others.reset_index(), on=by)


def localisation_table(results: Results, settings: ReportSettings) -> PageTable:
    """All boxes by finding, then all findings by size."""
    frame = localisation_frame(results)
    labels = [f for f in shown_findings(results, settings) if f in results.findings]
    groups = [(f, ALL_SIZES, f) for f in labels] + [(ALL_FINDINGS, ALL_SIZES, "All findings")]
    groups += [(ALL_FINDINGS, size, f"All findings, {size} boxes") for size in SIZES]
    rows: list[list[Cell | str]] = []
    for model in results.models:
        for resolution in results.resolutions(model):
            for finding, size, called in groups:
                row: list[Cell | str] = [model, f"{resolution} px", called]
                for name in figures.MEASURE_NAMES:
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
        "Model", "Resolution", "Finding", *figures.MEASURE_NAMES.values(), "Chance",
        "Maps that speak against throughout", "Patients",
    ]  # fmt: skip
    caption = (
        f"Activation maps of test images against boxes, with {settings.confidence:.0%} intervals (patients as clusters)"
        f"{averaged_over(results)}. Best: what the best map on the same grid reaches. One map: the same for all images "
        "of a finding, the mean of its boxes in combine; a map no better than that may only know where the finding "
        "usually is. Chance: an even map. IoU cuts where it was best on combine."
    )
    return PageTable(caption, head, rows)


def activation_table(results: Results) -> PageTable:
    """Ids of the pictures in the figure of maps."""
    first = results.activation[0] if results.activation else None
    pairs = zip(first.findings, first.image_ids, strict=True) if first else []
    return PageTable("Images in the order of the rows.", ["Finding", "image_id"], [[str(f), str(i)] for f, i in pairs])


def draw_activation(results: Results, settings: ReportSettings) -> Figure:
    """The figure that holds pictures of patients."""
    if results.boxes is None:
        return figures.activation_maps(results.activation, {})
    wanted = {i for learner in results.activation for i in learner.image_ids}
    drawn = results.boxes[results.boxes["image_id"].isin(wanted)]
    return figures.activation_maps(results.activation, boxes_by_pair(drawn, results["index"], settings.geometry))
