"""One thing has one spelling: ids and group values."""

import unicodedata
from pathlib import Path

import pandas as pd
import pytest

from cxrscale.common.errors import StudyError
from cxrscale.data.csv_files import check_filled, read_csv
from cxrscale.data.spelling import NOTHING, Reading, check_same_spelling, loosely, one_spelling, spelled
from cxrscale.data.subgroups import check_subgroups, read_subgroups

COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "M\u00fcller") for form in ("NFC", "NFD"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("p0", "p0"),
        ("p0 ", "p0"),
        ("\tp0", "p0"),
        ("p0\u00a0", "p0"),
        ("\ufeffp0", "p0"),
        ("p\u200b0", "p 0"),
        ("a  b", "a b"),
        ("10000032.0", "10000032"),
        ("10000032.", "10000032"),
        ("-5.00", "-5"),
        ("1.5", "1.5"),
        ("1.2.840.0", "1.2.840.0"),
        ("00012", "00012"),
        ("02aa804e-bde0afdd", "02aa804e-bde0afdd"),
        (DECOMPOSED, COMPOSED),
        ("nan", ""),
        ("NA ", ""),
        ("None", ""),
        ("<NA>", ""),
        ("   ", ""),
        ("N", "N"),
        ("Nancy", "Nancy"),
    ],
)
def test_spelling(text, expected):
    assert one_spelling(text) == expected


def test_spelling_is_stable():
    for text in ("p0 ", "10000032.0", DECOMPOSED, "a \u00a0 b", "5.", *NOTHING):
        assert one_spelling(one_spelling(text)) == one_spelling(text)


def test_what_may_be_the_same_is_alike():
    for same in (
        ("Pat0", "PAT0", "pat0"),
        ("00012", "12", "012"),
        ("p01-s003", "P1-S3"),
        ("a b", "ab"),
        ("x\uff11", "x1"),
    ):
        assert len({loosely(one_spelling(text)) for text in same}) == 1, same
    assert len({loosely(t) for t in ("p1", "p10", "p100", "0", "q0")}) == 5


def column(values, id_=True, exact_ids=False):
    reading = Reading(exact_ids)
    raw = pd.Series(values, dtype="str", name="subject_id")
    found = spelled(raw, Path("somewhere/f.csv"), reading, lambda row: row + 2, id_)
    return found.tolist(), reading.notes


def test_a_blank_an_accent_and_a_fraction_make_no_other_patient():
    found, notes = column(["p0", "p0 ", DECOMPOSED, COMPOSED, "7.0", "7", "7"])
    assert found == ["p0", "p0", COMPOSED, COMPOSED, "7", "7", "7"]
    (note,) = notes
    assert note.about == "ids"
    assert note.note == "f.csv: subject_id is read in another spelling on 3 rows."
    assert note.examples == f"'p0 ' as 'p0', {DECOMPOSED!r} as {COMPOSED!r}, '7.0' as '7'"
    assert "p0" not in note.note  # the note itself names nobody


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (["Pat0", "x", "PAT0"], "'Pat0' on line 2 and 'PAT0' on line 4, which may be the same"),
        (["00012", "12"], "'00012' on line 2 and '12' on line 3"),
        (["p1 ", "q", "p01"], "'p1' on line 2 and 'p01' on line 4"),
        (["00012.0", "12"], "'00012' on line 2 and '12' on line 3"),
        (["Jane  Doe", "JaneDoe"], "'Jane Doe' on line 2 and 'JaneDoe' on line 3"),
    ],
)
def test_what_may_be_one_patient_stops_with_both_spellings(values, said):
    with pytest.raises(StudyError, match=said) as error:
        column(values)
    assert "set dataset.ids to exact" in str(error.value)
    assert column(values, exact_ids=True) == (values, [])


@pytest.mark.parametrize("nothing", ["nan", "NA", "None", "N/A", "n.a.", "null", "-", " nan "])
def test_an_id_that_says_that_there_is_none_is_refused(nothing):
    with pytest.raises(StudyError, match=f"f.csv: subject_id is {nothing!r} on line 3, which says that there is none"):
        column(["p1", nothing, nothing])
    assert column(["p1", nothing], exact_ids=True)[0] == ["p1", nothing]


