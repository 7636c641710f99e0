import contextlib
import csv
import errno
import json
import math
import os
import shutil
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.utils._python_dispatch import TorchDispatchMode

from cxrscale.common import sole_writer
from cxrscale.common.errors import StudyError
from cxrscale.common.sole_writer import SoleWriter
from cxrscale.train import batches, training, update
from cxrscale.train.distributed import Processes
from cxrscale.train.interruption import INTERRUPTED_STATUS, Interrupted, StopRequest, run_as_job
from cxrscale.train.learner import Learner, Origin
from cxrscale.train.loader import select_examples
from cxrscale.train.micro_batch import ways_of
from cxrscale.train.models import build_model
from cxrscale.train.record import OUTPUTS, mean_auroc
from cxrscale.train.settings import RunSettings, TrainingSettings
from cxrscale.train.task import Task
from cxrscale.train.training import LOCK, train_learner
from cxrscale.train.update import Updater

#: 32 images to train on: four updates an epoch.
SETTINGS = TrainingSettings(
    epochs=2, batch_images=8, norm_group_images=4, optimiser="adam", learning_rate=2e-3, weight_decay=0.0,
    schedule="cosine", flip_probability=0.5, rotation_degrees=15.0, mean=0.4, standard_deviation=0.2,
)  # fmt: skip
RUN = RunSettings(micro_batch_images=8, activation_checkpointing=False, channels_last=True, workers=0)
CPU = torch.device("cpu")
ALONE = Processes(0, 1, CPU)
ORIGIN = Origin(code="code", store="small-1", index="index", targets="targets", initial_weights=None)


@pytest.fixture
def train(small_store, reader):
    def run(folder, settings=SETTINGS, **changed):
        arguments = {
            "folder": folder, "model": "test_resnet", "resolution_px": 32, "seed": 1, "settings": settings,
            "targets": small_store.targets, "store": reader, "weights": None, "origin": ORIGIN,
        }  # fmt: skip
        how = {k: changed.pop(k) for k in list(changed) if k in RunSettings.__dataclass_fields__}
        train_learner(Task(**(arguments | {"run": replace(RUN, **how)} | changed)), ALONE)

    return run


def history(folder, without=("seconds", "images_per_second", "loader_wait_fraction")):
    """The history without what depends on the clock."""
    with (folder / "history.csv").open() as handle:
        return [{k: float(v) for k, v in row.items() if k not in without} for row in csv.DictReader(handle)]


def weights(folder) -> bytes:
    return (folder / "weights.safetensors").read_bytes()


def logits_of(folder, reader, examples):
    """Logits as whoever uses the learner's folder computes them."""
    return Learner.load(folder, CPU).predict(reader, examples.rows, batch_images=3)


def stop_after(monkeypatch, *updates):
    """Send this process a SIGTERM in the middle of the run's updates of these numbers, from 1."""
    original, done = Updater.update, []

    def update(*args):
        found = original(*args)
        done.append(1)
        if len(done) in updates:
            signal.raise_signal(signal.SIGTERM)
        return found

    monkeypatch.setattr(Updater, "update", update)
    return done


@pytest.fixture(scope="module")
def undisturbed(small_store, tmp_path_factory):
    """A learner trained in one go."""
    from cxrscale.store.reader import StoreReader

    folder = tmp_path_factory.mktemp("undisturbed")
    task = Task(
        folder=folder, model="test_resnet", resolution_px=32, seed=1, settings=SETTINGS, targets=small_store.targets,
        store=StoreReader(small_store.folder), weights=None, origin=ORIGIN, run=RUN,
    )  # fmt: skip
    train_learner(task, ALONE)
    return folder


def test_mean_auroc_leaves_out_findings_of_one_class_and_masked_images():
    logits = np.array([[0.1, 5, 1], [0.2, 6, 2], [0.3, 7, 3], [0.4, 8, 4.0]])
    target = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0], [1, 1, 1.0]])
    mask = np.array([[1, 1, 1], [1, 1, 1], [1, 1, 0], [1, 1, 1.0]])
    assert mean_auroc(logits, target, mask) == pytest.approx((0.75 + 1.0) / 2)
    assert math.isnan(mean_auroc(logits[:, 1:2], target[:, 1:2], mask[:, 1:2]))


