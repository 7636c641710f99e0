"""The answer: which resolution each finding needs."""

from collections.abc import Mapping, Sequence

import pandas as pd
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cxrscale.evaluate.contracts import CONFIRMATORY
from cxrscale.report.caveats import scope_sentence, warnings_of
from cxrscale.report.cells import (
    DASH,
    Cell,
    PageTable,
    average_rows,
    first_row,
    measure,
    missing,
    number,
    p_text,
    text_or,
)
from cxrscale.report.combining import gains_sentence
from cxrscale.report.drawing import (
    GREY,
    beside,
    legend,
    line_of_model,
    plain,
    reasons_of,
    resolution_axis,
    resolution_colours,
    say,
)
from cxrscale.report.inputs import (
    ReportSettings,
    Results,
    averaged_over,
    shown_findings,
    values_averaged,
)
from cxrscale.report.sections import Details, Drawn, Framed, Paragraph, Section
from cxrscale.report.sufficient import answer, answer_cell, answer_sentence, answers_of


def section(results: Results, settings: ReportSettings) -> Section:
    answers = [
        Paragraph(Markup("<b>{}</b>: {}").format(model, answer_sentence(found, settings)))
        for model, found in answers_of(results, settings).items()
    ]
    return Section(
        "answer",
        "The answer",
        [
            Framed([*answers, Paragraph(gains_sentence(results, settings))]),
            how_it_is_judged(results, settings),
            *(table(results, settings, m) for m in results.models for table in (answer_table, difference_table)),
            what_verdicts_say(settings),
            Details(
                "All pairs of resolutions, with bootstrap intervals and sources of error; exploratory ones among them",
                [pairs_table(results, settings)],
            ),
            auroc_drawn(results, settings),
            differences_drawn(results, settings),
            precision_table(results, settings),
        ],
        link="Answer",
    )


def how_it_is_judged(results: Results, settings: ReportSettings) -> Paragraph:
    warned = len(warnings_of(results, settings))
    read = Markup(' Read the <a href="#warnings">warnings</a> ({}).').format(warned) if warned else ""
    return Paragraph(
        Markup(
            "{scope} A resolution <em>suffices</em> if its test AUROC is not lower than at {reference} px, the "
            "reference, by more than {margin}, and so at every resolution between: the lower end of the {confidence} "
            "interval of the difference, paired on the same patients, lies above that. <em>Undecided</em> says that "
            "the data allow no verdict; it is not evidence that resolution does not matter.{read}"
        ).format(
            scope=scope_sentence(results),
            reference=settings.reference_px,
            margin=settings.margin_auroc,
            confidence=f"{settings.confidence:.0%}",
            read=read,
        )
    )


def what_verdicts_say(settings: ReportSettings) -> Paragraph:
    chosen = (
        "The mean is over all findings of the study, not only those shown, and the correction too. "
        if settings.findings
        else ""
    )
    return Paragraph(
        Markup(
            "Verdicts: <em>worse than the reference</em> or <em>better below it</em>, the difference is shown (p after "
            "Holm's correction over all resolutions, findings and models below {level}) and as estimated not smaller "
            "than {margin}; <em>equivalent</em>, its interval lies within ± {margin}; <em>undecided</em>, neither. The "
            "mean of findings is corrected by itself. {chosen}docs/verdicts.md says how seldom a verdict errs."
        ).format(level=f"{1 - settings.confidence:.2g}", margin=settings.margin_auroc, chosen=chosen),
        soft=True,
    )


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


def auroc_drawn(results: Results, settings: ReportSettings) -> Drawn:
    return Drawn(
        "auroc",
        auroc_by_resolution(results["averages"], shown_findings(results, settings), settings.confidence),
        "Test AUROC by resolution. A panel is a finding, a line a model (marker), a colour a resolution. A line that "
        "rises to the right shows AUROC rising with resolution. Bars "
        f"are {settings.confidence:.0%} intervals of each value by itself: two that overlap may still differ, since "
        "both come from the same patients; the next figure answers that." + values_averaged(results),
    )