@pytest.mark.parametrize("shortened", ["1E+07", "1.00E+07", "1,5e+8"])
def test_an_id_that_a_spreadsheet_shortened_is_refused(shortened):
    with pytest.raises(StudyError, match="on line 3, as spreadsheets shorten long numbers"):
        column(["1e7-5", shortened])
    assert column([shortened], exact_ids=True)[0] == [shortened]
    assert column([shortened, "2"], id_=False)[0] == [shortened, "2"]


@pytest.mark.parametrize("blank", ["", " ", "\u00a0", "\u200b"])
def test_an_id_of_blanks_is_none(tmp_path, blank):
    (tmp_path / "a.csv").write_text(f"study_id,x\ns1,1\n{blank},1\n")
    with pytest.raises(StudyError, match=r"a.csv line 3: study_id is blank"):
        check_filled(read_csv(tmp_path / "a.csv", ["study_id", "x"], Reading()), "study_id", tmp_path / "a.csv")


def test_values_of_groups_have_one_spelling_too():
    found, notes = column(["M", "M ", "F", "nan", None], id_=False)
    assert found[:3] == ["M", "M", "F"]
    assert all(pd.isna(value) for value in found[3:])
    assert notes[0].about == "groups"
    assert notes[0].examples == "'M ' as 'M', 'nan' as not recorded"
    assert column(["1", "1.0", "2"], id_=False)[0] == ["1", "1", "2"]


@pytest.mark.parametrize("values", [["M", "m"], ["1", "01"], ["LATERAL", "lateral"], ["AP erect", "AP  ERECT"]])
def test_values_of_groups_that_may_be_the_same_stop(values):
    with pytest.raises(StudyError, match="which may be the same; expected one spelling"):
        column(values, id_=False)
    with pytest.raises(StudyError, match="which may be the same"):  # exact ids are ids alone
        column(values, id_=False, exact_ids=True)


def test_files_are_compared_in_their_spelling():
    known, names = pd.Series(["a", "b"]), ("f.csv: study_id", "g.csv: study_id")
    check_same_spelling(pd.Series(["a", "b", "new"]), known, *names, Reading())
    check_same_spelling(pd.Series(["A"]), known, *names, Reading(exact_ids=True))
    with pytest.raises(
        StudyError, match=r"f.csv: study_id holds 'A', g.csv: study_id holds 'a', which may be the same"
    ):
        check_same_spelling(pd.Series(["A"]), known, *names, Reading())


def test_reading_the_same_file_twice_notes_once(tmp_path):
    (tmp_path / "a.csv").write_text("subject_id,x\np1 ,1\n")
    reading = Reading()
    for _ in range(2):
        assert read_csv(tmp_path / "a.csv", ["subject_id"], reading)["subject_id"].tolist() == ["p1"]
    assert len(reading.notes) == 1


IMAGES = pd.DataFrame({"image_id": ["i1", "i2"], "study_id": ["s1", "s2"], "subject_id": ["p1", "p2"]})


def subgroups(tmp_path, text, columns=("sex",)):
    path, reading = tmp_path / "sex.csv", Reading()
    path.write_text(text)
    check_subgroups(read_subgroups(path, columns, reading), IMAGES, path, reading)
    return [note.note for note in reading.notes]


def test_a_file_of_subgroups_that_matches_is_not_noted(tmp_path):
    assert subgroups(tmp_path, "subject_id,sex\np1,M\np2,F\np3,F\n") == []


def test_images_without_a_row_in_the_subgroups_are_counted(tmp_path):
    (note,) = subgroups(tmp_path, "subject_id,sex\np1,M\nq,F\n")
    assert note.startswith("1 of 2 images have no row in sex.csv (by subject_id)")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("subject_id,sex\nq1,M\nq2,F\n", "no subject_id of .*sex.csv is one of the study's"),
        ("image_id,sex\nq1,M\n", "no image_id of .*sex.csv is one of the study's"),
        ("subject_id,sex\nP1,M\np2,F\n", "holds 'P1', the study's subject_id holds 'p1'"),
        ("subject_id,sex\np1,M\np2,m\n", "sex is 'M' on line 2 and 'm' on line 3"),
        ("subject_id,sex\nNA,M\n", "subject_id is 'NA' on line 2, which says that there is none"),
    ],
)
def test_subgroups_that_match_nothing_or_are_spelled_otherwise_are_refused(tmp_path, text, said):
    with pytest.raises(StudyError, match=said):
        subgroups(tmp_path, text)
