"""Where each result lies. Paths are relative to the working directory, so that a moved project stays up to date."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxrscale.common.errors import StudyError
from cxrscale.common.provenance import digest

if TYPE_CHECKING:
    from cxrscale.workflow.config import StudyConfig

RESULTS = "results"
STORES, WEIGHTS, DATA = "stores", "weights", "data"
#: Directly below RESULTS beside the studies' own folders: image stores, initial weights, and data sets that are made
#: here (by convention: config/demo.yaml). No study may have such a name.
SHARED_FOLDERS = (STORES, WEIGHTS, DATA)
WEIGHTS_FOLDER = f"{RESULTS}/{WEIGHTS}"


@dataclass(frozen=True)
class Learner:
    """One trained (model, resolution, fold, seed)."""

    model: str
    resolution_px: int
    fold: int
    seed: int


class Layout:
    """Paths of one study. Methods that take wildcards return patterns with the names given, as {shard}."""

    def __init__(self, study: "StudyConfig") -> None:
        self.study = study
        self.folder = f"{RESULTS}/{study.study}"
        self.store = f"{RESULTS}/{STORES}/{study.store_name()}"
        self.images = f"{self.store}/images.parquet"
        self.fingerprint = f"{self.store}/fingerprint.csv"
        self.shared = f"{self.store}/base/shared.csv"
        self.labels = f"{self.folder}/labels.parquet"
        self.shards = [f"{i:05d}" for i in range(study.store.shards)]

    def learners(self) -> list[Learner]:
        """All learners of the study, in the order of the config."""
        return [
            Learner(model.name, resolution, fold, seed)
            for model in self.study.models
            for resolution in sorted(self.study.resolutions_px)
            for fold in self.study.split.use_folds
            for seed in self.study.seeds
        ]

    def learner(
        self,
        model: Any = "{model}",
        resolution: Any = "{resolution}",
        fold: Any = "{fold}",
        seed: Any = "{seed}",
    ) -> str:
        """Folder of a learner, or its pattern."""
        return f"{self.folder}/learners/{model}/{resolution}px/fold{fold}-seed{seed}"

    def of_learners(self, name: str) -> list[str]:
        """A file of every learner."""
        return [f"{self.learner(x.model, x.resolution_px, x.fold, x.seed)}/{name}" for x in self.learners()]

    def drawn_targets(self, fold: Any = "{fold}") -> str:
        """The targets as the csv files alone give them; `targets` are theirs once the pictures are known."""
        return f"{self.folder}/targets/drawn/fold{fold}.parquet"

    def targets(self, fold: Any = "{fold}") -> str:
        return f"{self.folder}/targets/fold{fold}.parquet"

    def notes(self, of: str) -> str:
        """What a stage noted for the report (`notes.NOTES`)."""
        return f"{self.folder}/notes/{of}.csv"

    def all_notes(self) -> list[str]:
        """The notes of every stage, in the order in which the report shows them."""
        of_folds = [
            self.notes(f"{of}-fold{fold}") for fold in self.study.split.use_folds for of in ("targets", "together")
        ]
        return [f"{self.store}/notes.csv", *map(self.notes, ("labels", "inputs")), *of_folds, self.notes("pictures")]

    def resolution_folder(self, resolution: Any) -> str:
        """Folder of a resolution's shards; the base resolution is the base, not a copy."""
        base = str(resolution) == str(self.study.store.base_resolution_px)
        return f"{self.store}/{'base' if base else resolution}"

    def resolution_of(self, folder: str) -> int:
        """The resolution whose shards lie in the folder of this name, the base's or a smaller one's."""
        return self.study.store.base_resolution_px if folder == "base" else int(folder)

    def manifest(self, resolution: Any) -> str:
        return f"{self.resolution_folder(resolution)}/manifest.parquet"

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

    def source_path(self, name: str) -> str:
        """A file of the data set."""
        return str(Path(self.study.dataset.root) / name)


def file_label(path: str) -> str:
    """The name of a file without its suffix, of letters, digits and _.- alone, for the name of a result.

    Where something had to be replaced, a digest of the path as it was given keeps two files apart.
    """
    stem = Path(path).stem
    label = re.sub(r"[^A-Za-z0-9_.-]+", "_", stem)[:100]
    return label if label == stem else f"{label}-{digest(path)[:8]}"
