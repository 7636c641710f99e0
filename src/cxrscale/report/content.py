"""What the parts of the report share: its inputs, tables and cells, and how values are written."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from cxrscale.data.findings import TARGETS
from cxrscale.evaluate.metrics import MEAN
from cxrscale.report.figures import ActivationMaps

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

    learners: one row a learner, KEY. levels, averages, differences, sufficient: of the comparison; weights, stacked,
    gains, control: of the stacking. metrics, history, fields: metrics.csv, history.csv and erf.csv of all learners,
    each row with KEY. costs: cost.json of each learner, in the order of `learners`. field_points, field_effect: of
    compare_fields. field_maps: (model, resolution_px) -> state -> map, averaged over folds and seeds. activation: one
    fold and seed. targets: fold -> targets. notes: of all stages, in the order in which they are shown. manifest: the
    base store's image_id, native size and bits. stores: summary.csv of each resolution, ascending. planted: of a
    synthetic data set, else None. boxes, localisation: None without boxes; localisation.csv of all learners, each row
    with KEY.
    """

    learners: pd.DataFrame
    levels: pd.DataFrame
    averages: pd.DataFrame
    differences: pd.DataFrame
    sufficient: pd.DataFrame
    weights: pd.DataFrame
    stacked: pd.DataFrame
    gains: pd.DataFrame
    control: pd.DataFrame
    metrics: pd.DataFrame
    history: pd.DataFrame
    fields: pd.DataFrame
    costs: Sequence[Mapping[str, Any]]
    field_points: pd.DataFrame
    field_effect: pd.DataFrame
    field_maps: Mapping[tuple[str, int], Mapping[str, np.ndarray]]
    activation: Sequence[ActivationMaps]
    targets: Mapping[int, pd.DataFrame]
    notes: pd.DataFrame
    quarantine: pd.DataFrame
    manifest: pd.DataFrame
    stores: pd.DataFrame
    planted: pd.DataFrame | None = None
    boxes: pd.DataFrame | None = None
    localisation: pd.DataFrame | None = None

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


def p_text(p: Any) -> str:
    """A p value as it is written: "p = 0.012", "p < 0.001"."""
    if missing(p):
        return "no p"
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def averaged_over(results: Results, intervals: bool = True) -> str:
    """ ", averaged over ...", or nothing where there is nothing to average. intervals: whether they are shown too."""
    n, n_folds, n_seeds = (len(results.learners[by].drop_duplicates()) for by in (["fold", "seed"], ["fold"], ["seed"]))
    if n == 1:
        return ""
    what = "seeds" if n_folds == 1 else "folds" if n_seeds == 1 else "folds and seeds"
    ends = " (the ends of the intervals too: on the wide side)" if intervals else ""
    return f", averaged over {n} {what}{ends}"


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


def cost_frame(results: Results) -> pd.DataFrame:
    """A row a learner: KEY and cost.json."""
    return pd.concat([results.learners.reset_index(drop=True), pd.DataFrame(list(results.costs))], axis=1)
