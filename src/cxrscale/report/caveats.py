"""What a reader must know before trusting a number: notes of the stages, and warnings."""

from typing import Any

from cxrscale.data.splits import combine_split
from cxrscale.report.cells import join, joined_reasons, missing
from cxrscale.report.inputs import ReportSettings, Results, shown_findings
from cxrscale.report.sections import Bullets, Paragraph, Section
from cxrscale.report.weights import weight_warnings


def notes_section(results: Results, settings: ReportSettings) -> Section | None:
    notes = notes_of(results, with_examples=False)
    return Section("notes", "Read first", [Bullets(notes)]) if notes else None


def section(results: Results, settings: ReportSettings) -> Section:
    found = warnings_of(results, settings)
    return Section("warnings", "Warnings", [Bullets(found) if found else Paragraph("None.")], link="Warnings")


def notes_of(results: Results, with_examples: bool) -> list[str]:
    """What the stages noted, in words. with_examples: whether ids and file names may be seen."""
    return [shown_note(row, with_examples) for row in results["notes"].itertuples()]


def shown_note(row: Any, with_examples: bool) -> str:
    """A row of NOTES in words. with_examples: whether ids and file names may be seen."""
    named = f" ({row.examples})" if with_examples and not missing(row.examples) else ""
    return f"{str(row.about).capitalize()}: {row.note}{named}"


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


def warnings_of(results: Results, settings: ReportSettings) -> list[str]:
    """What a reader must know before trusting a number."""
    found: list[str] = []
    labels = shown_findings(results, settings)
    levels = results["auroc"][results["auroc"]["finding"].isin(labels)]
    empty = levels[levels["value"].isna()]
    for (finding, fold), rows in empty.groupby(["finding", "fold"], sort=False):
        found.append(f"{labels[str(finding)]}, fold {fold}: AUROC is undefined ({joined_reasons(rows['reason'])}).")
    no_interval = levels[levels["value"].notna() & levels["lower"].isna()]
    for (finding, fold), rows in no_interval.groupby(["finding", "fold"], sort=False):
        found.append(f"{labels[str(finding)]}, fold {fold}: AUROC has no interval ({joined_reasons(rows['reason'])}).")
    differences = results["differences"][results["differences"]["finding"].isin(labels)]
    for (finding, reason), rows in differences[differences["reason"].notna()].groupby(
        ["finding", "reason"], sort=False
    ):
        found.append(f"{labels[str(finding)]}, {join(dict.fromkeys(rows['model']))}: differences: {reason}.")
    found += weight_warnings(results, settings)
    for fold, targets in results.targets.items():
        if combine_split(targets) == "validate":
            found.append(
                f"Fold {fold}: stacking weights are fitted on validate, which also picked the epochs (there is no "
                "combine split), so that they may favour the learners that fit validate by luck."
            )
    late = results.costs[~results.costs["converged"].astype(bool)]
    for row in late.itertuples():
        found.append(
            f"{row.model} at {row.resolution_px} px, fold {row.fold}, seed {row.seed}: not converged; its best epoch "
            f"({row.best_epoch} of {row.epochs}) lies in the last tenth of the budget."
        )
    if len(set(results.learners["seed"])) <= 2:
        found.append(scope_sentence(results))
    if len(results["quarantine"]):
        found.append(f"{len(results['quarantine']):,} images could not be used and are missing at every resolution.")
    if settings.native_at_least_px:
        small = int((results["index"]["native_px"] < settings.native_at_least_px).sum())
        found.append(
            f"{small:,} images whose native file is smaller than {settings.native_at_least_px} px are left out at "
            f"every resolution (store.upscale: exclude)."
        )
    return found
