"""Requests to stop: when they are looked at, who gets them, and what a time limit makes of them."""

import os
import pickle
import signal
import subprocess
import sys

import pytest

from cxrscale.common.devices import SUBMITTED
from cxrscale.common.errors import StudyError
from cxrscale.train.interruption import INTERRUPTED_STATUS, TIME_LIMIT, Interrupted, StopRequest, requeue, run_as_job
from cxrscale.train.learner import Origin
from cxrscale.train.settings import RunSettings, TrainingSettings
from cxrscale.train.task import Task

ORIGIN = Origin(code="code", store="small-1", index="index", targets="targets", initial_weights=None)


def test_an_interrupted_process_leaves_after_the_others_have_met_it():
    """The first to leave has srun kill the others, one of which may still write the checkpoint."""
    met = []

    def interrupted():
        raise Interrupted("SIGTERM")

    with pytest.raises(SystemExit) as ended:
        run_as_job(interrupted, lambda: met.append("others"))
    assert ended.value.code == INTERRUPTED_STATUS
    assert met == ["others"]


def test_a_time_limit_is_kept_in_mind_from_the_start_and_over_other_requests():
    with StopRequest([TIME_LIMIT]) as early:
        signal.raise_signal(TIME_LIMIT)
        with StopRequest() as stop:
            assert stop.signal == early.signal == TIME_LIMIT
            signal.raise_signal(signal.SIGUSR1)  # as the launcher says it
            assert stop.signal == TIME_LIMIT


def test_what_was_ignored_before_still_is():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopRequest() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert stop.signal is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_second_interrupt_of_a_keyboard_ends_at_once():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # the jobs that a shell runs behind ignore it
    try:
        with StopRequest() as stop:
            signal.raise_signal(signal.SIGINT)
            assert stop.signal == signal.SIGINT
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.fixture
def scontrol(tmp_path, monkeypatch):
    """A command of that name which notes its arguments; returns the file they stand in."""
    command, said = tmp_path / "bin/scontrol", tmp_path / "said"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\necho "$@" >> {said}\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv(SUBMITTED, "7")
    return said


def near_the_limit(progress: bool):
    def interrupted():
        raise Interrupted("SIGURG", time_limit=True, progress=progress)

    return interrupted


def test_before_a_time_limit_the_job_goes_back_into_the_queue_once(scontrol):
    for first in (True, False):
        with pytest.raises(SystemExit) as ended:
            run_as_job(near_the_limit(progress=True), first=first)
        assert ended.value.code == INTERRUPTED_STATUS
    assert scontrol.read_text() == "requeue 7\n"


def test_nobody_leaves_before_the_job_is_back_in_the_queue(scontrol):
    """Else torchrun or srun ends the first one, and scontrol with it."""
    for first in (True, False):
        seen = []
        with pytest.raises(SystemExit):
            run_as_job(near_the_limit(progress=True), lambda seen=seen: seen.append(scontrol.exists()), first)
        assert seen == [not first, True]


def test_a_training_that_got_no_further_fails_at_once(scontrol):
    with pytest.raises(StudyError, match=r"the time limit of this job was too short: .* Raise runtime of train"):
        run_as_job(near_the_limit(progress=False))
    assert not scontrol.exists()


def test_a_job_of_somebody_else_is_not_put_back(scontrol, monkeypatch):
    """That of salloc or of an sbatch in which Snakemake runs with all that it does."""
    monkeypatch.setenv(SUBMITTED, "6")
    requeue()
    monkeypatch.delenv(SUBMITTED)
    requeue()
    assert not scontrol.exists()


def test_a_job_that_cannot_be_put_back_is_said(scontrol, caplog):
    (scontrol.parent / "bin/scontrol").write_text("#!/bin/sh\necho job is held >&2; exit 1\n")
    requeue()
    assert caplog.messages == ["job 7 could not be put back into the queue: job is held"]


#: Asks its whole group to stop: in updates, while statistics are taken, in validation, in updates with its workers
#: killed. Then trains to the end.
GROUP = """
import os, pickle, signal, sys, time
from dataclasses import replace
from pathlib import Path
import psutil, torch
torch.set_num_threads(1)
from cxrscale.train import batches, learner, loader
from cxrscale.train.distributed import Processes
from cxrscale.train.interruption import Interrupted
from cxrscale.train.training import train_learner

loader.LOAD_BYTES = 0  # a load is a batch: workers are ahead by four
task = pickle.loads(Path(sys.argv[1]).read_bytes())
original = loader.decoded_batches

def asked(act):
    def asking(*args, **kwargs):
        for number, pixels in enumerate(original(*args, **kwargs)):
            if number == 1:
                act()
            yield pixels
    return asking

def ask():
    os.killpg(0, signal.SIGTERM)
    time.sleep(0.5)

def ask_and_kill():
    ask()
    for worker in psutil.Process().children(recursive=True):
        worker.kill()

for place, act in ((loader, ask), (batches, ask), (learner, ask), (loader, ask_and_kill)):
    place.decoded_batches = asked(act)
    try:
        train_learner(task, Processes(0, 1, torch.device("cpu")))
        print("finished")
    except Interrupted as stopped:
        found = torch.load(task.folder / "checkpoint.pt", weights_only=True)["state"]
        print(stopped, found["epoch"], found["update"], sep="; ")
    place.decoded_batches = original
train_learner(task, Processes(0, 1, torch.device("cpu")))
train_learner(replace(task, folder=task.folder.with_name("whole"), run=replace(task.run, workers=0)),
              Processes(0, 1, torch.device("cpu")))
"""


def test_a_group_that_is_asked_to_stop_writes_its_checkpoint_in_updates_and_in_validation(
    small_store, reader, tmp_path
):
    settings = TrainingSettings(epochs=2, batch_images=16, norm_group_images=2, learning_rate=2e-3)
    run = RunSettings(micro_batch_images=2, activation_checkpointing=False, channels_last=True, workers=2)
    task = Task(tmp_path / "asked", "test_resnet", 32, 1, settings, run, small_store.targets, reader, None, ORIGIN)
    (tmp_path / "task").write_bytes(pickle.dumps(task))
    done = subprocess.run(
        [sys.executable, "-c", GROUP, str(tmp_path / "task")],
        capture_output=True, text=True, timeout=300, start_new_session=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "SIGTERM: checkpoint written; 0; 1",
        "SIGTERM: checkpoint written; 0; 2",
        "SIGTERM: checkpoint written; 0; 2",  # of two updates; validation is done when it goes on
        "SIGTERM: checkpoint written; 1; 0",
    ], done.stdout
    asked, whole = ((tmp_path / name / "weights.safetensors").read_bytes() for name in ("asked", "whole"))
    assert asked == whole
