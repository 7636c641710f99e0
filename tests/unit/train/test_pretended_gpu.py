"""A GPU that is only pretended: torch's fake tensors know shapes, types and devices, and compute nothing.

With them, code runs forward on "cuda" where there is none. A tensor on the wrong device is an error there, and copies
to the host, each of which would have the host wait for the GPU, can be counted. Backward passes need a real device.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from cxrscale.train import learner as learner_module
from cxrscale.train import loader
from cxrscale.train.augmentation import Augmentation
from cxrscale.train.learner import Learner
from cxrscale.train.models import build_model
from cxrscale.train.normalisation import set_normalisation
from cxrscale.train.optimisation import masked_loss

CUDA = torch.device("cuda", 0)


class HostCopies(TorchDispatchMode):
    """Within it, `shapes` grows by the shape of each tensor that is copied from the pretended GPU to the host."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    def __torch_dispatch__(self, call: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = call(*args, **(kwargs or {}))
        devices = {given.device.type for given in args if isinstance(given, torch.Tensor)}
        if isinstance(made, torch.Tensor) and made.device.type == "cpu" and "cuda" in devices:
            self.shapes.append(tuple(made.shape))
        return made


@contextlib.contextmanager
def pretended_gpu() -> Iterator[HostCopies]:
    """Within, new tensors are fake, "cuda" is a device, and autocast works there as on a real one."""
    with (
        patch("torch.cuda.is_bf16_supported", return_value=True),
        patch("torch.amp.autocast_mode.torch.cuda.amp.common.amp_definitely_not_available", return_value=False),
        FakeTensorMode(),
        HostCopies() as copies,
    ):
        yield copies


def moved(model: nn.Module) -> nn.Module:
    """A model made outside, with fake tensors on the pretended GPU in the place of its own: `to` cannot do that."""
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = nn.Parameter(
                    torch.empty(parameter.shape, dtype=parameter.dtype, device=CUDA)
                )
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = _like(buffer)
    return model


def _like(tensor: torch.Tensor) -> torch.Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, device=CUDA)


def pictures(images: int) -> torch.Tensor:
    return torch.zeros(images, 1, 64, 64, dtype=torch.uint8)


def test_a_tensor_on_the_wrong_device_is_found():
    with pretended_gpu(), pytest.raises(Exception, match="device"):
        torch.zeros(3, device=CUDA) + torch.zeros(3)


def test_a_copy_to_the_host_is_counted():
    with pretended_gpu() as copies:
        torch.zeros(3, 2, device=CUDA).cpu()
    assert copies.shapes == [(3, 2)]


@pytest.mark.parametrize(
    ("name", "normalisation", "precision"),
    [("densenet121", "groups", "bfloat16"), ("efficientnet_b4", "frozen", "float32")],
)
def test_a_forward_pass_of_training_stays_on_the_gpu(record, name, normalisation, precision):
    model = set_normalisation(build_model(name, 3, 0), normalisation, 8)
    with pretended_gpu() as copies:
        model, dtypes = moved(model).train(), set()
        for layer in model.modules():
            if isinstance(layer, nn.Conv2d):
                layer.register_forward_hook(lambda _, given, made: dtypes.add(made.dtype))
        learner = Learner(replace(record, precision=precision), model, CUDA)
        with (
            patch.object(loader, "decoded_batches", lambda *_, **__: iter([pictures(16)])),
            patch("torch.from_numpy", torch.tensor),  # a real tensor else
        ):
            keys = [np.arange(16, dtype=np.uint64)]
            (x,) = loader.augmented_batches(None, keys, keys, Augmentation(0, 0), 0, CUDA)
        assert (x.device, x.dtype) == (CUDA, torch.float32)
        with learner.autocast():
            logits = model(x)
        assert dtypes == {getattr(torch, precision)}
        loss = masked_loss(logits, torch.zeros(16, 3, device=CUDA), torch.ones(16, 3, device=CUDA), 48.0)
    assert (logits.device, logits.dtype, tuple(logits.shape)) == (CUDA, torch.float32, (16, 3))
    assert loss.device == CUDA
    assert copies.shapes == []


def test_a_prediction_is_copied_to_the_host_once_a_batch(record):
    model = build_model("test_resnet", 2, 0)
    with pretended_gpu() as copies:
        learner = Learner(record, moved(model), CUDA)
        with (
            patch.object(learner_module, "decoded_batches", lambda *_, **__: iter([pictures(4), pictures(4)])),
            patch("torch.Tensor.numpy", lambda tensor: np.zeros(tuple(tensor.shape), np.float32)),
        ):
            logits = learner.predict(None, np.arange(8), batch_images=4)
    assert logits.shape == (8, 2)
    assert copies.shapes == [(4, 2), (4, 2)]
