"""Boxes: where they land in the pictures of the store, and what is refused."""

import numpy as np
import pandas as pd
import pytest

from cxrscale.boxes import box_fractions, boxes_by_pair, mask_of, read_boxes
from cxrscale.errors import StudyError


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


MANIFEST = pd.DataFrame({"image_id": ["i", "j"], "native_height_px": [80, 80], "native_width_px": [40, 40]})


def test_a_finding_may_have_several_boxes():
    boxes = frame(
        ["i", "A", 0, 0, 20, 40], ["j", "A", 0, 0, 40, 80], ["i", "A", 20, 40, 40, 80], ["k", "A", 0, 0, 1, 1]
    )
    found = boxes_by_pair(boxes, MANIFEST, "stretch")
    assert found == {("A", "i"): [(0, 0, 0.5, 0.5), (0.5, 0.5, 1, 1)], ("A", "j"): [(0, 0, 1, 1)]}


def test_boxes_that_are_not_in_native_pixels_are_refused():
    with pytest.raises(
        StudyError, match=r"box of A in image i from \(50, 10\) to \(60, 20\) lies outside its 40 x 80 px"
    ):
        boxes_by_pair(frame(["i", "A", 50, 10, 60, 20]), MANIFEST, "stretch")


def test_a_table_of_boxes_is_read_as_the_synthetic_data_set_writes_it(tmp_path):
    path = tmp_path / "boxes.csv"
    path.write_text("image_id,finding,x_min,y_min,x_max,y_max\n007,Lung Lesion,1,2,3,4\n007,Edema,1.5,2,3,4\n")
    boxes = read_boxes(path)
    assert boxes["image_id"].tolist() == ["007", "007"]
    assert boxes["x_min"].tolist() == [1, 1.5]
    path.write_text("image_id,finding,x_min,y_min,x_max,y_max\na,Edema,1,2,3,4\na,Edema,5,2,5,4\n")
    with pytest.raises(StudyError, match=r"boxes.csv line 3: the box from \(5, 2\) to \(5, 4\) has no area"):
        read_boxes(path)
    path.write_text("image_id,finding,x,y,w,h\na,Edema,1,2,3,4\n")
    with pytest.raises(StudyError, match="boxes lacks the column 'x_min'"):
        read_boxes(path)
