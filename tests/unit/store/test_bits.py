import pandas as pd

from cxrscale.common import notes, tables
from cxrscale.store.bits import notes_on_bits, pictures_by_bits


def index(*bits: int) -> pd.DataFrame:
    return pd.DataFrame({"image_id": [f"i{k}" for k in range(len(bits))], "native_bits": bits})


def test_pictures_are_counted_by_bits():
    assert pictures_by_bits(index(12, 8, 12, 16, 12)) == {8: 1, 12: 3, 16: 1}
    assert pictures_by_bits(index()) == {}


def test_a_note_says_where_bits_differ_and_what_to_do(tmp_path):
    assert notes_on_bits(index(12, 12)) == notes_on_bits(index()) == []
    ((about, note, named),) = notes_on_bits(index(*[12] * 1200, 10, 10, 10, 10))
    assert about == "pictures"
    assert "fill: 10 bits in 4, 12 bits in 1,200. Each was scaled" in note
    assert "i1200" not in note  # the report may be passed on
    assert "set store.bits to its bits" in note
    assert named == "10 bits: i1200, i1201, i1202 and 1 more"
    notes.write([notes.Note(about, note, named)], tmp_path / "notes.csv")
    assert tables.read(notes.NOTES, tmp_path / "notes.csv")["note"].tolist() == [note]
