"""A learner: what training saw is what every later use sees, and its folder alone says what that was."""

import json
from dataclasses import asdict, replace
from typing import Literal, get_args, get_origin, get_type_hints

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter

from cxrscale.common import records
from cxrscale.common.errors import StudyError
from cxrscale.common.settings import names_of
from cxrscale.train.augmentation import normalise
from cxrscale.train.contracts import COST, LEARNER
from cxrscale.train.distributed import Processes
from cxrscale.train.learner import Learner, LearnerRecord, Origin
from cxrscale.train.loader import select_examples
from cxrscale.train.models import build_model, save_weights
from cxrscale.train.settings import RunSettings, TrainingSettings
from cxrscale.train.task import Task
from cxrscale.train.training import train_learner

CPU = torch.device("cpu")


@pytest.fixture
def folder(record, tmp_path):
    """A learner's folder; the network is not the one that the record's seed draws."""
    record.write(tmp_path / "learner.json")
    save_weights(build_model("test_resnet", 2, 5), tmp_path / "weights.safetensors")
    return tmp_path


def pictures(reader, rows):
    return torch.from_numpy(np.stack([reader.pixels(row) for row in rows]))[:, None]


def test_a_record_is_read_as_it_was_written(record, tmp_path):
    record.write(tmp_path / "learner.json")
    assert LearnerRecord.read(tmp_path / "learner.json") == record


def test_the_record_says_what_its_contract_declares(record):
    """A field of one alone would be refused when a training ends; here before it begins."""
    values = asdict(record)
    assert [*values, *(f"origin.{name}" for name in values["origin"])] == [
        *dict.fromkeys(f.name.partition(".")[0] for f in LEARNER.fields),
        *(f.name for f in LEARNER.fields if "." in f.name),
    ]


@pytest.mark.parametrize("name", [field.name for field in LEARNER.fields])
def test_a_record_without_a_field_is_refused(folder, name):
    values = json.loads((folder / "learner.json").read_text())
    above, _, within = name.rpartition(".")
    del (values[above] if above else values)[within]
    (folder / "learner.json").write_text(json.dumps(values))
    with pytest.raises(StudyError, match=rf"learner.json: learner lacks '{name}'.*Train the learner again."):
        Learner.load(folder, CPU)


def test_a_learner_is_loaded_from_its_folder_alone(folder, record, reader):
    learner, model = Learner.load(folder, CPU), build_model("test_resnet", 2, 5).eval()
    assert learner.record == record
    assert learner.findings == ["Bright", "Noise"]
    pixels = pictures(reader, [3, 1, 2])
    x = normalise(pixels.float() / 255, 0.4, 0.2)
    with torch.inference_mode():
        assert learner.logits(pixels) == pytest.approx(model(x).numpy(), abs=1e-6)
        features = learner.features(learner.prepared(pixels))  # (image, channel, rows, columns)
        assert torch.allclose(features, model.forward_features(x), atol=1e-6)
        logits = features.mean(dim=(2, 3)) @ learner.evidence.T + model.get_classifier().bias
    assert learner.logits(pixels) == pytest.approx(logits.numpy(), abs=1e-4)


def test_a_head_of_several_layers_has_no_such_evidence(record):
    assert (
        Learner(
            replace(record, model="mobilenetv3_small_050"), build_model("mobilenetv3_small_050", 2, 0), CPU
        ).evidence
        is None
    )


def test_predictions_are_of_rows_in_order(folder, reader):
    learner, rows = Learner.load(folder, CPU), np.array([3, 1, 2])
    found = learner.predict(reader, rows, batch_images=2)
    assert found == pytest.approx(learner.logits(pictures(reader, rows)), abs=1e-6)
    assert found.dtype == np.float32
    assert learner.predict(reader, rows[:0]).shape == (0, 2)


def test_pictures_are_prepared_as_the_record_says(folder, record, reader):
    pixels, found = pictures(reader, [3]), []
    for mean, standard_deviation in ((0.4, 0.2), (0.0, 1.0)):
        replace(record, mean=mean, standard_deviation=standard_deviation).write(folder / "learner.json")
        learner = Learner.load(folder, CPU)
        assert torch.equal(learner.prepared(pixels), normalise(pixels.float() / 255, mean, standard_deviation))
        found.append(learner.logits(pixels))
    assert np.abs(found[0] - found[1]).max() > 0.01


def test_images_of_small_native_files_are_left_out_as_in_training(folder, record, reader, small_store):
    index = small_store.folder / "index.parquet"
    assert len(Learner.load(folder, CPU).pictures(index)) == len(reader) == 48
    replace(record, native_at_least_px=37).write(folder / "learner.json")  # they have 40 x 36 px
    assert len(Learner.load(folder, CPU).pictures(index)) == 0


def test_a_store_of_another_size_is_refused(folder, record, small_store):
    replace(record, resolution_px=64).write(folder / "learner.json")
    with pytest.raises(StudyError, match=r"index.parquet lists pictures of 32 x 32 px; this learner takes 64 x 64"):
        Learner.load(folder, CPU).pictures(small_store.folder / "index.parquet")