def gradient_of(monkeypatch, train, folder, settings, **how):
    """Gradient and loss of the first update."""
    found = []

    class Seen(Exception):  # noqa: N818
        pass

    def update(self, *args):
        self.optimiser.step = lambda: None
        loss, _ = original(self, *args)
        found.append((torch.cat([p.grad.flatten() for p in self.parameters]), loss))
        raise Seen

    original = Updater.update
    with monkeypatch.context() as patch:
        patch.setattr(Updater, "update", update)
        with pytest.raises(Seen):
            train(folder, settings, **how)
    return found[0]


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "densenet121"])
@pytest.mark.parametrize("kind", ["groups", "frozen"])
def test_the_micro_batch_changes_the_gradient_by_rounding_alone(train, tmp_path, monkeypatch, name, kind):
    settings = replace(SETTINGS, batch_images=16, normalisation=kind)
    runs = [
        gradient_of(
            monkeypatch, train, tmp_path / f"{n}{again}", settings, model=name, micro_batch_images=n,
            activation_checkpointing=again,
        )
        for n, again in ((16, False), (8, False), (4, False), (4, True))
    ]  # fmt: skip
    gradient, loss = runs[0]
    assert gradient.norm() > 0.01
    for other, other_loss in runs[1:]:
        # DenseNet's last statistics are over four values each, which magnifies rounding.
        assert (other - gradient).norm() < (2e-3 if name == "densenet121" else 1e-4) * gradient.norm()
        assert other_loss == pytest.approx(loss, rel=1e-5)


@pytest.mark.parametrize("how", [{}, {"ema_decay": 0.9}, {"normalisation": "synchronised"}], ids=str)
def test_running_statistics_are_those_of_the_weights_that_are_kept(train, small_store, reader, tmp_path, how):
    """The first layer's, worked out here from all 32 training images, which fill four batches."""
    train(tmp_path, replace(SETTINGS, learning_rate=2e-2, **how))
    learner = Learner.load(tmp_path, CPU)
    first = next(m for m in learner.network.modules() if isinstance(m, torch.nn.BatchNorm2d))
    seen = []
    first.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    rows = select_examples(small_store.targets, reader, "train").rows
    learner.predict(reader, rows, batch_images=32)
    assert len(seen[0]) == 32
    assert torch.allclose(first.running_mean, seen[0].mean(dim=(0, 2, 3)), rtol=1e-4, atol=1e-6)
    assert torch.allclose(first.running_var, seen[0].var(dim=(0, 2, 3), correction=0), rtol=1e-4)


@pytest.mark.parametrize(("kind", "together"), [("synchronised", True), ("groups", False)])
def test_a_process_short_of_memory_that_normalises_with_others_ends_at_once(
    train, tmp_path, monkeypatch, kind, together
):
    """The others wait for it within a layer, where no message about it comes. Else they hear of it."""

    def gradients(self, *given):
        self.processes = Processes(0, 2, CPU)

        def forward(x):
            raise torch.OutOfMemoryError

        self.forward = forward
        found = original(self, *given)
        self.processes = ALONE
        return found

    original = Updater._gradients
    monkeypatch.setattr(Updater, "_gradients", gradients)
    with pytest.raises(torch.OutOfMemoryError if together else StudyError):
        train(tmp_path, replace(SETTINGS, normalisation=kind))


@pytest.mark.parametrize(("wanted", "taken"), [(1, 8), (23, 16), (1024, 32)])
def test_statistics_come_from_whole_batches_of_the_same_images(train, tmp_path, monkeypatch, wanted, taken):
    samples = []
    original = batches.Batches.sample

    def sample(self, *args):
        samples.append(original(self, *args))
        return samples[-1]

    monkeypatch.setattr(batches.Batches, "sample", sample)
    train(tmp_path, replace(SETTINGS, statistics_images=wanted))
    first, second = ([e for batch in s for part in batch.parts for e in part] for s in samples)
    assert first == second
    assert len(set(first)) == taken


def test_statistics_over_each_micro_batch_make_it_a_setting(train, tmp_path, monkeypatch):
    settings = replace(SETTINGS, normalisation="per_micro_batch")
    first, second = (
        gradient_of(monkeypatch, train, tmp_path / str(n), settings, micro_batch_images=n)[0] for n in (4, 8)
    )
    groups = gradient_of(monkeypatch, train, tmp_path / "groups", SETTINGS)[0]
    assert (first - groups).norm() < 1e-4 * groups.norm()  # groups of four, and micro-batches of four
    assert (first - second).norm() > 0.01 * groups.norm()


