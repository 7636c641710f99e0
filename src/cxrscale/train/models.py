"""Networks: timm models with one grey input channel and one output a finding."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import timm
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from cxrscale.common.errors import StudyError

Initial = Literal["random", "pretrained"]


def build_model(name: str, n_findings: int, seed: int, weights: str | Path | None = None) -> nn.Module:
    """A timm model for grey pictures: input float32 (image, 1, height_px, width_px), output logits (image, finding).

    Logits are float32 within autocast too, and float32 operations of this process are exact from now on (no TF32).
    Dropout and stochastic depth are off.
    weights: a state dict of the ImageNet model (.safetensors or .pth): its first convolution is summed over RGB, its
    classifier is dropped; None: random weights. The classifier is always random, fixed by `seed`.
    Raises StudyError if the model is unknown or the weights do not fit it.
    """
    _forbid_tf32()
    torch.manual_seed(seed)
    try:
        random = timm.create_model(name, pretrained=False, in_chans=1, num_classes=n_findings)
        if weights is None:
            return _with_float32_head(_without_random_layers(random))
        overlay = {"file": str(weights)}
        torch.manual_seed(seed)
        model = timm.create_model(
            name, pretrained=True, pretrained_cfg_overlay=overlay, in_chans=1, num_classes=n_findings
        )
    except RuntimeError as error:
        what = f"{name} with {weights}" if weights else name
        raise StudyError(f"models: {what} cannot be made: {error}") from error
    _check_loaded(model, random, name, weights)
    return _with_float32_head(_without_random_layers(model))


def _forbid_tf32() -> None:
    """Let float32 be float32 on a GPU. torch allows TF32, with 10 bits of mantissa, in cuDNN's convolutions."""
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def _without_random_layers(model: nn.Module) -> nn.Module:
    """Switch off dropout and stochastic depth, which some models have by default: what they draw would depend on the
    micro-batch and on the number of processes."""
    for module in model.modules():
        for rate in ("p", "drop_prob", "drop_rate"):
            if isinstance(getattr(module, rate, None), float) and (rate != "p" or isinstance(module, _DropoutNd)):
                setattr(module, rate, 0.0)
    return model


class _Float32Head:
    """Before a timm model in its bases: pooling and classifier compute in float32, whatever autocast says.

    In bfloat16 logits would keep 8 bits: of many thousand images only some hundred would differ.
    """

    def forward_head(self, x: Any, *given: Any, **named: Any) -> torch.Tensor:
        parts = [x] if isinstance(x, torch.Tensor) else x  # some models have several branches
        device = parts[0].device.type  # "meta" knows no autocast
        with torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext():
            parts = [part.to(torch.promote_types(part.dtype, torch.float32)) for part in parts]
            return super().forward_head(parts[0] if isinstance(x, torch.Tensor) else parts, *given, **named)  # type: ignore[misc]


def _with_float32_head(model: nn.Module) -> nn.Module:
    kind = type(model)
    model.__class__ = type(kind.__name__, (_Float32Head, kind), {})
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


def has_exact_cam(model: nn.Module) -> bool:
    """Whether the logits are a linear map of globally averaged features, so that the exact map exists."""
    pool = getattr(model, "global_pool", None)
    kind = getattr(pool, "pool_type", None)
    classifier = model.get_classifier() if hasattr(model, "get_classifier") else None  # type: ignore[operator]
    # A head with layers between pooling and classifier (MobileNetV3) takes more inputs than there are feature maps.
    return kind == "avg" and isinstance(classifier, nn.Linear) and classifier.in_features == model.num_features


def save_weights(model: nn.Module, path: Path) -> None:
    """Write the state dict as safetensors: tensors only, no code, the same bytes for the same weights."""
    save_file({k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}, path)
