"""A record that breaks its declaration is refused by the name of the field, when written and when read."""

import json
from pathlib import Path

import pytest

from cxrscale.common import records
from cxrscale.common.errors import StudyError
from cxrscale.common.records import Record
from cxrscale.common.tables import Column

RECORD = Record(
    name="thing",
    file="{study}/thing.json",
    of="a thing",
    remedy="Make it again.",
    fields=(
        Column("name", "text", "what it is called"),
        Column("parts", "list of text", "what it is made of"),
        Column("size", "float64", "in m", null="not measured"),
        Column("count", "int64", "how many"),
        Column("whole", "bool", "whether it is"),
        Column("from.code", "text", "digest"),
        Column("from.settings", "mapping", "all"),
    ),
)
VALUES = {
    "name": "n", "parts": ["a"], "size": None, "count": 3, "whole": True, "from": {"code": "c", "settings": {"x": 1}},
}  # fmt: skip


def changed(**changes):
    return {**VALUES, **changes}


def test_a_record_is_read_as_it_was_written(tmp_path):
    path = tmp_path / RECORD.file_name
    assert path.name == "thing.json"
    for values in (VALUES, changed(size=2.5), changed(size=2, parts=[])):
        records.write(RECORD, values, path)
        assert records.read(RECORD, path) == values


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({k: v for k, v in VALUES.items() if k != "count"}, "lacks 'count'"),
        (changed(**{"from": {"code": "c"}}), "lacks 'from.settings'"),
        (changed(**{"from": None}), "lacks 'from.code'"),
        (changed(counts=3), r"knows no 'counts' \(did you mean 'count'\?\)"),
        (changed(**{"from": {"code": "c", "settings": {}, "date": 1}}), "knows no 'from.date'"),
        (changed(count=None), "count is null, which it may not be"),
        (changed(count=3.0), "count is 3.0; expected int64"),
        (changed(count=True), "count is True; expected int64"),
        (changed(size="2"), "size is '2'; expected float64"),
        (changed(size=float("nan")), "size is nan; expected float64"),
        (changed(whole=1), "whole is 1; expected bool"),
        (changed(parts="ab"), "parts is 'ab'; expected list of text"),
        (changed(parts=["a", 1]), r"parts is \['a', 1\]; expected list of text"),
        ([1], "is a list; expected a mapping"),
    ],
)
def test_what_breaks_the_declaration_is_refused_by_name(tmp_path, values, said):
    path = tmp_path / "thing.json"
    with pytest.raises(StudyError, match=said):
        records.write(RECORD, values, path)
    assert not path.exists()
    path.write_text(json.dumps(values))
    with pytest.raises(StudyError, match=rf"thing.json: thing.*{said}.*Make it again."):
        records.read(RECORD, path)


def test_what_is_absent_or_no_json_is_to_be_made_again(tmp_path):
    with pytest.raises(StudyError, match=r"there is no such file; thing should be there. Make it again."):
        records.read(RECORD, tmp_path / "thing.json")
    (tmp_path / "thing.json").write_text('{"name"')
    with pytest.raises(StudyError, match=r"cannot be read as JSON.*Make it again."):
        records.read(RECORD, tmp_path / "thing.json")


def test_a_file_system_that_does_not_answer_says_nothing_about_the_record(tmp_path, monkeypatch):
    def stale(*_, **__):
        raise OSError(116, "Stale file handle")

    monkeypatch.setattr(Path, "read_text", stale)
    with pytest.raises(OSError, match="Stale"):
        records.read(RECORD, tmp_path / "thing.json")