OPTIONS = {
    "warm-up and clipping": {"warmup_epochs": 1.5, "clip_grad_norm": 0.1},
    "plateau": {"schedule": "plateau", "plateau_patience": 1, "plateau_factor": 0.5},
    "average": {"ema_decay": 0.5},
    "smoothing and weights": {"label_smoothing": 0.1, "pos_weight": "balanced"},
    "AdamW": {"optimiser": "adamw", "weight_decay": 0.1},
    "frozen": {"normalisation": "frozen"},
    "synchronised": {"normalisation": "synchronised"},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_matters_and_goes_on_after_a_stop_to_the_bit(train, undisturbed, tmp_path, monkeypatch, name):
    settings = replace(SETTINGS, **OPTIONS[name])
    train(tmp_path / "whole", settings)
    assert weights(tmp_path / "whole") != weights(undisturbed)
    stop_after(monkeypatch, 6)
    with pytest.raises(Interrupted):
        train(tmp_path / "parts", settings)
    train(tmp_path / "parts", settings)
    assert weights(tmp_path / "parts") == weights(tmp_path / "whole")
    assert history(tmp_path / "parts") == history(tmp_path / "whole")


def test_early_stopping_ends_a_training_before_its_budget(train, tmp_path):
    """With a learning rate that is nearly nothing, the first epoch stays the best or a tie."""
    train(tmp_path, replace(SETTINGS, epochs=9, learning_rate=1e-12, early_stopping_patience=2, schedule="constant"))
    assert len(history(tmp_path)) < 9
    cost = json.loads((tmp_path / "cost.json").read_text())
    assert cost["epochs"] == len(history(tmp_path)) == cost["best_epoch"] + 2


def test_event_files_hold_the_history(undisturbed):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(undisturbed / "tensorboard")).Reload()
    assert "validation_auroc" in events.Tags()["scalars"]
    values = [event.value for event in events.Scalars("train_loss")]
    assert values == pytest.approx([row["train_loss"] for row in history(undisturbed)])


