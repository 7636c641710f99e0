"""Weights of the learners in ensembles, and whether their probabilities can be taken at their word."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from cxrscale.combine.methods import BEST_SINGLE, CALIBRATED, PRIMARY
from cxrscale.common.rows import ALL_LEARNERS
from cxrscale.report.cells import (
    DASH,
    Cell,
    PageTable,
    average_rows,
    first_row,
    join,
    joined_reasons,
    missing,
    number,
)
from cxrscale.report.drawing import plain, say
from cxrscale.report.inputs import (
    ReportSettings,
    Results,
    overall_finding,
    single_findings,
    values_averaged,
)
from cxrscale.report.sections import Drawn

#: A learner with a smaller calibration slope is far too sure: its log odds should be halved or more.
TOO_SURE = 0.5


def ensemble_name(results: Results, ensemble: str) -> str:
    members = results["scale_weights"][results["scale_weights"]["ensemble"] == ensemble]
    k = len(members[["model", "resolution_px"]].drop_duplicates())
    if ensemble == ALL_LEARNERS:
        return f"all {k} learners"
    return f"the only resolution of {ensemble}" if k == 1 else f"the {k} resolutions of {ensemble}"


def weights_frame(results: Results) -> pd.DataFrame:
    """Weights averaged over folds and seeds, with the ends of their intervals and whether half or more are doubted."""
    by = ["ensemble", "finding", "model", "resolution_px"]
    averaged = average_rows(results["scale_weights"], by, ["weight"])
    ends = average_rows(results["scale_weights"], by, ["lower", "upper"])
    doubted = (
        results["scale_weights"]["warning"]
        .notna()
        .groupby([results["scale_weights"][b] for b in by], sort=False)
        .mean()
    )
    return averaged.merge(ends[[*by, "lower", "upper"]], on=by).assign(doubted=(doubted >= 0.5).to_numpy())


def doubt_sentence(results: Results, settings: ReportSettings) -> str:
    """How many weights mean little, because another learner could stand in."""
    frame = weights_frame(results)
    frame = frame[frame["finding"].isin(single_findings(results, settings))]
    held = frame.assign(doubted=frame["weight"].where(frame["doubted"], 0.0)).groupby(
        ["ensemble", "finding"], sort=False
    )
    most = int((held["doubted"].sum() > 0.5).sum())
    return (
        f"For {most} of {held.ngroups} ensembles and findings, more than half of the weight lies on learners that are "
        "too much alike (*): each could be left out and another take its place at no visible loss, so that such a "
        "weight says little about its resolution."
    )


def weight_warnings(results: Results, settings: ReportSettings) -> list[str]:
    """Where weights are not fitted."""
    rows = results["scale_weights"][results["scale_weights"]["finding"].isin(single_findings(results, settings))]
    several = rows.groupby(["ensemble", "fold", "seed", "finding"])["weight"].transform("size") > 1
    rows = rows[several & rows["reason"].notna()]
    return [
        f"{finding}, fold {fold}: stacking weights are equal, not fitted ({joined_reasons(group['reason'])})."
        for (finding, fold), group in rows.groupby(["finding", "fold"], sort=False)
    ]


def weights_drawn(results: Results, settings: ReportSettings) -> Drawn:
    single, weights = single_findings(results, settings), weights_frame(results)
    return Drawn(
        "scale_weights",
        scale_weights(weights[weights["finding"].isin(single)], {f: f for f in single}),
        f"Fitted weights of the learners in each ensemble, below them their {settings.confidence:.0%} intervals over "
        "patients of the split they are fitted on; each row of a panel sums to 1. A weight says what these ensembles "
        "take from a learner, not which resolution a finding needs. * : learners so much alike that one could take the "
        "other's place." + values_averaged(results),
    )


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
            star = "*" if cell.doubted else ""
            axis.text(x, y - 0.02, f"{cell.weight:.2f}{star}", va="bottom", fontsize=8, ha="center", color=shade)
            interval = "no interval" if np.isnan(cell.lower) else f"{cell.lower:.2f} to {cell.upper:.2f}"
            axis.text(x, y + 0.08, interval, va="top", fontsize=6, ha="center", color=shade)
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


def learners_calibration_table(results: Results, settings: ReportSettings) -> PageTable:
    """A row a learner's model and resolution: how far its probabilities can be taken at their word, on combine."""
    weights = results["scale_weights"]
    own = weights[
        (weights["ensemble"] == weights["model"]) & weights["finding"].isin(single_findings(results, settings))
    ]
    rows: list[list[Cell | str]] = []
    marked = set()
    for (model, px), group in own.groupby(["model", "resolution_px"], sort=False):
        slope = group["slope"].dropna()
        if slope.empty:
            rows.append([str(model), f"{px} px", DASH, Cell(DASH, joined_reasons(group["reason"]) or ""), DASH])
            continue
        if slope.median() < TOO_SURE:
            marked.add(len(rows))
        rows.append(
            [
                str(model),
                f"{px} px",
                number(group["log_loss"].mean()),
                Cell(number(slope.median(), 2), f"{number(slope.min(), 2)} to {number(slope.max(), 2)}"),
                number(group["intercept"].median(), 2, signed=True),
            ]
        )
    caption = (
        "Calibration of the learners on the images that weights are fitted on, over findings, folds and seeds. Slope 1 "
        f"and intercept 0 are calibrated; a slope below 1 is too sure, and those below {TOO_SURE} are marked. In a "
        "mean of probabilities those who are sure decide, right or wrong: there it can lose to its best member."
    )
    return PageTable(
        caption, ["Model", "Resolution", "Log loss (mean)", "Slope (median)", "Intercept"], rows, frozenset(marked)
    )


def calibration_sentence(results: Results, settings: ReportSettings) -> str | None:
    """Why weights on probabilities lose, where they do; None where they do not."""
    finding, name = overall_finding(results)
    parts = []
    for ensemble in dict.fromkeys(results["gains"]["ensemble"]):
        plain, calibrated = (
            first_row(results["gains"], ensemble=ensemble, finding=finding, method=method, against=BEST_SINGLE)
            for method in (PRIMARY, CALIBRATED)
        )
        if plain is None or calibrated is None or missing(plain["gain"]) or not plain["gain"] < 0:
            continue
        slope = results["scale_weights"].loc[results["scale_weights"]["ensemble"] == ensemble, "slope"].dropna()
        parts.append(
            f"with {ensemble_name(results, str(ensemble))} by {number(plain['gain'], signed=True)} (each learner "
            f"calibrated first: {number(calibrated['gain'], signed=True)}; calibration slopes from "
            f"{number(slope.min(), 2)} to {number(slope.max(), 2)})"
        )
    if not parts:
        return None
    return (
        f"Fitted weights on probabilities fall behind the best single learner, {name}, {join(parts)}. Where "
        "calibrating the learners mends that, the cause is learners that are too sure or not sure enough, not what "
        "they see."
    )
