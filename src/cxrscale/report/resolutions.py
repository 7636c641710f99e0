"""What the comparison says: which resolution each finding needs."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from cxrscale.evaluation.metrics import MEAN
from cxrscale.report.content import (
    DASH,
    Cell,
    ReportSettings,
    Results,
    Table,
    average,
    averaged_over,
    join,
    joined_reasons,
    lookup,
    measure,
    missing,
    shown_findings,
    text_or,
)


@dataclass(frozen=True)
class Answer:
    """What the comparison says about one finding of one model.

    kind: "suffices" (a resolution below the reference does), "needed" (all smaller ones are worse), "undecided" (no
    smaller one was shown to be enough), "smallest" (there is no smaller one), "chance" (at the reference the AUROC is
    not shown to be above 0.5, so the question has no answer) or "undefined". px: the smallest sufficient resolution.
    """

    finding: str
    kind: str
    px: int | None = None
    reason: str = ""
    exceptions: tuple[int, ...] = ()  # between px and the reference, not shown to suffice


def answer(results: Results, levels: pd.DataFrame, settings: ReportSettings, model: str, finding: str) -> Answer:
    """Sort one finding of one model into what the data can and cannot say. levels: averaged."""
    row = lookup(results.sufficient, model=model, finding=finding)
    if row is None or missing(row["sufficient_px"]):
        here = results.levels[(results.levels["model"] == model) & (results.levels["finding"] == finding)]
        reasons = [text_or(row and row["reason"], "it was not compared"), joined_reasons(here["reason"])]
        return Answer(finding, "undefined", reason=": ".join(filter(None, reasons)))
    px, reference = int(row["sufficient_px"]), settings.reference_px
    top = lookup(levels, model=model, finding=finding, resolution_px=reference)
    if top is None or missing(top["lower"]) or top["lower"] <= 0.5:
        return Answer(finding, "chance", px)
    against = results.differences[
        (results.differences["model"] == model)
        & (results.differences["finding"] == finding)
        & (results.differences["against_px"] == reference)
    ]
    smaller = against[against["resolution_px"] < reference]
    if px < reference:
        between = smaller[(smaller["resolution_px"] > px) & ~(smaller["lower"] > -settings.margin_auroc)]
        return Answer(finding, "suffices", px, exceptions=tuple(sorted(int(r) for r in between["resolution_px"])))
    if smaller.empty:
        return Answer(finding, "smallest", px)
    return Answer(finding, "needed" if (smaller["verdict"] == "worse").all() else "undecided", px)


def answer_cell(found: Answer, settings: ReportSettings) -> Cell:
    reference = settings.reference_px
    if found.kind == "undefined":
        return Cell(DASH, f"undefined: {found.reason}")
    if found.kind == "chance":
        return Cell(f"{found.px} px, without meaning", f"AUROC at {reference} px is not shown to be above 0.5 (chance)")
    notes = {
        "suffices": f"but {join(found.exceptions)} px not shown to" if found.exceptions else "",
        "needed": "the reference; every smaller one is worse",
        "undecided": "the reference; no smaller one was shown to be enough, nor all to be worse",
        "smallest": "the reference; no smaller one was tried",
    }
    return Cell(f"{found.px} px", notes[found.kind])


def answer_sentence(answers: Sequence[Answer], settings: ReportSettings) -> str:
    """The answers of one model, findings grouped by what was found."""
    reference = settings.reference_px
    parts = []
    for px in sorted({a.px for a in answers if a.kind == "suffices" and a.px}):
        parts.append(f"{px} px suffices for {join(a.finding for a in answers if (a.kind, a.px) == ('suffices', px))}")
    phrases = {
        "needed": f"{reference} px, the reference, is needed for {{}} (every smaller one is worse)",
        "undecided": f"undecided below {reference} px, the reference: {{}}",
        "smallest": f"no resolution below the reference ({reference} px) was tried for {{}}",
        "chance": f"no answer where the AUROC at {reference} px is not shown to be above chance: {{}}",
    }
    for kind, phrase in phrases.items():
        if names := [a.finding for a in answers if a.kind == kind]:
            parts.append(phrase.format(join(names)))
    if names := [f"{a.finding} ({a.reason})" for a in answers if a.kind == "undefined"]:
        parts.append(f"undefined: {join(names)}")
    return "; ".join(parts) + "."


def answers_of(results: Results, levels: pd.DataFrame, settings: ReportSettings) -> dict[str, list[Answer]]:
    """model -> its answers, the mean of findings left out."""
    labels = [f for f in shown_findings(results, settings) if f != MEAN]
    return {m: [answer(results, levels, settings, m, f) for f in labels] for m in results.models}


def average_levels(results: Results) -> pd.DataFrame:
    return average(results.levels, ["model", "finding", "resolution_px"], ["value", "lower", "upper"])


def answer_table(results: Results, levels: pd.DataFrame, settings: ReportSettings, model: str) -> Table:
    labels, resolutions = shown_findings(results, settings), results.resolutions(model)
    lowest, reference = resolutions[0], settings.reference_px
    rows = []
    for finding, label in labels.items():
        row: list[Cell | str] = [label]
        for resolution in resolutions:
            level = lookup(levels, model=model, finding=finding, resolution_px=resolution)
            row.append(measure(level, "value", "lower", "upper") if level else Cell(DASH, "no finding has a value"))
        row.append(answer_cell(answer(results, levels, settings, model, finding), settings))
        row.append(gain_cell(results, settings, model, finding))
        rows.append(row)
    head = [
        "Finding",
        *(f"AUROC at {r} px" for r in resolutions),
        "Smallest sufficient resolution",
        f"AUROC at {reference} px minus at {lowest} px",
    ]
    pairs = len(results.learners[results.learners["model"] == model]) // len(resolutions)
    how = (
        "" if pairs == 1
        else f" Means over {pairs} folds and seeds; the ends of the AUROC's intervals are averaged too (on the wide "
        "side), those of differences come from the averaged bootstrap."
    )  # fmt: skip
    return Table(f"{model}: test AUROC with its {settings.confidence:.0%} interval.{how}", head, rows)


def gain_cell(results: Results, settings: ReportSettings, model: str, finding: str) -> Cell:
    """Reference minus lowest."""
    resolutions = results.resolutions(model)
    if len(resolutions) == 1:
        return Cell(DASH, "one resolution only")
    if resolutions[0] == settings.reference_px:
        return Cell(DASH, "the reference is the lowest")
    row = lookup(
        results.differences,
        model=model, finding=finding, resolution_px=settings.reference_px, against_px=resolutions[0],
    )  # fmt: skip
    if row is None:
        summary = lookup(results.sufficient, model=model, finding=finding)
        return Cell(DASH, text_or(summary and summary["reason"], "no reason recorded"))
    cell = measure(row, "difference", "lower", "upper", signed=True)
    return cell if missing(row["verdict"]) else Cell(cell.text, f"{cell.note}, {row['verdict']}")


def precision_table(results: Results, settings: ReportSettings) -> Table:
    """Average precision and counts on test."""
    chosen = results.metrics.query(
        "metric == 'average_precision' and split == 'test' and level == 'image' and group == 'all'"
    )
    averaged = average(chosen, ["model", "finding", "resolution_px"], ["value", "lower", "upper"])
    rows: list[list[Cell | str]] = []
    resolutions = sorted(int(r) for r in set(results.learners["resolution_px"]))
    for model in results.models:
        for finding, label in shown_findings(results, settings).items():
            row: list[Cell | str] = [model, label]
            for r in resolutions:
                found = lookup(averaged, model=model, finding=finding, resolution_px=r)
                row.append(measure(found, "value", "lower", "upper") if found else Cell(DASH, "not trained"))
            rows.append(row)
    caption = (
        f"Average precision on test with {settings.confidence:.0%} intervals{averaged_over(results)}. "
        "Chance is the finding's prevalence."
    )
    return Table(caption, ["Model", "Finding", *(f"{r} px" for r in resolutions)], rows)
