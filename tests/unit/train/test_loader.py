import gc
import runpy
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
import torch

from cxrscale.common.errors import StudyError
from cxrscale.store.reader import StoreReader
from cxrscale.train import loader
from cxrscale.train.augmentation import Augmentation, augment, image_keys, normalise
from cxrscale.train.loader import decoded_batches, epoch_order, labelled_batches, select_examples, share_of_rank


def test_examples_are_those_of_the_split_in_the_stores_order(small_store, reader):
    targets = small_store.targets.sample(frac=1, random_state=0)
    absent = targets.iloc[:1].assign(image_id="quarantined", split="train")
    examples = select_examples(pd.concat([targets, absent]), reader, "train")
    assert len(examples) == 32
    assert (np.diff(examples.rows) > 0).all()
    by_id = small_store.targets.set_index("image_id")
    assert (reader.rows(list(examples.image_id)) == examples.rows).all()
    assert examples.target[:, 0].tolist() == by_id["target:Bright"][examples.image_id].tolist()
    assert (examples.keys == image_keys(list(examples.image_id))).all()


HOW = Augmentation(seed=4, epoch=1)
BATCHES = [np.array([5, 1, 40]), np.array([7]), np.array([0, 47]), np.array([9, 8])]


@pytest.mark.parametrize("how", [None, HOW], ids=["grey", "augmented"])
def test_batches_are_the_same_whatever_the_number_of_workers(reader, monkeypatch, how):
    """The caller keeps every batch: more than there is shared memory for, so that memory of its own is taken."""
    monkeypatch.setattr(loader, "LOAD_BYTES", 3 * 32 * 32)  # loads of one batch or two
    given = {workers: list(decoded_batches(reader, BATCHES * 4, workers, augmentation=how)) for workers in (0, 1, 2)}
    assert [tuple(b.shape) for b in given[0][:4]] == [(3, 1, 32, 32), (1, 1, 32, 32), (2, 1, 32, 32), (2, 1, 32, 32)]
    for workers in (1, 2):
        assert len(given[workers]) == 16
        assert all(torch.equal(a, b) for a, b in zip(given[0], given[workers], strict=True))
    if how is None:
        assert (given[0][0][1, 0].numpy() == reader.pixels(1)).all()


def test_memory_is_used_again_only_when_nobody_holds_it(reader, monkeypatch):
    monkeypatch.setattr(loader, "LOAD_BYTES", 0)
    places, kept = [], []
    for number, pixels in enumerate(decoded_batches(reader, [np.array([row]) for row in range(12)], 0)):
        places.append(pixels.data_ptr())
        if number % 4 == 0:
            kept.append(pixels[0, 0, :4])  # a view is enough to hold it
    del pixels
    gc.collect()
    assert len(set(places)) < 8
    for number, view in zip((0, 4, 8), kept, strict=True):
        assert (view.numpy() == reader.pixels(number)[:4]).all()


def test_nothing_to_load(reader):
    assert list(decoded_batches(reader, [], 2)) == []


def test_workers_augment_as_the_device_does(reader):
    """Half a grey level of rounding, and OpenCV's interpolation."""
    rows = np.arange(48)
    (given,) = decoded_batches(reader, [rows], 0, augmentation=HOW)
    (grey,) = decoded_batches(reader, [rows], 0)
    expected = normalise(augment(grey.float() / 255, image_keys(reader.image_ids[rows]), HOW), 0.449, 0.226)
    assert given.dtype == torch.float32
    assert (given - expected).abs().max() < 1.0 / 255 / 0.226


def test_damage_is_found_in_a_worker(small_store, tmp_path):
    folder = tmp_path / "store"
    shutil.copytree(small_store.folder, folder)
    store = StoreReader(folder)
    path = folder / "shard-00000.parquet"
    data = bytearray(path.read_bytes())
    data[int(store._offset[0]) + 100] ^= 1
    path.write_bytes(data)
    with pytest.raises(StudyError, match=r"shard-00000.parquet: is damaged: image\d+ at byte"):
        list(decoded_batches(StoreReader(folder), [np.array([1, 0])], 1))


