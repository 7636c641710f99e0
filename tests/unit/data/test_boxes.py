"""Boxes: where they land in the pictures of the store, and what is refused."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cxrscale.common.errors import StudyError
from cxrscale.data.boxes import box_fractions, boxes_by_pair, check_known, mask_of, read_boxes
from cxrscale.data.spelling import Reading


def test_boxes_in_stretched_pictures_scale_each_side():
    assert box_fractions((10, 40, 30, 80), 80, 40, "stretch") == pytest.approx((0.25, 0.5, 0.75, 1.0))


def test_boxes_in_padded_pictures_scale_by_the_longer_side_and_are_centred():
    # 80 high, 40 wide: 20 px of border on either side of an 80 px square.
    assert box_fractions((10, 40, 30, 80), 80, 40, "pad") == pytest.approx((0.375, 0.5, 0.625, 1.0))
    # 50 high, 100 wide: 25 px above and below.
    assert box_fractions((0, 0, 100, 50), 50, 100, "pad") == pytest.approx((0, 0.25, 1, 0.75))


@pytest.mark.parametrize("geometry", ["stretch", "pad"])
def test_boxes_agree_with_the_pixels_of_the_store(geometry):
    from cxrscale.store.pixels import to_square

    picture = np.zeros((80, 40), np.uint8)
    picture[40:60, 10:30] = 255
    square = to_square(picture, 160, geometry, "area")
    rows, columns = np.nonzero(square > 127)
    found = (columns.min() / 160, rows.min() / 160, (columns.max() + 1) / 160, (rows.max() + 1) / 160)
    fractions = box_fractions((10, 40, 30, 60), 80, 40, geometry)
    assert fractions == pytest.approx(found, abs=1 / 160)
    assert (mask_of([fractions], 160) == (square > 127)).all()


def test_a_mask_takes_the_cells_whose_middle_is_inside():
    assert np.argwhere(mask_of([(0.25, 0.5, 0.75, 1.0)], 4)).tolist() == [[2, 1], [2, 2], [3, 1], [3, 2]]
    assert mask_of([(0, 0, 1, 1)], 4).all()
    assert np.argwhere(mask_of([(0, 0, 0.37, 0.4)], 4)).tolist() == [[0, 0], [1, 0]]
    two = mask_of([(0, 0, 0.5, 0.5), (0.25, 0.25, 0.5, 0.5)], 4)
    assert two.sum() == 4  # one lies within the other
    tiny = mask_of([(0.51, 0.26, 0.52, 0.27), (1.0, 0.9, 1.1, 1.2)], 4)
    assert np.argwhere(tiny).tolist() == [[1, 2], [3, 3]]


def frame(*rows):
    return pd.DataFrame(rows, columns=["image_id", "finding", "x_min", "y_min", "x_max", "y_max"])


INDEX = pd.DataFrame({"image_id": ["i", "j"], "native_height_px": [80, 80], "native_width_px": [40, 40]})


def test_a_finding_may_have_several_boxes():
    boxes = frame(
        ["i", "A", 0, 0, 20, 40], ["j", "A", 0, 0, 40, 80], ["i", "A", 20, 40, 40, 80], ["k", "A", 0, 0, 1, 1]
    )
    found = boxes_by_pair(boxes, INDEX, "stretch")
    assert found == {("A", "i"): [(0, 0, 0.5, 0.5), (0.5, 0.5, 1, 1)], ("A", "j"): [(0, 0, 1, 1)]}


@pytest.mark.parametrize(
    "box", [(50, 10, 60, 20), (-1, 10, 20, 20), (30, 10, 41, 20), (0, -0.5, 10, 20), (0, 70, 10, 80.5)]
)
def test_boxes_outside_their_picture_in_part_too_are_refused(box):
    where = rf"box of A in image i from \({box[0]:g}, {box[1]:g}\) to .* lies outside its 40 x 80 px"
    with pytest.raises(StudyError, match=where):
        boxes_by_pair(frame(["i", "A", *box]), INDEX, "stretch")


def large_pictures(pictures, scale):
    """A box in each of so many pictures of 2,000 x 2,500 px, drawn on copies of this share of their sides."""
    ids = [f"i{n}" for n in range(pictures)]
    index = pd.DataFrame({"image_id": ids, "native_height_px": 2500, "native_width_px": 2000})
    rows = [(i, "A", 600 * scale, 900 * scale, (1500 + 40 * n) * scale, 2000 * scale) for n, i in enumerate(ids)]
    return frame(*rows), index


@pytest.mark.parametrize("scale", [1024 / 2500, 512 / 2500, 1 / 2500])
def test_boxes_of_smaller_copies_or_in_fractions_are_known_by_their_extent(scale):
    with pytest.raises(StudyError, match=r"all 10 boxes lie in the upper left .* the largest picture has 2500 px"):
        boxes_by_pair(*large_pictures(10, scale), "stretch")
    boxes_by_pair(*large_pictures(10, 1), "stretch")
    boxes_by_pair(*large_pictures(7, scale), "stretch")  # too few to tell


HEADER = "image_id,finding,x_min,y_min,x_max,y_max\n"


def read(tmp_path, text, exact_ids=False):
    (tmp_path / "boxes.csv").write_text(text)
    return read_boxes(tmp_path / "boxes.csv", Reading(exact_ids))


def test_a_table_of_boxes_is_read_as_the_synthetic_data_set_writes_it(tmp_path):
    boxes = read(tmp_path, HEADER + "007,Lung Lesion,1,2,3,4\n007,Edema,1.5,2,3,4\n")
    assert boxes["image_id"].tolist() == ["007", "007"]
    assert boxes["x_min"].tolist() == [1, 1.5]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("a,Edema,1,2,3,4\na,Edema,5,2,5,4\n", "line 3: the box has no area"),
        ("a,Edema,1,2,inf,4\n", "line 2: x_max is no finite number"),
        ("a,Edema,1,2,nan,4\n", "line 2: x_max is no finite number"),
        ("a,Edema,1,2,3,1e999\n", "line 2: y_max is no finite number"),
        ("a,Edema,one,2,3,4\n", "line 2: x_min is no finite number"),
        ("a,Edema,1,2,3,4\na,Mass,1,2,3,4\na,Edema,1,2,3,4\n", "line 4: the same box of the same finding"),
        ("a ,Edema,1,2,3,4\na,Edema,1.0,2,3,4\n", "line 3: the same box of the same finding"),
        ("a,,1,2,3,4\n", "line 2: finding is blank"),
        (" ,Edema,1,2,3,4\n", "line 2: image_id is blank"),
        ("a,Edema,1,2,3,4\nb,Edema,1,2\n", "line 3: has 4 fields, expected 6"),
        ("a,Edema,1,2,3,40\nb,Edema,1,2,3,4", "the last line has no line break"),
    ],
)
def test_boxes_that_cannot_be_right_are_refused_by_line(tmp_path, rows, said):
    with pytest.raises(StudyError, match=f"boxes.csv.*{said}"):
        read(tmp_path, HEADER + rows)


def test_other_columns_are_named(tmp_path):
    with pytest.raises(StudyError, match="there is no column 'x_min'"):
        read(tmp_path, "image_id,finding,x,y,w,h\na,Edema,1,2,3,4\n")


def known(rows, image_ids=("i1", "i2"), findings=("Edema", "Mass"), exact_ids=False):
    reading = Reading(exact_ids)
    check_known(frame(*rows), pd.Series(image_ids), findings, Path("boxes.csv"), reading)
    return reading.notes


def test_boxes_of_the_study_need_no_note():
    assert known([("i1", "Edema", 0, 0, 1, 1), ("i2", "Mass", 0, 0, 1, 1)]) == []


def test_boxes_of_other_images_and_findings_are_counted():
    notes = known([("i1", "Edema", 0, 0, 1, 1), ("x", "Mass", 0, 0, 1, 1), ("y", "Nodule", 0, 0, 1, 1)])
    assert [(n.about, n.examples) for n in notes] == [("boxes", "x, y"), ("boxes", "Nodule")]
    assert "2 of 3 boxes of boxes.csv are of images that the study does not have" in notes[0].note


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (("x", "Edema", 0, 0, 1, 1), "no box is of one of the study's images .there: x; the study's: i1, i2"),
        (("i1", "Nodule", 0, 0, 1, 1), "no box is of one of the study's findings"),
        (("I1", "Edema", 0, 0, 1, 1), "boxes.csv: image_id holds 'I1', the study's image_id holds 'i1', which may be"),
        (("i01", "Edema", 0, 0, 1, 1), "holds 'i01', the study's image_id holds 'i1'"),
    ],
)
def test_boxes_that_match_nothing_stop_the_study(row, said):
    with pytest.raises(StudyError, match=said):
        known([row])
