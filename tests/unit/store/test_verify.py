"""Damage done to a store on purpose, and what the two check commands say of it."""

import errno
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cxrscale.common import tables
from cxrscale.common.errors import StudyError
from cxrscale.store.changes import check_list, find_changes, record_of, set_aside
from cxrscale.store.contracts import INDEX, PSNR, QUARANTINE, SUMMARY
from cxrscale.store.fidelity import measure, summary_of
from cxrscale.store.reader import StoreReader
from cxrscale.store.settings import Accepted, BaseSettings
from cxrscale.store.shards import downscale_shard, index_shards, ingest_shard, shard_name
from cxrscale.store.verify import verify

SHARDS = 2
ACCEPTED = Accepted(least_side_px=20)
SETTINGS = BaseSettings(32, "stretch", "area", 95, least_side_px=20)


def index(folder, size_px):
    tables.write(INDEX, index_shards(sorted(folder.glob("shard-*")), size_px, "stretch"), folder / "index.parquet")


@pytest.fixture
def made(tmp_path):
    """(data set, store, its list of images): twelve pictures, the last unreadable, in 32 and 16 px and two shards."""
    root, store = tmp_path / "native", tmp_path / "store"
    root.mkdir()
    for k in range(12):
        Image.fromarray(np.random.default_rng(k).integers(0, 256, (30 + 2 * k, 40)).astype(np.uint8)).save(
            root / f"{k}.png"
        )
    (root / "11.png").write_bytes(b"broken")
    images = pd.DataFrame({"image_id": [f"i{k}" for k in range(12)], "path": [f"{k}.png" for k in range(12)]})
    images["shard"], images["order"] = np.arange(12) % SHARDS, np.arange(12)
    for s in range(SHARDS):
        base = store / f"base/{shard_name(s)}.parquet"
        others = (store / f"base/sample/{base.name}", store / f"base/quarantine/{shard_name(s)}.csv")
        ingest_shard(images, s, root, SETTINGS, 0.1, base, *others, 3)
        downscale_shard(base, {16: store / f"16/{base.name}"}, "area", 95)
    parts = [tables.read(QUARANTINE, path) for path in sorted(store.glob("base/quarantine/*.csv"))]
    tables.write(QUARANTINE, pd.concat(parts), store / "base/quarantine.csv")
    index(store / "base", 32)
    index(store / "16", 16)
    return root, store, images


def said(problems):
    return [(str(p.path.parent.name), p.path.name, p.what) for p in problems]


@pytest.mark.parametrize(("module", "name"), [("shards", "ParquetFile"), ("changes", "read_table")])
def test_a_shard_that_could_not_be_read_this_time_is_not_called_damaged(made, monkeypatch, module, name):
    """What is called damaged is moved away by --set-aside."""
    _, store, _ = made
    stale = OSError(errno.ESTALE, "Stale file handle")

    def fails(*_, **__):
        raise stale

    monkeypatch.setattr(pq, name, fails)
    with pytest.raises(OSError, match="Stale file handle") as raised:
        verify(store) if module == "shards" else record_of(store / f"base/{shard_name(0)}.parquet")
    assert raised.value is stale


def test_a_sound_store_has_no_problem(made):
    assert verify(made[1], workers=2) == []