def test_a_fault_of_the_curves_costs_no_epoch(train, undisturbed, tmp_path, monkeypatch, caplog):
    def full(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(training, "write_events", full)
    train(tmp_path)
    assert "TensorBoard's file could not be written" in caplog.text
    assert history(tmp_path) == history(undisturbed)


def test_a_request_to_stop_while_the_learner_is_written_lets_it_be_written(train, undisturbed, tmp_path, monkeypatch):
    write = training.write_outputs

    def asked(*given):
        signal.raise_signal(signal.SIGTERM)
        write(*given)

    monkeypatch.setattr(training, "write_outputs", asked)
    train(tmp_path)
    assert weights(tmp_path) == weights(undisturbed)
    assert not (tmp_path / "checkpoint.pt").exists()


@pytest.mark.parametrize(("normalisation", "unit"), [("per_micro_batch", 16), ("groups", 4)])
def test_the_images_of_batch_statistics_stay_together_on_any_number_of_gpus(small_store, reader, normalisation, unit):
    settings = replace(SETTINGS, batch_images=32, normalisation=normalisation)
    run = replace(RUN, micro_batch_images=16)
    task = Task(None, "test_resnet", 32, 0, settings, run, small_store.targets, reader, None, ORIGIN)
    examples = select_examples(small_store.targets, reader, "train")
    for world in (1, 2, 3, 8):
        found = []
        for rank in range(world):
            processes = Processes(rank, world, CPU)
            (way, *_) = ways_of(settings, run, world, CPU)
            (batch,) = batches.Batches(task, examples, processes).of_epoch(0, way.micro_batch_images)
            found += [part[i : i + unit].tolist() for part in batch.parts for i in range(0, len(part), unit)]
        assert found == [batch.examples[i : i + unit].tolist() for i in range(0, 32, unit)]


def test_a_training_writes_weights_history_and_cost(undisturbed, small_store, reader):
    assert {p.name for p in undisturbed.iterdir()} == {*OUTPUTS, "kept", "tensorboard"}
    rows = history(undisturbed)
    assert [row["epoch"] for row in rows] == [1, 2]
    assert rows[-1]["learning_rate"] == pytest.approx(2e-3 * 0.5 * (1 + math.cos(math.pi * 7 / 8)))
    cost = json.loads((undisturbed / "cost.json").read_text())
    assert cost["images"] == 2 * 32
    assert cost["train_images"] == 32
    assert cost["interruptions"] == 0
    assert cost["threads"] == 1
    assert cost["identity"]["settings"]["batch_images"] == 8
    best = max(rows, key=lambda row: row["validation_auroc"])
    assert cost["best_epoch"] == best["epoch"]
    assert cost["best_validation_auroc"] == pytest.approx(best["validation_auroc"])
    assert cost["converged"] == (best["epoch"] == 1)
    # The weights are those of the best epoch: their AUROC is the one that history states.
    examples = select_examples(small_store.targets, reader, "validate")
    logits = logits_of(undisturbed, reader, examples)
    assert mean_auroc(logits, examples.target.numpy(), examples.mask.numpy()) == pytest.approx(best["validation_auroc"])


def test_what_can_be_seen_is_learned(train, tmp_path, small_store, reader):
    train(tmp_path, replace(SETTINGS, epochs=8, learning_rate=5e-3))
    examples = select_examples(small_store.targets, reader, "test")
    logits = logits_of(tmp_path, reader, examples)
    assert mean_auroc(logits[:, :1], examples.target[:, :1].numpy(), examples.mask[:, :1].numpy()) == 1.0


@pytest.mark.parametrize("stops", [[2], [4], [1, 5], [7]], ids=str)
def test_an_interrupted_training_goes_on_to_the_same_result_to_the_bit(
    train, undisturbed, tmp_path, monkeypatch, stops
):
    """Four updates an epoch: a stop in its middle, at its very end, in both epochs, before the last update."""
    done = stop_after(monkeypatch, *stops)
    for stop in stops:
        with pytest.raises(Interrupted, match="SIGTERM: checkpoint written"):
            train(tmp_path)
        assert len(done) == stop
        assert (tmp_path / "checkpoint.pt").is_file()
        torch.manual_seed(99)  # a new process starts with another random state
    train(tmp_path)
    assert len(done) == 8
    assert weights(tmp_path) == weights(undisturbed)
    assert history(tmp_path) == history(undisturbed)
    assert json.loads((tmp_path / "cost.json").read_text())["interruptions"] == len(stops)
    assert json.loads((tmp_path / "cost.json").read_text())["images"] == 64
    assert not (tmp_path / "checkpoint.pt").exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_no_bit(train, undisturbed, tmp_path, monkeypatch, workers):
    """Also when it is stopped in the middle of an epoch."""
    stop_after(monkeypatch, 6)
    with pytest.raises(Interrupted):
        train(tmp_path, workers=workers)
    train(tmp_path, workers=workers)
    assert weights(tmp_path) == weights(undisturbed)
    assert history(tmp_path) == history(undisturbed)


def test_random_numbers_drawn_in_training_go_on_too(train, tmp_path, monkeypatch):
    """With dropout the weights depend on random numbers. They must neither begin anew nor depend on the host."""

    def with_dropout(*args):
        model = build_model(*args)
        model.drop_rate = 0.5
        return model

    monkeypatch.setattr(update, "build_model", with_dropout)
    one = replace(SETTINGS, epochs=1)
    train(tmp_path / "whole", one)
    stop_after(monkeypatch, 2)
    with pytest.raises(Interrupted):
        train(tmp_path / "parts", one)
    torch.manual_seed(99)
    train(tmp_path / "parts", one)
    assert weights(tmp_path / "parts") == weights(tmp_path / "whole")


def test_a_crash_goes_on_from_the_last_checkpoint_to_the_same_result(train, undisturbed, tmp_path, monkeypatch):
    original, calls = Updater.update, []

    def update(*args):
        calls.append(1)
        if len(calls) == 7:
            raise MemoryError
        return original(*args)

    monkeypatch.setattr(Updater, "update", update)
    with pytest.raises(MemoryError):
        train(tmp_path, checkpoint_s=0.0)  # a checkpoint after every update
    train(tmp_path)
    assert len(calls) == 6 + 1 + 2
    assert weights(tmp_path) == weights(undisturbed)


def test_the_same_training_is_brought_back_and_another_one_supersedes_it(train, tmp_path, monkeypatch):
    one = replace(SETTINGS, epochs=1)
    train(tmp_path, one)
    first = weights(tmp_path)
    for name in OUTPUTS:
        (tmp_path / name).unlink()
    done = stop_after(monkeypatch)
    train(tmp_path, one)
    assert done == []
    assert weights(tmp_path) == first
    train(tmp_path, one, seed=2)
    assert len(done) == 4
    assert weights(tmp_path) != first
    superseded = list((tmp_path / "superseded").glob("*/weights.safetensors"))
    assert [p.read_bytes() for p in superseded] == [first]


@pytest.mark.parametrize(
    "changed",
    [
        {"origin": replace(ORIGIN, code="other")},
        {"origin": replace(ORIGIN, targets="other")},
        {"origin": replace(ORIGIN, index="other")},
        {"origin": replace(ORIGIN, initial_weights="other")},
        {"seed": 2},
        {"settings": replace(SETTINGS, learning_rate=1e-3)},
    ],
    ids=["code", "targets", "pictures", "initial weights", "seed", "settings"],
)
def test_a_checkpoint_of_another_training_is_not_gone_on_from(train, tmp_path, monkeypatch, changed):
    done = stop_after(monkeypatch, 2, 3)
    with pytest.raises(Interrupted):
        train(tmp_path)
    with pytest.raises(Interrupted):
        train(tmp_path, **changed)
    assert len(done) == 3  # it began anew
    assert len(list((tmp_path / "superseded").glob("*/checkpoint.pt"))) == 1
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["state"]["update"] == 1


def test_too_few_images_are_refused(train, tmp_path, small_store):
    with pytest.raises(StudyError, match="32 images to train on and 8 to validate on, in batches of 40: too few"):
        train(tmp_path, replace(SETTINGS, batch_images=40))
    nothing = small_store.targets.replace({"split": {"validate": "test"}})
    with pytest.raises(StudyError, match="and 0 to validate on"):
        train(tmp_path, targets=nothing)


def test_a_loss_that_is_not_finite_names_epoch_and_images(train, tmp_path, monkeypatch):
    original = batches.augmented_batches
    monkeypatch.setattr(batches, "augmented_batches", lambda *a, **k: (x * float("nan") for x in original(*a, **k)))
    with pytest.raises(FloatingPointError, match=r"the loss is nan in epoch 1; .*Images of the batch: image\d\d, "):
        train(tmp_path)


class Waits(TorchDispatchMode):
    """Counts what makes the host wait for its device: values that are asked for, and copies to the host."""

    def __init__(self, monkeypatch):
        super().__init__()
        self.found = []
        for name in ("tolist", "item", "cpu", "__bool__", "__float__", "__int__"):
            monkeypatch.setattr(torch.Tensor, name, self.counted(name))

    def counted(self, name):
        original = getattr(torch.Tensor, name)

        def method(tensor, *args):
            self.found.append(name)
            with self.paused():
                return original(tensor, *args)

        return method

    @contextlib.contextmanager
    def paused(self):
        """Within, what is done for the call that was counted is not counted again."""
        before = len(self.found)
        yield
        del self.found[before:]

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.name() in ("aten::_local_scalar_dense", "aten::nonzero", "aten::equal"):
            self.found.append(function.name())
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("micro_batch_images", [4, 8])
def test_an_update_waits_for_its_device_once(train, tmp_path, monkeypatch, micro_batch_images):
    """Whatever the number of micro-batches: else a GPU stands still in between."""
    settings = replace(SETTINGS, epochs=1, clip_grad_norm=0.1, ema_decay=0.9, pos_weight="balanced")
    original, waits = Updater.update, []

    def counted(*args):
        with monkeypatch.context() as patch, Waits(patch) as mode:
            found = original(*args)
        waits.append(mode.found)
        return found

    monkeypatch.setattr(Updater, "update", counted)
    train(tmp_path, settings, micro_batch_images=micro_batch_images)
    assert waits[1:] == [["tolist"]] * 3  # the first also starts the loader, which draws a number on the host


@pytest.mark.parametrize(("wanted", "micro"), [(1, 8), (8, 8), (20, 16), (40, 16), (64, 16)])
def test_micro_batches_are_whole_groups_that_divide_the_batch(train, tmp_path, wanted, micro):
    settings = replace(SETTINGS, epochs=1, batch_images=16, norm_group_images=8)
    train(tmp_path, settings, micro_batch_images=wanted)
    assert json.loads((tmp_path / "cost.json").read_text())["micro_batch_images"] == micro


def short_of_memory(monkeypatch, most):
    """Let a forward pass of more than so many images run out of memory."""

    def small(*args):
        model = build_model(*args)
        forward = model.forward

        def limited(x):
            if model.training and len(x) > most:
                raise torch.OutOfMemoryError
            return forward(x)

        model.forward = limited
        return model

    monkeypatch.setattr(update, "build_model", small)


def test_an_update_that_runs_out_of_memory_is_done_again_in_smaller_parts(train, undisturbed, tmp_path, monkeypatch):
    train(tmp_path / "fours", micro_batch_images=4)
    assert weights(tmp_path / "fours") != weights(undisturbed)  # by rounding
    short_of_memory(monkeypatch, 4)
    stop_after(monkeypatch, 6)
    with pytest.raises(Interrupted):
        train(tmp_path / "short", micro_batch_images=8)
    found = torch.load(tmp_path / "short/checkpoint.pt", weights_only=True)["updater"]["micro_batch"]
    assert found["way"] == [4, False]
    short_of_memory(monkeypatch, 4)
    monkeypatch.setattr(update.MicroBatch, "shrink", lambda self: pytest.fail("it was not remembered"))
    train(tmp_path / "short", micro_batch_images=8)
    assert weights(tmp_path / "short") == weights(tmp_path / "fours")
    assert history(tmp_path / "short") == history(tmp_path / "fours")
    assert json.loads((tmp_path / "short/cost.json").read_text())["micro_batch_images"] == 4


def test_a_group_that_does_not_fit_even_with_checkpointing_ends_the_training(train, tmp_path, monkeypatch, caplog):
    short_of_memory(monkeypatch, 3)
    with pytest.raises(StudyError, match="not even 4 images of 32 px fit into the memory of cpu"):
        train(tmp_path, micro_batch_images=8, activation_checkpointing="auto")
    assert [m for m in caplog.messages if "out of memory" in m] == [
        f"cpu: out of memory with {n} images at once" for n in (8, 4, 8, 4)
    ]


def test_a_checkpoint_goes_on_in_another_memory_format(train, undisturbed, tmp_path, monkeypatch):
    """The optimiser's moments must follow: a fused Adam misreads them silently otherwise."""
    stop_after(monkeypatch, 6)
    with pytest.raises(Interrupted):
        train(tmp_path, channels_last=True)
    train(tmp_path, channels_last=False)
    ours, whole = (load_file(folder / "weights.safetensors") for folder in (tmp_path, undisturbed))
    for key, value in whole.items():
        assert torch.allclose(ours[key].float(), value.float(), rtol=1e-3, atol=1e-4), key


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore")  # torch's own, about what it meets while compiling
def test_a_compiled_model_learns_the_same(train, tmp_path):
    one = replace(SETTINGS, epochs=1)
    for compiled in (False, True):
        train(tmp_path / str(compiled), one, compile=compiled, channels_last=True)
    losses = [history(tmp_path / str(compiled))[0] for compiled in (False, True)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-2)


def test_an_interruption_ends_the_process_with_its_own_status():
    def interrupted():
        raise Interrupted("SIGTERM")

    with pytest.raises(SystemExit) as ended:
        run_as_job(interrupted)
    assert ended.value.code == INTERRUPTED_STATUS == 75


def test_signals_are_as_before_afterwards():
    before = signal.getsignal(signal.SIGTERM)
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGUSR1)
        assert stop.signal == signal.SIGUSR1
    assert signal.getsignal(signal.SIGTERM) is before


