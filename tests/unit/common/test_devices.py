import contextlib
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from cxrscale.common import devices
from cxrscale.common.devices import EnergyMeter, leased, visible_cards
from cxrscale.common.errors import StudyError

ROOT = Path(__file__).parents[3]

#: Takes `count` cards `rounds` times and says which, with a start and an end by the clock of this host.
WORKER = """
import os, sys, time
from cxrscale.common.devices import leased
count, rounds, user = map(int, sys.argv[1:])
os.setuid(user)  # who need not be able to read this Python
for _ in range(rounds):
    with leased("cuda", count, poll_s=0.002) as names:
        assert len(set(names)) == count
        began = time.monotonic_ns()
        time.sleep(0.005)
        print(began, time.monotonic_ns(), *names, flush=True)
"""

HOLDER = """
import sys
from cxrscale.common.devices import leased
with leased("cuda", int(sys.argv[1])) as names:
    print(*names, flush=True)
    input()
"""


@pytest.fixture(autouse=True)
def _no_names(monkeypatch):
    for name in ("SLURM_JOB_ID", devices.SUBMITTED, devices.VISIBLE):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def show(monkeypatch):
    """A function that has `nvidia-smi -L` list these lines, in this process and those it starts, of any user."""

    def listing(*lines, status=0):
        program = Path(folder) / "nvidia-smi"
        text = "\n".join(lines)
        program.write_text(f"#!/bin/sh\n[ \"$*\" = -L ] && cat <<'END'\n{text}\nEND\nexit {status}\n")
        program.chmod(0o755)

    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
        yield listing


def gpu(index, uuid):
    return f"GPU {index}: Pretended H100 80GB (UUID: {uuid})"


def part(uuid, number=0):
    return f"  MIG 1g.10gb     Device  {number}: (UUID: {uuid})"


@pytest.fixture
def four(show):
    """Four pretended GPUs, with UUIDs of this test alone since leases are the host's."""
    names = [f"GPU-{n}{n}{n}{n}-{os.getpid()}-{time.monotonic_ns():x}" for n in range(4)]
    show(*(gpu(index, name) for index, name in enumerate(names)))
    return names


def start(program, *arguments, visible=None, **environment):
    more = environment if visible is None else environment | {"CUDA_VISIBLE_DEVICES": visible}
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")} | more,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextlib.contextmanager
def leased_after(holder):
    """A card that this process holds while another one holds one; yields the other's and its own."""
    others = holder.stdout.readline().split()
    with leased("cuda") as own:
        yield [*others, *own]
    holder.communicate("\n", timeout=60)


def uses(jobs):
    """(start, end, cards) of every lease that the jobs took."""
    found = []
    for job in jobs:
        out, err = job.communicate(timeout=120)
        assert job.returncode == 0, err
        for began, ended, *names in map(str.split, out.splitlines()):
            found.append((int(began), int(ended), names))
    return found


def shared(found, cards):
    """How often a card was leased that was held, whatever the leases call it."""
    held_until, times = dict.fromkeys(cards, 0), 0
    for began, ended, names in sorted(found):
        for name in names:
            card = cards[int(name)] if name.isdecimal() else next(c for c in cards if c.startswith(name))
            times += began < held_until[card]
            held_until[card] = max(ended, held_until[card])
    return times


