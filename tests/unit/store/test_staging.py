import errno
import multiprocessing
import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest

from cxrscale.common import tables
from cxrscale.common.errors import StudyError
from cxrscale.store import staging
from cxrscale.store.contracts import INDEX
from cxrscale.store.reader import StoreReader
from cxrscale.store.staging import staged


def test_without_a_folder_the_store_is_read_where_it_lies(small_store):
    assert staged(small_store.folder, None) == small_store.folder


def test_the_copy_is_the_store_and_is_made_once(small_store, tmp_path, monkeypatch):
    copy = staged(small_store.folder, tmp_path / "stage")
    assert copy.parent == tmp_path / "stage"
    names = {p.name for p in copy.iterdir()} - {".lock"}
    assert names == {"index.parquet", "shard-00000.parquet", "shard-00001.parquet"}
    here, there = StoreReader(small_store.folder), StoreReader(copy)
    assert all((here.pixels(row) == there.pixels(row)).all() for row in range(48))
    monkeypatch.setattr(shutil, "copyfile", None)
    assert staged(small_store.folder, tmp_path / "stage") == copy


def test_environment_variables_are_those_of_this_host(small_store, tmp_path, monkeypatch):
    monkeypatch.setenv("LOCAL_DISK", str(tmp_path))
    assert staged(small_store.folder, "$LOCAL_DISK/stage").parent == tmp_path / "stage"
    with pytest.raises(StudyError, match=r"training.stage_dir: .NO_SUCH_DISK/x names an environment variable"):
        staged(small_store.folder, "$NO_SUCH_DISK/x")


def test_a_changed_shard_is_copied_anew(small_store, tmp_path):
    folder = tmp_path / "store"
    shutil.copytree(small_store.folder, folder)
    first = staged(folder, tmp_path / "stage")
    path = folder / "shard-00001.parquet"
    data = bytearray(path.read_bytes())
    index = tables.read(INDEX, folder / "index.parquet")
    row = int(np.flatnonzero(index["shard"] == 1)[0])
    data[int(index["offset"][row]) + 300] ^= 1
    path.write_bytes(data)
    offset, length = int(index["offset"][row]), int(index["length"][row])
    index.loc[row, "crc32"] = zlib.crc32(data[offset : offset + length])
    tables.write(INDEX, index, folder / "index.parquet")
    second = staged(folder, tmp_path / "stage")
    assert second != first
    assert (second / path.name).read_bytes() == bytes(data)


def test_a_copy_that_was_stopped_goes_on(small_store, tmp_path):
    copy = staged(small_store.folder, tmp_path / "stage")
    (copy / "index.parquet").unlink()
    (copy / "shard-00001.parquet").write_bytes(b"half")
    (copy / ".shard-00001.parquet.123.tmp").write_bytes(b"left over")
    kept = (copy / "shard-00000.parquet").stat().st_mtime_ns
    assert staged(small_store.folder, tmp_path / "stage") == copy
    assert (copy / "shard-00000.parquet").stat().st_mtime_ns == kept
    assert len(StoreReader(copy).pixels(47)) == 32
    assert not list(copy.glob("*.tmp"))
    for path in [*small_store.folder.glob("shard-*.parquet"), small_store.folder / "index.parquet"]:
        assert (copy / path.name).read_bytes() == path.read_bytes()


def test_damage_of_the_copy_is_found_by_the_reader(small_store, tmp_path):
    copy = staged(small_store.folder, tmp_path / "stage")
    data = bytearray((copy / "shard-00000.parquet").read_bytes())
    data[int(StoreReader(copy)._offset[0]) + 100] ^= 1
    (copy / "shard-00000.parquet").write_bytes(data)
    with pytest.raises(StudyError, match=r"shard-00000.parquet: is damaged"):
        StoreReader(copy).pixels(0)


def test_a_disk_with_too_little_space_is_said_before_anything_is_copied(small_store, tmp_path, monkeypatch):
    files = [*small_store.folder.glob("shard-*.parquet"), small_store.folder / "index.parquet"]
    needed = sum(p.stat().st_size for p in files)
    monkeypatch.setattr(staging.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, needed - 1))
    with pytest.raises(StudyError, match=r"training.stage_dir: .* needs 0.00 GB more, the disk has 0.00 GB free"):
        staged(small_store.folder, tmp_path / "stage")
    assert not list((tmp_path / "stage").rglob("shard-*"))


def test_a_disk_that_fills_up_meanwhile_is_said_too(small_store, tmp_path, monkeypatch):
    def full(source: Path, target: Path) -> None:
        target.write_bytes(b"part")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(StudyError, match=r"shard-00000.parquet: cannot be written: No space left on device. Free some"):
        staged(small_store.folder, tmp_path / "stage")
    assert [p.name for p in next((tmp_path / "stage").iterdir()).iterdir()] == [".lock"]


def test_a_folder_that_cannot_be_made_is_said(small_store, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StudyError, match=r"training.stage_dir: .* cannot be copied to .*Not a directory"):
        staged(small_store.folder, tmp_path / "file")


def _stage(folder: Path, stage_dir: Path, answer) -> None:
    copied = []
    original = shutil.copyfile
    shutil.copyfile = lambda a, b: (copied.append(a), original(a, b))
    staged(folder, stage_dir)
    answer.put(len(copied))


def test_two_jobs_that_start_together_copy_once(small_store, tmp_path):
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    jobs = [context.Process(target=_stage, args=(small_store.folder, tmp_path / "stage", answers)) for _ in range(2)]
    for job in jobs:
        job.start()
    assert sorted(answers.get(timeout=60) for _ in jobs) == [0, 3]
    for job in jobs:
        job.join()
