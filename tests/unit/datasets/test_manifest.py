import pandas as pd
import pytest

from cxrscale.datasets import manifest
from cxrscale.errors import StudyError

ROWS = """image_id,subject_id,study_id,path,view,Scoliosis,split
a,p1,s1,one.png,PA,1,train
b,p1,s1,sub/two.jpg,,-1.0,train
c,p2,s2,three.jpg,AP,,test
"""


def sources(tmp_path, text=ROWS):
    (tmp_path / "mine.csv").write_text(text)
    return manifest.sources(tmp_path, manifest="mine.csv", labels_source="ignored")


def test_images(tmp_path):
    images = manifest.read_images(sources(tmp_path))
    assert list(images["path"]) == ["one.png", "sub/two.jpg", "three.jpg"]
    assert list(images["official_split"]) == ["train", "train", "test"]
    assert images["native_height_px"].isna().all()
    assert pd.isna(images["view"][1])


def test_labels_are_all_columns_that_are_not_fixed(tmp_path):
    labels = manifest.read_labels(sources(tmp_path))
    assert list(labels.columns) == ["image_id", "subject_id", "study_id", "label:Scoliosis"]
    assert labels["label:Scoliosis"].equals(pd.Series([1, -1, None], dtype="Int8", name="label:Scoliosis"))


def test_split_is_optional(tmp_path):
    text = "".join(line.rpartition(",")[0] + "\n" for line in ROWS.splitlines())
    assert manifest.read_images(sources(tmp_path, text))["official_split"].isna().all()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("b,p1", "a,p1", "mine.csv lines 2 and 3: image_id 'a' stands twice"),
        ("b,p1", "b,", "mine.csv line 3: subject_id is blank"),
        ("p2,s2", "p2,s1", "study s1 belongs to the patients p1 and p2"),
        ("p2,s2", "p2,", "mine.csv line 4: study_id is blank"),
        ("three.jpg", "../three.jpg", "line 4: path '../three.jpg' leads out of dataset.root"),
        ("three.jpg", "", "line 4: path is blank"),
        (",,test", ",,exam", "line 4: split is 'exam'; expected train, validate, combine, test or blank"),
        ("path,", "file,", "there is no column 'path'"),
    ],
)
def test_images_that_cannot_be_right_are_refused(tmp_path, old, new, said):
    with pytest.raises(StudyError, match=said):
        manifest.read_images(sources(tmp_path, ROWS.replace(old, new, 1)))


def test_labels_that_cannot_be_right_are_refused(tmp_path):
    with pytest.raises(StudyError, match=r"mine.csv line 3: Scoliosis is '-1.5'; expected 1, 0, -1"):
        manifest.read_labels(sources(tmp_path, ROWS.replace("-1.0", "-1.5")))
    with pytest.raises(StudyError, match="there is no column 'Edema'; it has"):
        manifest.read_labels(sources(tmp_path), ["Edema"])
    bare = "image_id,subject_id,study_id,path,view\na,p,s,x.png,\n"
    with pytest.raises(StudyError, match="there is no column for a finding"):
        manifest.read_labels(sources(tmp_path, bare))


def test_a_manifest_that_is_no_csv_says_so(tmp_path):
    with pytest.raises(StudyError, match=r"mine.csv: cannot be read as csv"):
        manifest.read_labels(sources(tmp_path, ""))


def test_lines_within_quotes_are_counted(tmp_path):
    text = ROWS.replace(",PA,", ',"PA\nerect",').replace("-1.0", "-1.5").replace(",,test", ",,exam")
    with pytest.raises(StudyError, match=r"mine.csv line 4: Scoliosis is '-1.5'"):
        manifest.read_labels(sources(tmp_path, text))
    with pytest.raises(StudyError, match=r"mine.csv line 5: split is 'exam'"):
        manifest.read_images(sources(tmp_path, text))


def test_a_missing_manifest_is_named(tmp_path):
    with pytest.raises(StudyError, match=r"has no mine.csv"):
        manifest.sources(tmp_path, manifest="mine.csv")
