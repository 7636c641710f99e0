import logging
import os
import signal
import subprocess
import sys
import tempfile

import pytest

from cxrscale.common.devices import leased, visible_devices
from cxrscale.common.errors import StudyError

#: Takes `count` devices `rounds` times; a marker file that exists already shows a device that is leased twice.
WORKER = """
import os, sys, time
from cxrscale.common.devices import leased
count, rounds, folder, devices = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4:]
for _ in range(rounds):
    with leased("cuda", count, devices, poll_s=0.002) as names:
        assert len(set(names)) == count and os.environ["CUDA_VISIBLE_DEVICES"] == ",".join(names)
        for name in names:
            os.close(os.open(f"{folder}/{name}", os.O_CREAT | os.O_EXCL))
        time.sleep(0.005)
        for name in names:
            os.unlink(f"{folder}/{name}")
        print("lease", *names, flush=True)
"""

HOLDER = """
import sys, time
from cxrscale.common.devices import leased
with leased("cuda", 2, ["A", "B"]):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def host(tmp_path, monkeypatch):
    """A lock folder of the test's own, no SLURM, no devices named."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    (tmp_path / "markers").mkdir()
    return tmp_path


def start(host, count, rounds, devices):
    command = [sys.executable, "-c", WORKER, str(count), str(rounds), str(host / "markers"), *devices]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(processes) -> int:
    """Wait for all; the number of leases taken."""
    taken = 0
    for process in processes:
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        taken += out.count("lease")
    return taken


def test_no_device_is_leased_twice(host):
    jobs = [start(host, count, 8, ["A", "B", "C", "D"]) for count in (1, 1, 2, 3, 1, 4)]
    assert finish(jobs) == 48


def test_twelve_jobs_share_four_devices_and_use_them_all(host):
    """Every third job wants two devices; none is leased twice (or the marker would exist), none waits for ever."""
    jobs = [start(host, 2 if number % 3 == 0 else 1, 6, ["A", "B", "C", "D"]) for number in range(12)]
    outputs = [job.communicate(timeout=120) for job in jobs]
    assert [job.returncode for job in jobs] == [0] * 12, outputs
    leases = [line.split()[1:] for out, _ in outputs for line in out.splitlines()]
    assert len(leases) == 72
    assert {name for names in leases for name in names} == {"A", "B", "C", "D"}


def test_jobs_that_want_all_devices_do_not_block_each_other(host):
    assert finish([start(host, 2, 15, order) for order in (["A", "B"], ["B", "A"], ["A", "B"])]) == 45


def test_a_killed_job_frees_its_devices():
    holder = subprocess.Popen([sys.executable, "-c", HOLDER], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with leased("cuda", 1, ["A", "B", "C"]) as names:
            assert names == ["C"]
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        holder.stdout.close()
    with leased("cuda", 2, ["A", "B"], poll_s=0.01) as names:
        assert names == ["A", "B"]


def test_fewer_devices_than_asked_for_are_taken_with_a_warning(caplog):
    with caplog.at_level(logging.WARNING), leased("cuda", 3, ["A"]) as names:
        assert names == ["A"]
    assert "3 GPUs were asked for, this host shows 1; going on with those." in caplog.messages


def test_the_cpu_holds_nothing(host):
    with leased("cpu", 4) as names:
        assert names == []
        assert "CUDA_VISIBLE_DEVICES" not in os.environ
    assert not list(host.glob("cxrscale-gpu-*"))


def test_no_device_at_all_is_an_error():
    with pytest.raises(StudyError, match=r"this host shows no GPU. Set accelerator: cpu"), leased("cuda", 1, []):
        pass


def test_the_scheduler_has_chosen_under_slurm(host, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    with leased("cuda", 2) as names:
        assert names == ["2", "3"]
    assert not list(host.glob("cxrscale-gpu-*"))


def test_the_environment_is_as_before_afterwards(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", " 0, GPU-1 ,")
    assert visible_devices() == ["0", "GPU-1"]
    with leased("cuda", 1) as names:
        assert os.environ["CUDA_VISIBLE_DEVICES"] == names[0] == "0"
    assert os.environ["CUDA_VISIBLE_DEVICES"] == " 0, GPU-1 ,"


def test_a_host_without_nvidia_smi_shows_nothing(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert visible_devices() == []
