import errno
import hashlib
import os
import subprocess
import sys
import time
import zlib
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cxrscale.common import tables
from cxrscale.common.errors import StudyError
from cxrscale.store import pixels
from cxrscale.store.contracts import INDEX, QUARANTINE
from cxrscale.store.quarantine import check_fraction, check_unreadable
from cxrscale.store.settings import BaseSettings
from cxrscale.store.shards import downscale_shard, index_shards, ingest_shard

SETTINGS = BaseSettings(24, "stretch", "bilinear", 90, least_levels=2, least_side_px=20)


@pytest.fixture
def native(tmp_path):
    """Forty pictures of one shard, listed in no order; the picture of image k is grey 6 k but for one pixel of 6 k + 1,
    20 high and 30 wide."""
    root = tmp_path / "native"
    root.mkdir()
    for k in range(40):
        pixels = np.full((20, 30), 6 * k, np.uint8)
        pixels[10, 10] += 1
        Image.fromarray(pixels).save(root / f"i{k}.png")
    ids = [f"i{k}" for k in np.random.default_rng(1).permutation(40)]
    return root, pd.DataFrame(
        {
            "image_id": ids,
            "path": [f"{i}.png" for i in ids],
            "shard": 3,
            "order": [int(i[1:]) * 7 for i in ids],
        }
    )


def ingest(native, tmp_path, fraction=0.0, shard=3):
    root, images = native
    path, quarantine = tmp_path / f"store/shard-{shard:05d}.parquet", tmp_path / "store/quarantine.csv"
    sample = tmp_path / "store/sample.parquet"
    return ingest_shard(images, shard, root, SETTINGS, fraction, path, sample, quarantine, 2), path, quarantine


def test_a_shard_holds_its_images_by_order_in_groups_of_32(native, tmp_path):
    count, path, quarantine = ingest(native, tmp_path)
    assert count == 40
    file = pq.ParquetFile(path)
    assert [file.metadata.row_group(g).num_rows for g in range(file.num_row_groups)] == [32, 8]
    table = file.read().to_pydict()
    assert table["image_id"] == [f"i{k}" for k in range(40)]
    assert set(table["native_height_px"]) == {20}
    assert set(table["native_width_px"]) == {30}
    for k, jpeg in enumerate(table["jpeg"]):
        assert pixels.decode(jpeg).shape == (24, 24)
        assert np.abs(pixels.decode(jpeg).astype(int) - 6 * k).max() <= 1
    assert tables.read(QUARANTINE, quarantine).empty


def test_the_indexes_offsets_give_back_exactly_the_bytes(native, tmp_path):
    _, path, _ = ingest(native, tmp_path)
    jpegs = pq.read_table(path).to_pydict()["jpeg"]
    index = index_shards([path], 24, "stretch")
    tables.write(INDEX, index, tmp_path / "index.parquet")
    data = path.read_bytes()
    cut = [data[o : o + n] for o, n in zip(index["offset"], index["length"], strict=True)]
    assert len(cut) == 40
    assert cut == jpegs
    assert list(index["crc32"]) == [zlib.crc32(j) for j in jpegs]
    assert set(index["shard"]) == {3}
    assert list(index["row_group"]) == [0] * 32 + [1] * 8


def test_the_same_files_give_the_same_bytes(native, tmp_path):
    first, second = ingest(native, tmp_path / "a")[1], ingest(native, tmp_path / "b")[1]
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EIO, errno.EACCES, errno.EMFILE])
def test_no_image_is_left_out_for_a_fault_that_may_pass(native, tmp_path, monkeypatch, number):
    read = Path.read_bytes

    def fails(path):
        if path.name == "i5.png":
            raise OSError(number, os.strerror(number))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", fails)
    with pytest.raises(StudyError, match=rf"i5.png: cannot be read: {os.strerror(number)}. No image is left out"):
        ingest(native, tmp_path, fraction=0.1)
    assert not list(tmp_path.rglob("*.parquet")) + list(tmp_path.rglob("*.csv"))


