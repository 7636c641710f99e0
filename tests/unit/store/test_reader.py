import pickle
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from cxrscale.errors import StudyError
from cxrscale.store.pixels import decode
from cxrscale.store.reader import StoreReader, decoded_batches, epoch_order


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
    with pytest.raises(StudyError, match=rf"{path.name}: is damaged at byte {offset}. Delete it and the manifest"):
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
    with pytest.raises(StudyError, match=r"shard-00000.parquet: .*Delete it and the manifest"):
        reader.pixels(row)


def test_batches_are_the_same_from_this_process_and_from_two_workers(reader):
    batches = [np.array([5, 1, 40]), np.array([7]), np.array([0, 47])]
    here, there = (list(decoded_batches(reader, batches, workers)) for workers in (0, 2))
    assert [tuple(b.shape) for b in here] == [(3, 1, 32, 32), (1, 1, 32, 32), (2, 1, 32, 32)]
    assert len(there) == 3
    assert all((a == b).all() for a, b in zip(here, there, strict=True))
    assert (here[0][1, 0].numpy() == reader.pixels(1)).all()


def test_reading_draws_no_random_number(reader):
    before = torch.get_rng_state()
    assert len(list(decoded_batches(reader, [np.array([1])], 0))) == 1
    assert torch.equal(torch.get_rng_state(), before)


class Shards:
    """A pretended store of 64 row groups of 32 images, all that `epoch_order` looks at."""

    shard = np.repeat(np.arange(8), 256)
    row_group = np.tile(np.repeat(np.arange(8), 32), 8)


ROWS = np.arange(2048)


def test_an_epochs_order_is_a_permutation_and_a_function_of_seed_and_epoch_alone():
    order = epoch_order(Shards, ROWS[10:2000], seed=1, epoch=2)
    assert (np.sort(order) == ROWS[10:2000]).all()
    np.random.seed(123)  # noqa: NPY002 - the global state must not matter
    assert (epoch_order(Shards, ROWS[10:2000], 1, 2) == order).all()
    assert (epoch_order(Shards, ROWS[10:2000], 1, 3) != order).mean() > 0.9
    assert (epoch_order(Shards, ROWS[10:2000], 2, 2) != order).mean() > 0.9


def test_an_epochs_order_mixes():
    """A pool holds 32 of the 64 row groups: a batch of 64 draws from about 28 of them, and pools differ by epoch."""
    order = epoch_order(Shards, ROWS, 0, 0)
    groups = [len(set(batch // 32)) for batch in order.reshape(-1, 64)]
    assert len(groups) == 32
    assert min(groups) >= 18
    first_pools = [set(epoch_order(Shards, ROWS, 0, e)[:1024] // 32) for e in range(3)]
    assert [len(pool) for pool in first_pools] == [32, 32, 32]  # reading stays within the pool
    assert first_pools[0] != first_pools[1] != first_pools[2]
