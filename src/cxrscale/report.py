"""The report: one page that leads with the answer, a summary for the terminal, and a local page with pictures.

What the page says is decided here, from frames and plain settings; how it looks, in templates/. Neither Snakemake nor
the study's configuration is known here.
"""

import base64
import math
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure

from cxrscale import figures
from cxrscale.evaluation.metrics import MEAN
from cxrscale.figures import ActivationMaps
from cxrscale.findings import TARGETS
from cxrscale.splits import SPLITS, combine_split
from cxrscale.stacking import ALL

TEMPLATES = Path(__file__).parent / "templates"
DASH = "–"
MEAN_LABEL = "Mean of all findings"
KEY = ["model", "resolution_px", "fold", "seed"]


@dataclass(frozen=True)
class ReportSettings:
    """What the page says about the study.

    title, study: texts. findings: those shown, or None for all of the study. patient_pictures: whether the page itself
    may hold pictures and ids. reference_px, margin_auroc, confidence, joint_confidence: as the comparison used them.
    geometry: of the store, "stretch" or "pad". native_at_least_px: images of smaller native files were left out of
    the study; 0 if none were. settings: (name, value here, value of the default protocol).
    """

    title: str
    study: str
    findings: Sequence[str] | None
    patient_pictures: bool
    reference_px: int
    margin_auroc: float
    confidence: float
    joint_confidence: float
    geometry: str
    native_at_least_px: int
    settings: Sequence[Sequence[Any]]


@dataclass(frozen=True)
class Results:
    """What the stages before wrote.

    learners: one row a learner, KEY. levels, differences, sufficient: of the comparison; weights, stacked: of the
    stacking. metrics, history, fields: metrics.csv, history.csv and erf.csv of all learners, each row with KEY.
    costs: cost.json of each learner, in the order of `learners`. field_maps: (model, resolution_px) -> state -> map,
    averaged over folds and seeds. activation: one fold and seed. targets: fold -> targets. manifest: the base store's
    image_id and native size. stores: summary.csv of each resolution, ascending. planted, boxes: of a synthetic data
    set, else None.
    """

    learners: pd.DataFrame
    levels: pd.DataFrame
    differences: pd.DataFrame
    sufficient: pd.DataFrame
    weights: pd.DataFrame
    stacked: pd.DataFrame
    metrics: pd.DataFrame
    history: pd.DataFrame
    fields: pd.DataFrame
    costs: Sequence[Mapping[str, Any]]
    field_maps: Mapping[tuple[str, int], Mapping[str, np.ndarray]]
    activation: Sequence[ActivationMaps]
    targets: Mapping[int, pd.DataFrame]
    quarantine: pd.DataFrame
    manifest: pd.DataFrame
    stores: pd.DataFrame
    planted: pd.DataFrame | None = None
    boxes: pd.DataFrame | None = None

    @property
    def models(self) -> list[str]:
        return list(dict.fromkeys(self.learners["model"]))

    @property
    def findings(self) -> list[str]:
        return TARGETS.findings(next(iter(self.targets.values())).columns)

    def resolutions(self, model: str) -> list[int]:
        return sorted(int(r) for r in set(self.learners.loc[self.learners["model"] == model, "resolution_px"]))


@dataclass(frozen=True)
class Cell:
    """A value in a table with a smaller note below it."""

    text: str
    note: str = ""


