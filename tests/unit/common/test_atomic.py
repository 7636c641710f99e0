import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cxrscale.common import atomic
from cxrscale.common.process_names import own_name


def test_a_file_is_replaced_whole_and_its_folder_is_made(tmp_path):
    path = tmp_path / "deep" / "file.txt"
    atomic.write_text(path, "old")
    with atomic.replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]


def test_an_exception_leaves_the_old_file_and_no_temporary(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")

    def write_half() -> None:
        with atomic.replacing(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        write_half()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file.txt"]


def test_a_body_that_writes_nothing_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError), atomic.replacing(tmp_path / "file.txt"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_json_keeps_the_order_of_keys(tmp_path):
    atomic.write_json(tmp_path / "x.json", {"b": 1, "a": [2.5, None]})
    text = (tmp_path / "x.json").read_text()
    assert json.loads(text) == {"b": 1, "a": [2.5, None]}
    assert text.index('"b"') < text.index('"a"')
    assert text.endswith("\n")


KILLED = """
import os, signal, sys
from cxrscale.common.atomic import replacing
with replacing(sys.argv[1]) as temporary:
    temporary.write_text("half")
    signal.raise_signal(signal.SIGKILL)
"""


@pytest.fixture
def left_over(tmp_path):
    """What a writer of x.txt left when it was killed."""
    ended = subprocess.run([sys.executable, "-c", KILLED, tmp_path / "x.txt"], check=False)
    assert ended.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert left.read_text() == "half"
    return left


def test_what_a_killed_process_left_is_deleted(left_over):
    atomic.write_text(left_over.parent / "x.txt", "whole")
    assert [p.name for p in left_over.parent.iterdir()] == ["x.txt"]


def test_a_process_id_that_another_user_got_since_fails_no_write(left_over, monkeypatch):
    def not_ours(number, signal):
        raise PermissionError(number)

    monkeypatch.setattr(os, "kill", not_ours)
    atomic.write_text(left_over.parent / "x.txt", "whole")
    assert (left_over.parent / "x.txt").read_text() == "whole"


def test_a_process_that_got_the_id_of_a_dead_writer_keeps_no_left_over(tmp_path):
    """Here it is this process itself: the writer had its id, and started at another time."""
    *place, _ = own_name().split("-")
    (tmp_path / f".x.txt.{'-'.join([*place, '17'])}-0.tmp").touch()
    atomic.write_text(tmp_path / "x.txt", "whole")
    assert [p.name for p in tmp_path.iterdir()] == ["x.txt"]


def test_what_is_being_written_is_left_alone(tmp_path):
    with atomic.replacing(tmp_path / "x.txt") as slow:
        slow.write_text("slow")
        old = time.time() - 7 * 24 * 3600
        os.utime(slow, (old, old))  # however old: the writer runs
        atomic.write_text(tmp_path / "x.txt", "quick")
        assert slow.read_text() == "slow"
    assert (tmp_path / "x.txt").read_text() == "slow"


@pytest.mark.parametrize(("days", "stays"), [(0.9, True), (1.1, False)])
def test_left_overs_of_other_hosts_go_once_they_are_a_day_old(tmp_path, monkeypatch, days, stays):
    """By the clock of the file system, whatever this host's says."""
    left = tmp_path / ".x.txt.elsewhere-0a1b2c3d-12-34-0.tmp"
    left.touch()
    written = left.stat().st_mtime - days * 24 * 3600
    os.utime(left, (written, written))
    monkeypatch.setattr(time, "time", lambda: 0.0)
    atomic.write_text(tmp_path / "x.txt", "whole")
    assert left.exists() is stays


def test_a_left_over_that_cannot_be_deleted_fails_no_write(left_over, monkeypatch):
    unlink = Path.unlink

    def of_another_user(path, missing_ok=False):
        if path == left_over:
            raise PermissionError(path)
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", of_another_user)
    atomic.write_text(left_over.parent / "x.txt", "whole")
    assert left_over.exists()