def test_too_little_shared_memory_is_said(reader, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 1000))
    with pytest.raises(StudyError, match=r"/dev/shm: loading takes .* MiB there; it has 0 MiB free. Give it more"):
        list(decoded_batches(reader, BATCHES, 1))


def test_an_epoch_of_labelled_batches_can_be_gone_on_with(small_store, reader):
    examples = select_examples(small_store.targets, reader, "train")
    whole = list(labelled_batches(reader, examples, 5, HOW))
    assert [len(pixels) for pixels, _, _ in whole] == [5] * 6 + [2]
    order = epoch_order(reader, examples.rows, HOW.seed, HOW.epoch)
    bright = small_store.targets.set_index("image_id")["target:Bright"]
    targets = torch.cat([target for _, target, _ in whole])
    assert targets[:, 0].tolist() == bright[reader.image_ids[order]].tolist()
    assert torch.cat([mask for *_, mask in whole]).shape == (32, 2)
    rest = list(labelled_batches(reader, examples, 5, HOW, first_batch=4))
    assert all(torch.equal(a, b) for a, b in zip(whole[4][:2] + whole[6][:2], rest[0][:2] + rest[2][:2], strict=True))


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


class Large:
    """400 row groups of 32 images, as `epoch_order` sees them."""

    shard = np.repeat(np.arange(40), 320)
    row_group = np.tile(np.repeat(np.arange(10), 32), 40)


LARGE = np.arange(12_800)


def test_an_epoch_takes_up_row_groups_one_after_another():
    """Reading is sequential: at most 65 row groups are in use at a time, beside those of the circle's seam."""
    order = epoch_order(Large, LARGE, 0, 0) // 32
    at = np.arange(len(order))
    first, last = (np.full(400, len(order)), np.zeros(400))
    np.minimum.at(first, order, at)
    np.maximum.at(last, order, at)
    span = last - first
    seam = span > 100 * 32
    assert seam.sum() <= 64
    in_use = (first[~seam, None] <= at) & (at <= last[~seam, None])
    assert in_use.sum(axis=0).max() <= 66
    assert len(set(first[~seam])) == (~seam).sum()


def test_few_row_groups_are_shuffled_fully():
    """Of 64 groups any place of the epoch is as likely as any other, for images of one group too."""
    places = np.argsort([epoch_order(Shards, ROWS, 3, e) for e in range(40)], axis=1)  # (epoch, image)
    mates = np.abs(places[:, 0::32] - places[:, 1::32])  # two images of each group
    assert abs(mates.mean() / 2048 - 1 / 3) < 0.02  # the mean distance of two random places
    assert abs(places[:, :32].mean() / 2048 - 1 / 2) < 0.04


