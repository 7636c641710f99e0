"""How good the learners are on test: by image and by study, in subgroups, and whether probabilities are frequencies."""

from collections.abc import Sequence

import pandas as pd

from cxrscale.common.rows import ALL_IMAGES, MEAN
from cxrscale.report.cells import DASH, Cell, PageTable, average_rows, first_row, measure, missing, number, text_or
from cxrscale.report.inputs import KEY, ReportSettings, Results, averaged_over, shown_findings, single_findings
from cxrscale.report.sections import Paragraph, Section

VALUES = ("value", "lower", "upper")


def section(results: Results, settings: ReportSettings) -> Section:
    said = (
        "Values of single learners on test, at the reference resolution. Intervals take patients as the unit; how each "
        "metric is defined is in docs/evaluation.md."
    )
    tables = performance_tables(results, settings)
    return Section("performance", "How good the learners are", [Paragraph(said), *tables], link="Performance")


def on_test(results: Results, settings: ReportSettings) -> pd.DataFrame:
    """Metrics on test at the reference resolution (of a model that lacks it, at its largest), averaged over folds and
    seeds: a row a (model, finding, metric, level, group, interval)."""
    chosen = results["metrics"][results["metrics"]["split"] == "test"]
    parts = [
        chosen[(chosen["model"] == model) & (chosen["resolution_px"] == shown_px(results, settings, model))]
        for model in results.models
    ]
    return average_rows(pd.concat(parts), ["model", "finding", "metric", "level", "group", "interval"], VALUES)


def shown_px(results: Results, settings: ReportSettings, model: str) -> int:
    sizes = results.resolutions(model)
    return settings.reference_px if settings.reference_px in sizes else sizes[-1]


def _cell(
    frame: pd.DataFrame,
    model: str,
    finding: str,
    metric: str,
    interval: str,
    level: str = "image",
    group: str = ALL_IMAGES,
) -> Cell:
    found = first_row(
        frame, model=model, finding=finding, metric=metric, interval=interval, level=level, group=group
    )  # fmt: skip
    if found is None:
        return Cell(DASH, "not computed")
    if interval == "none":
        note = text_or(found["reason"], "no reason recorded") if missing(found["value"]) else ""
        return Cell(number(found["value"]), note)
    return measure(found, *VALUES)


def performance_table(results: Results, settings: ReportSettings, frame: pd.DataFrame) -> PageTable:
    """frame: of `on_test`, as below."""
    rows: list[list[Cell | str]] = []
    for model in results.models:
        for finding, label in shown_findings(results, settings).items():
            rows.append(
                [
                    model,
                    label,
                    _cell(frame, model, finding, "auroc", "clustered"),
                    _cell(frame, model, finding, "auroc", "clustered", level="study"),
                    _cell(frame, model, finding, "average_precision", "bootstrap"),
                    _cell(frame, model, finding, "sensitivity", "clustered"),
                    _cell(frame, model, finding, "specificity", "clustered"),
                ]
            )
    head = [
        "Model", "Finding", "AUROC by image", "AUROC by study", "Average precision", "Sensitivity",
        "Specificity reached",
    ]  # fmt: skip
    caption = (
        f"On test at {_sizes(results, settings)}, with {settings.confidence:.0%} intervals"
        f"{averaged_over(results)}. By study: the mean probability of a study's images. The threshold of sensitivity "
        "was set on combine and not on test, so the specificity reached on test differs from the one asked for."
    )
    return PageTable(caption, head, rows)


def calibration_table(results: Results, settings: ReportSettings, frame: pd.DataFrame) -> PageTable:
    rows: list[list[Cell | str]] = []
    for model in results.models:
        for finding, label in shown_findings(results, settings).items():
            row: list[Cell | str] = [model, label]
            for prefix in ("", "recalibrated_"):
                error = _cell(frame, model, finding, f"{prefix}calibration_error", "none")
                chance = _cell(frame, model, finding, f"{prefix}calibration_error_chance", "none")
                if error.text != DASH:
                    error = Cell(error.text, f"by chance {chance.text}")
                row += [_cell(frame, model, finding, f"{prefix}brier", "clustered"), error]
                if not prefix:
                    row += [
                        _cell(frame, model, finding, f"calibration_{name}", "clustered")
                        for name in ("slope", "intercept")
                    ]
            rows.append(row)
    head = [
        "Model", "Finding", "Brier score", "Calibration error", "Slope", "Intercept", "Brier score, recalibrated",
        "Calibration error, recalibrated",
    ]  # fmt: skip
    caption = (
        f"Calibration on test at {_sizes(results, settings)}{averaged_over(results)}. Slope 1 and intercept 0 are "
        "right; a slope below 1 is over-confident, an intercept below 0 expects too many positives. Under a "
        "calibration error stands what sampling alone would give a calibrated learner. Recalibrated: intercept and "
        "slope of combine laid over the logits."
    )
    return PageTable(caption, head, rows)


def groups_table(results: Results, settings: ReportSettings, frame: pd.DataFrame) -> PageTable | None:
    """AUROC in subgroups; None if there are none."""
    groups = [g for g in dict.fromkeys(frame["group"]) if g != ALL_IMAGES]
    if not groups:
        return None
    rows: list[list[Cell | str]] = []
    for model in results.models:
        for finding, label in shown_findings(results, settings).items():
            cells = [_cell(frame, model, finding, "auroc", "clustered", group=g) for g in (ALL_IMAGES, *groups)]
            rows.append([model, label, *cells])
    counts = _counts(results, groups)
    caption = (
        f"AUROC by image in subgroups of test, at {_sizes(results, settings)}, with {settings.confidence:.0%} "
        f"intervals{averaged_over(results)}. Images a group: {counts}. Subgroups differ in prevalence and case mix "
        "too; a mean over findings is over those that have a value in the group."
    )
    return PageTable(caption, ["Model", "Finding", "All", *groups], rows)


def _counts(results: Results, groups: Sequence[str]) -> str:
    """Images of each group in the first learner's test split."""
    first = {name: results.learners.iloc[0][name] for name in KEY}
    texts = []
    for group in groups:
        found = first_row(
            results["metrics"], **first, finding=MEAN, metric="auroc", split="test", level="image", group=group
        )
        texts.append(f"{group} {found['n_images'] if found else 0:,}")
    return ", ".join(texts)


def variance_table(results: Results, settings: ReportSettings, frame: pd.DataFrame) -> PageTable:
    """The three intervals of AUROC side by side."""
    rows: list[list[Cell | str]] = []
    for model in results.models:
        for finding in single_findings(results, settings):
            kinds = ("clustered", "bootstrap", "delong")
            rows.append([model, finding, *(_cell(frame, model, finding, "auroc", kind) for kind in kinds)])
    caption = (
        f"The same AUROCs with three {settings.confidence:.0%} intervals, a check. The first two take patients as the "
        "unit and should agree; DeLong's takes images for independent and is too short where patients have several."
    )
    return PageTable(
        caption, ["Model", "Finding", "Variance between patients", "Patient bootstrap", "DeLong, by image"], rows
    )


def _sizes(results: Results, settings: ReportSettings) -> str:
    sizes = dict.fromkeys(shown_px(results, settings, model) for model in results.models)
    return " and ".join(f"{px} px" for px in sizes)


def performance_tables(results: Results, settings: ReportSettings) -> list[PageTable]:
    frame = on_test(results, settings)
    groups = groups_table(results, settings, frame)
    return [
        performance_table(results, settings, frame),
        *([groups] if groups else []),
        calibration_table(results, settings, frame),
        variance_table(results, settings, frame),
    ]
