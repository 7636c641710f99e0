import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import nn

from cxrscale.common.errors import StudyError
from cxrscale.train.models import build_model
from cxrscale.train.normalisation import (
    GroupedBatchNorm2d,
    GroupedBatchNormAct2d,
    holding_statistics,
    set_normalisation,
    step_statistics,
)


def features(n=16, channels=3, seed=0):
    return torch.randn(n, channels, 5, 4, generator=torch.Generator().manual_seed(seed)) * 3 + 1


def grouped(group, kind=nn.BatchNorm2d):
    torch.manual_seed(0)
    model = nn.Sequential(kind(3))
    nn.init.normal_(model[0].weight)
    nn.init.normal_(model[0].bias)
    return set_normalisation(model, "groups", group)


@pytest.mark.parametrize("kind", [nn.BatchNorm2d, BatchNormAct2d])
def test_one_group_is_plain_batch_norm(kind):
    torch.manual_seed(0)
    plain = nn.Sequential(kind(3))
    nn.init.normal_(plain[0].weight)
    nn.init.normal_(plain[0].bias)
    ours = grouped(8, kind)
    for step in range(3):
        x = features(8, seed=step)
        assert torch.allclose(ours.train()(x), plain.train()(x), atol=1e-6)
        step_statistics(ours)
    assert torch.allclose(ours[0].running_mean, plain[0].running_mean)
    assert torch.allclose(ours[0].running_var, plain[0].running_var)
    assert int(ours[0].num_batches_tracked) == int(plain[0].num_batches_tracked) == 3
    assert torch.allclose(ours.eval()(x), plain.eval()(x), atol=1e-6)


@pytest.mark.parametrize("kind", [nn.BatchNorm2d, BatchNormAct2d])
def test_the_micro_batch_changes_neither_output_nor_running_statistics(kind):
    x, outputs, states = features(16), [], []
    for micro in (4, 8, 16):
        norm = grouped(4, kind).train()
        outputs.append(torch.cat([norm(part) for part in x.split(micro)]))
        step_statistics(norm)
        states.append(norm.state_dict())
    assert len(outputs) == 3
    assert all(torch.equal(out, outputs[0]) for out in outputs)
    for state in states:
        assert all(torch.allclose(state[k], states[0][k], rtol=1e-6) for k in state)
    assert int(states[0]["0.num_batches_tracked"]) == 4


def test_each_group_is_normalised_by_itself():
    norm = set_normalisation(nn.Sequential(nn.BatchNorm2d(3)), "groups", 4).train()
    out = norm(features(12) + torch.arange(12).view(-1, 1, 1, 1) // 4 * 100.0)
    means = out.view(3, 4, 3, 20).mean(dim=(1, 3))  # (group, channel)
    assert means.abs().max() < 1e-5


@pytest.mark.parametrize(("name", "kind"), [("test_resnet", nn.BatchNorm2d), ("test_efficientnet", BatchNormAct2d)])
def test_conversion_covers_every_norm_of_timm_and_keeps_the_weights(name, kind):
    model = build_model(name, 2, 0)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    n = sum(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    set_normalisation(model, "groups", 4)
    ours = [m for m in model.modules() if type(m) in (GroupedBatchNorm2d, GroupedBatchNormAct2d)]
    assert len(ours) == n > 3
    assert not any(type(m) in (nn.BatchNorm2d, BatchNormAct2d) for m in model.modules())
    assert any(isinstance(m, kind) for m in ours)
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[k], before[k]) for k in before)
    plain = build_model(name, 2, 0).eval()
    x = torch.rand(2, 1, 32, 32)
    assert torch.allclose(model.eval()(x), plain(x), atol=1e-6)


def test_statistics_move_as_far_as_a_step_for_each_group_in_no_order():
    """Two groups with means 0 and 2 and momentum 0.1: 0.19 of the way to their mean."""
    norm = set_normalisation(nn.Sequential(nn.BatchNorm2d(1)), "groups", 2).train()
    x = torch.tensor([-1.0, 1.0, 1.0, 3.0]).view(4, 1, 1, 1)
    norm(x)
    assert float(norm[0].running_mean) == 0  # not before the step
    step_statistics(norm)
    assert float(norm[0].running_mean) == pytest.approx(0.19)
    assert float(norm[0].running_var) == pytest.approx(1 + 0.19 * (2 - 1))
    step_statistics(norm)
    assert float(norm[0].running_mean) == pytest.approx(0.19)


def test_statistics_of_several_processes_are_added_up():
    """Stands for two processes that saw the same: the sums double, the averages stay."""
    alone, two = (grouped(4).train() for _ in range(2))
    alone(torch.cat([features(8)] * 2))
    step_statistics(alone)
    two(features(8))
    step_statistics(two, lambda tensor: tensor.mul_(2))
    for key, value in alone.state_dict().items():
        assert torch.allclose(value.float(), two.state_dict()[key].float(), rtol=1e-5), key


def test_held_statistics_stay():
    norm = grouped(4).train()
    with holding_statistics():
        norm(features())
    step_statistics(norm)
    assert float(norm[0].running_mean.abs().sum()) == 0


def test_frozen_statistics_are_used_and_never_moved():
    model = set_normalisation(nn.Sequential(nn.BatchNorm2d(3)), "frozen")
    model[0].running_mean.fill_(2.0)
    x = features()
    assert torch.allclose(model.train()(x), (x - 2) / (1 + 1e-5) ** 0.5, atol=1e-5)
    step_statistics(model)
    assert (model[0].running_mean == 2).all()
    model(x).sum().backward()
    assert model[0].bias.grad is not None


def test_synchronised_over_processes_is_torchs_own():
    model = set_normalisation(build_model("test_efficientnet", 2, 0), "synchronised", processes=2)
    kinds = {type(m).__name__ for m in model.modules() if "Norm" in type(m).__name__}
    assert kinds == {"SyncBatchNormAct"}


def test_what_cannot_be_frozen_is_refused():
    with pytest.raises(StudyError, match=r"training.normalisation: frozen, but VisionTransformer has no batch norm"):
        set_normalisation(build_model("test_vit", 2, 0), "frozen")
