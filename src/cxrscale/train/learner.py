"""A trained learner: its record (`learner.json`), and the record with its network, ready for use.

Whatever uses a learner (predictions, receptive fields, maps) loads it from its folder alone:

    learner = Learner.load("results/demo/learners/densenet121/512px/fold0-seed0", torch.device("cpu"))
    learner.logits(pixels)  # uint8 (image, 1, height_px, width_px) -> float32 (image, finding)

It is told nothing of the learner again, so that it sees pictures just as training did, overrides of single learners
included. Training validates by the same class.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from cxrscale.common import records
from cxrscale.common.errors import StudyError
from cxrscale.common.places import LEARNER_WEIGHTS
from cxrscale.store.reader import StoreReader
from cxrscale.train.augmentation import normalise
from cxrscale.train.contracts import LEARNER
from cxrscale.train.loader import decoded_batches, to_float
from cxrscale.train.models import build_model, feature_map, has_exact_cam

WEIGHTS = LEARNER_WEIGHTS


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What a learner was trained from: the fields `origin` of `contracts.LEARNER`, which says what each means."""

    code: str
    store: str
    index: str
    targets: str
    initial_weights: str | None


@dataclass(frozen=True, kw_only=True)
class LearnerRecord:
    """What a learner is: the fields of `contracts.LEARNER`, which says what each means."""

    model: str
    findings: Sequence[str]
    resolution_px: int
    seed: int
    mean: float
    standard_deviation: float
    geometry: str
    native_at_least_px: int
    precision: str
    normalisation: str
    norm_group_images: int
    digest: str
    origin: Origin

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Read what `write` wrote. Raises StudyError if the file is absent or no such record."""
        values = records.read(LEARNER, path)
        return cls(**values | {"origin": Origin(**values["origin"])})

    def write(self, path: str | Path) -> None:
        records.write(LEARNER, asdict(self), path)


class Learner:
    """A learner ready for use. record: what it is; network: in whatever state; device: where that is."""

    def __init__(self, record: LearnerRecord, network: nn.Module, device: torch.device) -> None:
        self.record, self.network, self.device = record, network, device

    @classmethod
    def load(cls, folder: str | Path, device: torch.device) -> Self:
        """The trained learner that lies in a folder, in evaluation mode.

        Raises StudyError if its record or weights are absent or do not belong together.
        """
        record, weights = LearnerRecord.read(Path(folder) / LEARNER.file_name), Path(folder) / WEIGHTS
        network = build_model(record.model, len(record.findings), record.seed)
        try:
            network.load_state_dict(load_file(weights), strict=True)
        except FileNotFoundError:
            raise StudyError(f"{weights}: there is no such file. {LEARNER.remedy}") from None
        except (RuntimeError, SafetensorError) as error:
            raise StudyError(
                f"{weights} does not hold {record.model} with {len(record.findings)} findings: {error}"
            ) from error
        return cls(record, network.eval().to(device), device)

    def untrained(self, weights: str | Path | None) -> Self:
        """The learner as it was before training, from initial weights or, with None, from random ones; batch
        statistics are those that the weights came with."""
        network = build_model(self.record.model, len(self.findings), self.record.seed, weights)
        return type(self)(self.record, network.to(self.device), self.device)

    @property
    def findings(self) -> list[str]:
        """Of the logits, in order."""
        return list(self.record.findings)

    def pictures(self, index: str | Path) -> StoreReader:
        """The store that an index lists, without the images that the learner was trained without.

        Raises StudyError if its pictures are of another size than the learner takes.
        """
        store, side = StoreReader(Path(index).parent, self.record.native_at_least_px), self.record.resolution_px
        if len(store) and store.shape != (side, side):
            height, width = store.shape
            raise StudyError(
                f"{index} lists pictures of {height} x {width} px; this learner takes {side} x {side}. Give it the "
                f"index of its own resolution."
            )
        return store

    def prepared(self, pixels: torch.Tensor) -> torch.Tensor:
        """What the network takes: uint8 (image, 1, height_px, width_px) on the host -> float32, on the device."""
        return normalise(to_float(pixels, self.device), self.record.mean, self.record.standard_deviation)

    def autocast(self) -> torch.autocast:
        """The arithmetic of a forward pass: bfloat16 on a GPU if the record says so, else float32."""
        enabled = self.device.type == "cuda" and self.record.precision == "bfloat16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)

    @torch.inference_mode()
    def logits(self, pixels: torch.Tensor) -> np.ndarray:
        """uint8 (image, 1, height_px, width_px), as the store holds them -> float32 (image, finding)."""
        self.network.eval()
        with self.autocast():
            found: np.ndarray = self.network(self.prepared(pixels)).float().cpu().numpy()
        return found

    def predict(
        self,
        store: StoreReader,
        rows: np.ndarray,
        workers: int = 0,
        batch_images: int | None = None,
        before_each: Callable[[], None] = lambda: None,
    ) -> np.ndarray:
        """Logits of images in the order of `rows`, float32 (image, finding).

        rows: of the store. batch_images: at once; None: as many as suit the resolution. before_each: called before each
        batch; what it raises ends the work.
        """
        n = batch_images or self.batch_images
        batches = [rows[i : i + n] for i in range(0, len(rows), n)]
        found = [np.zeros((0, len(self.findings)), np.float32)]
        for pixels in decoded_batches(store, batches, workers, pin_memory=self.device.type == "cuda"):
            before_each()
            found.append(self.logits(pixels))
        return np.concatenate(found)

    @property
    def batch_images(self) -> int:
        """Images that are predicted at once: 1 at 2048 px, 64 at 256 px."""
        return min(max(2**22 // self.record.resolution_px**2, 1), 256)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """The last feature map before pooling: of x as `prepared`, float32 (image, channel, rows, columns)."""
        return feature_map(self.network, x)

    @property
    def evidence(self) -> torch.Tensor | None:
        """How much each channel of the features speaks for each finding, (finding, channel): the logit is the features'
        mean over the map times this, plus a bias. None where the network's head is no such linear one."""
        if not has_exact_cam(self.network):
            return None
        weight: torch.Tensor = self.network.get_classifier().weight.detach()  # type: ignore[operator]
        return weight
