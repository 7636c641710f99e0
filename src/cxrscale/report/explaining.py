"""Receptive fields and activation maps."""

import pandas as pd
from matplotlib.figure import Figure

from cxrscale import figures
from cxrscale.report.content import Cell, ReportSettings, Results, Table, averaged_over, lookup, number


def fields_frame(results: Results) -> pd.DataFrame:
    """Sizes averaged over folds and seeds, a row a (model, resolution_px, state); centroids as fractions."""
    fields = results.fields.copy()
    width = fields["sigma_px"] / fields["sigma_fraction"]
    for axis in "xy":
        fields[f"centroid_{axis}_fraction"] = fields[f"centroid_{axis}_px"] / width
    names = [c for c in fields.columns if c.endswith(("_px", "_fraction")) and c != "resolution_px"]
    return fields.groupby(["model", "resolution_px", "state"], sort=False)[names].mean().reset_index()


def fields_table(results: Results) -> Table:
    sizes = fields_frame(results)
    rows: list[list[Cell | str]] = []
    for model in results.models:
        for resolution in results.resolutions(model):
            row: list[Cell | str] = [model, f"{resolution} px"]
            for state in ("initial", "trained"):
                found = lookup(sizes, model=model, resolution_px=resolution, state=state)
                for size in ("sigma", "radius50"):
                    fraction, px = (found[f"{size}_{u}"] if found else None for u in ("fraction", "px"))
                    row.append(Cell(number(fraction), f"{number(px, 1)} px"))
            rows.append(row)
    head = [
        "Model", "Resolution", "σ before training", "Half-energy radius before", "σ trained",
        "Half-energy radius trained",
    ]  # fmt: skip
    images = ", ".join(str(n) for n in dict.fromkeys(results.fields["n_images"]))
    caption = (
        f"Effective receptive fields as fractions of the width, over {images} validation images a learner"
        f"{averaged_over(results, intervals=False)}."
    )
    return Table(caption, head, rows)


def activation_table(results: Results) -> Table:
    """Ids of the pictures in the figure of maps."""
    first = results.activation[0] if results.activation else None
    pairs = zip(first.findings, first.image_ids, strict=True) if first else []
    return Table("Images in the order of the rows.", ["Finding", "image_id"], [[str(f), str(i)] for f, i in pairs])


def draw_activation(results: Results, settings: ReportSettings) -> Figure:
    """The figure that holds pictures of patients."""
    boxes = {}
    if results.boxes is not None:
        wanted = {i for learner in results.activation for i in learner.image_ids}
        drawn = results.boxes[results.boxes["image_id"].isin(wanted)].merge(results.manifest, on="image_id")
        for row in drawn.to_dict("records"):
            box = [float(row[side]) for side in ("x_min", "y_min", "x_max", "y_max")]
            native = int(row["native_height_px"]), int(row["native_width_px"])
            boxes[str(row["image_id"]), str(row["finding"])] = figures.box_fractions(box, *native, settings.geometry)
    return figures.activation_maps(results.activation, boxes)
