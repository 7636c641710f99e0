"""Networks: timm models with one grey input channel and one output a finding."""

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import timm
import torch
from safetensors.torch import save_file
from torch import nn

from cxrscale.common.errors import StudyError
from cxrscale.train.normalisation import step_statistics

Initial = Literal["random", "pretrained"]


def build_model(name: str, n_findings: int, seed: int, weights: str | Path | None = None) -> nn.Module:
    """A timm model for grey pictures: input float32 (image, 1, height_px, width_px), output logits (image, finding).

    weights: a state dict of the ImageNet model (.safetensors or .pth): its first convolution is summed over RGB, its
    classifier is dropped; None: random weights. The classifier is always random, fixed by `seed`.
    Raises StudyError if the model is unknown or the weights do not fit it.
    """
    torch.manual_seed(seed)
    try:
        random = timm.create_model(name, pretrained=False, in_chans=1, num_classes=n_findings)
        if weights is None:
            return random
        overlay = {"file": str(weights)}
        torch.manual_seed(seed)
        model = timm.create_model(
            name, pretrained=True, pretrained_cfg_overlay=overlay, in_chans=1, num_classes=n_findings
        )
    except RuntimeError as error:
        what = f"{name} with {weights}" if weights else name
        raise StudyError(f"models: {what} cannot be made: {error}") from error
    _check_loaded(model, random, name, weights)
    return model


def _check_loaded(model: nn.Module, random: nn.Module, name: str, weights: str | Path) -> None:
    """Raise StudyError if a weight is still the random one of the same seed: timm passes over names that it lacks."""
    classifiers = model.pretrained_cfg["classifier"]  # type: ignore[index]
    prefixes = tuple(f"{c}." for c in ([classifiers] if isinstance(classifiers, str) else classifiers or []))
    before = random.state_dict()
    drawn = {k: v for k, v in model.state_dict().items() if v.ndim > 1 and before[k].std() > 0}
    drawn = {k: v for k, v in drawn.items() if not k.startswith(prefixes)}
    lacking = [k for k, v in drawn.items() if torch.equal(v, before[k])]
    if lacking:
        raise StudyError(
            f"models: {name} with {weights} cannot be made: the file lacks {len(lacking)} of the {len(drawn)} weight "
            f"tensors, {lacking[0]} first. Name the weights of this very network in models.weights.file."
        )


def feature_map(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """The last feature map before pooling, (image, channel, height, width).

    Raises StudyError if the model has none of that shape (a transformer, say).
    """
    features = model.forward_features(x)  # type: ignore[operator]
    if features.ndim != 4:
        raise StudyError(
            f"{type(model).__name__} gives features of shape {tuple(features.shape)}; receptive fields and activation "
            f"maps need (image, channel, height, width). Leave the model out of the study (models)."
        )
    return features


def save_weights(model: nn.Module, path: Path) -> None:
    """Write the state dict as safetensors: tensors only, no code, the same bytes for the same weights."""
    save_file({k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}, path)


def calibrate_batch_norm(model: nn.Module, batches: Iterable[torch.Tensor]) -> nn.Module:
    """Set the running statistics of all batch normalisations to the mean over `batches`; weights stay as they are.

    batches: float32 (image, 1, height_px, width_px), normalised as in training. Returns the model in evaluation mode.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average over batches
    model.train()
    with torch.no_grad():
        for batch in batches:
            model(batch)
            step_statistics(model)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return model.eval()
