"""The report: one page that leads with the answer, a summary for the terminal, and a local page with pictures.

What the page says is decided here and in the modules beside, from frames and plain settings; how it looks, in
templates/. Neither Snakemake nor the study's configuration is known here.
"""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure

from cxrscale.common.notes import NAMED
from cxrscale.common.rows import ALL_FINDINGS, MEAN
from cxrscale.data.splits import combine_split
from cxrscale.evaluate.contracts import CONFIRMATORY
from cxrscale.report import figures
from cxrscale.report.cells import DASH, PageTable, join, joined_reasons, missing, text_or
from cxrscale.report.combining import (
    calibration_sentence,
    calibration_table,
    control_sentences,
    control_table,
    controls_table,
    doubt_sentence,
    gains_sentence,
    methods_table,
    overall_table,
    stacking_table,
    weight_warnings,
    weights_frame,
)
from cxrscale.report.explaining import (
    activation_table,
    draw_field_effect,
    field_effect_sentences,
    fields_table,
    finding_fields_table,
    localisation_frame,
    localisation_table,
    network_fields,
)
from cxrscale.report.inputs import ReportSettings, Results, averaged_over, cost_frame, shown_findings
from cxrscale.report.performance import performance_tables
from cxrscale.report.planted import planted_table
from cxrscale.report.resolutions import (
    answer_sentence,
    answer_table,
    answers_of,
    difference_table,
    pairs_table,
    precision_table,
    scope_sentence,
)
from cxrscale.report.study import (
    bits_table,
    cost_table,
    findings_table,
    images_table,
    protocol_table,
    provenance_tables,
    store_table,
)

TEMPLATES = Path(__file__).parent / "templates"


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
    late = cost_frame(results)
    late = late[~late["converged"].astype(bool)]
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


def shown_note(row: Any, with_examples: bool) -> str:
    """A row of NOTES in words. with_examples: whether ids and file names may be seen."""
    named = f" ({row.examples})" if with_examples and not missing(row.examples) else ""
    return f"{str(row.about).capitalize()}: {row.note}{named}"


def draw_figures(results: Results, settings: ReportSettings) -> dict[str, Figure]:
    """The figures that hold no picture of a patient, by name."""
    labels = shown_findings(results, settings)
    single = {f: label for f, label in labels.items() if f != MEAN}
    levels = results["averages"]
    against = results["differences"][results["differences"]["kind"] == CONFIRMATORY]
    weights = weights_frame(results)
    drawn = {
        "auroc": figures.auroc_by_resolution(levels, labels, settings.confidence),
        "differences": figures.differences_to_reference(
            against, labels, results.models, settings.margin_auroc, settings.confidence
        ),
        "cost": figures.cost_against_auroc(cost_points(results, levels), settings.confidence),
        "weights": figures.scale_weights(weights[weights["finding"].isin(single)], single),
        "erf": figures.receptive_fields(results.field_maps, network_fields(results)),
        "field_effect": draw_field_effect(results),
        "training": figures.training_curves(results["history"]),
    }
    if "localisation" in results:
        frame = localisation_frame(results)
        drawn["localisation"] = figures.localisation(frame[frame["finding"] == ALL_FINDINGS], settings.confidence)
    return drawn


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
    "differences": "AUROC minus that at the reference, paired on the same patients. A dot to the left of the grey band "
    "(± {margin}) that is filled says that the finding needs the reference; a bar within the band, that the resolution "
    "is as good; any other is undecided. Filled: the difference is shown after correction for all that were tested. "
    "Each bar holds by itself.{averaged}",
    "cost": "Training time (logarithmic axis) against mean test AUROC. Up and to the left is better; a line that turns "
    "flat says where more pixels buy nothing.{averaged}",
    "weights": "Fitted weights of the learners in each ensemble, below them their {confidence} intervals over patients "
    "of the split they are fitted on; each row of a panel sums to 1. Weight on high resolutions says that the "
    "information lies in fine detail. * : learners so much alike that one could take the other's place.{averaged}",
    "erf": "Effective receptive fields: which input pixels the centre of the last feature map depends on, with random "
    "weights, pretrained ones where the model has them, and trained. Before training, batch statistics are those of "
    "the images, so that states differ in weights only. The square root of the energy is drawn, scaled to its maximum "
    "in each panel; the dashed circle has the radius σ. A smaller σ as a fraction of the width says that the network "
    "sees less of the picture at once.{averaged}",
    "field_effect": "The paper's claim as a number: each finding's field at the reference resolution (trained, of the "
    "finding's own evidence) against what it gains from low resolution. If findings that need a wide field prefer low "
    "resolution, the points rise to the right. ρ is Spearman's rank correlation with its {confidence} interval "
    "(findings drawn anew), p by permutation of findings, two-sided.{averaged}",
    "localisation": "Maps of test images against boxes, all findings together, by resolution and size of the box. "
    "Points: the learners' maps, with {confidence} intervals; orange: the best that a map of the same grid could do; "
    "blue: one map for all images of a finding, the mean of its boxes in combine; grey: an even map.{averaged}",
    "training": "Mean validation AUROC in training, a line a learner. A curve that still rises at the end says that "
    "more epochs might have helped; compare with the convergence column of the cost table.",
    "cam": "Class activation maps of {where}. A row is a test image that shows the finding named: the picture, then "
    "each learner's map enlarged to the same size; orange speaks for the finding, blue against it; each panel is "
    "scaled to its own largest value, so strength does not compare between panels. "
    "The map's own grid stands below each panel: finer is not sharper than that.{boxes}",
}


