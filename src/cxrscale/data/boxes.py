"""Boxes around findings: reading them, and where they lie in the square pictures of the store."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from cxrscale.common.errors import StudyError
from cxrscale.common.notes import examples
from cxrscale.data.contracts import BOXES, SIDES
from cxrscale.data.csv_files import line_of, numbers, read_csv
from cxrscale.data.spelling import Reading, check_same_spelling

Box = tuple[float, float, float, float]


#: If that many pictures with boxes have none beyond this share of width or height, boxes are of another scale.
MANY_PICTURES, REACH = 8, 0.7


def read_boxes(path: Path, reading: Reading) -> pd.DataFrame:
    """The table BOXES, in file order. reading: how ids are taken, and where what was found is noted.

    Raises StudyError that names the line for a side that is no finite number, a box without area or one that stands
    twice.
    """
    boxes = read_csv(path, [c.name for c in BOXES.columns], reading)
    boxes["finding"] = boxes["finding"].str.strip()
    for name in ("image_id", "finding"):
        _refuse(boxes, boxes[name].fillna("") == "", path, f"{name} is blank; every row needs one")
    for side in SIDES:
        values = numbers(boxes[side])
        _refuse(boxes, ~np.isfinite(values), path, f"{side} is no finite number; expected native pixels")
        boxes[side] = values
    flat = (boxes["x_max"] <= boxes["x_min"]) | (boxes["y_max"] <= boxes["y_min"])
    _refuse(boxes, flat, path, "the box has no area; expected x_min < x_max and y_min < y_max, in native pixels")
    _refuse(boxes, boxes.duplicated(), path, "the same box of the same finding stands on a line before")
    return boxes[[c.name for c in BOXES.columns]]


def _refuse(boxes: pd.DataFrame, wrong: pd.Series | np.ndarray, path: Path, what: str) -> None:
    """Raise StudyError that names the first wrong row."""
    wrong = np.asarray(wrong, dtype=bool)
    if wrong.any():
        row = int(wrong.argmax())
        shown = ", ".join(str(boxes[name].iloc[row]) for name in ("image_id", "finding", *SIDES))
        raise StudyError(f"{path} line {line_of(path, row)}: {what} ({shown}). Correct or remove the line.")


def check_known(
    boxes: pd.DataFrame, image_ids: pd.Series, findings: Sequence[str], path: Path, reading: Reading
) -> None:
    """Note boxes of images or findings that the study does not have.

    Raises StudyError if it has none of them, or another spelling may be why.
    """
    check_same_spelling(boxes["image_id"], image_ids, f"{path}: image_id", "the study's image_id", reading)
    wanted = {"image_id": (set(image_ids), "images"), "finding": (set(findings), "findings")}
    for column, (ours, what) in wanted.items():
        strange = boxes.loc[~boxes[column].isin(ours), column]
        if len(strange) == len(boxes):
            raise StudyError(
                f"cam.boxes: {path}: no box is of one of the study's {what} (there: {examples(strange.unique())}; the "
                f"study's: {examples(sorted(ours))}). Correct the file or leave cam.boxes null."
            )
        if len(strange):
            reading.note(
                "boxes",
                f"{len(strange):,} of {len(boxes):,} boxes of {path.name} are of {what} that the study does not have; "
                f"they are left out.",
                examples(strange.unique()),
            )


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


def boxes_by_pair(boxes: pd.DataFrame, index: pd.DataFrame, geometry: str) -> dict[tuple[str, str], list[Box]]:
    """(finding, image_id) -> its boxes as `box_fractions`, for the images of the index.

    index: image_id, native_height_px, native_width_px. Raises StudyError if a box lies outside its image, in part
    too, or all boxes together reach so little of their images that they were counted in another scale.
    """
    found: dict[tuple[str, str], list[Box]] = {}
    merged = boxes.merge(index, on="image_id")
    _check_scale(merged)
    for row in merged.to_dict("records"):
        native = int(row["native_height_px"]), int(row["native_width_px"])
        x_min, y_min, x_max, y_max = (float(row[side]) for side in SIDES)
        if x_min < 0 or y_min < 0 or x_max > native[1] or y_max > native[0]:
            raise StudyError(
                f"boxes: the box of {row['finding']} in image {row['image_id']} from ({x_min:g}, {y_min:g}) to "
                f"({x_max:g}, {y_max:g}) lies outside its {native[1]} x {native[0]} px (width x height), in part at "
                f"least. Boxes are in pixels of the native file. Correct or remove the line."
            )
        fractions = box_fractions((x_min, y_min, x_max, y_max), *native, geometry)
        found.setdefault((str(row["finding"]), str(row["image_id"])), []).append(fractions)
    return found


def _check_scale(merged: pd.DataFrame) -> None:
    """Raise StudyError if no box of many pictures comes near their right or lower edge. merged: boxes, native size."""
    if merged["image_id"].nunique() < MANY_PICTURES:
        return
    right, lower = merged["x_max"] / merged["native_width_px"], merged["y_max"] / merged["native_height_px"]
    reach = float(max(right.max(), lower.max()))
    if reach < REACH:
        largest = float(max(merged["x_max"].max(), merged["y_max"].max()))
        native = int(max(merged["native_width_px"].max(), merged["native_height_px"].max()))
        raise StudyError(
            f"boxes: all {len(merged)} boxes lie in the upper left {reach:.0%} of their pictures: the largest edge is "
            f"{largest:g}, the largest picture has {native} px. They seem to be counted on smaller copies or as "
            f"fractions; expected pixels of the native files. Multiply each by the native size over that of the copy."
        )


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
