"""A store knows the pictures that it is made of."""

import shutil

import numpy as np
import pandas as pd
import pytest

from cxrscale.common import tables
from cxrscale.common.errors import StudyError
from cxrscale.data.csv_files import assign_shards
from cxrscale.store.contracts import FINGERPRINT, SHARED
from cxrscale.store.fingerprint import FINGERPRINT_FILE, PICTURES, changed, check_fingerprint, fingerprint
from cxrscale.store.shared import shared_pictures


@pytest.fixture
def data(tmp_path):
    """100 files that stand for pictures, a store with their fingerprint, and their list."""
    root, store = tmp_path / "root", tmp_path / "store"
    root.mkdir()
    ids = [f"i{n}" for n in range(100)]
    for n, image_id in enumerate(ids):
        (root / f"{image_id}.png").write_bytes(bytes([n]) * 50)
    images = pd.DataFrame({"image_id": ids, "path": [f"{i}.png" for i in ids], "order": assign_shards(ids, 4)[1]})
    tables.write(FINGERPRINT, fingerprint(images, root), store / FINGERPRINT_FILE)
    return root, store, images


def taken(store):
    return tables.read(FINGERPRINT, store / FINGERPRINT_FILE)


def test_pictures_are_chosen_by_a_hash_and_a_new_one_changes_one_at_most(data):
    root, store, images = data
    first = set(taken(store)["image_id"])
    assert len(first) == PICTURES
    assert first == set(fingerprint(images[::-1], root)["image_id"])
    assert len(first - set(fingerprint(images.iloc[1:], root)["image_id"])) <= 1
    assert not np.array_equal(sorted(first), sorted(images["image_id"][:PICTURES]))


def test_the_same_pictures_elsewhere_pass(data, tmp_path):
    root, store, _ = data
    root.rename(tmp_path / "moved")
    check_fingerprint(store, tmp_path / "moved")
    shutil.copytree(tmp_path / "moved", tmp_path / "copied")
    check_fingerprint(store, tmp_path / "copied")


def test_pictures_that_are_gone_are_no_others_and_a_store_without_a_fingerprint_passes(data, tmp_path):
    root, store, _ = data
    (root / taken(store)["path"][0]).unlink()
    check_fingerprint(store, root)
    check_fingerprint(store, tmp_path / "nowhere")
    check_fingerprint(tmp_path / "no-store", root)


@pytest.mark.parametrize("how_many", [1, PICTURES])
def test_other_pictures_under_the_same_names_stop(data, how_many):
    """Inverted, say: the same names, the same sizes."""
    root, store, _ = data
    for path in taken(store)["path"][:how_many]:
        (root / path).write_bytes(bytes(255 - b for b in (root / path).read_bytes()))
    assert len(changed(taken(store), root)) == how_many
    with pytest.raises(StudyError) as error:
        check_fingerprint(store, root)
    said = str(error.value)
    assert f"was made of other pictures than lie in {root}" in said
    assert f"of the 64 compared, {how_many} have other bytes" in said
    assert "another dataset.name" in said
    assert "check_sources" in said


def test_a_file_that_was_absent_is_not_compared(data, tmp_path):
    root, _, images = data
    first = fingerprint(images, root)["path"][0]
    (root / first).unlink()
    tables.write(FINGERPRINT, fingerprint(images, root), tmp_path / "again" / FINGERPRINT_FILE)
    (root / first).write_bytes(b"new")
    check_fingerprint(tmp_path / "again", root)


def test_files_that_several_images_have_are_found_over_shards():
    records = [
        pd.DataFrame({"image_id": ["a", "b", "c"], "path": ["a.png", "b.png", "c.png"], "sha256": ["x", "y", "z"]}),
        pd.DataFrame({"image_id": ["d", "e"], "path": ["d.png", "c.png"], "sha256": ["x", "z"], "bytes": [1, 2]}),
    ]
    found = shared_pictures(records)
    assert list(found.columns) == [c.name for c in SHARED.columns]
    assert found["image_id"].tolist() == ["a", "d", "c", "e"]
    assert shared_pictures([records[0]]).empty
