"""Boxes around findings: reading them, and where they lie in the square pictures of the store."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from cxrscale import tables
from cxrscale.errors import StudyError
from cxrscale.tables import Column, Table

Box = tuple[float, float, float, float]

BOXES = Table(
    name="boxes",
    row="a box around a finding in an image; a finding may have several",
    columns=(
        Column("image_id", "text", "the image"),
        Column("finding", "text", "the finding, as the study calls it"),
        Column("x_min", "float64", "left edge, pixels of the native file after EXIF orientation"),
        Column("y_min", "float64", "upper edge"),
        Column("x_max", "float64", "right edge, the first pixel outside"),
        Column("y_max", "float64", "lower edge, the first pixel outside"),
    ),
)


def read_boxes(path: str | Path) -> pd.DataFrame:
    """The table BOXES. Raises StudyError if it breaks its declaration or a box has no area."""
    boxes = tables.read(BOXES, path)
    bad = (boxes["x_max"] <= boxes["x_min"]) | (boxes["y_max"] <= boxes["y_min"])
    if bad.any():
        row = int(np.argmax(bad))
        x0, y0, x1, y1 = boxes.iloc[row][["x_min", "y_min", "x_max", "y_max"]]
        raise StudyError(
            f"{path} line {row + 2}: the box from ({x0:g}, {y0:g}) to ({x1:g}, {y1:g}) has no area; expected "
            f"x_min < x_max and y_min < y_max, in native pixels. Correct or remove the line."
        )
    return boxes


def box_fractions(box: Sequence[float], native_height_px: int, native_width_px: int, geometry: str) -> Box:
    """A box of native pixels as fractions of the square picture that the store makes, from its upper left corner.

    box: x_min, y_min, x_max, y_max in native pixels; geometry: "stretch" (each side by itself) or "pad" (scaled by the
    longer side, centred). Returns x_min, y_min, x_max, y_max; exact to the rounding to whole pixels of the store.
    """
    x_min, y_min, x_max, y_max = box
    if geometry == "stretch":
        width, height, left, upper = native_width_px, native_height_px, 0.0, 0.0
    else:
        width = height = max(native_height_px, native_width_px)
        left, upper = (width - native_width_px) / 2, (height - native_height_px) / 2
    return (x_min + left) / width, (y_min + upper) / height, (x_max + left) / width, (y_max + upper) / height


def boxes_by_pair(boxes: pd.DataFrame, manifest: pd.DataFrame, geometry: str) -> dict[tuple[str, str], list[Box]]:
    """(finding, image_id) -> its boxes as `box_fractions`, for the images of the manifest.

    manifest: image_id, native_height_px, native_width_px. Raises StudyError if a box lies wholly outside its image,
    which says that it was not counted in native pixels.
    """
    found: dict[tuple[str, str], list[Box]] = {}
    for row in boxes.merge(manifest, on="image_id").to_dict("records"):
        native = int(row["native_height_px"]), int(row["native_width_px"])
        x_min, y_min, x_max, y_max = (float(row[side]) for side in ("x_min", "y_min", "x_max", "y_max"))
        if x_min >= native[1] or y_min >= native[0] or x_max <= 0 or y_max <= 0:
            raise StudyError(
                f"boxes: the box of {row['finding']} in image {row['image_id']} from ({x_min:g}, {y_min:g}) to "
                f"({x_max:g}, {y_max:g}) lies outside its {native[1]} x {native[0]} px (width x height). "
                f"Boxes are in pixels of the native file."
            )
        fractions = box_fractions((x_min, y_min, x_max, y_max), *native, geometry)
        found.setdefault((str(row["finding"]), str(row["image_id"])), []).append(fractions)
    return found


def mask_of(boxes: Iterable[Box], length: int) -> np.ndarray:
    """bool (length, length): cells of a grid over the picture whose centre lies in one of the boxes.

    A side of a box between two centres takes the cell that holds its middle, so that no box is empty.
    """
    mask = np.zeros((length, length), dtype=bool)
    for x_min, y_min, x_max, y_max in boxes:
        mask[np.ix_(_cells(y_min, y_max, length), _cells(x_min, x_max, length))] = True
    return mask


def _cells(low: float, high: float, length: int) -> np.ndarray:
    centres = (np.arange(length) + 0.5) / length
    inside = np.flatnonzero((centres >= low) & (centres < high))
    if len(inside):
        return inside
    return np.array([min(max(int((low + high) / 2 * length), 0), length - 1)])
