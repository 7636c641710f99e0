"""A learner's record: what training saw is what every later use sees."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from cxrscale.common.errors import StudyError
from cxrscale.train.augmentation import normalise
from cxrscale.train.learner import Learner
from cxrscale.train.models import build_model, save_weights

CPU = torch.device("cpu")
LEARNER = Learner("test_resnet", ["Bright", "Noise"], 32, 1, 0.4, 0.2, "float32", 0, 4)


def test_a_record_is_read_as_it_was_written(tmp_path):
    LEARNER.write(tmp_path / "learner.json")
    assert Learner.read(tmp_path / "learner.json") == LEARNER


@pytest.mark.parametrize("text", ["", "[]", '{"model": "test_resnet"}', None])
def test_what_is_no_record_is_refused(tmp_path, text):
    if text is not None:
        (tmp_path / "learner.json").write_text(text)
    with pytest.raises(StudyError, match=r"learner.json: is no record of a learner"):
        Learner.read(tmp_path / "learner.json")


def test_the_network_is_that_of_the_weights_and_another_is_refused(tmp_path):
    model = build_model("test_resnet", 2, 5).eval()
    save_weights(model, tmp_path / "w.safetensors")
    save_weights(model, tmp_path / "again.safetensors")
    assert (tmp_path / "w.safetensors").read_bytes() == (tmp_path / "again.safetensors").read_bytes()
    x = torch.rand(1, 1, 32, 32)
    assert torch.equal(LEARNER.network(tmp_path / "w.safetensors", CPU)(x), model(x))
    with pytest.raises(StudyError, match=r"w.safetensors does not hold test_resnet with 3 findings"):
        replace(LEARNER, findings=["a", "b", "c"]).network(tmp_path / "w.safetensors", CPU)


def test_logits_are_of_pictures_prepared_as_the_record_says(reader):
    model = build_model("test_resnet", 2, 5).eval()
    rows = np.array([3, 1, 2])
    pixels = torch.from_numpy(np.stack([reader.pixels(r) for r in rows]))[:, None].float() / 255
    for mean, standard_deviation in ((0.4, 0.2), (0.0, 1.0)):
        learner = replace(LEARNER, mean=mean, standard_deviation=standard_deviation)
        with torch.inference_mode():
            expected = model(normalise(pixels, mean, standard_deviation)).numpy()
        assert learner.logits(model, reader, rows, CPU, 2, 0) == pytest.approx(expected, abs=1e-6)
    assert LEARNER.logits(model, reader, rows[:0], CPU, 2, 0).shape == (0, 2)


@pytest.mark.parametrize(("precision", "kind"), [("float32", "cuda"), ("bfloat16", "cuda"), ("bfloat16", "cpu")])
def test_a_gpu_computes_in_the_precision_of_the_record(precision, kind, monkeypatch):
    """autocast itself is not entered: there may be no GPU."""
    seen = {}
    monkeypatch.setattr(torch, "autocast", lambda device, dtype, enabled: seen.update(enabled=enabled))
    replace(LEARNER, precision=precision).autocast(torch.device(kind))
    assert seen["enabled"] == (precision == "bfloat16" and kind == "cuda")


def test_no_field_has_a_default():
    """One that a writer may leave out could differ between training and use."""
    with pytest.raises(TypeError, match=f"missing {len(fields(Learner))} required"):
        Learner()
