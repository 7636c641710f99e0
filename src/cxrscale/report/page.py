"""The report: one page that leads with the answer, a summary for the terminal, and a local page with pictures.

What the page says is decided here and in the modules beside, from frames and plain settings; how it looks, in
templates/. Neither Snakemake nor the study's configuration is known here.
"""

import base64
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure

from cxrscale import figures
from cxrscale.evaluation.metrics import MEAN
from cxrscale.report.combining import gains_sentence, stacking_table
from cxrscale.report.content import (
    DASH,
    ReportSettings,
    Results,
    Table,
    average,
    averaged_over,
    cost_frame,
    join,
    joined_reasons,
    shown_findings,
    text_or,
)
from cxrscale.report.explaining import activation_table, fields_frame, fields_table
from cxrscale.report.performance import performance_tables
from cxrscale.report.planted import planted_table
from cxrscale.report.resolutions import answer_sentence, answer_table, answers_of, average_levels, precision_table
from cxrscale.report.study import (
    cost_table,
    findings_table,
    images_table,
    protocol_table,
    provenance_tables,
    store_table,
)
from cxrscale.splits import combine_split

TEMPLATES = Path(__file__).parents[1] / "templates"


def warnings_of(results: Results, settings: ReportSettings) -> list[str]:
    """What a reader must know before trusting a number."""
    found: list[str] = []
    labels = shown_findings(results, settings)
    levels = results.levels[results.levels["finding"].isin(labels)]
    empty = levels[levels["value"].isna()]
    for (finding, fold), rows in empty.groupby(["finding", "fold"], sort=False):
        found.append(f"{labels[str(finding)]}, fold {fold}: AUROC is undefined ({joined_reasons(rows['reason'])}).")
    no_interval = levels[levels["value"].notna() & levels["lower"].isna()]
    for (finding, fold), _ in no_interval.groupby(["finding", "fold"], sort=False):
        why = "most bootstrap replicates hold one class only"
        found.append(f"{labels[str(finding)]}, fold {fold}: AUROC has no interval ({why}).")
    differences = results.differences[results.differences["finding"].isin(labels)]
    for (model, finding), rows in differences[differences["lower"].isna()].groupby(["model", "finding"], sort=False):
        reason = joined_reasons(rows["reason"]) or "no reason recorded"
        found.append(f"{model}, {labels[str(finding)]}: differences have no interval ({reason}).")
    weights = results.weights[results.weights["finding"].isin(labels) & results.weights["reason"].notna()]
    for (finding, fold), rows in weights.groupby(["finding", "fold"], sort=False):
        why = joined_reasons(rows["reason"]) or ""
        found.append(f"{finding}, fold {fold}: stacking weights are equal, not fitted ({why}).")
    for fold, targets in results.targets.items():
        if combine_split(targets) == "validate":
            found.append(
                f"Fold {fold}: stacking weights are fitted on validate, which also picked the epochs (there is no "
                "combine split), so that they may favour the learners that fit validate by luck."
            )
    late = cost_frame(results)
    late = late[~late["converged"].astype(bool)]
    for row in late.itertuples():
        found.append(
            f"{row.model} at {row.resolution_px} px, fold {row.fold}, seed {row.seed}: not converged; its best epoch "
            f"({row.best_epoch} of {row.epochs}) lies in the last tenth of the budget."
        )
    if len(set(results.learners["seed"])) == 1:
        found.append(
            "Every learner has one seed: verdicts are about these learners, not about resolution in general. "
            "The intervals hold the chance of which patients were tested, not the chance of training."
        )
    if len(results.quarantine):
        found.append(f"{len(results.quarantine):,} images could not be used and are missing at every resolution.")
    if settings.native_at_least_px:
        small = int((results.manifest["native_px"] < settings.native_at_least_px).sum())
        found.append(
            f"{small:,} images whose native file is smaller than {settings.native_at_least_px} px are left out at "
            f"every resolution (store.upscale: exclude)."
        )
    return found


def draw_figures(results: Results, settings: ReportSettings) -> dict[str, Figure]:
    """The figures that hold no picture of a patient, by name."""
    labels = shown_findings(results, settings)
    single = {f: label for f, label in labels.items() if f != MEAN}
    levels = average_levels(results)
    lowest = {m: results.resolutions(m)[0] for m in results.models}
    against = results.differences[results.differences["against_px"] == results.differences["model"].map(lowest)]
    weights = average(results.weights, ["ensemble", "finding", "model", "resolution_px"], ["weight"])
    return {
        "auroc": figures.auroc_by_resolution(levels, labels, settings.confidence),
        "differences": figures.differences_to_lowest(
            against, labels, results.models, settings.margin_auroc, settings.confidence
        ),
        "cost": figures.cost_against_auroc(cost_points(results, levels), settings.confidence),
        "weights": figures.scale_weights(weights[weights["finding"].isin(single)], single),
        "erf": figures.receptive_fields(results.field_maps, fields_frame(results)),
        "training": figures.training_curves(results.history),
    }


def cost_points(results: Results, levels: pd.DataFrame) -> pd.DataFrame:
    """A row a (model, resolution_px): mean seconds and the AUROC averaged over findings (of the only one, if one)."""
    overall = MEAN if MEAN in set(levels["finding"]) else results.findings[0]
    seconds = cost_frame(results).groupby(["model", "resolution_px"], sort=False)["seconds"].mean().reset_index()
    return seconds.merge(levels[levels["finding"] == overall], on=["model", "resolution_px"], how="left")


