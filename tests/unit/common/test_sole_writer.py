import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cxrscale.common import sole_writer
from cxrscale.common.errors import StudyError
from cxrscale.common.sole_writer import SoleWriter

ROOT = Path(__file__).parents[3]
HOLDER = """
import sys
from pathlib import Path
from cxrscale.common.sole_writer import SoleWriter
with SoleWriter(Path(sys.argv[1])):
    print("held", flush=True)
    input()
"""
#: Writes often; a marker that exists already shows two writers at a time.
WRITER = """
import os, sys
from pathlib import Path
from cxrscale.common import sole_writer
sole_writer.POLL_S = 0.001
lock = Path(sys.argv[1])
for _ in range(20):
    with sole_writer.SoleWriter(lock) as writer:
        os.close(os.open(lock.with_name("marker"), os.O_CREAT | os.O_EXCL))
        writer.check()
        os.unlink(lock.with_name("marker"))
if len(sys.argv) > 2:
    sole_writer.SoleWriter(lock).__enter__()
    os._exit(0)  # as one that is killed: its lock stays
"""


@pytest.fixture
def lock(tmp_path):
    return tmp_path / "training.lock"


@pytest.fixture
def _at_once(monkeypatch):
    monkeypatch.setattr(sole_writer, "WAIT_S", 0)
    monkeypatch.setattr(sole_writer, "POLL_S", 0)


def start(program, *arguments, **environment):
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")} | environment,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def of_another_host(lock, age_s):
    """A lock as a process of another host holds it, who dated it so long ago by the file system's clock."""
    lock.write_text(json.dumps({"process": "gpu07-0a1b2c3d-4711-99", "host": "gpu07", "pid": 4711, "slurm_job": "23"}))
    dated = lock.stat().st_mtime - age_s
    os.utime(lock, (dated, dated))


def test_a_lock_is_gone_after_its_holder(lock):
    with SoleWriter(lock) as writer:
        assert json.loads(lock.read_text())["pid"] == os.getpid()
        writer.check()
    assert list(lock.parent.iterdir()) == []
    with pytest.raises(RuntimeError), SoleWriter(lock):
        raise RuntimeError
    assert list(lock.parent.iterdir()) == []


@pytest.mark.usefixtures("_at_once")
def test_a_second_writer_says_who_writes_and_how_to_end_it(lock, caplog):
    with start(HOLDER, lock, SLURM_JOB_ID="17") as other:
        assert other.stdout.readline() == "held\n"
        with (
            pytest.raises(
                StudyError, match=rf"process {other.pid} on .*, SLURM job 17 \(since .* writes here.*\(scancel 17\)"
            ),
            SoleWriter(lock),
        ):
            pass
        assert f"waiting for process {other.pid} on" in caplog.text
        assert other.communicate("\n", timeout=60) == ("", "")
    with SoleWriter(lock):
        pass


@pytest.mark.usefixtures("_at_once")
def test_a_killed_process_of_this_host_leaves_no_lock(lock):
    with start(HOLDER, lock) as other:
        assert other.stdout.readline() == "held\n"
        other.kill()
    assert lock.exists()
    with SoleWriter(lock) as writer:
        writer.check()


@pytest.mark.usefixtures("_at_once")
def test_a_lock_of_another_host_is_taken_over_once_its_holder_has_not_dated_it_for_minutes(lock, monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 0.0)  # this host's clock does not matter
    of_another_host(lock, sole_writer.STALE_S - 30)
    with pytest.raises(StudyError, match=r"process 4711 on gpu07, SLURM job 23 .*scancel 23"), SoleWriter(lock):
        pass
    of_another_host(lock, sole_writer.STALE_S + 1)
    with SoleWriter(lock) as writer:
        writer.check()


def test_others_wait_longer_than_a_lock_of_the_dead_lasts_and_the_living_date_theirs_in_time():
    assert 10 * sole_writer.BEAT_S <= sole_writer.STALE_S < sole_writer.WAIT_S


def test_a_holder_dates_its_lock(lock, monkeypatch):
    monkeypatch.setattr(sole_writer, "BEAT_S", 0.01)
    with SoleWriter(lock):
        os.utime(lock, (1, 1))
        while lock.stat().st_mtime < 2:  # for ever, if it did not
            time.sleep(0.01)


def test_a_holder_that_was_taken_for_dead_writes_no_more(lock):
    with SoleWriter(lock) as slow:
        lock.unlink()
        of_another_host(lock, 0)
        with pytest.raises(StudyError, match=r"not keep its lock.*process 4711 on gpu07, SLURM job 23 .*this one ends"):
            slow.check()
    assert lock.exists()  # the other's
    lock.unlink()
    with SoleWriter(lock) as slow:
        lock.unlink()
        with pytest.raises(StudyError, match="another process may write here"):
            slow.check()


def test_writers_take_turns_also_where_locks_are_left_over(lock):
    jobs = [start(WRITER, lock, *["killed"][: number % 2]) for number in range(6)]
    for job in jobs:
        _, errors = job.communicate(timeout=120)
        assert job.returncode == 0, errors


def test_a_lock_that_came_meanwhile_is_put_back(lock):
    """Two processes saw the same dead holder; the slower one must not remove the lock of the quicker one."""
    with SoleWriter(lock) as quick:
        SoleWriter(lock)._take_away("what the dead holder's said")
        quick.check()
    assert list(lock.parent.iterdir()) == []


@pytest.mark.usefixtures("_at_once")
def test_without_hard_links_there_is_one_writer_too(lock, monkeypatch):
    def refuse(*_):
        raise PermissionError

    monkeypatch.setattr(os, "link", refuse)
    with SoleWriter(lock) as first:
        first.check()
        with pytest.raises(StudyError, match="writes here"), SoleWriter(lock):
            pass


@pytest.mark.usefixtures("_at_once")
def test_a_lock_that_says_nothing_is_a_lock(lock):
    lock.write_text("")  # half written
    with pytest.raises(StudyError, match="another process writes here"), SoleWriter(lock):
        pass
