"""What the report is made of: the study's tables by their names, and settings."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from cxrscale.common import accepted
from cxrscale.common.accepted import ACCEPTED_CHANGES, Accepted
from cxrscale.common.places import LEARNER_KEY
from cxrscale.common.rows import MEAN, MEAN_LABEL
from cxrscale.data.boxes import read_boxes
from cxrscale.data.contracts import TARGETS
from cxrscale.data.spelling import Reading
from cxrscale.report.drawing import shrink
from cxrscale.report.settings import ReportSection
from cxrscale.results import TABLES, Study

KEY = list(LEARNER_KEY)
#: Of the index, whose rows are many, the columns that the report reads.
INDEX_COLUMNS = ("image_id", "native_height_px", "native_width_px", "native_px", "native_bits")


@dataclass(frozen=True, kw_only=True)
class ReportSettings(ReportSection):
    """What the page says about the study, beside the section report of its configuration.

    study: its name. reference_px, margin_auroc, confidence, joint_confidence: as the comparison used them. geometry: of
    the store, "stretch" or "pad". native_at_least_px: images of smaller native files were left out of the study; 0 if
    none were. settings: (name, value here, value of the default protocol).
    """

    study: str
    reference_px: int
    margin_auroc: float
    confidence: float
    joint_confidence: float
    geometry: str
    native_at_least_px: int
    settings: Sequence[Sequence[Any]]


@dataclass(frozen=True)
class ActivationMaps:
    """Maps of one learner. findings, image_ids: (image,); maps: float (image, rows, columns) on the feature map's own
    grid, signed where exact; pictures: uint8 (image, height_px, width_px)."""

    model: str
    resolution_px: int
    findings: Sequence[str]
    image_ids: Sequence[str]
    maps: np.ndarray
    pictures: np.ndarray


@dataclass(frozen=True)
class Results:
    """What the stages before wrote. `results["auroc"]` is the table of that name, of all learners together.

    learners: one row a learner, KEY. tables: those that declare themselves shown (`tables.Table`), by name; one that
    the study does not have is absent. targets: fold -> targets. costs: a row a learner, its KEY and what its cost.json
    holds. field_maps: (model, resolution_px) -> state -> map, averaged over folds and seeds. activation: one fold and
    seed. planted: of a synthetic data set, else None. boxes: None without boxes. accepted: changes of code that were
    accepted as changing no result.
    """

    learners: pd.DataFrame
    tables: Mapping[str, pd.DataFrame]
    targets: Mapping[int, pd.DataFrame]
    costs: pd.DataFrame
    field_maps: Mapping[tuple[str, int], Mapping[str, np.ndarray]]
    activation: Sequence[ActivationMaps]
    planted: pd.DataFrame | None = None
    boxes: pd.DataFrame | None = None
    accepted: Sequence[Accepted] = ()

    @classmethod
    def read(
        cls, study: Study, names: Iterable[str], planted: Path | None, boxes: Path | None, reading: Reading
    ) -> Self:
        """names: of the tables to read; planted, boxes: files of the data set, if it has them."""
        base: dict[str, Any] = {"columns": INDEX_COLUMNS, "resolution_px": study.record.base_px}
        tables = {n: study.table(n, **(base if n == "index" else {})) for n in names if n != TARGETS.name}
        return cls(
            learners=study.learners,
            tables=tables | {"notes": tables["notes"].drop(columns="fold", errors="ignore").drop_duplicates()},
            targets={of["fold"]: frame for of, frame in study.parts(TARGETS.name)},
            costs=study.costs(),
            field_maps=_field_maps(study),
            activation=_activation(study),
            planted=pd.read_csv(planted, dtype={"finding": str}) if planted else None,
            boxes=read_boxes(boxes, reading) if boxes else None,
            accepted=accepted.read(path for _, path in study.paths(ACCEPTED_CHANGES.name)),
        )

    def __getitem__(self, name: str) -> pd.DataFrame:
        return self.tables[name]

    def __contains__(self, name: str) -> bool:
        return name in self.tables

    def having(self, **changes: Any) -> Self:
        """The same with other tables, by their names, or other fields."""
        own = {f.name for f in fields(self)}
        tables = {name: value for name, value in changes.items() if name not in own}
        assert tables.keys() <= TABLES.keys()
        return replace(self, tables={**self.tables, **tables}, **{k: v for k, v in changes.items() if k in own})

    @property
    def models(self) -> list[str]:
        return list(dict.fromkeys(self.learners["model"]))

    @property
    def findings(self) -> list[str]:
        return TARGETS.findings(next(iter(self.targets.values())).columns)

    def resolutions(self, model: str) -> list[int]:
        return sorted(int(r) for r in set(self.learners.loc[self.learners["model"] == model, "resolution_px"]))


def _field_maps(study: Study) -> dict[tuple[str, int], dict[str, np.ndarray]]:
    """Maps are as large as the input: one at a time, averaged, brought to a size that can be drawn."""
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for (model, resolution_px, _, _), path in study.files_of_learners("erf.npz"):
        states = found.setdefault((model, resolution_px), {})
        with np.load(path) as maps:
            for state in maps.files:
                map_ = shrink(maps[state])
                states[state] = states.get(state, 0) + map_ / map_.sum()
    return found


def _activation(study: Study) -> list[ActivationMaps]:
    """Of the first learner's fold and seed."""
    found = []
    first = tuple(study.record.learners[0])[2:]
    for (model, resolution_px, fold, seed), path in study.files_of_learners("cam.npz"):
        if (fold, seed) == first:
            with np.load(path) as cam:
                pictures = np.array([shrink(picture) for picture in cam["pictures"]])
                findings, image_ids = cam["finding"].tolist(), cam["image_id"].tolist()
                found.append(ActivationMaps(model, resolution_px, findings, image_ids, cam["maps"], pictures))
    return found


def averaged_over(results: Results, intervals: bool = True) -> str:
    """ ", averaged over ...", or nothing where there is nothing to average. intervals: whether they are shown too."""
    n, n_folds, n_seeds = (len(results.learners[by].drop_duplicates()) for by in (["fold", "seed"], ["fold"], ["seed"]))
    if n == 1:
        return ""
    what = "seeds" if n_folds == 1 else "folds" if n_seeds == 1 else "folds and seeds"
    ends = " (the ends of the intervals too: on the wide side)" if intervals else ""
    return f", averaged over {n} {what}{ends}"


def values_averaged(results: Results) -> str:
    """The same as a sentence, for the end of a caption."""
    averaged = averaged_over(results, intervals=False)
    return f" Values are{averaged.removeprefix(',')}." if averaged else ""


def shown_findings(results: Results, settings: ReportSettings) -> dict[str, str]:
    """finding -> what it is called, in order; the mean last, where there is more than one finding to average."""
    chosen = list(settings.findings or results.findings)
    labels = {f: f for f in results.findings if f in chosen}
    return labels | ({MEAN: MEAN_LABEL} if len(results.findings) > 1 else {})


def single_findings(results: Results, settings: ReportSettings) -> list[str]:
    """Those of `shown_findings` without the mean."""
    return [f for f in shown_findings(results, settings) if f != MEAN]


def overall_finding(results: Results) -> tuple[str, str]:
    """The finding that stands for all, and its name: the mean, or the only one."""
    return (MEAN, MEAN_LABEL.lower()) if len(results.findings) > 1 else (results.findings[0], results.findings[0])