def test_a_changed_bit_is_found_where_it_is(made):
    path = made[1] / "16/shard-00001.parquet"
    row = tables.read(INDEX, made[1] / "16/index.parquet").query("shard == 1").iloc[2]
    data = bytearray(path.read_bytes())
    data[row["offset"] + row["length"] // 2] ^= 4
    path.write_bytes(data)
    ((folder, name, what),) = said(verify(made[1]))
    assert (folder, name) == ("16", "shard-00001.parquet")
    assert what.startswith("is damaged: ")
    assert "Run" not in what


def test_missing_shards_foreign_images_and_wrong_sizes_are_named(made):
    _, store, _ = made
    (store / "16/shard-00000.parquet").unlink()
    assert said(verify(store)) == [("16", "shard-00000.parquet", "is missing")]
    shutil.copy(store / "base/shard-00000.parquet", store / "16/shard-00000.parquet")
    problems = said(verify(store))
    assert ("16", "shard-00000.parquet", "i0 has 32 x 32 px; expected 16") in problems
    assert ("16", "shard-00000.parquet", "i0 is not where the index says") in problems
    shutil.copy(store / "16/shard-00001.parquet", store / "16/shard-00000.parquet")
    problems = said(verify(store))
    assert ("16", "shard-00000.parquet", "i1 is not in the index") in problems
    assert ("16", "shard-00000.parquet", "lacks 6 images that the index lists (first: i0)") in problems
    assert ("16", "shard-00000.parquet", "differs from the base in 11 images") in problems


def test_what_is_no_store_is_refused(tmp_path):
    with pytest.raises(StudyError, match=r"holds no shard in base/ .*expected results/stores/<store>"):
        verify(tmp_path)


def test_the_command_names_what_is_wrong_and_moves_it_away(made):
    _, store, _ = made
    path = store / "base/shard-00001.parquet"
    path.write_bytes(path.read_bytes()[:-50])
    command = [sys.executable, "-m", "cxrscale.store.verify", str(store), "--workers", "1"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stdout.startswith(f"{path}: is damaged: ")
    assert path.exists()
    result = subprocess.run([*command, "--set-aside"], capture_output=True, text=True)
    assert "moved to" in result.stdout
    left = {str(p.relative_to(store)) for p in store.rglob("*.parquet") if "superseded" not in p.parts}
    assert "base/shard-00001.parquet" not in left
    assert "base/index.parquet" not in left  # so that the workflow sees that something is to be made
    assert {"base/shard-00000.parquet", "16/index.parquet", "16/shard-00001.parquet"} <= left
    assert len(list(store.glob("superseded/*/base/*.parquet"))) == 2


def test_an_unchanged_data_set_has_no_changes(made):
    root, store, images = made
    assert find_changes(images, store, root, ACCEPTED, workers=2).empty
    check_list(
        images,
        [record_of(p) for p in sorted(store.glob("base/shard-*"))],
        tables.read(QUARANTINE, store / "base/quarantine.csv"),
    )


def test_every_kind_of_change_is_found(made):
    root, store, images = made
    data = bytearray((root / "2.png").read_bytes())
    data[-20] ^= 1  # the same size
    (root / "2.png").write_bytes(data)
    (root / "4.png").unlink()
    (root / "6.png").rename(root / "moved.png")
    Image.fromarray(np.random.default_rng(11).integers(0, 256, (20, 20)).astype(np.uint8)).save(root / "11.png")
    images.loc[6, "path"] = "moved.png"
    images = images.drop(index=8)
    images.loc[20] = ["new", "0.png", 0, 20]
    found = find_changes(images, store, root, ACCEPTED, workers=1).set_index("image_id")
    assert found["change"].to_dict() == {
        "i2": "has other bytes",
        "i4": "is gone; the store keeps it",
        "i6": "was 6.png in the csv files",
        "i8": "is no longer in the csv files",
        "new": "is new in the csv files",
        "i11": "can be used now; it was left out because it cannot be decoded: cannot identify image file",
    } | {"i11": found["change"]["i11"]}
    assert found["change"]["i11"].startswith("can be used now; it was left out because it cannot be decoded")
    assert found["stale"].to_dict() == {i: i != "i4" for i in found.index}
    assert set(found.loc[found["stale"], "shard"]) == {0, 1}
    with pytest.raises(StudyError) as error:
        check_list(
            images,
            [record_of(p) for p in sorted(store.glob("base/shard-*"))],
            tables.read(QUARANTINE, store / "base/quarantine.csv"),
        )
    message = str(error.value)
    assert "2 that the data set names are not in it, 2 in it are no longer named so (first: i6, moved.png)" in message
    assert "snakemake --cores all check_sources" in message


def test_what_ingest_would_accept_now_is_a_change(made):
    """Which pictures are accepted decides, as at ingest."""
    root, store, images = made
    mask = np.random.default_rng(2).integers(0, 2, (40, 40)).astype(np.uint8) * 255
    Image.fromarray(mask).save(root / "11.png")
    assert find_changes(images, store, root, ACCEPTED, workers=1).empty
    (change,) = find_changes(images, store, root, Accepted(least_levels=2, least_side_px=20), workers=1)["change"]
    assert change.startswith("can be used now; it was left out because it cannot be decoded")


def test_losses_are_measured_on_the_grey_that_ingest_made(tmp_path):
    grey = np.random.default_rng(3).integers(0, 4096, (40, 40)).astype(np.uint16)
    Image.fromarray(grey).save(tmp_path / "a.png")
    images = pd.DataFrame({"image_id": ["a"], "path": ["a.png"], "shard": 0, "order": 0})
    base, sample = tmp_path / "base/shard-00000.parquet", tmp_path / "sample.parquet"
    for bits in ("auto", 14):
        settings = BaseSettings(40, "stretch", "area", "lossless", bits=bits)
        ingest_shard(images, 0, tmp_path, settings, 0.0, base, sample, tmp_path / "quarantine.csv")
        index(base.parent, 40)
        (found,) = measure([sample], StoreReader(base.parent), settings)["jpeg_db"]
        assert np.isnan(found)  # equal: nothing was lost


def test_setting_aside_moves_files_and_their_indexes_and_deletes_nothing(made):
    _, store, _ = made
    before = {p.name: p.read_bytes() for p in store.glob("16/*")}
    target = set_aside(store, [store / "16/shard-00000.parquet"])
    assert {p.name for p in store.glob("16/*")} == {"shard-00001.parquet"}
    assert {p.name: p.read_bytes() for p in (target / "16").iterdir()} == {
        name: before[name] for name in ("index.parquet", "shard-00000.parquet")
    }


def test_psnr_is_measured_against_lossless_ways(made):
    """Without JPEG the base would be the native picture where the sizes are the same, so both ways agree there."""
    _, store, _ = made
    samples = sorted(store.glob("base/sample/*.parquet"))
    assert [len(pq.read_table(p)) for p in samples] == [3, 3]
    for folder, size_px in (("base", 32), ("16", 16)):
        reader = StoreReader(store / folder)
        psnr = measure(samples, reader, SETTINGS)
        assert list(psnr["image_id"]) == ["i0", "i2", "i4", "i1", "i3", "i5"]
        assert (psnr["jpeg_db"] > 30).all()
        if folder == "base":
            assert (psnr["jpeg_db"] == psnr["direct_db"]).all()
        tables.write(PSNR, psnr, store / folder / "psnr.csv")
        summary = summary_of(store / folder / "index.parquet", size_px, psnr)
        tables.write(SUMMARY, summary, store / folder / "summary.csv")
        row = summary.iloc[0]
        assert row["images"] == 11
        assert row["enlarged"] == (1 if size_px == 32 else 0)  # i0 has 30 rows
        assert row["jpeg_db"] == pytest.approx(psnr["jpeg_db"].mean())
        assert row["direct_db_least"] == psnr["direct_db"].min()


def test_a_reader_hides_images_that_a_resolution_would_enlarge(made):
    reader = StoreReader(made[1] / "16", native_at_least_px=32)
    assert "i0" not in reader
    assert "i1" in reader
    assert len(reader) == 10
    whole = StoreReader(made[1] / "16")
    assert (reader["i1"] == whole["i1"]).all()
    assert list(reader.image_ids[reader.rows(["i1", "i2"])]) == ["i1", "i2"]
    assert reader.shape == whole.shape == (16, 16)