def test_twelve_jobs_of_two_users_share_four_gpus_however_they_are_named(four):
    """By index, UUID, its beginning, mixed, or not at all; two users; in and outside an allocation; two TMPDIRs."""
    users = [0, 65534] if os.getuid() == 0 else [os.getuid()]
    named = ["0,1,2,3", ",".join(four), f"3,{four[2]},{four[1][:8]},0", None]
    jobs = [
        start(
            WORKER, 2 if number % 3 == 0 else 1, 6, users[number % len(users)],
            visible=named[number // 2 % 4],
            TMPDIR=f"/tmp/{number % 2}",
            **({"SLURM_JOB_ID": "17"} if number % 4 < 2 else {}),
        )
        for number in range(12)
    ]  # fmt: skip
    found = uses(jobs)
    assert len(found) == 72
    assert shared(found, four) == 0
    assert {name for _, _, names in found for name in names} == set(four)


def test_jobs_that_want_all_gpus_do_not_block_each_other(four):
    found = uses([start(WORKER, 2, 15, os.getuid(), visible=order) for order in ("0,1", "1,0", "0,1")])
    assert len(found) == 45
    assert shared(found, four) == 0


def test_a_killed_job_frees_its_gpus_and_who_waits_says_for_whom(four, caplog, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    with start(HOLDER, 2, CUDA_DEVICE_ORDER="FASTEST_FIRST") as holder:
        assert holder.stdout.readline().split() == four[:2]
        with leased("cuda", 1) as names:
            assert names == [four[2]]
        assert "waiting" not in caplog.text
        with caplog.at_level(logging.INFO), pytest.MonkeyPatch.context() as patch:
            patch.setattr(devices, "time", SimpleNamespace(sleep=lambda _: holder.kill() or holder.wait()))
            with leased("cuda", 3) as names:
                assert names == four[:3]
    user = f"held by process {holder.pid} of user {os.getuid()}"
    assert f"waiting for 3 of {four[0]} ({user}), {four[1]} ({user}), {four[2]} (free)" in caplog.messages


def test_what_a_holder_starts_holds_no_lease(four):
    """Or a process that outlives the job would keep its GPUs from all others."""
    with leased("cuda", 4):
        child = subprocess.Popen(["sleep", "60"], close_fds=False)
    try:
        with leased("cuda", 4) as names:
            assert names == four
    finally:
        child.kill()
        child.wait()


def test_fewer_gpus_than_asked_for_are_taken_with_a_warning(four, caplog, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    with caplog.at_level(logging.WARNING), leased("cuda", 3) as names:
        assert names == [four[1]]
    assert "3 GPUs were asked for, this host shows 1; going on with those." in caplog.messages


def test_the_cpu_holds_nothing():
    with leased("cpu", 4) as names:
        assert names == []
        assert "CUDA_VISIBLE_DEVICES" not in os.environ


def test_no_gpu_at_all_is_an_error(four, show, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4")
    with pytest.raises(StudyError, match=r"CUDA_VISIBLE_DEVICES=4 names no GPU of this host"), leased("cuda"):
        pass
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    show()
    with pytest.raises(StudyError, match=r"this host shows no GPU. Set accelerator: cpu"), leased("cuda"):
        pass


def test_an_index_that_cannot_be_looked_up_is_an_error(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert visible_cards() == []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-1,MIG-2")
    assert [card.uuid for card in visible_cards()] == ["GPU-1", "MIG-2"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with pytest.raises(StudyError, match=r"nvidia-smi can't be run to say which GPU 0 is.*name GPUs by their UUIDs"):
        visible_cards()


def test_a_broken_gpu_hides_no_other(show):
    show(gpu(0, "GPU-a"), "Unable to determine the device handle for GPU0000:41:00.0: Unknown Error", gpu(2, "GPU-c"),
         status=15)  # fmt: skip
    assert [(card.uuid, card.index) for card in visible_cards()] == [("GPU-a", "0"), ("GPU-c", "2")]


@pytest.mark.parametrize(
    ("visible", "seen"),
    [
        (None, ["GPU-abc", "MIG-1", "MIG-2", "GPU-abd"]),
        ("1", ["MIG-1", "MIG-2"]),  # a GPU that is divided is its parts
        ("GPU-b", ["MIG-1", "MIG-2"]),
        ("MIG-2,1", ["MIG-2", "MIG-1"]),
        ("gpu-abd , 2,0", ["GPU-abd", "GPU-abc"]),
        ("GPU-ab,0", []),  # the beginning of two
        ("2,-1,0", ["GPU-abd"]),  # as for CUDA, what names nothing ends the list
        ("", []),
        ("NoDevFiles", []),
    ],
)
def test_a_card_has_one_name(show, monkeypatch, visible, seen):
    show(gpu(0, "GPU-abc"), gpu(1, "GPU-b12"), part("MIG-1"), part("MIG-2", 1), gpu(2, "GPU-abd"))
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [card.uuid for card in visible_cards()] == seen


def test_of_parts_of_gpus_a_job_gets_one(show, monkeypatch, caplog):
    """CUDA shows a process one part; two ranks would both compute on it."""
    names = [f"{kind}-{os.getpid()}-{time.monotonic_ns():x}" for kind in ("MIG-a", "MIG-b", "GPU-c", "GPU-d")]
    show(gpu(0, "GPU-whole"), part(names[0]), part(names[1], 1), gpu(1, names[2]), gpu(2, names[3]))
    with leased("cuda", 1) as taken:
        assert taken == names[:1]
    with leased("cuda", 2) as taken:
        assert taken == names[2:]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with caplog.at_level(logging.WARNING), leased("cuda", 2) as taken:
        assert taken == names[:1]
    assert "2 GPUs were asked for, this host shows 1" in caplog.text


def test_a_job_that_snakemake_submitted_takes_what_slurm_gave(monkeypatch):
    monkeypatch.setenv("PATH", "")  # nor is nvidia-smi asked
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv(devices.SUBMITTED, "17")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    with leased("cuda", 2) as one, leased("cuda", 2) as other:
        assert one == other == ["2", "3"]


@pytest.mark.parametrize("submitted", [None, "16"])
def test_in_any_other_allocation_jobs_lease(four, monkeypatch, submitted):
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    if submitted:
        monkeypatch.setenv(devices.SUBMITTED, submitted)
    with start(HOLDER, 1) as holder, leased_after(holder) as names:
        assert names == four[2:]


def test_a_submitted_job_whose_gpus_slurm_does_not_name_leases(four, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv(devices.SUBMITTED, "17")
    with start(HOLDER, 1) as holder, leased_after(holder) as names:
        assert names == four[:2]


def test_the_environment_is_as_before_afterwards(four, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", " 0, 1 ,")
    with leased("cuda", 1) as names:
        assert os.environ["CUDA_VISIBLE_DEVICES"] == names[0] == four[0]
    assert os.environ["CUDA_VISIBLE_DEVICES"] == " 0, 1 ,"


#: Starts a process as a launcher does and is killed when that one has come so far, or before.
LAUNCHER = """
import os, subprocess, sys
from cxrscale.common.devices import as_launcher
subprocess.Popen([sys.executable, "-c", sys.argv[1]], env=as_launcher())
os.kill(os.getpid(), 9) if sys.argv[2] == "before" else input()
"""
LAUNCHED = """
import time
from cxrscale.common.devices import launched
print(launched(), flush=True)
time.sleep(600)
"""


def test_a_process_whose_launcher_has_ended_does_not_start():
    launcher = start(LAUNCHER, f"import sys; sys.stdin.read(1)\n{LAUNCHED}", "before")
    launcher.wait()
    out, err = launcher.communicate("go", timeout=60)
    assert out == ""
    assert "the process that started this training and held its GPUs has ended" in err


def test_a_process_ends_with_its_launcher():
    with start(LAUNCHER, LAUNCHED, "after") as launcher:
        assert launcher.stdout.readline() == "True\n"
        launcher.send_signal(signal.SIGKILL)
        assert launcher.communicate(timeout=60)[0] == ""  # once the other, which has this pipe too, has ended


def test_nobody_is_launched_without_a_launcher(monkeypatch):
    monkeypatch.setenv("RANK", "0")  # of a pod, say
    monkeypatch.delenv(devices.LAUNCHER, raising=False)
    assert devices.launched() is False


class Nvml:
    """A pretended NVML: energies in millijoules, then errors."""

    def __init__(self, *energies):
        self.energies, self.closed = list(energies), 0

    def nvmlInit(self):  # noqa: N802
        pass

    def nvmlDeviceGetHandleByUUID(self, uuid):  # noqa: N802
        return uuid

    def nvmlDeviceGetTotalEnergyConsumption(self, handle):  # noqa: N802
        if not self.energies:
            raise RuntimeError("GPU is lost")
        return self.energies.pop(0)

    def nvmlShutdown(self):  # noqa: N802
        self.closed += 1
        raise RuntimeError("driver was unloaded")


def test_an_error_of_nvml_ends_no_training(monkeypatch, caplog):
    import torch

    nvml = Nvml(1000, 3500)
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(uuid="x"))
    with caplog.at_level(logging.WARNING), EnergyMeter(torch.device("cuda")) as meter:
        assert meter.take() == 2.5
        assert meter.take() is None
        assert meter.take() is None
    assert caplog.messages == ["energy is no longer measured: GPU is lost"]
    assert nvml.closed == 1
