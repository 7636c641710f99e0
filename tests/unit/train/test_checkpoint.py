import random

import numpy as np
import torch

from cxrscale.train import checkpoint


def save(path, digest="now", **state):
    checkpoint.save(path, {"digest": digest, **state})


def test_a_checkpoint_returns_what_was_saved_and_the_random_state(tmp_path):
    path = tmp_path / "checkpoint.pt"
    save(path, weights=torch.arange(3))
    expected = torch.rand(3), np.random.random(3), random.random()  # noqa: NPY002
    state = checkpoint.load(path, "now")
    assert state["weights"].tolist() == [0, 1, 2]
    checkpoint.restore_random_state(state["random"])
    assert torch.equal(torch.rand(3), expected[0])
    assert (np.random.random(3) == expected[1]).all()  # noqa: NPY002
    assert random.random() == expected[2]


def test_without_a_checkpoint_there_is_none(tmp_path):
    assert checkpoint.load(tmp_path / "checkpoint.pt", "now") is None


def test_a_checkpoint_of_other_settings_goes_to_superseded(tmp_path, caplog):
    path = tmp_path / "checkpoint.pt"
    save(path, digest="before")
    assert checkpoint.load(path, "now") is None
    assert not path.exists()
    assert checkpoint.load(tmp_path / "superseded" / "before" / "checkpoint.pt", "before")["digest"] == "before"
    assert "belongs to other settings, code or data (before, now now)" in caplog.text


def test_a_damaged_checkpoint_is_set_aside(tmp_path, caplog):
    path = tmp_path / "checkpoint.pt"
    save(path)
    path.write_bytes(path.read_bytes()[:-500])
    assert checkpoint.load(path, "now") is None
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.pt.damaged"]
    assert "cannot be read" in caplog.text


NAMES = ("weights", "history")


def finished(folder, text):
    for name in NAMES:
        (folder / name).unlink(missing_ok=True)  # as Snakemake does before a rerun
        (folder / name).write_text(f"{name} {text}")


def test_a_kept_learner_survives_the_deletion_of_its_outputs(tmp_path):
    finished(tmp_path, "one")
    checkpoint.keep(tmp_path, "first", NAMES)
    for name in NAMES:
        (tmp_path / name).unlink()
    assert not checkpoint.restore(tmp_path, "second", NAMES)
    assert checkpoint.restore(tmp_path, "first", NAMES)
    assert sorted(path.name for path in (tmp_path / "kept/first").iterdir()) == sorted(NAMES)
    assert (tmp_path / "weights").read_text() == "weights one"


def test_the_learner_of_former_settings_is_superseded_and_comes_back_with_them(tmp_path):
    finished(tmp_path, "one")
    checkpoint.keep(tmp_path, "first", NAMES)
    finished(tmp_path, "two")
    checkpoint.keep(tmp_path, "second", NAMES)
    assert [p.name for p in (tmp_path / "kept").iterdir()] == ["second"]
    assert (tmp_path / "superseded/first/weights").read_text() == "weights one"
    assert checkpoint.restore(tmp_path, "first", NAMES)
    assert (tmp_path / "weights").read_text() == "weights one"
    assert (tmp_path / "superseded/second/history").read_text() == "history two"
    assert [p.name for p in (tmp_path / "kept").iterdir()] == ["first"]


def test_half_a_learner_is_not_restored(tmp_path):
    finished(tmp_path, "one")
    checkpoint.keep(tmp_path, "first", NAMES)
    (tmp_path / "kept/first/history").unlink()
    assert not checkpoint.restore(tmp_path, "first", NAMES)