@dataclass(frozen=True)
class Table:
    """A table of the page; cells that are text become Cells. marked: numbers of the rows that stand out."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[Cell | str]]
    marked: frozenset[int] = frozenset()

    @property
    def cells(self) -> list[list[Cell]]:
        return [[c if isinstance(c, Cell) else Cell(str(c)) for c in row] for row in self.rows]


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


def missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value)) or value is pd.NA


def text_or(value: Any, otherwise: str) -> str:
    return otherwise if missing(value) else str(value)


def number(value: Any, digits: int = 3, signed: bool = False) -> str:
    """A number with fixed decimals and a true minus; a dash for a missing one."""
    if missing(value):
        return DASH
    shown = f"{float(value):{'+' if signed else ''},.{digits}f}"
    return shown.replace("-", "\N{MINUS SIGN}")


def measure(row: Mapping[str, Any], value: str, lower: str, upper: str, signed: bool = False) -> Cell:
    """A value with its interval below; a dash with the reason where it is empty."""
    reason = text_or(row.get("reason"), "no reason recorded")
    if missing(row[value]):
        return Cell(DASH, reason)
    if missing(row[lower]) or missing(row[upper]):
        return Cell(number(row[value], signed=signed), f"no interval: {reason}")
    interval = f"{number(row[lower], signed=signed)} to {number(row[upper], signed=signed)}"
    return Cell(number(row[value], signed=signed), interval)


def join(parts: Iterable[Any]) -> str:
    """'a, b and c'."""
    words = [str(p) for p in parts]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else ""


def joined_reasons(reasons: pd.Series) -> str | None:
    return "; ".join(dict.fromkeys(reasons.dropna().astype(str))) or None


def average(frame: pd.DataFrame, by: Sequence[str], values: Sequence[str]) -> pd.DataFrame:
    """Means over folds and seeds, of the rows whose first value is defined.

    An interval's ends are averaged too, which is its width if the folds' errors moved together: on the wide side.
    They are empty if one of the averaged rows lacks them. Returns by, values, n (rows averaged), reason.
    """
    rows = []
    for key, group in frame.groupby(list(by), sort=False, dropna=False):
        defined = group[group[values[0]].notna()]
        row = dict(zip(by, key if isinstance(key, tuple) else (key,), strict=True))
        row |= {v: defined[v].mean(skipna=False) if len(defined) else math.nan for v in values}
        rows.append(row | {"n": len(defined), "reason": joined_reasons(group["reason"])})
    return pd.DataFrame(rows, columns=[*by, *values, "n", "reason"])


def shown_findings(results: Results, settings: ReportSettings) -> dict[str, str]:
    """finding -> what it is called, in order; the mean last, where there is more than one finding to average."""
    chosen = list(settings.findings or results.findings)
    labels = {f: f for f in results.findings if f in chosen}
    return labels | ({MEAN: MEAN_LABEL} if len(results.findings) > 1 else {})


def lookup(frame: pd.DataFrame, **where: Any) -> dict[str, Any] | None:
    """The first row with these values, or None."""
    chosen = np.ones(len(frame), dtype=bool)
    for name, value in where.items():
        chosen &= (frame[name] == value).to_numpy(dtype=bool)
    found = frame[chosen]
    return {str(k): v for k, v in found.iloc[0].to_dict().items()} if len(found) else None


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


def stacking_table(results: Results, settings: ReportSettings) -> Table:
    values = ["auroc", "lower", "upper", "gain", "gain_lower", "gain_upper"]
    averaged = average(results.stacked, ["ensemble", "finding", "method"], values)
    labels = [f for f in shown_findings(results, settings) if f != MEAN]
    rows: list[list[Cell | str]] = []
    for ensemble in dict.fromkeys(averaged["ensemble"]):
        for finding in labels:
            row: list[Cell | str] = [str(ensemble), finding]
            for method in ("best_single", "mean", "softmax"):
                found = lookup(averaged, ensemble=ensemble, finding=finding, method=method)
                if found is None:
                    row += [Cell(DASH, "not combined")] * (1 if method == "best_single" else 2)
                    continue
                level = measure(found, "auroc", "lower", "upper")
                if method == "best_single":
                    stacked = results.stacked
                    which = stacked[(stacked["ensemble"] == ensemble) & (stacked["finding"] == finding)]
                    names = ", ".join(dict.fromkeys(which["learner"].dropna().astype(str)))
                    row.append(Cell(level.text, f"{level.note}; {names} px" if names else level.note))
                else:
                    row += [level, measure(found, "gain", "gain_lower", "gain_upper", signed=True)]
            rows.append(row)
    head = [
        "Ensemble", "Finding", "Best single (chosen on validation)", "Equal weights (mean)", "Gain of mean over single",
        "Fitted weights (softmax)", "Gain of fitted over single",
    ]  # fmt: skip
    caption = (
        f"Test AUROC of ensembles with {settings.confidence:.0%} intervals, within a fold and seed{_averaged(results)}."
    )
    return Table(caption, head, rows)


def gains_sentence(results: Results, settings: ReportSettings) -> str:
    """For how many findings fitted weights beat the best single learner."""
    labels = [f for f in shown_findings(results, settings) if f != MEAN]
    averaged = average(
        results.stacked[results.stacked["method"] == "softmax"],
        ["ensemble", "finding"], ["gain", "gain_lower", "gain_upper"],
    )  # fmt: skip
    parts = []
    for ensemble, rows in averaged[averaged["finding"].isin(labels)].groupby("ensemble", sort=False):
        above, below = int((rows["gain_lower"] > 0).sum()), int((rows["gain_upper"] < 0).sum())
        members = results.weights[results.weights["ensemble"] == ensemble]
        k = len(members[["model", "resolution_px"]].drop_duplicates())
        name = f"all {k} learners" if ensemble == ALL else f"the {k} resolutions of {ensemble}"
        parts.append(f"{above} of {len(rows)} with {name}" + (f" (worse for {below})" if below else ""))
    return (
        f"Findings for which combining by fitted weights is shown to beat the best single learner: {join(parts)}. "
        "Any ensemble tends to beat one learner."
    )


def _averaged(results: Results, intervals: bool = True) -> str:
    """ ", averaged over ...", or nothing where there is nothing to average. intervals: whether they are shown too."""
    n = len(results.learners[["fold", "seed"]].drop_duplicates())
    if n == 1:
        return ""
    ends = " (the ends of the intervals too: on the wide side)" if intervals else ""
    return f", averaged over {n} folds and seeds{ends}"


def cost_frame(results: Results) -> pd.DataFrame:
    """A row a learner: KEY and cost.json."""
    return pd.concat([results.learners.reset_index(drop=True), pd.DataFrame(list(results.costs))], axis=1)


def cost_table(results: Results) -> Table:
    rows: list[list[Cell | str]] = []
    for (model, resolution), group in cost_frame(results).groupby(["model", "resolution_px"], sort=False):
        late = group[~group["converged"].astype(bool)]
        rows.append(
            [
                str(model), f"{resolution} px", number(group["seconds"].mean(), 1),
                number(group["images_per_second"].mean(), 1), number(group["peak_memory_mb"].mean(), 0),
                ", ".join(dict.fromkeys(group["device"].astype(str))),
                Cell(
                    f"{', '.join(map(str, group['best_epoch']))} of {', '.join(map(str, group['epochs'].unique()))}",
                    "not converged" if len(late) == len(group) else f"not converged: {len(late)}" if len(late) else "",
                ),
            ]
        )  # fmt: skip
    head = [
        "Model", "Resolution", "Training [s]", "Throughput [images/s]", "Peak memory [MiB]", "Device", "Best epoch",
    ]  # fmt: skip
    caption = (
        f"Cost of training one learner{_averaged(results, intervals=False)}. Peak memory is that of the GPU, or on a "
        "CPU that of the process. Times compare only between learners that ran on the same device."
    )
    return Table(caption, head, rows)


def precision_table(results: Results, settings: ReportSettings) -> Table:
    """Average precision and counts on test."""
    chosen = results.metrics.query("metric == 'average_precision' and split == 'test' and group == 'all'")
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
        f"Average precision on test with {settings.confidence:.0%} intervals{_averaged(results)}. "
        "Chance is the finding's prevalence."
    )
    return Table(caption, ["Model", "Finding", *(f"{r} px" for r in resolutions)], rows)


def fields_frame(results: Results) -> pd.DataFrame:
    """Sizes averaged over folds and seeds, a row a (model, resolution_px, state); centroids as fractions."""
    fields = results.fields.copy()
    width = fields["sigma_px"] / fields["sigma_fraction"]
    for axis in "xy":
        fields[f"centroid_{axis}_fraction"] = fields[f"centroid_{axis}_px"] / width
    names = [c for c in fields.columns if c.endswith(("_px", "_fraction")) and c != "resolution_px"]
    return fields.groupby(["model", "resolution_px", "state"], sort=False)[names].mean().reset_index()


def fields_table(results: Results) -> Table:
    sizes = fields_frame(results)
    rows: list[list[Cell | str]] = []
    for model in results.models:
        for resolution in results.resolutions(model):
            row: list[Cell | str] = [model, f"{resolution} px"]
            for state in ("initial", "trained"):
                found = lookup(sizes, model=model, resolution_px=resolution, state=state)
                for size in ("sigma", "radius50"):
                    fraction, px = (found[f"{size}_{u}"] if found else None for u in ("fraction", "px"))
                    row.append(Cell(number(fraction), f"{number(px, 1)} px"))
            rows.append(row)
    head = [
        "Model", "Resolution", "σ before training", "Half-energy radius before", "σ trained",
        "Half-energy radius trained",
    ]  # fmt: skip
    images = ", ".join(str(n) for n in dict.fromkeys(results.fields["n_images"]))
    caption = (
        f"Effective receptive fields as fractions of the width, over {images} validation images a learner"
        f"{_averaged(results, intervals=False)}."
    )
    return Table(caption, head, rows)


def images_of(results: Results, settings: ReportSettings) -> set[str]:
    """The images of the store that the study uses."""
    return set(results.manifest.loc[results.manifest["native_px"] >= settings.native_at_least_px, "image_id"])


def images_table(results: Results, settings: ReportSettings) -> Table:
    """Images and patients of each split, as they are in the store."""
    stored = images_of(results, settings)
    rows: list[list[Cell | str]] = []
    for fold, targets in results.targets.items():
        row: list[Cell | str] = [str(fold)]
        present = targets[targets["image_id"].isin(stored)]
        for split in SPLITS:
            part = present[present["split"] == split]
            note = f"{part['subject_id'].nunique():,} patients"
            if split == "combine" and part.empty:
                note = "validate serves as combine"
            row.append(Cell(f"{len(part):,} images", note))
        row.append(f"{len(targets) - len(present):,}")
        rows.append(row)
    return Table("Images and patients of each split.", ["Fold", *SPLITS, "Left out"], rows)


def store_table(results: Results) -> Table:
    """What the store holds at each resolution and what it lost on the way."""
    rows: list[list[Cell | str]] = []
    for row in results.stores.to_dict("records"):
        share = f"{row['enlarged'] / row['images']:.1%} of the images" if row["images"] else ""
        loss = [
            DASH if missing(row[way]) else Cell(f"{row[way]:.1f} dB", f"least {row[f'{way}_least']:.1f}")
            for way in ("jpeg_db", "direct_db")
        ]
        rows.append(
            [
                f"{row['resolution_px']} px",
                Cell(f"{row['images']:,}", f"{row['sampled']} of them measured"),
                f"{row['bytes'] / 1e9:,.3f} GB",
                Cell(f"{row['enlarged']:,}", share),
                *loss,
            ]
        )
    head = ["Resolution", "Images", "Size", "Enlarged", "PSNR: JPEG alone", "PSNR: against one step from native"]
    caption = (
        "The image store. Enlarged: the native file is smaller than the resolution. PSNR is measured on a sample "
        "against lossless ways from the native file."
    )
    return Table(caption, head, rows)


def findings_table(results: Results, settings: ReportSettings) -> Table:
    """Positives and negatives of each finding in each split."""
    stored = images_of(results, settings)
    rows: list[list[Cell | str]] = []
    for fold, targets in results.targets.items():
        present = targets[targets["image_id"].isin(stored)]
        for finding in [f for f in shown_findings(results, settings) if f != MEAN]:
            row: list[Cell | str] = [str(fold), finding]
            for split in SPLITS:
                part = present[present["split"] == split]
                counted = part[f"mask:{finding}"] == 1
                positive = int((counted & (part[f"target:{finding}"] == 1)).sum())
                ignored = int((~counted).sum())
                note = f"{ignored:,} ignored" if ignored else ""
                row.append(Cell(f"{positive:,} / {int(counted.sum()) - positive:,}", note))
            rows.append(row)
    return Table("Images with / without each finding, by split.", ["Fold", "Finding", *SPLITS], rows)


def protocol_table(settings: ReportSettings) -> Table:
    rows: list[list[Cell | str]] = [
        [str(name), _shown(value), "as here" if value == default else _shown(default)]
        for name, value, default in settings.settings
    ]
    marked = frozenset(i for i, (_, value, default) in enumerate(settings.settings) if value != default)
    return Table(
        f"The study's settings. {len(marked)} of {len(rows)} deviate from the default protocol; these are marked.",
        ["Setting", "This study", "Default protocol"], rows, marked,
    )  # fmt: skip


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{k}: {_shown(v)}" for k, v in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(_shown, value)) or "none"
    return str(value)


def planted_table(results: Results, levels: pd.DataFrame, settings: ReportSettings) -> Table:
    """What was drawn against what was found."""
    assert results.planted is not None
    rows: list[list[Cell | str]] = []
    labels = shown_findings(results, settings)
    for _, planted in results.planted.iterrows():
        finding, pattern, wavelength = str(planted["finding"]), str(planted["pattern"]), float(planted["wavelength"])
        if finding not in labels:
            continue
        striped = pattern in ("grating", "line")
        for model in results.models:
            resolutions = results.resolutions(model)
            needed = 2 / wavelength if striped else None
            gain = lookup(
                results.differences,
                model=model, finding=finding, resolution_px=settings.reference_px, against_px=resolutions[0],
            )  # fmt: skip
            expected = expected_gain(pattern, needed, resolutions[0], settings.reference_px)
            row: list[Cell | str] = [finding, model, pattern]
            row += [number(wavelength) if striped else DASH, f"{needed:.0f}" if needed else DASH, expected]
            row.append(gain_cell(results, settings, model, finding))
            if pattern == "none":
                row.append(_chance(results, model, finding, settings))
            else:
                low = lookup(levels, model=model, finding=finding, resolution_px=resolutions[0])
                seen = low is not None and not missing(low["lower"]) and low["lower"] > 0.5
                row.append(agreement(expected, gain, settings.margin_auroc, seen))
            rows.append(row)
    head = [
        "Finding", "Model", "Pattern", "Wavelength [of the width]", "Pixels needed", "Expected of resolution",
        "AUROC at reference minus at lowest", "Found",
    ]  # fmt: skip
    caption = (
        "What was drawn and what was found. Stripes of wavelength w need more than 2 / w pixels across the picture; "
        "real filters and networks need some more. Coarse patterns are visible at every resolution."
    )
    return Table(caption, head, rows)


def expected_gain(pattern: str, needed: float | None, lowest: int, reference: int) -> str:
    """What sampling theory says about the gain from the lowest resolution to the reference."""
    if pattern == "none":
        return "no signal: AUROC 0.5"
    if needed is None or needed < lowest:
        return "no gain"
    return "a gain" if needed < reference else "visible at neither"


def agreement(expected: str, gain: Mapping[str, Any] | None, margin: float, seen: bool) -> Cell:
    """Whether the difference from the lowest resolution to the reference agrees with what was expected.

    seen: whether the AUROC at the lowest resolution is shown to be above 0.5; where nothing was learned, "no gain" is
    no agreement.
    """
    if gain is None or missing(gain["lower"]):
        return Cell(DASH, text_or(gain and gain["reason"], "no difference was computed"))
    if expected == "a gain":
        return Cell("as planted" if gain["lower"] > 0 else "not as planted" if gain["upper"] < 0 else "undecided")
    if gain["lower"] > margin:
        return Cell("not as planted")
    if expected == "no gain" and not seen:
        return Cell("undecided", "AUROC at the lowest resolution is not shown to be above 0.5")
    return Cell("as planted" if gain["upper"] < margin else "undecided")


def _chance(results: Results, model: str, finding: str, settings: ReportSettings) -> Cell:
    """Whether all joint intervals of a finding without signal hold 0.5."""
    rows = results.levels[(results.levels["model"] == model) & (results.levels["finding"] == finding)]
    rows = rows[rows["joint_lower"].notna()]
    if rows.empty:
        return Cell(DASH, "no joint interval is defined")
    outside = rows[(rows["joint_lower"] > 0.5) | (rows["joint_upper"] < 0.5)]
    name = f"joint {settings.joint_confidence:.0%} intervals"
    if outside.empty:
        return Cell("as planted", f"all {len(rows)} {name} hold 0.5")
    return Cell("not as planted", f"{len(outside)} of {len(rows)} {name} leave out 0.5")


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


def installed_version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "run from its checkout, not installed"


def provenance_tables(results: Results) -> list[Table]:
    rows: list[list[Cell | str]] = []
    made_with = []
    for learner, cost in zip(results.learners.itertuples(), results.costs, strict=True):
        identity = cost.get("identity", {})
        where = f"fold {learner.fold}, seed {learner.seed}"
        rows.append(
            [str(learner.model), f"{learner.resolution_px} px", where, str(identity.get("inputs", "not recorded"))]
        )
        made_with.append(_shown(cost.get("versions", {})))
    packages = ("cxrscale", "numpy", "pandas", "matplotlib", "jinja2")
    here = ", ".join(
        [f"python: {platform.python_version()}", *(f"{name}: {installed_version(name)}" for name in packages)]
    )
    versions: list[list[Cell | str]] = [["learners", v] for v in dict.fromkeys(made_with)]
    return [
        Table("Versions.", ["Made by", "With"], [*versions, ["this report", here]]),
        Table(
            "Learners. The digest names code, targets, images and initial weights together: equal digests, equal "
            "inputs.",
            ["Model", "Resolution", "Learner", "Digest of code and data"],
            rows,
        ),
    ]


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


def draw_activation(results: Results, settings: ReportSettings) -> Figure:
    """The figure that holds pictures of patients."""
    boxes = {}
    if results.boxes is not None:
        wanted = {i for learner in results.activation for i in learner.image_ids}
        drawn = results.boxes[results.boxes["image_id"].isin(wanted)].merge(results.manifest, on="image_id")
        for row in drawn.to_dict("records"):
            box = [float(row[side]) for side in ("x_min", "y_min", "x_max", "y_max")]
            native = int(row["native_height_px"]), int(row["native_width_px"])
            boxes[str(row["image_id"]), str(row["finding"])] = figures.box_fractions(box, *native, settings.geometry)
    return figures.activation_maps(results.activation, boxes)


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
    averaged = _averaged(results)
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


def activation_table(results: Results) -> Table:
    """Ids of the pictures in the figure of maps."""
    first = results.activation[0] if results.activation else None
    pairs = zip(first.findings, first.image_ids, strict=True) if first else []
    return Table("Images in the order of the rows.", ["Finding", "image_id"], [[str(f), str(i)] for f, i in pairs])


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