def auroc_by_resolution(levels: pd.DataFrame, labels: Mapping[str, str], confidence: float) -> Figure:
    """AUROC against resolution, a panel a finding, a line a model.

    levels: a row a (model, finding, resolution_px) with value, lower, upper, reason. labels: finding -> what its panel
    is called, in order. confidence: of the intervals.
    """
    models = list(dict.fromkeys(levels["model"]))
    resolutions = sorted(levels["resolution_px"].unique())
    colours = resolution_colours(resolutions)
    columns = min(3, len(labels))
    rows = -(-len(labels) // columns)
    figure = Figure(figsize=(max(5.0, 3.1 * columns), 0.9 + 2.5 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for axis in list(axes.flat)[len(labels) :]:
        axis.remove()
    for k, (axis, finding) in enumerate(zip(axes.flat, labels, strict=False)):
        here = levels[levels["finding"] == finding]
        axis.set_title(plain(labels[finding]), fontsize=10)
        axis.axhline(0.5, color="0.7", linewidth=0.8, zorder=0)
        for m, model in enumerate(models):
            line = here[(here["model"] == model) & here["value"].notna()].sort_values("resolution_px")
            line_of_model(axis, beside(line["resolution_px"], m, len(models), 0.09), line, m, colours)
        if here["value"].isna().all():
            say(axis, f"undefined: {reasons_of(here)}")
        resolution_axis(axis, resolutions, 1.3)
        last_of_column = k + columns >= len(labels)
        axis.tick_params(labelbottom=last_of_column)
        axis.set_xlabel("Side of the input [px]" if last_of_column else "")
        axis.set_ylabel("Test AUROC" if k % columns == 0 else "")
    legend(figure, models, [], f"bars: {confidence:.0%} interval, grey line: chance")
    return figure


def differences_drawn(results: Results, settings: ReportSettings) -> Drawn:
    against = results["differences"][results["differences"]["kind"] == CONFIRMATORY]
    labels, margin = shown_findings(results, settings), settings.margin_auroc
    return Drawn(
        "differences",
        differences_to_reference(against, labels, results.models, margin, settings.confidence),
        "AUROC minus that at the reference, paired on the same patients. Filled: the difference is shown after "
        f"correction for all that were tested. A filled dot to the left of the grey band (± {margin:g}) is worse than "
        "the reference, one to the right of it better; a bar within the band is equivalent; any other is undecided. "
        "Each bar holds by itself." + values_averaged(results),
    )


def differences_to_reference(
    differences: pd.DataFrame, labels: Mapping[str, str], models: Sequence[str], margin: float, confidence: float
) -> Figure:
    """AUROC minus that at the reference, a panel a model, a row a finding, a colour a resolution.

    differences: confirmatory rows of `evaluate.contracts.DIFFERENCES`. margin: the grey band. A filled dot says that
    the p of its difference, corrected after Holm, lies below 1 - confidence.
    """
    resolutions = sorted(int(r) for r in {*differences["resolution_px"], *differences["against_px"]})
    colours = resolution_colours(resolutions)
    height = 1.6 + max(0.32, 0.17 * max(len(resolutions) - 1, 1)) * len(labels)
    figure = Figure(figsize=(max(6.0, 3.2 + 3.0 * len(models)), height), layout="constrained")
    axes = figure.subplots(1, len(models), squeeze=False, sharex=True, sharey=True)[0]
    for axis, model in zip(axes, models, strict=True):
        here = differences[differences["model"] == model]
        axis.set_title(plain(model), fontsize=10)
        axis.axvspan(-margin, margin, color="0.9", zorder=0)
        axis.axvline(0, color="0.5", linewidth=0.8, zorder=1)
        shown = sorted(here["resolution_px"].unique())
        for y, finding in enumerate(labels):
            rows = here[(here["finding"] == finding) & here["difference"].notna()]
            if rows.empty:
                _say_undefined(axis, y)
            for row in rows.to_dict("records"):
                resolution = int(row["resolution_px"])
                place = y + 0.6 * ((shown.index(resolution) + 0.5) / len(shown) - 0.5)
                colour = colours[resolution]
                axis.plot([row["lower"], row["upper"]], [place, place], color=colour, linewidth=1.6, zorder=2)
                fill = colour if row["p_holm"] <= 1 - confidence else "white"
                axis.plot(row["difference"], place, "o", color=colour, markerfacecolor=fill, markersize=5, zorder=3)
        axis.set_yticks(range(len(labels)), [plain(label) for label in labels.values()])
        axis.set_ylim(len(labels) - 0.5, -0.5)
        reference = f" at {int(here['against_px'].iloc[0])} px" if len(here) else " at the reference"
        axis.set_xlabel(f"Test AUROC minus that{reference}")
    shown_anywhere = [r for r in resolutions if r in set(differences["resolution_px"])]
    note = f"bars: {confidence:.0%} interval, grey band: ± margin {margin:g}, filled: shown (Holm)"
    legend(figure, [], [(r, colours[r]) for r in shown_anywhere], note)
    return figure


def _say_undefined(axis: Axes, y: float) -> None:
    axis.text(
        0, y, "undefined", ha="center", va="center", fontsize=8, color=GREY,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
    )  # fmt: skip