def test_images_of_one_row_group_seldom_share_a_batch():
    """3.1 % of the epochs in batches of 64, where a full shuffle of 12,800 images has 0.5 %."""
    shared = []
    for epoch in range(8):
        batch = np.argsort(epoch_order(Large, LARGE, 1, epoch)) // 64  # of each image
        group = batch.reshape(400, 32)
        same = (group[:, :, None] == group[:, None, :]).sum(axis=(1, 2)) - 32
        shared.append(same.sum() / (400 * 32 * 31))
    assert 0.025 < np.mean(shared) < 0.035
    groups = [len(set(b // 32)) for b in epoch_order(Large, LARGE, 1, 0).reshape(-1, 64)]
    assert min(groups) >= 30  # a batch draws from about 40 row groups, 64 images of a full shuffle from about 59


def test_where_an_image_lies_says_nothing_about_when_it_comes():
    places = np.array([np.argsort(epoch_order(Large, LARGE, 2, e)) for e in range(8)])
    correlation = np.corrcoef(np.vstack([LARGE, places])) - np.eye(9)
    assert np.abs(correlation).max() < 4 / np.sqrt(400)  # of the store with each epoch, and of epochs with each other
    assert abs(correlation[np.triu_indices(9, 1)].mean()) < 0.02


def test_labels_run_no_longer_than_in_a_random_order():
    """Labels spread over the store at random, as by the hash of the ids; and, the worst case, one label a row group."""
    rng = np.random.default_rng(0)

    def runs(values):
        return 1 + (np.diff(values) != 0).sum()

    for labels, allowed in ((rng.random(12_800) < 0.3, 0.02), (np.repeat(rng.random(400) < 0.5, 32), 0.06)):
        share = labels.mean()
        random_order = 1 + 2 * len(labels) * share * (1 - share)
        ours = np.mean([runs(labels[epoch_order(Large, LARGE, 5, e)]) for e in range(4)])
        assert ours > (1 - allowed) * random_order


@pytest.mark.parametrize(("n", "batch", "group"), [(96, 32, 8), (100, 32, 8), (37, 10, 1), (5, 8, 8), (0, 8, 1)])
@pytest.mark.parametrize("world", [1, 2, 3, 4, 7])
def test_ranks_share_every_batch_without_loss_or_repetition(n, batch, group, world):
    shares = [share_of_rank(n, batch, rank, world, group) for rank in range(world)]
    assert sorted(np.concatenate(shares)) == list(range(n))
    for start in range(0, n, batch):
        parts = [s[(s >= start) & (s < start + batch)] for s in shares]
        assert np.concatenate(parts).tolist() == list(range(start, min(start + batch, n)))
        assert all(len(p) % group == 0 for p in parts if len(p) and p[-1] + 1 < min(start + batch, n))
        groups = [-(-len(p) // group) for p in parts]
        assert max(groups) - min(groups) <= 1


def test_there_is_no_rank_beyond_the_world():
    with pytest.raises(ValueError, match="rank 2 of 2"):
        share_of_rank(8, 4, 2, 2)


def test_workers_can_import_the_script_that_starts_them():
    """Worker processes import the main script under another name, without Snakemake's variables."""
    script = Path(__file__).parents[3] / "workflow/scripts/predict.py"
    assert "snakemake" not in runpy.run_path(str(script), run_name="__mp_main__")


#: Asks its whole group to stop after the first batch, and reads on; then says how many workers it has.
ASKED = """
import os, signal, sys, time
import numpy as np, psutil
from cxrscale.store.reader import StoreReader
from cxrscale.train import loader

loader.LOAD_BYTES = 0  # a load is one picture: workers are ahead by four
for number in loader.REQUESTS:
    signal.signal(number, lambda *_: None)
batches = loader.decoded_batches(StoreReader(sys.argv[1]), [np.array([row]) for row in range(40)], 2)
next(batches)
below = psutil.Process().children(recursive=True)
for number in loader.REQUESTS:
    os.killpg(0, number)
time.sleep(0.5)
print(sum(1 for _ in batches), *(process.pid for process in below), flush=True)
batches = loader.decoded_batches(StoreReader(sys.argv[1]), [np.array([row]) for row in range(40)], 2)
next(batches)
print(*(process.pid for process in psutil.Process().children(recursive=True)), flush=True)
signal.raise_signal(signal.SIGKILL)
"""


def test_workers_load_on_when_all_are_asked_to_stop_and_end_with_their_trainer(small_store):
    done = subprocess.run(
        [sys.executable, "-c", ASKED, str(small_store.folder)],
        capture_output=True, text=True, timeout=120, start_new_session=True,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr
    (count, *first), second = (list(map(int, line.split())) for line in done.stdout.splitlines())
    assert count == 39, done.stderr
    started = [psutil.Process(pid) for pid in {*first, *second} if psutil.pid_exists(pid)]
    assert psutil.wait_procs(started, timeout=20)[1] == []
