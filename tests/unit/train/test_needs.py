"""What a training needs of its host."""

import shutil

import pytest
import torch

from cxrscale.common.errors import StudyError
from cxrscale.train import training
from cxrscale.train.distributed import Processes
from cxrscale.train.learner import Origin
from cxrscale.train.loader import decoded_batches
from cxrscale.train.needs import host_memory_mb, loader_bytes, training_bytes
from cxrscale.train.settings import RunSettings, TrainingSettings
from cxrscale.train.task import Task

FREE = 50 << 20
ORIGIN = Origin(code="code", store="small-1", index="index", targets="targets", initial_weights=None)


def test_shared_memory_is_that_of_the_pictures_in_flight():
    """64 images of 2048 px, four workers that prepare two batches each, one that came and one that is used."""
    assert loader_bytes(4, 64, 2048, 1) == 10 * 64 * 2**22 == 2_684_354_560
    assert loader_bytes(4, 8, 64, 1) == 10 * 8 * 2**20  # small batches travel together, 8 MiB at once
    assert loader_bytes(0, 64, 2048, 1) == 0


def test_the_loader_takes_no_more_than_was_counted(reader, monkeypatch):
    asked = []
    monkeypatch.setattr("cxrscale.train.loader.require_room", lambda place, needed, *_: asked.append(needed))
    rows = list(range(48)) * 400
    batches = [torch.tensor(rows[i : i + 7]).numpy() for i in range(0, len(rows), 7)]
    next(decoded_batches(reader, batches, 1))
    assert 0.9 * loader_bytes(1, 7, 32, 1) < asked[0] <= loader_bytes(1, 7, 32, 1)


def test_memory_grows_with_processes_workers_and_pictures():
    one = host_memory_mb(1, 4, 64, 2048, 1)
    assert one == 6000 + 4 * 600 + 2 * 2560
    assert host_memory_mb(4, 4, 16, 2048, 1) == 4 * (6000 + 4 * 600 + 2 * 640)
    assert host_memory_mb(1, 0, 64, 2048, 1) == 6000


def test_processes_of_a_host_are_counted():
    hosts = ["a", "a", "b", "a"]
    assert [Processes(rank, 4, torch.device("cpu"), hosts).on_host for rank in range(4)] == [3, 3, 1, 3]
    assert Processes(0, 1, torch.device("cpu")).on_host == 1


@pytest.fixture
def train(small_store, reader, tmp_path, monkeypatch):
    """A function that trains with so many workers on a host with 50 MiB free where the name given lies."""
    usage = shutil.disk_usage

    def run(workers, small, processes=1):
        def pretended(place):
            found = usage(place)
            return found._replace(free=FREE) if str(place).startswith(small) else found

        monkeypatch.setattr(shutil, "disk_usage", pretended)
        settings = TrainingSettings(epochs=1, batch_images=8, norm_group_images=4)
        task = Task(
            tmp_path / "learner", "test_resnet", 32, 1, settings, RunSettings(micro_batch_images=8, workers=workers),
            small_store.targets, reader, None, ORIGIN,
        )  # fmt: skip
        training.train_learner(task, Processes(0, 1, torch.device("cpu"), ["a"] * processes))

    return run


def test_too_little_shared_memory_for_all_processes_of_a_host_is_said_before_training(train, monkeypatch):
    """A loader of one worker takes 4 x 8 MiB of pictures, as float32."""
    monkeypatch.setattr(training.Updater, "update", lambda *_: pytest.fail("it was trained"))
    with pytest.raises(
        StudyError, match=r"/dev/shm: loading for 2 processes takes 256 MiB there; it has 50 MiB free. Give it more"
    ):
        train(1, "/dev/shm", processes=2)


def test_a_disk_too_small_for_the_checkpoint_is_said_before_training(train, tmp_path, monkeypatch):
    monkeypatch.setattr(training.Updater, "update", lambda *_: pytest.fail("it was trained"))
    monkeypatch.setattr(training, "training_bytes", lambda *_: FREE + (10 << 20))
    with pytest.raises(StudyError, match=r"learner: a checkpoint and the learner takes 60 MiB there; it has 50 MiB"):
        train(0, str(tmp_path))


def test_the_disk_counted_suffices_for_a_checkpoint(train, tmp_path, monkeypatch):
    sizes = []
    original = training.checkpoint.save

    def save(path, content):
        original(path, content)
        sizes.append(path.stat().st_size)

    monkeypatch.setattr(training.checkpoint, "save", save)
    train(0, "nowhere")
    weights = (tmp_path / "learner/weights.safetensors").stat().st_size
    assert sizes
    # Beside the weights a small model's checkpoint holds some names and numbers.
    assert max(sizes) + weights < training_bytes(weights, checkpoint_exists=True) + 200_000
    assert training_bytes(100, checkpoint_exists=False) == 1100
