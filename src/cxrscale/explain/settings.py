"""Settings of stage explain: receptive fields and activation maps."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from cxrscale.common.settings import Check, Count, Distinct, OpenFraction, Range, Section, Text

CamMethod = Literal["auto", "gradcam", "gradcam++", "layercam"]


@dataclass(frozen=True)
class ErfSettings(Section):
    """erf: effective receptive fields."""

    images: Count = 64
    """validation images averaged over"""


def _ascending(values: list[float]) -> list[float]:
    if values[0] >= values[1]:
        raise ValueError(f"must ascend: {values[0]:g} is not below {values[1]:g}")
    return values


@dataclass(frozen=True)
class CamSettings(Section):
    """cam: class activation maps."""

    images_per_finding: Count = 2
    """test images in the figure, the same at every resolution"""
    method: CamMethod = "auto"
    """auto: exact where the network allows it, else gradcam | gradcam | gradcam++ | layercam"""
    boxes: Text | None = None
    """csv below dataset.root: image_id, finding, x_min, y_min, x_max, y_max in native pixels; null: the format's own,
    if it has any"""
    localisation_images: Count = 500
    """images with boxes, at most, of each finding in test and in combine"""
    box_sizes: Annotated[list[OpenFraction], Range(min_length=2, max_length=2), Distinct, Check(_ascending)] = field(
        default_factory=lambda: [0.02, 0.1]
    )
    """shares of the picture where small ends and where large begins"""