CAPTIONS = {
    "auroc": "Test AUROC by resolution. A panel is a finding, a line a model (marker), a colour a resolution. A line "
    "that rises to the right says that the finding gains from resolution; a flat one, that the lowest is enough. "
    "Bars are {confidence} intervals of each value by itself: two that overlap may still differ, since both come from "
    "the same patients; the next figure answers that.{averaged}",
    "differences": "AUROC minus that at the lowest resolution, paired on the same patients. A bar to the right of zero "
    "is a gain of resolution; one within the grey band (± {margin}) says that resolution does not matter here; a bar "
    "that reaches out of the band on both sides is undecided. Each interval holds by itself: among twenty, about one "
    "misses by chance at 95%.{averaged}",
    "cost": "Training time (logarithmic axis) against mean test AUROC. Up and to the left is better; a line that turns "
    "flat says where more pixels buy nothing.{averaged}",
    "weights": "Fitted weights of the learners in each ensemble; each row of a panel sums to 1. Weight on high "
    "resolutions says that the information lies in fine detail. Near-equal learners share weight by chance.{averaged}",
    "erf": "Effective receptive fields: which input pixels the centre of the last feature map depends on, before "
    "training (above) and trained (below). The square root of the energy is drawn, scaled to its maximum in each "
    "panel; the dashed circle has the radius σ. A smaller σ as a fraction of the width says that the network "
    "sees less of the picture at once.{averaged}",
    "training": "Mean validation AUROC in training, a line a learner. A curve that still rises at the end says that "
    "more epochs might have helped; compare with the convergence column of the cost table.",
    "cam": "Class activation maps of {where}. A row is a test image that shows the finding named; orange speaks for "
    "the finding, blue against it; each panel is scaled to its own largest value, so strength does not compare between "
    "panels. The map's own grid stands below each panel: finer is not sharper than that.{boxes}",
}


def caption(name: str, results: Results, settings: ReportSettings) -> str:
    averaged = averaged_over(results)
    first = results.learners.iloc[0]
    return CAPTIONS[name].format(
        confidence=f"{settings.confidence:.0%}",
        margin=f"{settings.margin_auroc:g}",
        averaged=f" Values are{averaged.removeprefix(',')}." if averaged else "",
        where=f"fold {first['fold']}, seed {first['seed']}",
        boxes=" The dashed box is where the finding was drawn." if results.boxes is not None else "",
    )


def summary_lines(results: Results, settings: ReportSettings, report_path: str) -> list[str]:
    """Five to ten plain lines for the terminal."""
    answers = answers_of(results, average_levels(results), settings)
    levels = results.learners
    lines = [
        f"{settings.title} ({settings.study}): {len(levels)} learners, {len(results.models)} "
        f"model{'s' if len(results.models) > 1 else ''}, {join(sorted(set(levels['resolution_px'])))} px, "
        f"{len(results.findings)} finding{'s' if len(results.findings) > 1 else ''}.",
        f"Sufficient: AUROC not lower than at {settings.reference_px} px by more than {settings.margin_auroc:g}, "
        f"with {settings.confidence:.0%} confidence.",
    ]
    models = list(answers.items())
    most = 4
    lines += [f"{model}: {answer_sentence(found, settings)}" for model, found in models[:most]]
    if len(models) > most:
        lines.append(f"{len(models) - most} more models: see the report.")
    lines.append(gains_sentence(results, settings))
    if len(set(levels["seed"])) == 1:
        lines.append("One seed: this is about these learners, not about resolution in general.")
    warned = len(warnings_of(results, settings))
    lines += [f"Warnings in the report: {warned}.", f"Report: {report_path}"]
    return lines


def environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip


def picture(name: str, path: Path, results: Results, settings: ReportSettings) -> dict[str, str]:
    """A figure for a template: the PNG within the page, and its caption."""
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    return {"name": name, "data": data, "caption": caption(name, results, settings)}


def render_report(results: Results, settings: ReportSettings, figure_paths: Mapping[str, Path]) -> str:
    """The shareable page. figure_paths: name -> PNG; "cam" is left out unless the settings allow pictures."""
    levels = average_levels(results)
    shown = {n: p for n, p in figure_paths.items() if n != "cam" or settings.patient_pictures}
    return environment().get_template("report.html.j2").render(
        settings=settings,
        answers={m: answer_sentence(found, settings) for m, found in answers_of(results, levels, settings).items()},
        answer_tables=[answer_table(results, levels, settings, m) for m in results.models],
        gains=gains_sentence(results, settings),
        stacking=stacking_table(results, settings),
        cost=cost_table(results),
        fields=fields_table(results),
        precision=precision_table(results, settings),
        performance=performance_tables(results, settings),
        planted=planted_table(results, levels, settings) if results.planted is not None else None,
        activation=activation_table(results) if settings.patient_pictures else None,
        images=images_table(results, settings),
        stores=store_table(results),
        counts=findings_table(results, settings),
        n_quarantined=len(results.quarantine),
        protocol=protocol_table(settings),
        warnings=warnings_of(results, settings),
        provenance=provenance_tables(results),
        one_seed=len(set(results.learners["seed"])) == 1,
        figures={n: picture(n, p, results, settings) for n, p in shown.items()},
    )  # fmt: skip


def render_local(results: Results, settings: ReportSettings, cam_path: Path) -> str:
    """The page with pictures and ids, which stays where the data may be."""
    quarantined = Table(
        "Images that could not be used.",
        ["image_id", "File", "Reason"],
        [
            [text_or(r.image_id, DASH), text_or(r.path, DASH), text_or(r.reason, DASH)]
            for r in results.quarantine.itertuples()
        ],
    )
    return environment().get_template("local.html.j2").render(
        settings=settings,
        images=activation_table(results),
        quarantined=quarantined,
        cam=picture("cam", cam_path, results, settings),
    )  # fmt: skip
