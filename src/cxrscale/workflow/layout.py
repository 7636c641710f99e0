"""Where the results of a study lie, for the rules: patterns with wildcards, and the files of all learners."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxrscale.common.accepted import ACCEPTED_CHANGES
from cxrscale.common.errors import StudyError
from cxrscale.common.places import BASE, LEARNER_FOLDER, LEARNER_WEIGHTS, RESULTS, STORES, WEIGHTS_FOLDER
from cxrscale.common.provenance import digest
from cxrscale.results import STUDY_RECORD, TABLES, Study, StudyRecord, declared

if TYPE_CHECKING:
    from cxrscale.workflow.config import StudyConfig


class Layout:
    """Paths of one study. Methods that take wildcards return patterns with the names given, as {shard}."""

    def __init__(self, study: "StudyConfig") -> None:
        self.study = study
        self.folder = f"{RESULTS}/{study.study}"
        self.store = f"{RESULTS}/{STORES}/{study.store_name()}"
        self.base = f"{self.store}/{BASE}"
        self.logs = f"{self.folder}/logs"
        self.weights_folder = WEIGHTS_FOLDER
        self.shards = [f"{i:05d}" for i in range(study.store.shards)]
        #: model, resolution_px, fold and seed of all learners, in the order of the config.
        self.learners = [
            [model.name, resolution, fold, seed]
            for model in study.models
            for resolution in sorted(study.resolutions_px)
            for fold in study.split.use_folds
            for seed in study.seeds
        ]
        self.record = StudyRecord(
            store=study.store_name(),
            learners=self.learners,
            folds=study.split.use_folds,
            resolutions_px=sorted(study.resolutions_px),
            base_px=study.store.base_resolution_px,
        )
        self.record_file = f"{self.folder}/{STUDY_RECORD}"

    def table(self, name: str, **where: Any) -> str:
        """The file of a table; wildcards stay for what is not given of model, resolution, fold, seed and folder."""
        wildcards = {name: f"{{{name}}}" for name in ("model", "resolution", "fold", "seed", "folder")}
        (pattern,) = declared(name).files
        return pattern.format(**wildcards | where, study=self.folder, store=self.store)

    def tables(self, name: str, **where: Any) -> list[str]:
        """All files of a table that this study has. where: only of this model, resolution_px, fold or seed."""
        return [str(path) for _, path in Study(self.folder, self.record).paths(name, **where)]

    def shown(self, without: Iterable[str] = ()) -> dict[str, list[str]]:
        """The files of every table that the report reads, by name, but for those left out."""
        return {name: self.tables(name) for name, table in TABLES.items() if table.shown and name not in without}

    def learner(self, name: str) -> str:
        """A file of a learner, with wildcards."""
        return f"{LEARNER_FOLDER.replace('{study}', self.folder)}/{name}"

    def of_learners(self, name: str) -> list[str]:
        """A file of every learner."""
        return [str(path) for _, path in Study(self.folder, self.record).files_of_learners(name)]

    @property
    def trained(self) -> dict[str, str]:
        """What whoever uses a learner takes in; it is told of it by its record, never by the config."""
        return {"weights": self.learner(LEARNER_WEIGHTS), "learner": self.learner("learner.json")}

    @property
    def accepted_changes(self) -> list[str]:
        """Where accepted changes of code are listed: of the store, of the study."""
        return [pattern.format(study=self.folder, store=self.store) for pattern in ACCEPTED_CHANGES.files]

    def log(self, rule: str) -> str:
        """The log of a rule's job for one learner."""
        return f"{self.logs}/{rule}/{{model}}-{{resolution}}px-fold{{fold}}-seed{{seed}}.log"

    @property
    def drawn_targets(self) -> str:
        """The targets of a fold as the csv files alone give them; `targets` are theirs once the pictures are known."""
        return f"{self.folder}/targets/drawn/fold{{fold}}.parquet"

    def notes(self, of: str) -> str:
        """What a stage noted for the report (`notes.NOTED`)."""
        return f"{self.folder}/notes/{of}.csv"

    def resolution_folder(self, resolution: Any) -> str:
        """Folder of a resolution's shards; the base resolution is the base, not a copy."""
        base = str(resolution) == str(self.study.store.base_resolution_px)
        return f"{self.store}/{'base' if base else resolution}"

    def resolution_of(self, folder: str) -> int:
        """The resolution whose shards lie in the folder of this name, the base's or a smaller one's."""
        return self.study.store.base_resolution_px if folder == "base" else int(folder)

    def index(self, resolution: Any) -> str:
        return f"{self.resolution_folder(resolution)}/index.parquet"

    def weights(self, model: str) -> str | None:
        """The checked copy of a model's initial weights; None where it starts from random ones."""
        found = next(m for m in self.study.models if m.name == model)
        if found.weights is None:
            return None
        name = getattr(found.weights, "timm_tag", None) or f"local-{file_label(found.weights.file)}"  # type: ignore[union-attr]
        return f"{WEIGHTS_FOLDER}/{model}.{name}.safetensors"

    def check_weights_files(self) -> None:
        """Raise StudyError if a file of initial weights that the config names does not exist.

        It may be gone if its copy was made and is, by the SHA-256 recorded then, what the config's sha256 names. The
        copy's name alone does not tell: a file of the same name in another folder has the same.
        """
        for model in self.study.models:
            file: str | None = getattr(model.weights, "file", None)
            if model.weights is None or file is None or Path(file).is_file():
                continue
            copy = Path(str(self.weights(model.name)))
            record = copy.with_name(f"{copy.name}.sha256")
            recorded = record.read_text(encoding="utf-8").split() if copy.is_file() and record.is_file() else []
            if recorded and recorded[0] == model.weights.sha256:
                continue
            instead = f"; or, if {copy} shall stand for it, give sha256: {recorded[0]}" if recorded else ""
            raise StudyError(
                f"models: {model.name}.weights.file is {file}, and there is no such file. Expected a .safetensors, "
                f".pth or .bin file, absolute or relative to {Path.cwd()} (~ and variables are not replaced). Bring it "
                f"there, or correct the path{instead}."
            )


def file_label(path: str) -> str:
    """The name of a file without its suffix, of letters, digits and _.- alone, for the name of a result.

    Where something had to be replaced, a digest of the path as it was given keeps two files apart.
    """
    stem = Path(path).stem
    label = re.sub(r"[^A-Za-z0-9_.-]+", "_", stem)[:100]
    return label if label == stem else f"{label}-{digest(path)[:8]}"
