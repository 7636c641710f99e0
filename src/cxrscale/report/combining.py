"""What is gained by combining learners, and whether it is a gain of resolution."""

from typing import Any

import pandas as pd

from cxrscale.combine.contracts import SEEDS
from cxrscale.combine.methods import BEST_SINGLE, CALIBRATED, EQUAL, METHODS, PRIMARY
from cxrscale.common.rows import ALL_LEARNERS, CHOSEN, MEAN, MEAN_LABEL
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
)
from cxrscale.report.inputs import ReportSettings, Results, averaged_over, shown_findings

#: A learner with a smaller calibration slope is far too sure: its log odds should be halved or more.
TOO_SURE = 0.5


def p_text(row: dict[str, Any] | None) -> str:
    """The p value, corrected where it was; empty if there is none."""
    for name, label in (("p_holm", "p (Holm)"), ("p", "p")):
        if row is not None and not missing(row[name]):
            return f"{label} < 0.001" if row[name] < 0.001 else f"{label} = {row[name]:.3f}"
    return ""


def tested(row: dict[str, Any] | None, value: str) -> Cell:
    """A signed difference with its interval and p."""
    if row is None:
        return Cell(DASH, "not combined")
    cell = measure(row, value, "lower", "upper", signed=True)
    return Cell(cell.text, "; ".join(filter(None, [cell.note, p_text(row)])))


def _single_findings(results: Results, settings: ReportSettings) -> list[str]:
    return [f for f in shown_findings(results, settings) if f != MEAN]


def _overall(results: Results) -> tuple[str, str]:
    """The finding that stands for all, and its name: the mean, or the only one."""
    return (MEAN, MEAN_LABEL.lower()) if len(results.findings) > 1 else (results.findings[0], results.findings[0])


def ensemble_name(results: Results, ensemble: str) -> str:
    members = results["scale_weights"][results["scale_weights"]["ensemble"] == ensemble]
    k = len(members[["model", "resolution_px"]].drop_duplicates())
    if ensemble == ALL_LEARNERS:
        return f"all {k} learners"
    return f"the only resolution of {ensemble}" if k == 1 else f"the {k} resolutions of {ensemble}"


def _counted(results: Results) -> str:
    enough = len(set(results.learners["seed"])) >= SEEDS
    return " and the spread over seeds" if enough else ""


def overall_table(results: Results, settings: ReportSettings) -> PageTable:
    """A row an ensemble and method: AUROC averaged over findings, gains, log loss."""
    finding, name = _overall(results)
    losses = average_rows(results["stacked"], ["ensemble", "finding", "method"], ["log_loss"])
    rows: list[list[Cell | str]] = []
    for ensemble in dict.fromkeys(results["gains"]["ensemble"]):
        for method in METHODS.values():
            where = {"ensemble": ensemble, "finding": finding, "method": method.name}
            single = first_row(results["gains"], **where, against=BEST_SINGLE)
            mean = first_row(results["gains"], **where, against=EQUAL)
            level, loss = single or mean, first_row(losses, **where)
            if level is not None:
                rows.append(
                    [
                        ensemble_name(results, str(ensemble)),
                        method.label,
                        measure(level, "auroc", "auroc_lower", "auroc_upper"),
                        tested(single, "gain") if single else Cell(DASH),
                        tested(mean, "gain") if mean else Cell(DASH),
                        number(loss and loss["log_loss"]),
                    ]
                )
    caption = (
        f"Test AUROC of ensembles, {name}, with {settings.confidence:.0%} intervals by the clustered variance"
        f"{_counted(results)}{averaged_over(results, intervals=False)}. "
        "Each p is for this row alone. A low log loss (nats, test) says that probabilities can be "
        "taken at their word; AUROC is blind to that."
    )
    head = ["Ensemble of", "Way of combining", "AUROC", "Gain over best single", "Gain over mean", "Log loss"]
    return PageTable(caption, head, rows)