def test_the_learner_before_training_has_the_weights_that_its_seed_draws(folder):
    learner = Learner.load(folder, CPU)
    before, drawn = learner.untrained(None).network.state_dict(), build_model("test_resnet", 2, 1).state_dict()
    assert before.keys() == drawn.keys()
    assert all(torch.equal(before[name], drawn[name]) for name in drawn)


def test_weights_that_do_not_belong_to_the_record_are_refused(folder, record):
    replace(record, findings=["a", "b", "c"]).write(folder / "learner.json")
    with pytest.raises(StudyError, match=r"weights.safetensors does not hold test_resnet with 3 findings"):
        Learner.load(folder, CPU)
    (folder / "weights.safetensors").write_bytes(b"cut off")
    with pytest.raises(StudyError, match=r"weights.safetensors does not hold test_resnet"):
        Learner.load(folder, CPU)
    (folder / "weights.safetensors").unlink()
    with pytest.raises(StudyError, match=r"weights.safetensors: there is no such file. Train the learner again."):
        Learner.load(folder, CPU)


def test_the_same_weights_are_the_same_bytes(folder):
    save_weights(build_model("test_resnet", 2, 5), folder / "again.safetensors")
    assert (folder / "weights.safetensors").read_bytes() == (folder / "again.safetensors").read_bytes()


@pytest.mark.parametrize(("precision", "kind"), [("float32", "cuda"), ("bfloat16", "cuda"), ("bfloat16", "cpu")])
def test_a_gpu_computes_in_the_precision_of_the_record(record, precision, kind, monkeypatch):
    """autocast itself is not entered: there may be no GPU."""
    seen = {}
    monkeypatch.setattr(torch, "autocast", lambda device, dtype, enabled: seen.update(enabled=enabled))
    learner = Learner(replace(record, precision=precision), torch.nn.Identity(), CPU)
    learner.device = torch.device(kind)
    learner.autocast()
    assert seen["enabled"] == (precision == "bfloat16" and kind == "cuda")


NUMBERS = (0.5, 2, 0.25, 4, 1, 3, 1e-3, 0.0)


def others_of(name):
    """Other values of a setting of learners than its default: all choices, or one of a number, the first that is
    allowed beside the other settings."""
    known = {"batch_images": 8, "norm_group_images": 4, "epochs": 3}
    hint, default = get_type_hints(TrainingSettings)[name], known.get(name, getattr(TrainingSettings(), name))
    choices, found = literals(hint), []
    for value in choices or NUMBERS:
        try:
            settings = TypeAdapter(TrainingSettings).validate_python(known | {name: value})
            settings.check_effects()
        except ValueError:
            continue
        if value != default:
            found.append(settings)
    return found if choices else found[:1]


def literals(hint):
    if get_origin(hint) is Literal:
        return get_args(hint)
    return (False, True) if hint is bool else [value for part in get_args(hint) for value in literals(part)]


OVERRIDDEN = [(name, settings) for name in names_of(TrainingSettings) for settings in others_of(name)]


def test_every_setting_of_a_learner_is_tried():
    """A new one is found by its type; one of a new type needs a value in NUMBERS."""
    assert list(dict.fromkeys(name for name, _ in OVERRIDDEN)) == names_of(TrainingSettings)


@pytest.mark.parametrize(("name", "settings"), OVERRIDDEN, ids=[f"{n}={getattr(s, n)}" for n, s in OVERRIDDEN])
def test_what_training_validates_is_what_is_predicted(tmp_path, small_store, reader, monkeypatch, name, settings):
    """For each setting that may be overridden: logits of the kept epoch, as training saw them, are the folder's."""
    seen, predict = [], Learner.predict
    monkeypatch.setattr("cxrscale.train.training.write_events", lambda *_: None)  # takes long
    monkeypatch.setattr(Learner, "predict", lambda *given, **how: seen.append(predict(*given, **how)) or seen[-1])
    run = RunSettings(settings.batch_images, activation_checkpointing=False, channels_last=False, workers=0)
    origin = Origin(code="c", store="small-1", index="i", targets="t", initial_weights=None)
    targets = small_store.targets[small_store.targets.index // 2 % 2 == 0]  # half of the patients
    task = Task(tmp_path, "test_resnet", 32, 1, settings, run, targets, reader, None, origin)
    train_learner(task, Processes(0, 1, CPU))
    validated, cost = seen[:], records.read(COST, tmp_path / "cost.json")
    assert len(validated) == cost["epochs"] > 0
    assert cost["identity"]["settings"] == asdict(settings)

    examples = select_examples(targets, reader, "validate")
    store = Learner.load(tmp_path, CPU).pictures(small_store.folder / "index.parquet")
    predicted = Learner.load(tmp_path, CPU).predict(store, examples.rows)
    assert predicted.std() > 0
    assert predicted == pytest.approx(validated[cost["best_epoch"] - 1], abs=1e-5)