def test_absent_and_damaged_images_are_quarantined_with_the_reason(native, tmp_path):
    (native[0] / "i5.png").unlink()
    (native[0] / "i6.png").write_bytes(b"not a picture")
    (native[0] / "i7.png").unlink()
    (native[0] / "i7.png").mkdir()
    count, path, quarantine = ingest(native, tmp_path, fraction=0.1)
    assert count == 37
    table = tables.read(QUARANTINE, quarantine).set_index("image_id")
    assert table["reason"]["i5"] == "is absent"
    assert table["path"]["i5"] == "i5.png"
    assert table["reason"]["i6"].startswith("cannot be decoded: ")
    assert table["reason"]["i7"] == "cannot be read: Is a directory"
    assert len(table) == 3
    assert not {"i5", "i6", "i7"} & set(index_shards([path], 24, "stretch")["image_id"])


HTML = b"<!DOCTYPE html><html><body>Please log in.</body></html>"


def test_the_quarantine_is_the_same_bytes_in_each_run(native, tmp_path):
    """Pillow's message names the address of what it read."""
    root, _ = native
    whole = (root / "i9.png").read_bytes()
    for name, data in {
        "i4": b"",
        "i5": b"not a picture",
        "i6": HTML,
        "i7": whole[:-30],
        "i8": whole[:20],
        "i9": pixels.encode(np.zeros((20, 30), np.uint8), 90)[:200],
    }.items():
        (root / f"{name}.png").write_bytes(data)
    first, second = (ingest(native, tmp_path / run, fraction=0.2)[2].read_bytes() for run in ("a", "b"))
    assert first == second
    assert b" at 0x" not in first
    reasons = tables.read(QUARANTINE, tmp_path / "a/store/quarantine.csv").set_index("image_id")["reason"]
    assert len(reasons) == 6
    assert set(reasons[["i4", "i5", "i6"]]) == {"cannot be decoded: it is no JPEG or PNG file"}


def test_a_shard_and_its_index_say_by_how_many_bits_each_picture_was_scaled(native, tmp_path):
    root, _ = native
    for k, bits in ((0, 12), (1, 14)):
        grey = np.linspace(0, 2**bits - 1, 600).astype(np.uint16).reshape(20, 30)
        Image.fromarray(grey).save(root / f"i{k}.png")
    _, path, _ = ingest(native, tmp_path)
    assert pq.read_table(path)["native_bits"].to_pylist() == [12, 14, *[8] * 38]
    assert list(index_shards([path], 24, "stretch")["native_bits"]) == [12, 14, *[8] * 38]


def test_a_shard_of_another_version_is_refused(native, tmp_path):
    _, path, _ = ingest(native, tmp_path)
    pq.write_table(pq.read_table(path).drop_columns(["native_bits"]), path)
    with pytest.raises(StudyError, match=r"its columns are not those .* --set-aside"):
        index_shards([path], 24, "stretch")


def test_too_many_unreadable_images_stop_with_counts_and_nothing_is_written(native, tmp_path):
    for k in (1, 2, 3):
        (native[0] / f"i{k}.png").unlink()
    with pytest.raises(StudyError) as error:
        ingest(native, tmp_path, fraction=0.05)  # two of forty are allowed
    message = str(error.value)
    assert "more than 5.00% of the 40 images cannot be used: 3 of the first 40 looked at (i1.png is absent" in message
    assert f"3 of 40 named files are absent under {native[0]}" in message
    assert "Set dataset.root, fetch the missing files, or raise store.max_unreadable_fraction" in message
    assert list((tmp_path / "store").iterdir()) == []


def test_a_missing_root_is_named(native, tmp_path):
    with pytest.raises(StudyError, match=r"dataset.root: there is no folder .*gone; the images of 40 rows"):
        ingest((tmp_path / "gone", native[1]), tmp_path)


