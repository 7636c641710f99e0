"""Which resolution suffices for a finding, and how that is said."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from cxrscale.evaluate.contracts import BETTER_BELOW, CONFIRMATORY, NEEDS
from cxrscale.report.cells import DASH, Cell, first_row, join, joined_reasons, missing, text_or
from cxrscale.report.inputs import ReportSettings, Results, single_findings


@dataclass(frozen=True)
class Answer:
    """What the comparison says about one finding of one model.

    kind: "suffices" (a resolution below the reference does), "needed" (all smaller ones are worse), "better" (a smaller
    one is better, but not one between), "undecided" (no smaller one was shown to be enough), "smallest" (there is no
    smaller one), "chance" (at the reference the AUROC is not shown to be above 0.5, nor a smaller one to be better, so
    that the question has no answer) or "undefined" (no value, or no verdict, see reason). px:
    the smallest sufficient resolution.
    """

    finding: str
    kind: str
    px: int | None = None
    reason: str = ""
    beyond: tuple[int, ...] = ()  # smaller than px and by themselves enough, although one between is not shown to be
    better: tuple[int, ...] = ()  # shown to be better than the reference
    worse: tuple[int, ...] = ()  # shown to be worse, where some other smaller one is undecided


def answer(results: Results, settings: ReportSettings, model: str, finding: str) -> Answer:
    """Sort one finding of one model into what the data can and cannot say."""
    row = first_row(results["sufficient"], model=model, finding=finding)
    if row is None or missing(row["sufficient_px"]):
        here = results["auroc"][(results["auroc"]["model"] == model) & (results["auroc"]["finding"] == finding)]
        reasons = [text_or(row and row["reason"], "it was not compared"), joined_reasons(here["reason"])]
        return Answer(finding, "undefined", reason=": ".join(filter(None, reasons)))
    px, reference = int(row["sufficient_px"]), settings.reference_px
    smaller = _confirmatory(results, model, finding)
    smaller = smaller[smaller["resolution_px"] < reference].sort_values("resolution_px")
    better = tuple(int(r) for r in smaller.loc[smaller["verdict"] == BETTER_BELOW, "resolution_px"])
    top = first_row(results["averages"], model=model, finding=finding, resolution_px=reference)
    if not better and (top is None or missing(top["lower"]) or top["lower"] <= 0.5):
        return Answer(finding, "chance", px)
    beyond = () if missing(row["beyond_px"]) else tuple(int(r) for r in str(row["beyond_px"]).split(", "))
    if px < reference:
        return Answer(finding, "suffices", px, beyond=beyond, better=better)
    if smaller.empty:
        return Answer(finding, "smallest", px)
    worse = tuple(int(r) for r in smaller.loc[smaller["verdict"] == NEEDS, "resolution_px"])
    if len(worse) == len(smaller):
        return Answer(finding, "needed", px, beyond=beyond)
    return Answer(finding, "better" if better else "undecided", px, beyond=beyond, better=better, worse=worse)


def _confirmatory(results: Results, model: str, finding: str) -> pd.DataFrame:
    rows = results["differences"]
    return rows[(rows["model"] == model) & (rows["finding"] == finding) & (rows["kind"] == CONFIRMATORY)]


def answer_cell(found: Answer, settings: ReportSettings) -> Cell:
    reference = settings.reference_px
    if found.kind == "undefined":
        return Cell(DASH, found.reason)
    if found.kind == "chance":
        return Cell(f"{found.px} px, without meaning", f"AUROC at {reference} px is not shown to be above 0.5 (chance)")
    notes = {
        "suffices": "",
        "needed": "the reference; every smaller one is worse",
        "better": "the reference; not every smaller one was shown to be enough",
        "undecided": "the reference; not every smaller one was shown to be enough, nor all to be worse",
        "smallest": "the reference; no smaller one was tried",
    }
    better = f"better than {reference} px: {join(found.better)} px" if found.better else ""
    alone = [px for px in found.beyond if px not in found.better]
    beyond = f"{join(alone)} px would be enough alone, but not one between" if alone else ""
    worse = f"worse: {join(found.worse)} px" if found.worse else ""
    return Cell(f"{found.px} px", "; ".join(filter(None, (notes[found.kind], better, worse, beyond))))


def answer_sentence(answers: Sequence[Answer], settings: ReportSettings) -> str:
    """The answers of one model, findings grouped by what was found."""
    reference = settings.reference_px
    parts = []
    for px in sorted({a.px for a in answers if a.kind == "suffices" and a.px}):
        parts.append(f"{px} px suffices for {join(a.finding for a in answers if (a.kind, a.px) == ('suffices', px))}")
    for px in sorted({px for a in answers for px in a.better}):
        names = join(a.finding for a in answers if px in a.better)
        parts.append(f"{px} px is better than {reference} px, the reference, for {names}")
    phrases = {
        "needed": f"{reference} px, the reference, is needed for {{}} (every smaller one is worse)",
        "undecided": f"undecided whether less than {reference} px, the reference, suffices: {{}}",
        "smallest": f"no resolution below the reference ({reference} px) was tried for {{}}",
        "chance": f"no answer where the AUROC at {reference} px is not shown to be above chance: {{}}",
    }
    for kind, phrase in phrases.items():
        if found := [a.finding + _worse(a) for a in answers if a.kind == kind]:
            parts.append(phrase.format(join(found)))
    if undefined := [f"{a.finding} ({a.reason})" for a in answers if a.kind == "undefined"]:
        parts.append(f"no answer for {join(undefined)}")
    return "; ".join(parts) + "."


def _worse(found: Answer) -> str:
    """What is decided of a finding although it is undecided which resolution suffices."""
    return f" ({join(found.worse)} px {'is' if len(found.worse) == 1 else 'are'} worse)" if found.worse else ""


def answers_of(results: Results, settings: ReportSettings) -> dict[str, list[Answer]]:
    """model -> its answers, the mean of findings left out."""
    return {m: [answer(results, settings, m, f) for f in single_findings(results, settings)] for m in results.models}
