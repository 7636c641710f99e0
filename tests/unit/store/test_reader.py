import pickle
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest

from cxrscale.common.errors import StudyError
from cxrscale.store.pixels import decode
from cxrscale.store.reader import StoreReader


def test_any_image_is_found_by_its_id(small_store, reader):
    seen = 0
    for shard in sorted(small_store.folder.glob("shard-*.parquet")):
        rows = pq.read_table(shard).to_pydict()
        for image_id, jpeg in zip(rows["image_id"], rows["jpeg"], strict=True):
            assert image_id in reader
            assert (reader[image_id] == decode(jpeg)).all()
            seen += 1
    assert seen == len(reader) == 48
    assert reader["image00"].shape == (32, 32)
    assert "image99" not in reader


def test_an_image_that_is_not_there_is_named(reader):
    with pytest.raises(StudyError, match="image image99 is not in the store"):
        reader.rows(["image00", "image99"])


def test_a_reader_can_be_sent_to_another_process(reader):
    before = reader["image07"]
    assert (pickle.loads(pickle.dumps(reader))["image07"] == before).all()


def test_one_damaged_byte_is_detected(small_store, tmp_path):
    folder = tmp_path / "store"
    shutil.copytree(small_store.folder, folder)
    reader = StoreReader(folder)
    row = int(reader.rows(["image03"])[0])
    offset = int(reader._offset[row])
    path = folder / f"shard-{int(reader.shard[row]):05d}.parquet"
    data = bytearray(path.read_bytes())
    data[offset + 200] ^= 1
    path.write_bytes(data)
    with pytest.raises(StudyError, match=rf"{path.name}: is damaged: image03 at byte {offset}. Run `python -m"):
        reader["image03"]
    others = [i for i in small_store.images["image_id"] if i != "image03"]
    assert len([reader[i] for i in others]) == 47


@pytest.mark.parametrize("damage", ["missing", "empty", "short"])
def test_a_lost_shard_is_named(small_store, tmp_path, damage):
    folder = tmp_path / "store"
    shutil.copytree(small_store.folder, folder)
    path = folder / "shard-00000.parquet"
    path.unlink()
    if damage != "missing":
        path.write_bytes(b"" if damage == "empty" else b"PAR1")
    reader = StoreReader(folder)
    row = int(np.flatnonzero(reader.shard == 0)[0])
    with pytest.raises(StudyError, match=r"shard-00000.parquet: is damaged: .*--set-aside"):
        reader.pixels(row)


def test_a_picture_of_another_size_is_refused(reader):
    with pytest.raises(StudyError, match=r"image image\d\d cannot be decoded: it has 32 x 32 px, expected 40 x 40"):
        reader.pixels_into(3, np.empty((40, 40), np.uint8))
    out = np.empty(reader.shape, np.uint8)
    reader.pixels_into(3, out)
    assert (out == reader.pixels(3)).all()


def test_row_groups_can_be_announced_whole_or_damaged(small_store, tmp_path, reader):
    reader.announce(np.arange(48))
    reader.announce(np.array([], np.int64))
    folder = tmp_path / "store"
    shutil.copytree(small_store.folder, folder)
    (folder / "shard-00000.parquet").write_bytes(b"PAR1")
    StoreReader(folder).announce(np.arange(48))  # reading finds the damage, not this


def test_images_are_known_by_row(reader):
    assert (reader.rows(list(reader.image_ids)) == np.arange(48)).all()