def stacking_table(results: Results, settings: ReportSettings) -> PageTable:
    """A row an ensemble and finding: best single, mean and the declared method."""
    rows: list[list[Cell | str]] = []
    for ensemble in dict.fromkeys(results["gains"]["ensemble"]):
        for finding in _single_findings(results, settings):
            where = {"ensemble": ensemble, "finding": finding}
            best = first_row(results["gains"], **where, method=BEST_SINGLE, against=EQUAL)
            mean = first_row(results["gains"], **where, method=EQUAL, against=BEST_SINGLE)
            fitted = first_row(results["gains"], **where, method=PRIMARY, against=BEST_SINGLE)
            over_mean = first_row(results["gains"], **where, method=PRIMARY, against=EQUAL)
            if best is None or mean is None or fitted is None:
                continue
            stacked = results["stacked"]
            which = stacked[(stacked["ensemble"] == ensemble) & (stacked["finding"] == finding)]
            names = ", ".join(dict.fromkeys(which["learner"].dropna().astype(str)))
            level = measure(best, "auroc", "auroc_lower", "auroc_upper")
            rows.append(
                [
                    ensemble_name(results, str(ensemble)),
                    finding,
                    Cell(level.text, f"{level.note}; {names} px"),
                    measure(mean, "auroc", "auroc_lower", "auroc_upper"),
                    measure(fitted, "auroc", "auroc_lower", "auroc_upper"),
                    tested(fitted, "gain"),
                    tested(over_mean, "gain"),
                ]
            )
    head = [
        "Ensemble of", "Finding", "Best single (chosen on validation)", f"Equal weights ({EQUAL})",
        f"Fitted weights ({PRIMARY})", "Gain of fitted over single", "Gain of fitted over mean",
    ]  # fmt: skip
    caption = (
        f"Test AUROC by finding with {settings.confidence:.0%} intervals{averaged_over(results, intervals=False)}. "
        "p is corrected by Holm over the findings of an ensemble."
    )
    return PageTable(caption, head, rows)


def methods_table(results: Results, settings: ReportSettings) -> PageTable:
    """A row an ensemble and finding, a column a method."""
    rows: list[list[Cell | str]] = []
    for ensemble in dict.fromkeys(results["gains"]["ensemble"]):
        for finding in _single_findings(results, settings):
            cells: list[Cell | str] = []
            for method in METHODS:
                against = EQUAL if method == BEST_SINGLE else BEST_SINGLE
                found = first_row(results["gains"], ensemble=ensemble, finding=finding, method=method, against=against)
                cells.append(measure(found, "auroc", "auroc_lower", "auroc_upper") if found else Cell(DASH))
            rows.append([ensemble_name(results, str(ensemble)), finding, *cells])
    caption = f"Test AUROC of every way of combining with {settings.confidence:.0%} intervals; exploratory."
    return PageTable(caption, ["Ensemble of", "Finding", *(m.label for m in METHODS.values())], rows)


def gains_sentence(results: Results, settings: ReportSettings) -> str:
    """For how many findings fitted weights beat the best single learner."""
    chosen = results["gains"][(results["gains"]["method"] == PRIMARY) & (results["gains"]["against"] == BEST_SINGLE)]
    chosen = chosen[chosen["finding"].isin(_single_findings(results, settings)) & (chosen["n_learners"] > 1)]
    parts = []
    for ensemble, rows in chosen.groupby("ensemble", sort=False):
        shown = rows["p_holm"] < 1 - settings.confidence
        above, below = int((shown & (rows["gain"] > 0)).sum()), int((shown & (rows["gain"] < 0)).sum())
        name = ensemble_name(results, str(ensemble))
        parts.append(f"{above} of {len(rows)} with {name}" + (f" (worse for {below})" if below else ""))
    if not parts:
        return "One learner a model: nothing is combined."
    return (
        f"Findings for which combining by fitted weights is shown to beat the best single learner: {join(parts)}. "
        "Any ensemble tends to beat one learner."
    )


