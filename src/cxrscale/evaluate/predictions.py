"""The table of predictions, which everything after training reads."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from cxrscale.common import tables
from cxrscale.common.errors import StudyError
from cxrscale.evaluate.contracts import PREDICTIONS


def predictions_frame(
    targets: pd.DataFrame, native_px: np.ndarray, logits: np.ndarray, findings: Sequence[str]
) -> pd.DataFrame:
    """The columns of PREDICTIONS from rows of TARGETS (`data.contracts`),
    native_px (image,) and logits (image, finding)."""
    known = {**targets, "native_px": native_px}
    columns: dict[str, object] = {c.name: np.asarray(known[c.name]) for c in PREDICTIONS.columns}
    for k, finding in enumerate(findings):
        columns[f"logit:{finding}"] = logits[:, k].astype(np.float32)
    for finding in findings:
        target = targets[f"target:{finding}"].astype("Int8")
        columns[f"target:{finding}"] = target.mask(targets[f"mask:{finding}"] == 0).to_numpy(dtype=object)
    return pd.DataFrame(columns)


class Scores:
    """Logits of several learners for the same images of one split, with targets and patients; see `read_scores`.

    rows: the columns of PREDICTIONS that say what the images are.
    logits: float64 (learner, image, finding); target: float64 (image, finding), NaN where ignored; patient: int64
    (image,), numbered from 0.
    """

    def __init__(self, paths: Sequence[Path], frames: Sequence[pd.DataFrame], split: str) -> None:
        """frames: rows of PREDICTIONS of the split, a frame a path."""
        frames = [frame.sort_values("image_id", kind="stable") for frame in frames]
        first = frames[0]
        self.findings = PREDICTIONS.findings(first.columns)
        for path, frame in zip(paths, frames, strict=True):
            if list(frame["image_id"]) != list(first["image_id"]):
                raise StudyError(
                    f"{path} holds other {split} images than {paths[0]}; learners can be compared on the same images "
                    f"only. Run the workflow to bring both up to date."
                )
        self.rows = first[[c.name for c in PREDICTIONS.columns]].reset_index(drop=True)
        self.image_id = first["image_id"].to_numpy(dtype=object)
        self.study_id = first["study_id"].to_numpy(dtype=object)
        self.patient = np.unique(first["subject_id"].to_numpy(dtype=str), return_inverse=True)[1]
        self.target = first[[f"target:{f}" for f in self.findings]].to_numpy(dtype=np.float64, na_value=np.nan)
        self.logits = np.stack([frame[[f"logit:{f}" for f in self.findings]].to_numpy(np.float64) for frame in frames])

    def __len__(self) -> int:
        return len(self.image_id)


def read_scores(paths: Sequence[Path], splits: Iterable[str], native_at_least_px: int = 0) -> dict[str, Scores]:
    """The scores of each split, of learners in the order of their files. Each file is read once.

    native_at_least_px: only images that are not enlarged at this resolution. Raises StudyError if learners hold other
    images of a split.
    """
    frames: dict[str, list[pd.DataFrame]] = {split: [] for split in splits}
    for path in paths:
        frame = tables.read(PREDICTIONS, path)
        frame = frame[frame["native_px"] >= native_at_least_px]
        for split, chosen in frames.items():
            chosen.append(frame[frame["split"] == split])
    return {split: Scores(paths, chosen, split) for split, chosen in frames.items()}
