import pandas as pd
import pytest

from cxrscale.common.errors import StudyError
from cxrscale.data.formats import Chosen, manifest
from cxrscale.data.spelling import Reading

ROWS = """image_id,subject_id,study_id,path,view,Scoliosis,split
a,p1,s1,one.png,PA,1,train
b,p1,s1,sub/two.jpg,,-1.0,train
c,p2,s2,three.jpg,AP,,test
"""

CHOSEN = Chosen(manifest.Options("mine.csv"), "manifest", "same")


def sources(tmp_path, text=ROWS):
    (tmp_path / "mine.csv").write_text(text)
    return manifest.sources(tmp_path, CHOSEN)


def read_images(sources, reading=None):
    return manifest.read_images(sources, reading or Reading())


def read_labels(sources, findings=None, reading=None):
    return manifest.read_labels(sources, findings, reading or Reading())


def test_images(tmp_path):
    images = read_images(sources(tmp_path))
    assert list(images["path"]) == ["one.png", "sub/two.jpg", "three.jpg"]
    assert list(images["official_split"]) == ["train", "train", "test"]
    assert images["native_height_px"].isna().all()
    assert pd.isna(images["view"][1])


def test_labels_are_all_columns_that_are_not_fixed(tmp_path):
    labels = read_labels(sources(tmp_path))
    assert list(labels.columns) == ["image_id", "subject_id", "study_id", "label:Scoliosis", "source"]
    assert labels["label:Scoliosis"].equals(pd.Series([1, -1, None], dtype="Int8", name="label:Scoliosis"))


def test_split_is_optional(tmp_path):
    text = "".join(line.rpartition(",")[0] + "\n" for line in ROWS.splitlines())
    assert read_images(sources(tmp_path, text))["official_split"].isna().all()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("b,p1", "a,p1", "mine.csv lines 2 and 3: image_id 'a' stands twice"),
        ("b,p1", "b,", "mine.csv line 3: subject_id is blank"),
        ("p2,s2", "p2,s1", "study_id s1 belongs to the patients p1 and p2"),
        ("p2,s2", "p2,", "mine.csv line 4: study_id is blank"),
        ("three.jpg", "../three.jpg", "line 4: path '../three.jpg' leads out of dataset.root"),
        ("three.jpg", "", "line 4: path is blank"),
        (",,test", ",,exam", "line 4: split is 'exam'; expected train, validate, combine, test or blank"),
        ("path,", "file,", "there is no column 'path'"),
    ],
)
def test_images_that_cannot_be_right_are_refused(tmp_path, old, new, said):
    with pytest.raises(StudyError, match=said):
        read_images(sources(tmp_path, ROWS.replace(old, new, 1)))


def test_labels_that_cannot_be_right_are_refused(tmp_path):
    with pytest.raises(StudyError, match=r"mine.csv line 3: Scoliosis is '-1.5'; expected 1, 0, -1"):
        read_labels(sources(tmp_path, ROWS.replace("-1.0", "-1.5")))
    with pytest.raises(StudyError, match="there is no column 'Edema'; it has"):
        read_labels(sources(tmp_path), ["Edema"])
    bare = "image_id,subject_id,study_id,path,view\na,p,s,x.png,\n"
    with pytest.raises(StudyError, match="there is no column for a finding"):
        read_labels(sources(tmp_path, bare))


def test_a_manifest_that_is_no_csv_says_so(tmp_path):
    with pytest.raises(StudyError, match=r"mine.csv: cannot be read as csv"):
        read_labels(sources(tmp_path, ""))


def test_lines_within_quotes_are_counted(tmp_path):
    text = ROWS.replace(",PA,", ',"PA\nerect",').replace("-1.0", "-1.5").replace(",,test", ",,exam")
    with pytest.raises(StudyError, match=r"mine.csv line 4: Scoliosis is '-1.5'"):
        read_labels(sources(tmp_path, text))
    with pytest.raises(StudyError, match=r"mine.csv line 5: split is 'exam'"):
        read_images(sources(tmp_path, text))


def test_a_missing_manifest_is_named(tmp_path):
    with pytest.raises(StudyError, match=r"has no mine.csv"):
        manifest.sources(tmp_path, CHOSEN)


def test_columns_taken_for_findings_are_named(tmp_path):
    reading = Reading()
    text = "image_id,subject_id,study_id,path,view, Mass ,sex_male\na,p,s,x.png,,1,0\n"
    labels = read_labels(sources(tmp_path, text), None, reading)
    assert list(labels.filter(like="label:")) == ["label:Mass", "label:sex_male"]
    assert reading.notes[0].about == "findings"
    assert "2 columns of mine.csv are taken for findings: Mass, sex_male" in reading.notes[0].note
    reading = Reading()
    read_labels(sources(tmp_path, text), ["Mass"], reading)
    assert reading.notes == []


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("age", "54", "age is '54'; expected 1, 0, -1 .* If age is no finding: findings is null"),
        ("(mean)", "1", "begins with a bracket"),
        ("all", "1", "'all' is a reserved name"),
        ("VIEW", "1", "'VIEW' is a reserved name"),
        ("scoliosis", "1", "the columns 'Scoliosis' and 'scoliosis' may be the same finding"),
    ],
)
def test_a_column_that_is_no_finding_is_named_and_what_to_do(tmp_path, column, value, said):
    head, *rows = ROWS.splitlines()
    text = "\n".join([f"{head},{column}", *(f"{row},{value}" for row in rows)]) + "\n"
    with pytest.raises(StudyError, match=said) as error:
        read_labels(sources(tmp_path, text))
    assert "in findings" in str(error.value)
    assert len(read_labels(sources(tmp_path, text), ["Scoliosis"])) == 3


def test_one_patient_in_two_spellings_is_one(tmp_path):
    reading = Reading()
    images = read_images(
        sources(tmp_path, ROWS.replace("b,p1,s1", "b,p1 ,s1.0").replace("a,p1,s1", "a,p1,s1.0")), reading
    )
    assert images["subject_id"].tolist() == ["p1", "p1", "p2"]
    assert [note.about for note in reading.notes] == ["ids"]
    with pytest.raises(StudyError, match="subject_id is 'p1' on line 2 and 'P1' on line 3, which may be the same"):
        read_images(sources(tmp_path, ROWS.replace("b,p1,s1", "b,P1,s3")))
    exact = read_images(sources(tmp_path, ROWS.replace("b,p1,s1", "b,P1,s3")), Reading(exact_ids=True))
    assert exact["subject_id"].tolist() == ["p1", "P1", "p2"]


def test_views_in_two_spellings_stop(tmp_path):
    with pytest.raises(StudyError, match="view is 'PA' on line 2 and 'pa' on line 4, which may be the same"):
        read_images(sources(tmp_path, ROWS.replace(",AP,", ",pa,")))
