import zlib

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cxrscale import tables
from cxrscale.errors import StudyError
from cxrscale.store import pixels
from cxrscale.store.shards import (
    MANIFEST,
    QUARANTINE,
    BaseSettings,
    check_unreadable,
    downscale_shard,
    ingest_shard,
    list_shards,
)

SETTINGS = BaseSettings(24, "stretch", "bilinear", 90)


@pytest.fixture
def native(tmp_path):
    """Forty pictures of one shard, listed in no order; the picture of image k is grey 6 k, 20 high and 30 wide."""
    root = tmp_path / "native"
    root.mkdir()
    for k in range(40):
        Image.fromarray(np.full((20, 30), 6 * k, np.uint8)).save(root / f"i{k}.png")
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
    return ingest_shard(images, shard, root, SETTINGS, fraction, path, quarantine), path, quarantine


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


def test_the_manifests_offsets_give_back_exactly_the_bytes(native, tmp_path):
    _, path, _ = ingest(native, tmp_path)
    jpegs = pq.read_table(path).to_pydict()["jpeg"]
    manifest = list_shards([path])
    tables.write(MANIFEST, manifest, tmp_path / "manifest.parquet")
    data = path.read_bytes()
    cut = [data[o : o + n] for o, n in zip(manifest["offset"], manifest["length"], strict=True)]
    assert len(cut) == 40
    assert cut == jpegs
    assert list(manifest["crc32"]) == [zlib.crc32(j) for j in jpegs]
    assert set(manifest["shard"]) == {3}
    assert list(manifest["row_group"]) == [0] * 32 + [1] * 8


def test_the_same_files_give_the_same_bytes(native, tmp_path):
    first, second = ingest(native, tmp_path / "a")[1], ingest(native, tmp_path / "b")[1]
    assert first.read_bytes() == second.read_bytes()


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
    assert not {"i5", "i6", "i7"} & set(list_shards([path])["image_id"])


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
    assert list_shards([path]).empty
    assert downscale_shard(path, 8, "area", 90, tmp_path / "small/shard-00000.parquet") == 0


def test_a_smaller_resolution_is_made_of_the_base_and_holds_the_same_images(native, tmp_path):
    _, base, _ = ingest(native, tmp_path)
    small = tmp_path / "small/shard-00003.parquet"
    assert downscale_shard(base, 8, "area", 90, small) == 40
    one, other = pq.read_table(base).to_pydict(), pq.read_table(small).to_pydict()
    for column in ("image_id", "native_height_px", "native_width_px"):
        assert one[column] == other[column]
    expected = pixels.encode(pixels.to_square(pixels.decode(one["jpeg"][30]), 8, "stretch", "area"), 90)
    assert other["jpeg"][30] == expected


def test_a_damaged_base_shard_is_an_error_that_names_it(native, tmp_path):
    _, base, _ = ingest(native, tmp_path)
    data = bytearray(base.read_bytes())
    row = list_shards([base]).iloc[4]
    data[row["offset"] : row["offset"] + row["length"]] = bytes(int(row["length"]))
    base.write_bytes(data)
    with pytest.raises(StudyError, match=r"shard-00003.parquet: i4 is damaged: .*Delete the file and rerun"):
        downscale_shard(base, 8, "area", 90, tmp_path / "small.parquet")
    assert not (tmp_path / "small.parquet").exists()
    base.write_bytes(data[:-100])
    with pytest.raises(StudyError, match=r"shard-00003.parquet: is damaged: .*Delete the file and rerun"):
        list_shards([base])


def test_a_shard_that_is_not_stored_plainly_is_refused(native, tmp_path):
    _, base, _ = ingest(native, tmp_path)
    packed = tmp_path / "shard-00009.parquet"
    pq.write_table(pq.read_table(base), packed, compression="zstd")
    with pytest.raises(StudyError, match="i0 is not stored plainly; was the shard written by cxrscale"):
        list_shards([packed])


def test_the_share_left_out_of_the_whole_store_is_limited():
    quarantine = pd.DataFrame({"reason": ["is absent", "is absent", "has 2 frames; expected one"]})
    check_unreadable(quarantine, 300, 0.01)
    with pytest.raises(StudyError) as error:
        check_unreadable(quarantine, 299, 0.01)
    assert "3 of 299 images cannot be used, more than store.max_unreadable_fraction = 0.01" in str(error.value)
    assert "2 is absent" in str(error.value)