def test_a_shard_without_images_is_an_empty_file_that_can_be_used(native, tmp_path):
    count, path, _ = ingest(native, tmp_path, shard=0)
    assert count == 0
    assert index_shards([path], 24, "stretch").empty
    assert downscale_shard(path, {8: tmp_path / "small/shard-00000.parquet"}, "area", 90) == 0


def test_a_smaller_resolution_is_made_of_the_base_and_holds_the_same_images(native, tmp_path):
    _, base, _ = ingest(native, tmp_path)
    small = tmp_path / "small/shard-00003.parquet"
    assert downscale_shard(base, {8: small}, "area", 90) == 40
    one, other = pq.read_table(base).to_pydict(), pq.read_table(small).to_pydict()
    for column in set(one) - {"jpeg"}:
        assert one[column] == other[column]
    expected = pixels.encode(pixels.to_square(pixels.decode(one["jpeg"][30]), 8, "stretch", "area"), 90)
    assert other["jpeg"][30] == expected


def test_a_shard_records_its_native_files_and_keeps_two(native, tmp_path):
    _, path, _ = ingest(native, tmp_path)
    record = pq.read_table(path).to_pylist()[7]
    data = (native[0] / "i7.png").read_bytes()
    assert record["native_path"] == "i7.png"
    assert record["native_bytes"] == len(data)
    assert record["native_sha256"] == hashlib.sha256(data).hexdigest()
    sample = pq.read_table(tmp_path / "store/sample.parquet").to_pylist()
    assert sample == [{"image_id": i, "native": (native[0] / f"{i}.png").read_bytes()} for i in ("i0", "i1")]


@pytest.mark.parametrize(
    ("geometry", "expected"), [("stretch", (24 / 20, 24 / 30, 20)), ("pad", (16 / 20, 24 / 30, 30))]
)
def test_the_index_states_how_much_an_image_was_scaled(native, tmp_path, geometry, expected):
    """Twenty rows and thirty columns: stretched to 24 px they are enlarged, padded they are not."""
    _, path, _ = ingest(native, tmp_path)
    row = index_shards([path], 24, geometry).iloc[0]
    assert (row["scale_y"], row["scale_x"], row["native_px"]) == pytest.approx(expected)


def test_several_resolutions_at_once_hold_the_same_bytes_as_each_alone(native, tmp_path):
    _, base, _ = ingest(native, tmp_path)
    together = {size: tmp_path / f"together/{size}.parquet" for size in (16, 12, 8)}
    downscale_shard(base, together, "bicubic", 90)
    for size, path in together.items():
        alone = tmp_path / f"alone/{size}.parquet"
        downscale_shard(base, {size: alone}, "bicubic", 90)
        assert alone.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("where", ["jpeg", "native_sha256"])
