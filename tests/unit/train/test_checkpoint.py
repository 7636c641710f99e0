import errno
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from cxrscale.train import checkpoint


def save(path, digest="now", **state):
    checkpoint.save(path, {"digest": digest, "identity": {}, "state": {}, "updater": {}, **state})


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def raising(error):
    """A function that raises it, whatever it is given."""

    def function(*_, **__):
        raise error

    return function


def test_a_checkpoint_holds_nothing_of_its_host(tmp_path, monkeypatch):
    """Such as the random states of four GPUs, which a host with one could not take."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: [torch.get_rng_state()] * 4)
    save(tmp_path / "checkpoint.pt")
    assert sorted(torch.load(tmp_path / "checkpoint.pt", weights_only=True)) == sorted(checkpoint.PARTS)


def test_a_checkpoint_returns_what_was_saved(tmp_path):
    path = tmp_path / "checkpoint.pt"
    save(path, updater={"model": torch.nn.Linear(2, 1).state_dict(), "ema": None, "way": [4, False]}, state={"a": 1.5})
    state = checkpoint.load(path, "now")
    assert state["updater"]["model"]["weight"].shape == (1, 2)
    assert (state["updater"]["way"], state["state"]) == ([4, False], {"a": 1.5})


def test_without_a_checkpoint_there_is_none(tmp_path):
    assert checkpoint.load(tmp_path / "checkpoint.pt", "now") is None


def test_a_checkpoint_of_other_settings_goes_to_superseded(tmp_path, caplog):
    path = tmp_path / "checkpoint.pt"
    for _ in range(2):
        save(path, digest="before")
        assert checkpoint.load(path, "now") is None
        assert not path.exists()
    assert names(tmp_path / "superseded/before") == ["checkpoint.pt", "checkpoint.pt-2"]
    assert checkpoint.load(tmp_path / "superseded" / "before" / "checkpoint.pt", "before")["digest"] == "before"
    assert "belongs to other settings, code or data (before, now now)" in caplog.text


def test_a_superseded_checkpoint_comes_back_with_its_settings(tmp_path):
    """The newest; what was begun meanwhile is superseded in its turn."""
    path, superseded = tmp_path / "checkpoint.pt", tmp_path / "superseded/before"
    superseded.mkdir(parents=True)
    for number, name in enumerate(("checkpoint.pt", "checkpoint.pt-2")):
        save(superseded / name, digest="before", state={"number": number})
        os.utime(superseded / name, (number, number))
    save(path, digest="now")
    assert checkpoint.load(path, "before")["state"] == {"number": 1}
    assert torch.load(path, weights_only=True)["digest"] == "before"
    assert names(tmp_path / "superseded/now") == ["checkpoint.pt"]
    assert names(superseded) == ["checkpoint.pt"]


def cut(path):
    path.write_bytes(path.read_bytes()[:-500])


def change_a_byte(path):
    data = bytearray(path.read_bytes())
    data[data.index(torch.arange(64.0).numpy().tobytes())] ^= 1
    path.write_bytes(data)


def lack_a_part(path):
    torch.save({"digest": "now", "state": {}}, path)


def hold_no_parts(path):
    torch.save([1], path)


@pytest.mark.parametrize("damage", [cut, change_a_byte, lack_a_part, hold_no_parts])
def test_each_damaged_checkpoint_is_set_aside(tmp_path, caplog, damage):
    path = tmp_path / "checkpoint.pt"
    for _ in range(2):
        save(path, updater={"model": torch.arange(64.0)})
        damage(path)
        assert checkpoint.load(path, "now") is None
    assert names(tmp_path) == ["checkpoint.pt.damaged", "checkpoint.pt.damaged-2"]
    assert "checkpoint.pt is damaged (" in caplog.text


@pytest.mark.parametrize(
    ("where", "error"),
    [
        ((Path, "read_bytes"), OSError(errno.ESTALE, "Stale file handle")),
        ((Path, "read_bytes"), OSError(errno.EIO, "Input/output error")),
        ((Path, "read_bytes"), MemoryError()),
        ((torch, "load"), OSError(errno.ESTALE, "Stale file handle")),
        ((torch, "load"), MemoryError()),
        ((torch, "load"), RuntimeError("DefaultCPUAllocator: can't allocate memory")),
        ((checkpoint.zipfile, "ZipFile"), MemoryError()),
    ],
    ids=str,
)
def test_a_fault_that_may_pass_leaves_all_in_place(tmp_path, monkeypatch, where, error):
    path = tmp_path / "checkpoint.pt"
    save(path)
    with monkeypatch.context() as patch:
        patch.setattr(*where, raising(error))
        with pytest.raises(type(error)) as raised:
            checkpoint.load(path, "now")
    assert raised.value is error
    assert names(tmp_path) == ["checkpoint.pt"]
    assert checkpoint.load(path, "now") is not None


class Code:
    """Unpickled, it makes a folder."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    path = tmp_path / "checkpoint.pt"
    torch.save({"digest": "now", "identity": {}, "state": Code(tmp_path / "made"), "updater": {}}, path)
    assert checkpoint.load(path, "now") is None
    assert names(tmp_path) == ["checkpoint.pt.damaged"]


@pytest.mark.parametrize("value", [np.float64(1), {"a": [Path("b")]}, {1, 2}])
def test_what_could_not_be_read_back_is_not_written(tmp_path, value):
    with pytest.raises(TypeError, match=r"checkpoint\['state'\].* is of type \w+; expected a plain value or a tensor"):
        save(tmp_path / "checkpoint.pt", state=value)
    assert names(tmp_path) == []


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


def test_whether_a_learner_was_kept_is_not_guessed(tmp_path, monkeypatch):
    """Else it would be trained again for a fault that passes."""
    finished(tmp_path, "one")
    checkpoint.keep(tmp_path, "first", NAMES)
    monkeypatch.setattr(Path, "stat", raising(OSError(errno.ESTALE, "Stale file handle")))
    with pytest.raises(OSError, match="Stale file handle"):
        checkpoint.restore(tmp_path, "first", NAMES)
