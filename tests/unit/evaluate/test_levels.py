"""What groups hold, and what they leave out."""

import pandas as pd
import pytest

from cxrscale.common.errors import StudyError
from cxrscale.evaluate.levels import check_native, group_masks, notes_on_views, projection_of


@pytest.mark.parametrize(
    ("view", "projection"),
    [
        ("AP", "frontal"),
        ("PA", "frontal"),
        ("AP erect", "frontal"),
        ("AP_horizontal", "frontal"),
        ("AP LLD", "frontal"),
        ("Frontal", "frontal"),
        ("LATERAL", "lateral"),
        ("Lateral", "lateral"),
        ("LL", "lateral"),
        ("L", "lateral"),
        ("XTABLE LATERAL", "lateral"),
        ("LPO", None),
        ("RAO", None),
        ("COSTAL", None),
        ("APEX", None),
        ("", None),
    ],
)
def test_projections(view, projection):
    assert projection_of(view) == projection


def test_views_of_every_data_set_are_in_a_group_and_the_rest_is_said():
    views = pd.Series(["AP"] * 3 + ["AP erect", "L", "Lateral", "COSTAL", "COSTAL", None])
    rows = pd.DataFrame({"image_id": list("abcdefghi"), "view": views})
    masks = group_masks(rows, ["view"])
    assert masks["view: frontal"].sum() == 4
    assert masks["view: lateral"].sum() == 2
    (note,) = notes_on_views(views)
    assert note.note == (
        "The groups frontal and lateral leave out 3 of 9 images of test: COSTAL (2), (not recorded) (1)."
    )
    assert notes_on_views(views[:6]) == []


TARGETS = pd.DataFrame({"image_id": ["a", "b", "c", "d", "gone"], "split": ["train", "train", "test", "test", "test"]})
NATIVE = pd.Series([100, 300, 200, 500], index=["a", "b", "c", "d"])


def test_images_that_a_size_leaves_out_are_counted():
    (note,) = check_native(TARGETS, NATIVE, 300, "key")
    assert note.note == (
        "key: images with a native file of 300 px or more are 1 of 2 of test, 1 of 2 of train; others are left out."
    )
    assert check_native(TARGETS, NATIVE, 100, "key") == []


@pytest.mark.parametrize(
    ("at_least", "split", "largest"), [(301, "train", 300), (501, "test", 500), (9999, "test", 500)]
)
def test_a_size_above_every_image_is_refused(at_least, split, largest):
    with pytest.raises(
        StudyError, match=f"key: none of the 2 images of {split} has .* {at_least} px .* largest has {largest}"
    ):
        check_native(TARGETS, NATIVE, at_least, "key")
