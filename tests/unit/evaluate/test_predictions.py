import numpy as np
import pandas as pd
import pytest

from cxrscale.common import tables
from cxrscale.common.errors import StudyError
from cxrscale.evaluate.contracts import PREDICTIONS
from cxrscale.evaluate.predictions import predictions_frame, read_scores


def test_ignored_targets_are_empty(tmp_path):
    targets = pd.DataFrame(
        {
            "image_id": ["a", "b"], "subject_id": ["p", "p"], "study_id": ["s", "s"], "view": ["PA", None],
            "split": ["test", "test"],
            "target:Edema": np.array([1, 0], np.int8), "mask:Edema": np.array([1, 0], np.int8),
            "target:Fracture": np.array([0, 1], np.int8), "mask:Fracture": np.array([1, 1], np.int8),
        }
    )  # fmt: skip
    frame = predictions_frame(targets, np.array([900, 1100]), np.array([[0.5, -1], [2, 3.25]]), ["Edema", "Fracture"])
    tables.write(PREDICTIONS, frame, tmp_path / "p.parquet")
    scores = read_scores([tmp_path / "p.parquet"], ["test"])["test"]
    assert scores.findings == ["Edema", "Fracture"]
    assert np.array_equal(scores.target, [[1, 0], [np.nan, 1]], equal_nan=True)
    assert scores.logits.tolist() == [[[0.5, -1], [2, 3.25]]]
    large = read_scores([tmp_path / "p.parquet"], ["test"], native_at_least_px=1000)["test"]
    assert list(large.image_id) == ["b"]


def test_scores_put_the_images_of_one_split_in_one_order(write_predictions):
    logits = np.arange(6.0)
    splits = ["test", "validate", "test", "test", "validate", "combine"]
    path = write_predictions("a", splits, [7, 3, 7, 5, 5, 5], {"Edema": logits}, {"Edema": [0, 1, 1, 0, 1, 0]})
    frame = pd.read_parquet(path).sample(frac=1, random_state=3)
    other = path.with_name("b.parquet")
    tables.write(PREDICTIONS, frame.assign(**{"logit:Edema": frame["logit:Edema"] + np.float32(10)}), other)
    scores = read_scores([path, other], ["test"])["test"]
    assert len(scores) == 3
    assert scores.logits[:, :, 0].tolist() == [[0, 2, 3], [10, 12, 13]]
    assert scores.target[:, 0].tolist() == [0, 1, 0]
    assert scores.patient.tolist() == [1, 1, 0]  # p7 twice, then p5
    assert scores.study_id.tolist() == ["s0000", "s0002", "s0003"]


def test_learners_of_other_images_cannot_be_compared(write_predictions):
    one = write_predictions("one", "test", [0, 1], {"Edema": [0, 1]}, {"Edema": [0, 1]})
    two = write_predictions("two", "test", [0, 1, 2], {"Edema": [0, 1, 2]}, {"Edema": [0, 1, 1]})
    with pytest.raises(StudyError, match=r"two.parquet holds other test images than .*one.parquet; learners can be"):
        read_scores([one, two], ["test"])


def test_each_file_is_read_once_for_all_splits(write_predictions, monkeypatch):
    splits = ["test", "validate", "test"]
    paths = [write_predictions(n, splits, [0, 1, 2], {"A": [0, 1, 2]}, {"A": [0, 1, 1]}) for n in ("one", "two")]
    seen, read = [], tables.read
    monkeypatch.setattr(tables, "read", lambda table, path: seen.append(path) or read(table, path))
    scores = read_scores(paths, ("validate", "combine", "test"))
    assert seen == paths
    assert {split: len(found) for split, found in scores.items()} == {"validate": 1, "combine": 0, "test": 2}
    assert scores["validate"].logits.tolist() == [[[1]], [[1]]]
