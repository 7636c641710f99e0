"""What the comparison says: which resolution each finding needs."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from cxrscale.common.rows import MEAN
from cxrscale.evaluate.contracts import BETTER_BELOW, CONFIRMATORY, NEEDS
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
    p_text,
    text_or,
)
from cxrscale.report.inputs import ReportSettings, Results, averaged_over, shown_findings


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
    kind = "better" if better else "needed" if (smaller["verdict"] == NEEDS).all() else "undecided"
    return Answer(finding, kind, px, beyond=beyond, better=better)


def _confirmatory(results: Results, model: str, finding: str) -> pd.DataFrame:
    rows = results["differences"]
    return rows[(rows["model"] == model) & (rows["finding"] == finding) & (rows["kind"] == CONFIRMATORY)]


def scope_sentence(results: Results) -> str:
    """What verdicts are about, by the number of seeds."""
    n = len(set(results.learners["seed"]))
    if n == 1:
        return (
            "One seed: verdicts are about these learners, not about resolution in general. The intervals hold the "
            "chance of which patients were tested, not the chance of training."
        )
    if n == 2:
        return (
            "Two seeds: the chance of training is in the intervals, but known from a single repetition. Verdicts are "
            "in between: more than about these learners, not yet about resolution; run three seeds or more."
        )
    return (
        f"{n} seeds: the intervals hold the chance of which patients were tested and of training. Verdicts are about "
        "resolution, for this model, data set and way of training."
    )


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
        "undecided": "the reference; no smaller one was shown to be enough, nor all to be worse",
        "smallest": "the reference; no smaller one was tried",
    }
    better = f"better than {reference} px: {join(found.better)} px" if found.better else ""
    alone = [px for px in found.beyond if px not in found.better]
    beyond = f"{join(alone)} px would be enough alone, but not one between" if alone else ""
    return Cell(f"{found.px} px", "; ".join(filter(None, (notes[found.kind], better, beyond))))


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
        "undecided": f"undecided below {reference} px, the reference: {{}}",
        "smallest": f"no resolution below the reference ({reference} px) was tried for {{}}",
        "chance": f"no answer where the AUROC at {reference} px is not shown to be above chance: {{}}",
    }
    for kind, phrase in phrases.items():
        if found := [a.finding for a in answers if a.kind == kind]:
            parts.append(phrase.format(join(found)))
    if undefined := [f"{a.finding} ({a.reason})" for a in answers if a.kind == "undefined"]:
        parts.append(f"no answer for {join(undefined)}")
    return "; ".join(parts) + "."


def answers_of(results: Results, settings: ReportSettings) -> dict[str, list[Answer]]:
    """model -> its answers, the mean of findings left out."""
    labels = [f for f in shown_findings(results, settings) if f != MEAN]
    return {m: [answer(results, settings, m, f) for f in labels] for m in results.models}


def answer_table(results: Results, settings: ReportSettings, model: str) -> PageTable:
    """AUROC by resolution and the smallest that suffices."""
    labels, resolutions = shown_findings(results, settings), results.resolutions(model)
    rows = []
    for finding, label in labels.items():
        row: list[Cell | str] = [label]
        for resolution in resolutions:
            level = first_row(results["averages"], model=model, finding=finding, resolution_px=resolution)
            row.append(measure(level, "value", "lower", "upper") if level else Cell(DASH, "no finding has a value"))
        row.append(answer_cell(answer(results, settings, model, finding), settings))
        rows.append(row)
    head = ["Finding", *(f"AUROC at {r} px" for r in resolutions), "Smallest sufficient resolution"]
    how = averaged_over(results, intervals=False)
    return PageTable(f"{model}: test AUROC with its {settings.confidence:.0%} interval{how}.", head, rows)


def difference_table(results: Results, settings: ReportSettings, model: str) -> PageTable:
    """What each resolution loses or gains against the reference."""
    labels, reference = shown_findings(results, settings), settings.reference_px
    others = [r for r in results.resolutions(model) if r != reference]
    rows: list[list[Cell | str]] = [
        [label, *(difference_cell(results, settings, model, finding, r) for r in others)]
        for finding, label in labels.items()
    ]
    caption = (
        f"{model}: test AUROC minus that at {reference} px, with its {settings.confidence:.0%} interval, p after "
        "Holm's correction, and the verdict."
    )
    return PageTable(caption, ["Finding", *(f"{r} px minus {reference} px" for r in others)], rows)


def difference_cell(results: Results, settings: ReportSettings, model: str, finding: str, resolution_px: int) -> Cell:
    """A resolution minus the reference."""
    row = first_row(
        results["differences"],
        model=model, finding=finding, resolution_px=resolution_px, against_px=settings.reference_px,
    )  # fmt: skip
    if row is None:
        summary = first_row(results["sufficient"], model=model, finding=finding)
        return Cell(DASH, text_or(summary and summary["reason"], "no reason recorded"))
    cell = measure(row, "difference", "lower", "upper", signed=True)
    if missing(row["lower"]):
        return cell
    said = text_or(row["verdict"], text_or(row["reason"], "no verdict"))
    return Cell(cell.text, "; ".join([cell.note, *([] if missing(row["p_holm"]) else [p_text(row["p_holm"])]), said]))


def pairs_table(results: Results, settings: ReportSettings) -> PageTable:
    """All pairs with what the other tables leave out, exploratory ones marked."""
    labels = shown_findings(results, settings)
    rows: list[list[Cell | str]] = []
    marked = set()
    for record in results["differences"][results["differences"]["finding"].isin(labels)].to_dict("records"):
        row = {str(name): value for name, value in record.items()}
        if row["kind"] != CONFIRMATORY:
            marked.add(len(rows))
        boot = measure(row, "difference", "boot_lower", "boot_upper", signed=True)
        rows.append(
            [
                str(row["model"]), labels[str(row["finding"])], f"{row['resolution_px']} minus {row['against_px']} px",
                str(row["kind"]), measure(row, "difference", "lower", "upper", signed=True),
                DASH if missing(row["boot_lower"]) else boot.note,
                f"{number(row['se_patients'], 4)} / {number(row['se_seeds'], 4)}", number(row["df"], 0),
                p_text(row["p"]), DASH if missing(row["p_holm"]) else p_text(row["p_holm"]),
                f"{row['n_folds']} / {row['n_seeds']}", str(row["scope"]),
            ]
        )  # fmt: skip
    head = [
        "Model", "Finding", "Pair", "Kind", "Difference", "Bootstrap interval", "Standard error: patients / seeds",
        "Degrees of freedom", "p", "p (Holm)", "Folds / seeds", "About",
    ]  # fmt: skip
    caption = (
        "All pairs of resolutions. Exploratory ones (marked) are not corrected for how many there are and carry no "
        "verdict. The bootstrap draws patients only: with several seeds it leaves out the chance of training."
    )
    return PageTable(caption, head, rows, frozenset(marked))


def precision_table(results: Results, settings: ReportSettings) -> PageTable:
    """Average precision and counts on test."""
    chosen = results["metrics"].query(
        "metric == 'average_precision' and split == 'test' and level == 'image' and group == 'all'"
    )
    averaged = average_rows(chosen, ["model", "finding", "resolution_px"], ["value", "lower", "upper"])
    rows: list[list[Cell | str]] = []
    resolutions = sorted(int(r) for r in set(results.learners["resolution_px"]))
    for model in results.models:
        for finding, label in shown_findings(results, settings).items():
            row: list[Cell | str] = [model, label]
            for r in resolutions:
                found = first_row(averaged, model=model, finding=finding, resolution_px=r)
                row.append(measure(found, "value", "lower", "upper") if found else Cell(DASH, "not trained"))
            rows.append(row)
    caption = (
        f"Average precision on test with {settings.confidence:.0%} intervals{averaged_over(results)}. "
        "Chance is the finding's prevalence."
    )
    return PageTable(caption, ["Model", "Finding", *(f"{r} px" for r in resolutions)], rows)
