"""How a learner's weights move: loss, optimiser, schedule, and averaging of weights. The defaults are the paper's."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from cxrscale.train.settings import TrainingSettings

#: Bounds of a positive weight: a finding that hardly ever is present would swamp the others.
POS_WEIGHT_BOUNDS = (0.01, 100.0)


def make_optimiser(model: nn.Module, settings: TrainingSettings) -> torch.optim.Optimizer:
    """Adam or AdamW over all weights that are trained."""
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[settings.optimiser]
    return kind(model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True)


def load_optimiser(optimiser: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load a state into an optimiser, in the memory format of its weights, which fused optimisers take for granted."""
    optimiser.load_state_dict(state)
    for parameter, kept in optimiser.state.items():
        for key, value in kept.items():
            if value.shape == parameter.shape:
                kept[key] = torch.empty_like(parameter).copy_(value)


def learning_rate_at(
    settings: TrainingSettings, update: int, updates_per_epoch: int, validation_auroc: Sequence[float] = ()
) -> float:
    """The learning rate of an update, numbered from 0 over all epochs.

    It grows from almost nothing during `warmup_epochs`. "constant" then stays; "cosine" falls to zero at the end of all
    epochs; "plateau" is multiplied by `plateau_factor` whenever the mean validation AUROC did not rise for
    `plateau_patience` epochs (validation_auroc: of the epochs so far). A function of what is given alone: nothing of it
    needs to be kept in a checkpoint.
    """
    warmup = round(settings.warmup_epochs * updates_per_epoch)
    if update < warmup:
        return settings.learning_rate * (update + 1) / warmup
    if settings.schedule == "cosine":
        share = (update - warmup) / max(settings.epochs * updates_per_epoch - warmup, 1)
        return settings.learning_rate * 0.5 * (1 + float(np.cos(np.pi * share)))
    if settings.schedule == "plateau":
        drops, best, waited = 0, -np.inf, 0
        for value in validation_auroc:
            best, waited = (value, 0) if value > best else (best, waited + 1)
            if waited == settings.plateau_patience:
                drops, waited = drops + 1, 0
        return settings.learning_rate * settings.plateau_factor**drops
    return settings.learning_rate


def stops_early(settings: TrainingSettings, validation_auroc: Sequence[float]) -> bool:
    """Whether the best mean validation AUROC is `early_stopping_patience` epochs old; never if that is None."""
    if settings.early_stopping_patience is None or not len(validation_auroc):
        return False
    values = np.nan_to_num(np.asarray(validation_auroc, dtype=float), nan=-np.inf)
    return len(values) - 1 - int(values.argmax()) >= settings.early_stopping_patience


def pos_weight(target: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Negatives per positive of each finding, where they count; 1 where one class is absent. Both (image, finding).

    Returns float32 (finding,), within `POS_WEIGHT_BOUNDS`.
    """
    positive, negative = (target * mask).sum(0), ((1 - target) * mask).sum(0)
    weights = torch.where((positive > 0) & (negative > 0), negative / positive.clamp(min=1), torch.ones_like(positive))
    return weights.clamp(*POS_WEIGHT_BOUNDS)


def masked_loss(
    logits: torch.Tensor,
    target: torch.Tensor,
    mask: torch.Tensor,
    n_counted: float,
    smoothing: float = 0.0,
    weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """Binary cross-entropy summed over what counts, divided by n_counted.

    n_counted: the targets that count in the whole effective batch, so that parts of it add up. smoothing: targets 0 and
    1 become smoothing / 2 and 1 - smoothing / 2. weights: of the positives, (finding,). The others (image, finding).
    """
    wanted = target * (1 - smoothing) + smoothing / 2 if smoothing else target
    loss = F.binary_cross_entropy_with_logits(logits.float(), wanted, reduction="none", pos_weight=weights)
    return (loss * mask).sum() / max(n_counted, 1.0)


class WeightEma:
    """An exponential moving average of a model's weights; its running statistics are taken as they are.

    decay: share of the average that stays at an update. In the first updates less stays, (1 + n) / (10 + n), so that
    the random start is forgotten (as in TensorFlow's ExponentialMovingAverage with num_updates).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.updates = decay, 0
        self._weights = [p.detach().clone() for p in model.parameters()]

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the weights after an update."""
        stay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        torch._foreach_lerp_(self._weights, [p.detach() for p in model.parameters()], 1 - stay)

    @torch.no_grad()
    def swap(self, model: nn.Module) -> None:
        """Exchange the model's weights and the average: before validation, and again after it."""
        for kept, parameter in zip(self._weights, model.parameters(), strict=True):
            before = parameter.detach().clone()
            parameter.copy_(kept)
            kept.copy_(before)

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self.updates, "weights": self._weights}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.updates = int(state["updates"])
        for kept, loaded in zip(self._weights, state["weights"], strict=True):
            kept.copy_(loaded)
