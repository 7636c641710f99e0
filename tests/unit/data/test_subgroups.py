import pytest

from cxrscale.common.errors import StudyError
from cxrscale.common.provenance import file_digest
from cxrscale.data.spelling import Reading
from cxrscale.data.subgroups import checked_digest, read_subgroups


def written(tmp_path, text):
    path = tmp_path / "patients.csv"
    path.write_text(text)
    return path


def test_the_columns_named_are_read_as_text(tmp_path):
    path = written(tmp_path, "age,subject_id,sex,note\n40-60,0017,F,x\n,0018,M,y\n")
    frame = read_subgroups(path, ["view", "sex", "age"], Reading())
    assert list(frame.columns) == ["subject_id", "sex", "age"]
    assert frame["subject_id"].tolist() == ["0017", "0018"]
    assert frame["age"].isna().tolist() == [False, True]
    assert checked_digest(str(path), ["sex"], False) == file_digest(path)
    assert checked_digest(None, ["view"], False) is None


@pytest.mark.parametrize(
    ("text", "columns", "said"),
    [
        ("patient,sex\n1,F\n", ["sex"], r"there is no id; it has \['patient', 'sex'\]. Expected a column image_id"),
        ("subject_id,sex\n1,F\n", ["age"], "there is no column 'age'"),
        ("subject_id,sex\n1,F\n1,M\n", ["sex"], "lines 2 and 3: subject_id '1' stands twice"),
        ("subject_id,sex\n1,F\n", ["subject_id"], "evaluation.groups holds 'subject_id', which is an id"),
        ("subject_id,age\n" + "".join(f"{i},{i}\n" for i in range(31)), ["age"], "age has 31 values; .* at most 30"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(tmp_path, text, columns, said):
    with pytest.raises(StudyError, match=said):
        checked_digest(str(written(tmp_path, text)), columns, False)