def test_one_process_trains_a_learner_at_a_time(train, tmp_path, monkeypatch):
    monkeypatch.setattr(sole_writer, "WAIT_S", 0)
    monkeypatch.setattr(sole_writer, "POLL_S", 0)
    with (
        SoleWriter(tmp_path / "learner" / LOCK),
        pytest.raises(StudyError, match=f"process {os.getpid()} on .* writes"),
    ):
        train(tmp_path / "learner")
    assert list((tmp_path / "learner").iterdir()) == []
    train(tmp_path / "learner")
    assert not (tmp_path / "learner" / LOCK).exists()


@pytest.mark.parametrize("at", [2, 8])
def test_a_training_that_was_taken_for_dead_overwrites_nothing(train, tmp_path, monkeypatch, at):
    """It was suspended, say, and another one has gone on from its checkpoint: in the middle, and before its last."""
    original, done = Updater.update, []

    def update(*args):
        done.append(1)
        if len(done) == at:
            (tmp_path / LOCK).write_text("another's")
            (tmp_path / "checkpoint.pt").write_text("another's")
        return original(*args)

    monkeypatch.setattr(Updater, "update", update)
    with pytest.raises(StudyError, match="did not keep its lock"):
        train(tmp_path)
    assert (tmp_path / LOCK).read_text() == (tmp_path / "checkpoint.pt").read_text() == "another's"
    assert not any((tmp_path / name).exists() for name in OUTPUTS)
