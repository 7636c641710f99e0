"""A trained learner's record, `learner.json`: all that is needed to use its weights, written where it is trained.

Whatever uses a learner (predictions, receptive fields, maps) reads it here and is told none of it again, so that
it sees pictures just as training did, overrides of single learners included.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

from cxrscale.common import atomic
from cxrscale.common.errors import StudyError
from cxrscale.store.reader import StoreReader
from cxrscale.train.augmentation import normalise
from cxrscale.train.loader import decoded_batches, to_float
from cxrscale.train.models import build_model

LEARNER_RECORD = "learner.json"


@dataclass(frozen=True)
class Learner:
    """What a learner is.

    model: timm name. findings: of its logits, in order. resolution_px: side of its input. seed: of its training.
    mean, standard_deviation: of the grey range 0 to 1, taken off and divided by. precision: of a GPU's arithmetic,
    "bfloat16" (by autocast) or "float32"; a CPU computes in float32. native_at_least_px: it was trained without the
    images of smaller native files; 0: with all. norm_group_images: images over which training took batch statistics.
    """

    model: str
    findings: Sequence[str]
    resolution_px: int
    seed: int
    mean: float
    standard_deviation: float
    precision: str
    native_at_least_px: int
    norm_group_images: int

    @classmethod
    def read(cls, path: str | Path) -> "Learner":
        """Read what `write` wrote. Raises StudyError if the file is absent or no such record."""
        try:
            given = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise StudyError(f"{path}: is no record of a learner: {error}. Train the learner again.") from error
        names = {f.name for f in fields(cls)}
        if not isinstance(given, dict) or set(given) != names:
            found = sorted(given) if isinstance(given, dict) else type(given).__name__
            raise StudyError(f"{path}: is no record of a learner: it has {found}, expected {sorted(names)}.")
        return cls(**given)

    def write(self, path: str | Path) -> None:
        atomic.write_json(path, asdict(self))

    def network(self, weights: str | Path, device: torch.device) -> nn.Module:
        """The trained network in evaluation mode. Raises StudyError if the weights do not fit the record."""
        network = build_model(self.model, len(self.findings), seed=0)
        try:
            network.load_state_dict(load_file(weights), strict=True)
        except RuntimeError as error:
            raise StudyError(
                f"{weights} does not hold {self.model} with {len(self.findings)} findings: {error}"
            ) from error
        return network.eval().to(device)

    def pictures(self, index: str | Path) -> StoreReader:
        """The store that a index lists, without the images that the learner was trained without."""
        return StoreReader(Path(index).parent, self.native_at_least_px)

    def prepared(self, pixels: torch.Tensor, device: torch.device) -> torch.Tensor:
        """What the network takes: uint8 (image, 1, height_px, width_px) on the host -> float32, on the device."""
        return normalise(to_float(pixels, device), self.mean, self.standard_deviation)

    def autocast(self, device: torch.device) -> torch.autocast:
        """The arithmetic of a forward pass: bfloat16 on a GPU if the record says so, else float32."""
        enabled = device.type == "cuda" and self.precision == "bfloat16"
        return torch.autocast(device.type, torch.bfloat16, enabled=enabled)

    @torch.inference_mode()
    def logits(
        self,
        network: nn.Module,
        store: StoreReader,
        rows: np.ndarray,
        device: torch.device,
        batch_images: int,
        workers: int,
    ) -> np.ndarray:
        """Logits of images in the order of `rows`, without augmentation. Returns float32 (image, finding)."""
        network.eval()
        batches = [rows[i : i + batch_images] for i in range(0, len(rows), batch_images)]
        found = [np.zeros((0, len(self.findings)), np.float32)]
        for pixels in decoded_batches(store, batches, workers, pin_memory=device.type == "cuda"):
            with self.autocast(device):
                found.append(network(self.prepared(pixels, device)).float().cpu().numpy())
        return np.concatenate(found)

    @property
    def prediction_batch(self) -> int:
        """Images that are predicted at once: 1 at 2048 px, 64 at 256 px."""
        return min(max(2**22 // self.resolution_px**2, 1), 256)
