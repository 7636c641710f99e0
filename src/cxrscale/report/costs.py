"""What the learners cost (cost.json, by `train.record.cost_of`), and what that buys."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from cxrscale.common.rows import MEAN
from cxrscale.report.cells import Cell, PageTable, number
from cxrscale.report.drawing import legend, line_of_model, plain, resolution_colours, say
from cxrscale.report.inputs import ReportSettings, Results, averaged_over, values_averaged
from cxrscale.report.sections import Drawn, Section


def section(results: Results, settings: ReportSettings) -> Section:
    against_auroc = Drawn(
        "cost",
        cost_against_auroc(cost_points(results), settings.confidence),
        "Training time (logarithmic axis) against mean test AUROC. Up and to the left is better; a line that turns "
        "flat says where more pixels buy nothing." + values_averaged(results),
    )
    training = Drawn(
        "training",
        training_curves(results["history"]),
        "Mean validation AUROC in training, a line a learner. A curve that still rises at the end says that more "
        "epochs might have helped; compare with the convergence column of the cost table.",
    )
    return Section("cost", "What it costs", [cost_table(results), against_auroc, training], link="Cost")


def cost_table(results: Results) -> PageTable:
    rows: list[list[Cell | str]] = []
    for (model, resolution), group in results.costs.groupby(["model", "resolution_px"], sort=False):
        late = group[~group["converged"].astype(bool)]
        rows.append(
            [
                str(model), f"{resolution} px", number(device_seconds(group).mean(), 1),
                number(group["images_per_second"].mean(), 1), number(group["peak_memory_mb"].mean(), 0),
                ", ".join(dict.fromkeys(group["device"].astype(str))),
                Cell(
                    f"{', '.join(map(str, group['best_epoch']))} of {', '.join(map(str, group['epochs'].unique()))}",
                    "not converged" if len(late) == len(group) else f"not converged: {len(late)}" if len(late) else "",
                ),
            ]
        )  # fmt: skip
    head = [
        "Model", "Resolution", "Training [device-s]", "Throughput [images/s]", "Peak memory [MiB]", "Device",
        "Best epoch",
    ]  # fmt: skip
    caption = (
        f"Cost of training one learner{averaged_over(results, intervals=False)}. Device-seconds are seconds times the "
        "GPUs (or processes on a CPU) that trained together. Peak memory is that of the GPU, or on a CPU that of the "
        "process. Times compare only between learners that ran on the same device."
    )
    return PageTable(caption, head, rows)


def device_seconds(costs: pd.DataFrame) -> pd.Series:
    """Seconds of training times the devices that trained together: what a learner takes, however many share it."""
    return costs["seconds"] * costs["devices"]


def cost_points(results: Results) -> pd.DataFrame:
    """A row a (model, resolution_px): mean device_seconds and the AUROC averaged over findings."""
    levels = results["averages"]
    overall = MEAN if MEAN in set(levels["finding"]) else results.findings[0]
    costs = results.costs.assign(device_seconds=device_seconds(results.costs))
    spent = costs.groupby(["model", "resolution_px"], sort=False)["device_seconds"].mean().reset_index()
    return spent.merge(levels[levels["finding"] == overall], on=["model", "resolution_px"], how="left")


def cost_against_auroc(points: pd.DataFrame, confidence: float) -> Figure:
    """Training time against mean test AUROC, a colour a resolution, a marker a model.

    points: a row a (model, resolution_px) with device_seconds, value, lower, upper; rows without a value are left out.
    """
    figure = Figure(figsize=(6.6, 4.2), layout="constrained")
    axis = figure.subplots()
    models = list(dict.fromkeys(points["model"]))
    colours = resolution_colours(list(points["resolution_px"]))
    shown = points[points["value"].notna()].sort_values("resolution_px")
    for m, model in enumerate(models):
        line = shown[shown["model"] == model]
        line_of_model(axis, line["device_seconds"], line, m, colours, markersize=7)
    if shown.empty:
        say(axis, "no AUROC has a value")
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter("{x:,.10g}")
    if len(shown):
        low, high = shown["device_seconds"].min() / 1.5, shown["device_seconds"].max() * 1.6
        axis.set_xlim(low, high)
        # Numbers between the powers of ten only where there would be too few of those.
        axis.xaxis.set_minor_formatter("{x:,.3g}" if high / low < 20 else NullFormatter())
    axis.set_xlabel("Training of one learner [device-seconds]")
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
