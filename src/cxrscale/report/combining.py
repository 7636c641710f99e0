"""What is gained by combining learners, and whether it is a gain of resolution."""

from typing import Any

import pandas as pd
from markupsafe import Markup

from cxrscale.combine.methods import BEST_SINGLE, EQUAL, METHODS, PRIMARY
from cxrscale.common.rows import STRONGEST
from cxrscale.common.scope import LEARNERS
from cxrscale.report.cells import (
    DASH,
    Cell,
    PageTable,
    average_rows,
    first_row,
    join,
    measure,
    missing,
    number,
    p_text,
)
from cxrscale.report.inputs import (
    ReportSettings,
    Results,
    averaged_over,
    overall_finding,
    shown_findings,
    single_findings,
)
from cxrscale.report.sections import Block, Bullets, Details, Paragraph, Section
from cxrscale.report.weights import (
    calibration_sentence,
    doubt_sentence,
    ensemble_name,
    learners_calibration_table,
    weights_drawn,
)


def section(results: Results, settings: ReportSettings) -> Section:
    control, controls = control_table(results, settings), controls_table(results, settings)
    too_sure = calibration_sentence(results, settings)
    blocks: list[Block] = [
        Paragraph(gains_sentence(results, settings)),
        *what_control_says(results, settings),
        *([control] if control else []),
        overall_table(results, settings),
        *([Paragraph(too_sure)] if too_sure else []),
        weights_drawn(results, settings),
        Paragraph(doubt_sentence(results, settings)),
        Details("By finding", [stacking_table(results, settings)]),
        Details("Every way of combining, by finding", [methods_table(results, settings)]),
        *([Details("Every control", [controls])] if controls else []),
        Details("Calibration of the learners", [learners_calibration_table(results, settings)]),
    ]
    return Section("combining", "What combining gains", blocks, link="Combining")


def what_control_says(results: Results, settings: ReportSettings) -> list[Block]:
    """Nothing where nothing is combined."""
    sentences = control_sentences(results, settings)
    if not sentences:
        return []
    asked = Markup(
        "<b>Is it resolution, or any ensemble?</b> Any ensemble of k learners tends to beat one of them, so k "
        "resolutions are held against k learners of <em>one</em> resolution that differ in their seed."
    )
    one_seed = len(set(results.learners["seed"])) == 1
    return [
        Paragraph(asked),
        Bullets(sentences),
        *([Paragraph("With one seed, all of this is about these learners.")] if one_seed else []),
    ]


def corrected_p(row: dict[str, Any] | None) -> str:
    """The p value, corrected where it was; empty if there is none."""
    for name, label in (("p_holm", "p (Holm)"), ("p", "p")):
        if row is not None and not missing(row[name]):
            return p_text(row[name], label)
    return ""


def tested(row: dict[str, Any] | None, value: str) -> Cell:
    """A signed difference with its interval and p."""
    if row is None:
        return Cell(DASH, "not combined")
    cell = measure(row, value, "lower", "upper", signed=True)
    return Cell(cell.text, "; ".join(filter(None, [cell.note, corrected_p(row)])))


def _counted(rows: pd.DataFrame) -> str:
    """What the intervals of gains count, by the rows themselves."""
    of_learners = set(rows["scope"]) == {LEARNERS}
    return "patients alone, and so are about these learners" if of_learners else "patients and the chance of training"


def overall_table(results: Results, settings: ReportSettings) -> PageTable:
    """A row an ensemble and method: AUROC averaged over findings, gains, log loss."""
    finding, name = overall_finding(results)
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
        f"Test AUROC of ensembles, {name}, with {settings.confidence:.0%} intervals"
        f"{averaged_over(results, intervals=False)}. "
        f"These count {_counted(results['gains'])}. Each p is for this row alone. A low log loss (nats, test) says "
        "that probabilities can be taken at their word; AUROC is blind to that."
    )
    head = ["Ensemble of", "Way of combining", "AUROC", "Gain over best single", "Gain over mean", "Log loss"]
    return PageTable(caption, head, rows)


