"""Accepted changes of code: which digest stands for which."""

import errno
from pathlib import Path

import pytest

from cxrscale.common import accepted
from cxrscale.common.accepted import Accepted, stands_for


def same(stage, code, same_as):
    return Accepted(stage, code, same_as, "2026-01-02 03:04", "the sum is taken in another order")


def test_a_change_stands_for_what_it_is_the_same_as_in_its_stage_alone():
    changes = [same("train", "b", "a"), same("erf", "b", "z")]
    assert stands_for(changes, "train", "b") == "a"
    assert stands_for(changes, "erf", "b") == "z"
    assert stands_for(changes, "cam", "b") == "b"
    assert stands_for(changes, "train", "a") == "a"
    assert stands_for(changes, "train", "c") == "c"
    assert stands_for([], "train", "b") == "b"


def test_changes_are_followed_to_the_first_and_the_last_word_counts():
    assert stands_for([same("train", "b", "a"), same("train", "c", "b")], "train", "c") == "a"
    assert stands_for([same("train", "b", "a"), same("train", "b", "z")], "train", "b") == "z"


def test_two_codes_that_are_the_same_as_each_other_end():
    changes = [same("train", "b", "a"), same("train", "a", "b")]
    assert stands_for(changes, "train", "b") == "a"
    assert stands_for(changes, "train", "a") == "b"


def test_a_list_that_cannot_be_read_now_is_not_an_empty_one(tmp_path, monkeypatch):
    """As Python 3.13 has it, whose `is_file` says no."""
    file = tmp_path / "accepted-changes.csv"
    accepted.add([same("train", "b", "a")], file)

    def stale(*_, **__):
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(Path, "stat", stale)
    monkeypatch.setattr(Path, "is_file", lambda _: False)
    with pytest.raises(OSError, match="Stale"):
        accepted.read([file])


def test_what_was_accepted_stays_on_record(tmp_path):
    first, second = tmp_path / "store/accepted-changes.csv", tmp_path / "study/accepted-changes.csv"
    assert accepted.read([first, second]) == []
    one, two, three = same("train", "b", "a"), same("train", "c", "b"), same("ingest_shard", "1" * 16, "0" * 16)
    accepted.add([one], second)
    accepted.add([two], second)
    accepted.add([three], first)
    assert accepted.read([first, second]) == [three, one, two]
