import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cxrscale.common.errors import StudyError
from cxrscale.data import csv_files as contracts
from cxrscale.data.spelling import Reading


def read_csv(path, required, **options):
    return contracts.read_csv(path, required, Reading(), **options)


def refused(function, *args) -> str:
    with pytest.raises(StudyError) as error:
        function(*args)
    return str(error.value)


def test_a_missing_root_is_named(tmp_path):
    said = refused(contracts.find_source, tmp_path / "nowhere", ["a.csv"])
    assert f"dataset.root: there is no folder {tmp_path / 'nowhere'}" in said
    assert str(Path.cwd()) in said


def test_a_missing_file_names_all_that_were_looked_for_and_the_first_is_preferred(tmp_path):
    assert "has no a.csv.gz or a.csv" in refused(contracts.find_source, tmp_path, ["a.csv.gz", "a.csv"])
    (tmp_path / "a.csv").write_text("x")
    assert contracts.find_source(tmp_path, ["a.csv.gz", "a.csv"]) == tmp_path / "a.csv"
    (tmp_path / "a.csv.gz").write_text("x")
    assert contracts.find_source(tmp_path, ["a.csv.gz", "a.csv"]) == tmp_path / "a.csv.gz"


def test_a_missing_column_is_named_with_those_there_are(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("id,b\n1,2\n")
    said = refused(read_csv, path, ["id", "c"])
    assert f"{path}: there is no column 'c'; it has ['id', 'b']. Expected id, c." in said


@pytest.mark.parametrize("content", [b"", b"\x1f\x8bbroken", b"a,b\n1,2,3,4\n1,2,3\n", b"a,b\n1,2\n1,2,3\n"])
def test_a_file_that_is_no_csv_says_so(tmp_path, content):
    path = tmp_path / ("a.csv.gz" if content.startswith(b"\x1f") else "a.csv")
    path.write_bytes(content)
    said = refused(read_csv, path, ["a"])
    assert str(path) in said


def test_a_comma_at_the_end_of_each_line_shifts_no_column(tmp_path):
    (tmp_path / "a.csv").write_text("a,b\n1,2,\n3,4,\n")
    assert read_csv(tmp_path / "a.csv", ["b"])["b"].tolist() == ["2", "4"]


WHOLE = "image_id,path,Edema,Mass\ni1,a.png,1,0\ni2,b.png,,1\n"


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
def test_a_file_cut_short_at_any_byte_is_refused_or_says_what_the_whole_one_says(tmp_path, name):
    """Unless it was cut between two rows, where a csv file does not tell."""
    path, whole, refused_at = tmp_path / name, WHOLE.encode(), 0
    for end in range(len(WHOLE)):
        text = whole[:end]
        path.write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
        columns = ["image_id", "path", "Edema", "Mass"]
        if text.endswith(b"\n"):
            continue
        try:
            frame = read_csv(path, columns)
        except StudyError:
            refused_at += 1
            continue
        expected = pd.DataFrame([["i1", "a.png", "1", "0"], ["i2", "b.png", None, "1"]], columns=columns)
        assert frame.equals(expected.astype("str")[: len(frame)]), text
    assert refused_at > len(WHOLE) - 8


def test_a_gz_file_cut_short_is_refused(tmp_path):
    path, whole = tmp_path / "a.csv.gz", gzip.compress(WHOLE.encode() * 1000)
    for end in (len(whole) // 2, len(whole) - 9, len(whole) - 4, len(whole) - 1):
        path.write_bytes(whole[:end])
        assert f"{path}: cannot be read as csv" in refused(read_csv, path, ["image_id"])


@pytest.mark.parametrize(
    ("row", "fields"),
    [("i2,b.png,", 3), ("i2", 1), ("i2,b.png,,1,0", 5), ("i2,,b.png,1,", 5), ('i2,"b,png",1', 3), ("i2,b.png,,1,,", 6)],
)
def test_a_row_with_another_number_of_fields_is_named(tmp_path, row, fields):
    path = tmp_path / "a.csv"
    path.write_text(f"image_id,path,Edema,Mass\ni1,a.png,1,0\n{row}\ni3,c.png,0,0\n")
    assert f"{path} line 3: has {fields} fields, expected 4" in refused(read_csv, path, ["image_id"])


def test_a_file_without_a_row_is_named(tmp_path):
    path = tmp_path / "a.csv"
    for text in ("image_id,path\n", "image_id,path", "image_id,path\n\n \n"):
        path.write_text(text)
        assert f"{path}: has a header and no row" in refused(read_csv, path, ["image_id"])


def test_a_quote_that_is_not_closed_is_named(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('image_id,path,Edema,Mass\ni1,a.png,1,0\ni2,"b.png,1,0\n')
    assert str(path) in refused(read_csv, path, ["image_id"])


def test_blanks_around_the_name_of_a_column_are_no_part_of_it(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("image_id, Pneumonia,Mass \ni1,1,0\n")
    assert contracts.csv_header(path) == ["image_id", "Pneumonia", "Mass"]
    assert read_csv(path, ["image_id", "Pneumonia"])["Pneumonia"].tolist() == ["1"]
    path.write_text("image_id,Mass,Mass \ni1,1,0\n")
    assert "the column 'Mass' stands twice" in refused(read_csv, path, ["image_id"])


def test_csv_is_text_in_file_order_and_blank_is_null(tmp_path):
    (tmp_path / "a.csv").write_text("z,id,b\n9,007,NA\n8,1e5,\n")
    frame = read_csv(tmp_path / "a.csv", ["id", "b"], optional=["absent"])
    assert list(frame["id"]) == ["007", "1e5"]
    assert frame["b"][0] == "NA"
    assert pd.isna(frame["b"][1])
    assert frame["absent"].isna().all()
    assert "z" not in frame


def test_labels_are_coded_as_numbers_however_they_are_written():
    raw = pd.Series(["1.0", "1", " 0", "-1.0", None, "0.0"])
    got = contracts.parse_labels(raw, Path("f.csv"), "Edema")
    assert got.equals(pd.Series([1, 1, 0, -1, None, 0], dtype="Int8"))


@pytest.mark.parametrize("wrong", ["2", "0.5", "yes", "nan", "-2.0"])
def test_a_label_outside_the_coding_names_file_line_and_value(wrong):
    said = refused(contracts.parse_labels, pd.Series(["1", None, wrong, "7"]), Path("f.csv.gz"), "Edema")
    assert f"f.csv.gz line 4: Edema is {wrong!r}; expected 1, 0, -1 (uncertain) or blank (not mentioned)" in said


@pytest.mark.parametrize("name", ["f.csv", "f.csv.gz"])
def test_lines_are_counted_as_an_editor_does_whatever_stands_between_the_rows(tmp_path, name):
    path = tmp_path / name
    text = 'id,"no\nte",n\n\na,"one\ntwo\n\nthree",1\n  \nb,,1\r\n"",x,1\nc,"say ""hi""\n",1\na,,7\n'
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    assert [contracts.line_of(path, row) for row in range(5)] == [4, 9, 10, 11, 13]
    frame = read_csv(path, ["id", "n"])
    assert len(frame) == 5
    said = refused(contracts.parse_labels, frame["n"], path, "n")
    assert f"{path} line 13: n is '7'" in said
    assert f"{path} line 10: id is blank" in refused(contracts.check_unique, frame, "id", path)
    said = refused(contracts.check_unique, frame.drop(index=2), "n", path)
    assert f"{path} lines 4 and 9: n '1' stands twice" in said
    assert f"{path} line 13: n is '7'; expected 1 or 2." in refused(
        contracts.check_one_of, frame, "n", ["1", "2"], path
    )


def test_lines_of_a_file_that_is_gone_are_those_of_a_plain_one(tmp_path):
    assert contracts.line_of(tmp_path / "gone.csv", 3) == 5


def test_a_column_that_stands_twice_is_refused(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("id,b,b\n1,2,3\n")
    said = refused(read_csv, path, ["id", "b"])
    assert f"{path}: the column 'b' stands twice; expected each column once" in said


def test_a_duplicate_names_both_lines():
    frame = pd.DataFrame({"image_id": ["a", "b", "c", "b"]})
    said = refused(contracts.check_unique, frame, "image_id", Path("f.csv"))
    assert "f.csv lines 3 and 5: image_id 'b' stands twice" in said
    frame = pd.DataFrame({"image_id": ["a", None]})
    assert "f.csv line 3: image_id is blank" in refused(contracts.check_unique, frame, "image_id", Path("f.csv"))


@pytest.mark.parametrize("path", ["../x.jpg", "a/../../x.jpg", "/etc/passwd", "~/x.jpg", "a\\x.jpg", "C:/x.jpg"])
def test_a_path_that_leads_out_of_the_root_is_refused(path):
    said = refused(contracts.check_paths, pd.DataFrame({"path": ["files/a..b.jpg", path]}), Path("f.csv"))
    assert f"f.csv line 3: path {path!r} leads out of dataset.root; expected a path below it" in said


@pytest.mark.parametrize("path", ["..", "a/..", "./../x", "a//..//b", "~x", "ab:c", "a\nb/../c"])
def test_other_ways_out_of_the_root_are_refused(path):
    said = refused(contracts.check_paths, pd.DataFrame({"path": ["x", path, "../later"]}), Path("f.csv"))
    assert f"f.csv line 3: path {path!r} leads out of dataset.root" in said


def test_paths_below_the_root_are_taken():
    paths = ["x", ".x/..y/z..", "a/.../b", "a~/b", "abc:d", "./a", "a b/ü.png"]
    contracts.check_paths(pd.DataFrame({"path": paths}), Path("f.csv"))
    contracts.check_paths(pd.DataFrame({"path": []}), Path("f.csv"))


def test_a_blank_path_is_refused():
    said = refused(contracts.check_paths, pd.DataFrame({"path": ["x", None]}), Path("f.csv"))
    assert "f.csv line 3: path is blank" in said


def test_an_examination_of_two_patients_is_refused():
    frame = pd.DataFrame({"study_id": ["s", "s", "t"], "subject_id": ["p2", "p1", "p1"]})
    said = refused(contracts.check_one_patient_an_examination, frame, Path("f.csv"))
    assert "f.csv: study_id s belongs to the patients p1 and p2; expected one patient" in said


def test_shards_depend_on_the_image_alone_and_fill_evenly():
    ids = [f"image-{i}" for i in range(4000)]
    shard, order = contracts.assign_shards(ids, 4)
    again, order_again = contracts.assign_shards([*ids[::-1], "new"], 4)
    assert (again[:4000][::-1] == shard).all()
    assert (order_again[:4000][::-1] == order).all()
    assert (np.bincount(shard, minlength=4) > 4000 / 4 - 150).all()  # five standard deviations of a fair draw
    assert len(np.unique(order)) == 4000
    assert (order >= 0).all()
    assert contracts.assign_shards(["02aa804e"], 256)[0][0] == contracts.assign_shards(["02aa804e"], 256)[0][0]


def test_the_shard_of_an_image_is_held_constant():
    """A number written down: stores that exist must be found again by every later version."""
    shard, order = contracts.assign_shards(["02aa804e-bde0afdd-112c0b34-7bc16630-4e384014"], 256)
    assert (int(shard[0]), int(order[0])) == (69, 8_066_998_994_292_357_790)
