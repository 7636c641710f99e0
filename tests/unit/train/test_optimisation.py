import math
from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn

from cxrscale.train.optimisation import (
    WeightEma,
    learning_rate_at,
    make_optimiser,
    masked_loss,
    pos_weight,
    stops_early,
)


@dataclass(frozen=True)
class Settings:
    epochs: int = 2
    optimiser: str = "adam"
    learning_rate: float = 2e-3
    weight_decay: float = 0.0
    schedule: str = "cosine"
    warmup_epochs: float = 0.0
    plateau_patience: int = 2
    plateau_factor: float = 0.1
    early_stopping_patience: int | None = None


def test_masked_loss_by_hand():
    """Logit 0 costs ln 2; logit ln 3 costs ln(4/3) as a positive, ln 4 as a negative; the last one is ignored."""
    logits = torch.tensor([[0.0, math.log(3)], [math.log(3), 50.0]])
    target, mask = torch.tensor([[1.0, 1.0], [0.0, 0.0]]), torch.tensor([[1.0, 1.0], [1.0, 0.0]])
    expected = (math.log(2) + math.log(4 / 3) + math.log(4)) / 3
    assert float(masked_loss(logits, target, mask, 3.0)) == pytest.approx(expected, rel=1e-6)
    parts = [masked_loss(logits[i : i + 1], target[i : i + 1], mask[i : i + 1], 3.0) for i in range(2)]
    assert float(sum(parts)) == pytest.approx(expected, rel=1e-6)
    assert float(masked_loss(logits, target, mask * 0, 0.0)) == 0.0


def test_learning_rates_by_hand():
    rates = [learning_rate_at(Settings(), u, 4) for u in (0, 4, 8)]
    assert rates == pytest.approx([2e-3, 1e-3, 0.0])
    assert learning_rate_at(Settings(schedule="constant"), 7, 4) == 2e-3


def test_warm_up_then_cosine():
    settings = Settings(warmup_epochs=1.0)
    rates = [learning_rate_at(settings, u, 4) for u in (0, 3, 4, 6, 8)]
    assert rates == pytest.approx([5e-4, 2e-3, 2e-3, 1e-3, 0.0])


def test_a_plateau_lowers_the_rate_and_counts_anew():
    settings = Settings(schedule="plateau")
    seen = [0.6, 0.7, 0.7, 0.65, 0.69, 0.6, 0.8]
    rates = [learning_rate_at(settings, 4 * n, 4, seen[:n]) for n in range(len(seen) + 1)]
    assert rates == pytest.approx([2e-3] * 4 + [2e-4] * 2 + [2e-5] * 2)
    assert learning_rate_at(settings, 0, 4, [float("nan")] * 2) == pytest.approx(2e-4)


def test_stopping_early():
    settings = Settings(early_stopping_patience=2)
    assert not stops_early(settings, [])
    assert not stops_early(settings, [0.7, 0.6])
    assert stops_early(settings, [0.7, 0.6, 0.7])
    assert not stops_early(replace(settings, early_stopping_patience=None), [0.7] + [0.1] * 50)


def test_smoothing_and_positive_weights_by_hand():
    logits, target, mask = torch.tensor([[math.log(3)]]), torch.tensor([[1.0]]), torch.ones(1, 1)
    smooth = 0.9 * math.log(4 / 3) + 0.1 * math.log(4)
    assert float(masked_loss(logits, target, mask, 1.0, smoothing=0.2)) == pytest.approx(smooth, rel=1e-5)
    weighted = masked_loss(logits, target, mask, 1.0, weights=torch.tensor([3.0]))
    assert float(weighted) == pytest.approx(3 * math.log(4 / 3), rel=1e-5)


def test_positive_weights_are_negatives_per_positive_of_what_counts():
    target = torch.tensor([[1.0, 0, 1], [0, 0, 1], [0, 0, 1], [0, 1, 1]])
    mask = torch.tensor([[1.0, 1, 1], [1, 1, 1], [0, 1, 1], [1, 1, 1]])
    assert pos_weight(target, mask).tolist() == [2, 3, 1]
    many = torch.zeros(1001, 1)
    many[0] = 1
    assert pos_weight(many, torch.ones(1001, 1)).tolist() == [100]


def test_the_average_by_hand_and_exchanged_twice():
    model = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(1.0)
    average = WeightEma(model, 0.5)
    for value in (2.0, 4.0):
        with torch.no_grad():
            model.weight.fill_(value)
        average.update(model)
    expected = 2 / 11 * (0.1 * 1 + 0.9 * 2) + 9 / 11 * 4
    copy = WeightEma(model, 0.5)
    copy.load_state_dict(average.state_dict())
    average.swap(model)
    assert model.weight.item() == pytest.approx(expected)
    average.swap(model)
    assert model.weight.item() == 4.0
    copy.swap(model)
    assert model.weight.item() == pytest.approx(expected)


@pytest.mark.parametrize(("name", "kind"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)])
def test_optimisers(name, kind):
    optimiser = make_optimiser(nn.Linear(1, 1), Settings(optimiser=name, weight_decay=0.1))
    assert type(optimiser) is kind
    assert optimiser.param_groups[0]["weight_decay"] == 0.1