def stacking_table(results: Results, settings: ReportSettings) -> PageTable:
    """A row an ensemble and finding: best single, mean and the declared method."""
    rows: list[list[Cell | str]] = []
    for ensemble in dict.fromkeys(results["gains"]["ensemble"]):
        for finding in single_findings(results, settings):
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
        for finding in single_findings(results, settings):
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
    chosen = chosen[chosen["finding"].isin(single_findings(results, settings)) & (chosen["n_learners"] > 1)]
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
    overall, name = overall_finding(results)
    sentences = []
    for model in results.models:
        where = {"model": model, "method": PRIMARY, "control": STRONGEST}
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
        gains = bool(not missing(row["p"]) and row["p"] <= 1 - settings.confidence)
        verdict = (
            "so combining resolutions gains more than combining seeds of any one" if gains
            else "which shows no gain of resolution beyond that of ensembling"
        )  # fmt: skip
        findings = results["control"][results["control"]["finding"].isin(single_findings(results, settings))]
        for column, value in where.items():
            findings = findings[findings[column] == value]
        better = int((findings["p_holm"] <= 1 - settings.confidence).sum())
        cell = tested(row, "effect")
        sentences.append(
            f"{model}: {k} resolutions together, against {k} seeds of one resolution for all findings, the one that "
            f"does best so, {row['strongest_px']:.0f} px: AUROC {cell.text} ({cell.note}), {name}, {verdict}; a "
            f"gain over every single resolution is shown for {better} of {len(findings)} findings after Holm's "
            "correction."
        )
    return sentences


def control_table(results: Results, settings: ReportSettings) -> PageTable | None:
    """A row a model and finding: the declared method against the chosen control. None without any control."""
    known = results["control"][results["control"]["effect"].notna()]
    labels = shown_findings(results, settings)
    rows: list[list[Cell | str]] = []
    primary = known[(known["method"] == PRIMARY) & (known["control"] == STRONGEST)]
    for row in ({str(k): v for k, v in r.items()} for r in primary.to_dict("records")):
        if row["finding"] in labels:
            rows.append(
                [
                    row["model"],
                    labels[row["finding"]],
                    Cell(number(row["auroc_resolutions"]), f"{row['n_learners']} resolutions"),
                    Cell(number(row["auroc_control"]), f"{row['n_learners']} seeds; {row['strongest_px']:.0f} px"),
                    tested(row, "effect"),
                ]
            )
    if not rows:
        return None
    caption = (
        "The control: an ensemble over resolutions against one of equally many learners of one resolution, which "
        f"differ in their seed, both with {PRIMARY} weights fitted on the same images. Shown is the control that does "
        "best on test, so that chance favours it; an effect below 0 is therefore no loss that was shown. p is the "
        "largest over all resolutions' controls: a gain must be one over each of them. "
        f"{settings.confidence:.0%} intervals, which count patients and the chance of training."
    )
    head = ["Model", "Finding", "Over resolutions", "Control", "Effect of combining resolutions"]
    return PageTable(caption, head, rows)


def controls_table(results: Results, settings: ReportSettings) -> PageTable | None:
    """A row a model and method, a column a control: effects averaged over findings. None without any control."""
    overall, name = overall_finding(results)
    known = results["control"][results["control"]["effect"].notna() & (results["control"]["finding"] == overall)]
    if known.empty:
        return None
    controls = [STRONGEST, *sorted(set(known["control"]) - {STRONGEST}, key=int)]
    rows: list[list[Cell | str]] = []
    for (model, method), _ in known.groupby(["model", "method"], sort=False):
        found = [first_row(known, model=model, method=method, control=c) for c in controls]
        rows.append([str(model), METHODS[str(method)].label, *(tested(f, "effect") for f in found)])
    caption = f"Effect of combining resolutions against every control, {name}; exploratory."
    head = ["Model", "Way of combining", *("The strongest" if c == STRONGEST else f"{c} px" for c in controls)]
    return PageTable(caption, head, rows)
