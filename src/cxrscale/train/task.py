"""What one training is told: which learner, from what, how, and where it is written."""

from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from cxrscale.common.provenance import digest
from cxrscale.common.settings import not_default
from cxrscale.data.contracts import TARGETS
from cxrscale.store.reader import StoreReader
from cxrscale.train.learner import LearnerRecord, Origin
from cxrscale.train.settings import RunSettings, TrainingSettings


@dataclass(frozen=True, eq=False)
class Task:
    """One learner to be trained.

    folder: the learner's. model: timm name. targets: as `data.contracts.TARGETS`. geometry: of the store. weights:
    initial ones; random without. origin: what these are and by which code it is trained. filed_as: digest of the code
    under whose name the learner is filed, where that of origin was accepted as the same; None: origin's own. progress:
    show a bar on standard error.
    """

    folder: Path
    model: str
    resolution_px: int
    seed: int
    settings: TrainingSettings
    run: RunSettings
    targets: pd.DataFrame
    store: StoreReader
    weights: Path | None
    origin: Origin
    geometry: str = "stretch"
    filed_as: str | None = None
    progress: bool = False

    @cached_property
    def record(self) -> LearnerRecord:
        """The record of the learner that comes out."""
        settings = self.settings
        return LearnerRecord(
            model=self.model, findings=TARGETS.findings(self.targets.columns), resolution_px=self.resolution_px,
            seed=self.seed, mean=settings.mean, standard_deviation=settings.standard_deviation, geometry=self.geometry,
            native_at_least_px=self.store.native_at_least_px, precision=settings.precision,
            normalisation=settings.normalisation, norm_group_images=settings.norm_group_images, digest=self.digest,
            origin=self.origin,
        )  # fmt: skip

    @cached_property
    def identity(self) -> dict[str, Any]:
        """All that the learner's weights depend on, for a reader: fields `identity` of `contracts.COST`."""
        origin, code = self.origin, self.filed_as or self.origin.code
        data = [origin.index, origin.targets, origin.initial_weights, self.store.native_at_least_px]
        micro = self.run.micro_batch_images if self.settings.normalisation == "per_micro_batch" else None
        return {
            "settings": asdict(self.settings),
            "model": self.model,
            "resolution_px": self.resolution_px,
            "seed": self.seed,
            "micro_batch_images": micro,
            "code": code,
            "inputs": digest([code, *data]),
        }

    @cached_property
    def digest(self) -> str:
        """Names the identity: whether a checkpoint may be gone on from, and whether a learner was trained before."""
        # A setting that comes later changes no learner that exists.
        return digest(self.identity | {"settings": not_default(self.settings)})