def control_sentences(results: Results, settings: ReportSettings) -> list[str]:
    """For each model, whether combining resolutions is more than combining learners."""
    overall, name = _overall(results)
    sentences = []
    for model in results.models:
        where = {"model": model, "method": PRIMARY, "control": CHOSEN}
        row = first_row(results["control"], **where, finding=overall)
        if row is None or row["n_learners"] < 2:
            continue
        k = row["n_learners"]
        if missing(row["effect"]):
            sentences.append(
                f"{model}: a gain of its {k} resolutions together is one of ensembling; it is not shown to be one of "
                f"resolution ({row['reason']})."
            )
            continue
        lower, upper = row["lower"], row["upper"]
        verdict = (
            "an interval is missing, so nothing is shown" if missing(lower)
            else "so combining resolutions gains more than combining seeds" if lower > 0
            else "so combining resolutions is worse than combining seeds" if upper < 0
            else "which shows no gain of resolution beyond that of ensembling"
        )  # fmt: skip
        findings = results["control"][results["control"]["finding"].isin(_single_findings(results, settings))]
        for column, value in where.items():
            findings = findings[findings[column] == value]
        shown = findings["p_holm"] < 1 - settings.confidence
        better, worse = (int((shown & (sign * findings["effect"] > 0)).sum()) for sign in (1, -1))
        cell = tested(row, "effect")
        sentences.append(
            f"{model}: {k} resolutions together, against {k} seeds of the resolution that does best on validation: "
            f"AUROC {cell.text} ({cell.note}), {name}, {verdict}; better for {better} and worse for {worse} of "
            f"{len(findings)} findings after Holm's correction."
        )
    return sentences


def control_table(results: Results, settings: ReportSettings) -> PageTable | None:
    """A row a model and finding: the declared method against the chosen control. None without any control."""
    known = results["control"][results["control"]["effect"].notna()]
    labels = shown_findings(results, settings)
    rows: list[list[Cell | str]] = []
    primary = known[(known["method"] == PRIMARY) & (known["control"] == CHOSEN)]
    for row in ({str(k): v for k, v in r.items()} for r in primary.to_dict("records")):
        if row["finding"] in labels:
            chosen = "by finding" if missing(row["chosen_px"]) else f"{row['chosen_px']} px"
            rows.append(
                [
                    row["model"],
                    labels[row["finding"]],
                    Cell(number(row["auroc_resolutions"]), f"{row['n_learners']} resolutions"),
                    Cell(number(row["auroc_control"]), f"{row['n_learners']} seeds; {chosen}"),
                    tested(row, "effect"),
                ]
            )
    if not rows:
        return None
    caption = (
        "The control: an ensemble over resolutions against one of equally many learners of one resolution, which "
        f"differ in their seed, both with {PRIMARY} weights fitted on the same images. The control's resolution was "
        "chosen on validation, so that chance favours the control. "
        f"{settings.confidence:.0%} intervals, which count patients and the chance of training."
    )
    head = ["Model", "Finding", "Over resolutions", "Control", "Effect of combining resolutions"]
    return PageTable(caption, head, rows)


def controls_table(results: Results, settings: ReportSettings) -> PageTable | None:
    """A row a model and method, a column a control: effects averaged over findings. None without any control."""
    overall, name = _overall(results)
    known = results["control"][results["control"]["effect"].notna() & (results["control"]["finding"] == overall)]
    if known.empty:
        return None
    controls = [CHOSEN, *sorted(set(known["control"]) - {CHOSEN}, key=int)]
    rows: list[list[Cell | str]] = []
    for (model, method), _ in known.groupby(["model", "method"], sort=False):
        found = [first_row(known, model=model, method=method, control=c) for c in controls]
        rows.append([str(model), METHODS[str(method)].label, *(tested(f, "effect") for f in found)])
    caption = f"Effect of combining resolutions against every control, {name}; exploratory."
    head = ["Model", "Way of combining", *("Chosen on validation" if c == CHOSEN else f"{c} px" for c in controls)]
    return PageTable(caption, head, rows)


def calibration_table(results: Results, settings: ReportSettings) -> PageTable:
    """A row a learner's model and resolution: how far its probabilities can be taken at their word, on combine."""
    weights = results["scale_weights"]
    own = weights[
        (weights["ensemble"] == weights["model"]) & weights["finding"].isin(_single_findings(results, settings))
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
    finding, name = _overall(results)
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
    frame = frame[frame["finding"].isin(_single_findings(results, settings))]
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
    rows = results["scale_weights"][results["scale_weights"]["finding"].isin(_single_findings(results, settings))]
    several = rows.groupby(["ensemble", "fold", "seed", "finding"])["weight"].transform("size") > 1
    rows = rows[several & rows["reason"].notna()]
    return [
        f"{finding}, fold {fold}: stacking weights are equal, not fitted ({joined_reasons(group['reason'])})."
        for (finding, fold), group in rows.groupby(["finding", "fold"], sort=False)
    ]