def test_one_changed_bit_of_a_base_shard_is_an_error_that_names_it(native, tmp_path, where):
    """A JPEG with one changed bit may well decode: the pages' checksums find it."""
    _, base, _ = ingest(native, tmp_path)
    data = bytearray(base.read_bytes())
    record = pq.read_table(base).to_pylist()[4]
    value = record[where] if where == "jpeg" else record[where].encode()
    data[data.index(value) + len(value) // 2] ^= 1
    base.write_bytes(data)
    for read in (
        lambda: downscale_shard(base, {8: tmp_path / "small.parquet"}, "area", 90),
        lambda: index_shards([base], 24, "stretch"),
    ):
        with pytest.raises(
            StudyError, match=r"shard-00003.parquet: is damaged: .*cxrscale.store.verify .* --set-aside"
        ):
            read()
    assert not (tmp_path / "small.parquet").exists()
    assert list(tmp_path.glob(".small*")) == []


def test_a_shortened_shard_is_an_error_that_names_it(native, tmp_path):
    _, base, _ = ingest(native, tmp_path)
    base.write_bytes(base.read_bytes()[:-100])
    with pytest.raises(StudyError, match=r"shard-00003.parquet: is damaged: .*run the workflow again"):
        index_shards([base], 24, "stretch")


INGEST = """
import resource, sys
from pathlib import Path
import pandas as pd
from cxrscale.store.settings import BaseSettings
from cxrscale.store.shards import ingest_shard
root, folder, limit = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
paths = sorted(p.name for p in root.iterdir())
images = pd.DataFrame({"image_id": paths, "path": paths, "shard": 0, "order": range(len(paths))})
print("started", flush=True)
files = (folder / name for name in ("shard-00000.parquet", "sample.parquet", "quarantine.csv"))
ingest_shard(images, 0, root, BaseSettings(64, "stretch", "bilinear", 95), 0.0, *files)
"""


@pytest.fixture
def ingest_process(tmp_path):
    """A function that starts an ingest of forty pictures in a process of its own; limit: bytes a file may have."""
    root = tmp_path / "native"
    root.mkdir()
    for k in range(40):
        Image.fromarray(np.random.default_rng(k).integers(0, 256, (300, 280)).astype(np.uint8)).save(root / f"{k}.png")

    def start(name, limit=0):
        command = [sys.executable, "-c", INGEST, str(root), str(tmp_path / name), str(limit)]
        process = closing.enter_context(
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        )
        assert process.stdout.readline() == "started\n"
        return process

    with ExitStack() as closing:
        yield start


def test_killed_at_any_moment_the_next_run_gives_the_same_bytes(ingest_process, tmp_path):
    began = time.monotonic()
    assert ingest_process("whole").wait() == 0
    whole = time.monotonic() - began
    for fraction in np.random.default_rng().uniform(0, 1, 5):
        process = ingest_process("killed")
        time.sleep(fraction * whole)
        process.kill()
        process.communicate()
    assert ingest_process("killed").wait() == 0
    names = {path.name for path in (tmp_path / "whole").iterdir()}
    assert {path.name for path in (tmp_path / "killed").iterdir()} == names  # nothing left behind
    for name in names:
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_where_the_disk_is_full_nothing_is_left_and_the_message_says_so(ingest_process, tmp_path):
    process = ingest_process("full", limit=50_000)
    error = process.communicate()[1]
    assert process.returncode == 1
    assert "StudyError" in error
    assert "shard-00000.parquet: cannot be written: File too large. Free some space and run again" in error
    assert list((tmp_path / "full").iterdir()) == []
    assert ingest_process("full").wait() == 0


def test_a_shard_that_is_not_stored_plainly_is_refused(native, tmp_path):
    _, base, _ = ingest(native, tmp_path)
    packed = tmp_path / "shard-00009.parquet"
    pq.write_table(pq.read_table(base), packed, compression="zstd")
    with pytest.raises(StudyError, match=r"shard-00009.parquet: its JPEGs are not stored plainly; was it"):
        index_shards([packed], 24, "stretch")


def test_the_share_left_out_of_the_whole_store_is_limited(tmp_path):
    reasons = ["is absent", "is absent", "has 2 frames; expected one"]
    quarantine = pd.DataFrame({"image_id": list("abc"), "path": list("abc"), "reason": reasons})
    check_fraction(quarantine, 300, 0.01)
    with pytest.raises(StudyError) as error:
        check_fraction(quarantine, 299, 0.01)
    assert "3 of 299 images cannot be used, more than store.max_unreadable_fraction = 0.01" in str(error.value)
    assert "2 is absent" in str(error.value)

    # A store that was made when more were allowed.
    check_unreadable(tmp_path, 0.0)
    tables.write(QUARANTINE, quarantine, tmp_path / "base/quarantine.csv")
    pd.DataFrame({"image_id": range(299)}).to_parquet(tmp_path / "images.parquet")
    check_unreadable(tmp_path, 0.02)
    with pytest.raises(StudyError, match="3 of 299 images cannot be used"):
        check_unreadable(tmp_path, 0.01)
