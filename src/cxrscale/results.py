"""The results of a study, read by name: every table that a stage declares, with the file it lies in.

    from cxrscale.results import Study
    Study.open("results/demo").table("auroc")

A table that each learner has comes as one frame whose rows say of which learner they are.
"""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from string import Formatter
from typing import Any

import pandas as pd

from cxrscale.combine import contracts as _combine
from cxrscale.common import accepted, atomic, notes, records, tables
from cxrscale.common.errors import StudyError, nearest
from cxrscale.common.places import BASE, LEARNER_FOLDER, LEARNER_KEY, STORES
from cxrscale.common.records import Record
from cxrscale.common.tables import Table
from cxrscale.data import contracts as _data
from cxrscale.evaluate import contracts as _evaluate
from cxrscale.explain import contracts as _explain
from cxrscale.store import contracts as _store
from cxrscale.train import contracts as _train

#: Every table between stages by its name, in the order of the stages.
TABLES: Mapping[str, Table] = {
    table.name: table
    for module in (notes, _data, _store, _train, _evaluate, _explain, _combine, accepted)
    for table in vars(module).values()
    if isinstance(table, Table)
}
#: Every record of a learner by its name.
RECORDS: Mapping[str, Record] = {r.name: r for r in vars(_train).values() if isinstance(r, Record)}

STUDY_RECORD = "study.json"


def declared(name: str) -> Table:
    """The table of this name. Raises StudyError that names those there are."""
    if name not in TABLES:
        raise StudyError(f"there is no table {name!r}{nearest(name, TABLES)}; expected one of {', '.join(TABLES)}.")
    return TABLES[name]


@dataclass(frozen=True)
class StudyRecord:
    """What must be known of a study to find its results, as `study.json` in its folder says.

    store: name of its store below results/stores. learners: (model, resolution_px, fold, seed) of each. folds: that are
    used. resolutions_px: ascending. base_px: the resolution of the store's base.
    """

    store: str
    learners: Sequence[Sequence[Any]]
    folds: Sequence[int]
    resolutions_px: Sequence[int]
    base_px: int

    def write(self, path: str | Path) -> None:
        atomic.write_json(path, asdict(self))


class Study:
    """A study's results. folder: results/<study>; record: what is in it."""

    def __init__(self, folder: str | Path, record: StudyRecord) -> None:
        self.folder, self.record = Path(folder), record
        self.store = self.folder.parent / STORES / record.store

    @classmethod
    def open(cls, folder: str | Path) -> "Study":
        """The study whose results lie in a folder. Raises StudyError if there is none."""
        path = Path(folder) / STUDY_RECORD
        try:
            return cls(folder, StudyRecord(**json.loads(path.read_text(encoding="utf-8"))))
        except (FileNotFoundError, NotADirectoryError, ValueError, TypeError) as error:
            raise StudyError(
                f"{path}: is no record of a study ({error}). Expected a folder that the workflow made, as "
                f"results/demo; `snakemake record_study` with the study's config writes it."
            ) from None

    @property
    def learners(self) -> pd.DataFrame:
        """model, resolution_px, fold and seed, a row a learner."""
        return pd.DataFrame([list(key) for key in self.record.learners], columns=list(LEARNER_KEY))

    def paths(self, name: str, **where: Any) -> list[tuple[dict[str, Any], Path]]:
        """The files of a table and what each is of, as columns say it: a learner, a fold, a resolution or nothing.

        where: only files of this model, resolution_px, fold or seed. A file need not be there.
        """
        return [
            (of, path) for pattern in declared(name).files for of, path in self._filled(pattern) if _fits(of, where)
        ]

    def files_of_learners(self, name: str) -> Iterator[tuple[tuple[Any, ...], Path]]:
        """(model, resolution_px, fold, seed) and the file of this name of every learner."""
        for of, path in self._filled(f"{LEARNER_FOLDER}/{name}"):
            yield tuple(of.values()), path

    def parts(
        self, name: str, columns: Sequence[str] | None = None, **where: Any
    ) -> list[tuple[dict[str, Any], pd.DataFrame]]:
        """`paths`, read. columns: only these. Raises StudyError for a file that is absent or breaks its declaration."""
        only = list(columns) if columns else None
        return [(of, tables.read(declared(name), path, only)) for of, path in self.paths(name, **where)]

    def table(self, name: str, columns: Sequence[str] | None = None, **where: Any) -> pd.DataFrame:
        """One frame of all files of a table; after its own columns stand those that say what a row is of.

        name: a key of TABLES. where: as `paths` takes it. Raises StudyError if the study has no such table.
        """
        parts = self.parts(name, columns, **where)
        if not parts:
            raise StudyError(f"{name}: {self.folder} has no such learner, fold or resolution as {where}.")
        frames = [frame.assign(**{k: v for k, v in of.items() if k not in frame}) for of, frame in parts]
        filled = [frame for frame in frames if len(frame)]
        return pd.concat(filled, ignore_index=True) if filled else frames[0]

    def records(self, name: str) -> list[dict[str, Any]]:
        """A record of every learner, in the order of `learners`. name: a key of RECORDS.

        Raises StudyError for one that is absent or breaks its declaration.
        """
        return [records.read(RECORDS[name], path) for _, path in self.files_of_learners(RECORDS[name].file_name)]

    def costs(self) -> pd.DataFrame:
        """What each training cost: model, resolution_px, fold, seed, and the fields of its cost.json."""
        return pd.concat([self.learners, pd.DataFrame(self.records("cost"))], axis=1)

    def _filled(self, pattern: str) -> Iterator[tuple[dict[str, Any], Path]]:
        """The files that a pattern stands for, and what each is of."""
        names = {field for _, field, _, _ in Formatter().parse(pattern) if field}
        folders = {"study": self.folder, "store": self.store}
        if "model" in names:
            for key in self.record.learners:
                of = dict(zip(LEARNER_KEY, key, strict=True))
                yield of, Path(pattern.format(**folders, **of, resolution=of["resolution_px"]))
            return
        folds = self.record.folds if "fold" in names else [None]
        sizes = self.record.resolutions_px if "folder" in names else [None]
        for fold, px in itertools.product(folds, sizes):
            of = {"fold": fold} if fold is not None else {}
            of |= {"resolution_px": px} if px is not None else {}
            yield of, Path(pattern.format(**folders, fold=fold, folder=BASE if px == self.record.base_px else px))


def _fits(of: Mapping[str, Any], where: Mapping[str, Any]) -> bool:
    return all(of.get(name) == value for name, value in where.items())