def caption(name: str, results: Results, settings: ReportSettings) -> str:
    averaged = averaged_over(results, intervals=False)
    first = results.learners.iloc[0]
    return CAPTIONS[name].format(
        confidence=f"{settings.confidence:.0%}",
        margin=f"{settings.margin_auroc:g}",
        averaged=f" Values are{averaged.removeprefix(',')}." if averaged else "",
        where=f"fold {first['fold']}, seed {first['seed']}",
        boxes=" Dashed boxes are where the finding is." if results.boxes is not None else "",
    )


def summary_lines(results: Results, settings: ReportSettings, report_path: str) -> list[str]:
    """Five to ten plain lines for the terminal."""
    answers = answers_of(results, settings)
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
    lines.append(scope_sentence(results))
    lines += [f"Note: {shown_note(row, with_examples=False)}" for row in results["notes"].head(NAMED).itertuples()]
    if len(results["notes"]) > NAMED:
        lines.append(f"{len(results['notes']) - NAMED} more notes: see the report's first lines.")
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
    shown = {n: p for n, p in figure_paths.items() if n != "cam" or settings.patient_pictures}
    return environment().get_template("report.html.j2").render(
        settings=settings,
        answers={m: answer_sentence(found, settings) for m, found in answers_of(results, settings).items()},
        answer_tables=[t(results, settings, m) for m in results.models for t in (answer_table, difference_table)],
        pairs=pairs_table(results, settings),
        scope=scope_sentence(results),
        gains=gains_sentence(results, settings),
        stacking=stacking_table(results, settings),
        combined=overall_table(results, settings),
        combining_methods=methods_table(results, settings),
        control=control_table(results, settings),
        controls=controls_table(results, settings),
        control_sentences=control_sentences(results, settings),
        calibration=calibration_table(results, settings),
        calibration_sentence=calibration_sentence(results, settings),
        doubts=doubt_sentence(results, settings),
        cost=cost_table(results),
        fields=fields_table(results),
        finding_fields=finding_fields_table(results, settings),
        field_effect=field_effect_sentences(results, settings),
        localisation=localisation_table(results, settings) if "localisation" in results else None,
        precision=precision_table(results, settings),
        performance=performance_tables(results, settings),
        planted=planted_table(results, settings) if results.planted is not None else None,
        activation=activation_table(results) if settings.patient_pictures else None,
        notes=[shown_note(row, with_examples=False) for row in results["notes"].itertuples()],
        images=images_table(results, settings),
        stores=store_table(results),
        bits=bits_table(results),
        counts=findings_table(results, settings),
        n_quarantined=len(results["quarantine"]),
        protocol=protocol_table(settings),
        warnings=warnings_of(results, settings),
        provenance=provenance_tables(results),
        one_seed=len(set(results.learners["seed"])) == 1,
        figures={n: picture(n, p, results, settings) for n, p in shown.items()},
    )  # fmt: skip


def render_local(results: Results, settings: ReportSettings, cam_path: Path) -> str:
    """The page with pictures and ids, which stays where the data may be."""
    quarantined = PageTable(
        "Images that could not be used.",
        ["image_id", "File", "Reason"],
        [
            [text_or(r.image_id, DASH), text_or(r.path, DASH), text_or(r.reason, DASH)]
            for r in results["quarantine"].itertuples()
        ],
    )
    return environment().get_template("local.html.j2").render(
        settings=settings,
        notes=[shown_note(row, with_examples=True) for row in results["notes"].itertuples()],
        images=activation_table(results),
        quarantined=quarantined,
        cam=picture("cam", cam_path, results, settings),
    )  # fmt: skip
