from dataclasses import dataclass

import pandas as pd
import pytest

from cxrscale.common import tables
from cxrscale.common.errors import StudyError
from cxrscale.common.tables import Column, Table

TABLE = Table(
    name="rows",
    file="rows.csv",
    row="a row",
    columns=(Column("id", "text", "who"), Column("note", "text", "words", null="none"), Column("n", "int32", "count")),
    key=("id",),
    per_finding=(Column("x:{finding}", "float32", "value", null="unknown"), Column("y:{finding}", "int8", "flag")),
)


def frame(**changed):
    columns = {"id": ["NA", "b"], "note": ["nan", None], "n": [1, 2], "x:Edema": [0.5, None], "y:Edema": [0, 1]}
    return pd.DataFrame(columns | changed)


@pytest.mark.parametrize("name", ["t.parquet", "t.csv"])
def test_what_is_written_is_read(tmp_path, name):
    tables.write(TABLE, frame(), tmp_path / name)
    back = tables.read(TABLE, tmp_path / name)
    assert list(back.columns) == ["id", "note", "n", "x:Edema", "y:Edema"]
    assert list(back["id"]) == ["NA", "b"]  # the text NA is no missing value
    assert back["note"][0] == "nan"
    assert pd.isna(back["note"][1])
    assert back["x:Edema"][0] == 0.5
    assert pd.isna(back["x:Edema"][1])
    assert list(tables.read(TABLE, tmp_path / name, ["n"]).columns) == ["n"]


def test_columns_are_written_in_the_declared_order_whatever_the_frames(tmp_path):
    tables.write(TABLE, frame()[["y:Edema", "n", "x:Edema", "note", "id"]], tmp_path / "t.parquet")
    assert list(tables.read(TABLE, tmp_path / "t.parquet").columns) == ["id", "note", "n", "x:Edema", "y:Edema"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (frame().drop(columns="n"), "rows lacks the column 'n'; it has ['id', 'note', 'x:Edema', 'y:Edema']"),
        (frame().drop(columns="y:Edema"), "rows lacks the column 'y:Edema'"),
        (frame(extra=1), "rows knows no column 'extra'; it knows ['id', 'note', 'n', 'x:Edema', 'y:Edema']"),
        (frame(id=["a", None]), "rows row 1: id is empty, which it may not be"),
        (frame(id=["a", "a"]), "rows holds {'id': 'a'} twice"),
    ],
)
def test_a_frame_that_breaks_the_declaration_is_refused_and_nothing_is_written(tmp_path, given, said):
    with pytest.raises(StudyError) as error:
        tables.write(TABLE, given, tmp_path / "t.parquet")
    assert said in str(error.value)
    assert str(tmp_path / "t.parquet") in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_breaks_the_declaration_is_refused(tmp_path):
    frame().drop(columns="n").to_parquet(tmp_path / "t.parquet")
    with pytest.raises(StudyError, match="lacks the column 'n'"):
        tables.read(TABLE, tmp_path / "t.parquet")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("id,note,n,", "id,note,m,", "rows lacks the column 'n'; it has ['id', 'note', 'm', 'x:Edema', 'y:Edema']"),
        ("id,note,n,", "id,,n,", "rows lacks the column 'note'"),
        ("b,,2", ",,2", "rows row 1: id is empty, which it may not be"),
        ("b,,2", "b,,", "rows row 1: n is empty, which it may not be"),
        ("b,,2", "NA,,2", "rows holds {'id': 'NA'} twice"),
        ("b,,2", "b,,2.5", "rows: n holds what is no int32"),
        ("b,,2", "b,,many", "rows: n holds what is no int32"),
        ("b,,2,,1", "b,,2,,300", "rows: y:Edema holds what is no int8"),
        ("b,,2,,1", "b,,2,,1,1,1", "rows cannot be read as csv"),
    ],
)
def test_a_csv_file_that_breaks_the_declaration_is_refused_as_parquet_is(tmp_path, old, new, said):
    path = tmp_path / "t.csv"
    tables.write(TABLE, frame(), path)
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))
    with pytest.raises(StudyError) as error:
        tables.read(TABLE, path)
    assert said in str(error.value)
    assert str(path) in str(error.value)


def test_csv_and_parquet_are_read_with_the_same_types(tmp_path):
    for given in (frame(), frame(note=None), frame().head(0)):
        for name in ("t.csv", "t.parquet"):
            tables.write(TABLE, given, tmp_path / name)
        pd.testing.assert_frame_equal(
            tables.read(TABLE, tmp_path / "t.csv"), tables.read(TABLE, tmp_path / "t.parquet")
        )


def test_an_absent_file_is_named_with_what_should_be_there(tmp_path):
    with pytest.raises(StudyError, match=r"t.parquet: there is no such file; rows should be there"):
        tables.read(TABLE, tmp_path / "t.parquet")


def test_findings_come_in_order_of_appearance():
    assert TABLE.findings(["id", "x:Zeta", "y:Zeta", "x:Alpha Beta", "other"]) == ["Zeta", "Alpha Beta"]


def test_settings_from_names_what_is_wrong():
    @dataclass
    class Settings:
        epochs: int

    assert tables.settings_from(Settings, {"epochs": 3}) == Settings(3)
    with pytest.raises(StudyError, match=r"Settings: .*'epoch'"):
        tables.settings_from(Settings, {"epoch": 3})
    with pytest.raises(StudyError, match=r"Settings: .*missing.*'epochs'"):
        tables.settings_from(Settings, {})
