import pytest
import torch
from timm.layers import BatchNormAct2d
from timm.models.efficientvit_msra import EfficientVitMsra
from timm.models.iformer import IFormer
from timm.models.levit import Levit
from timm.models.repvit import RepVit
from timm.models.shvit import SHViT
from torch import nn

from cxrscale.common.errors import StudyError
from cxrscale.train import normalisation
from cxrscale.train.models import build_model
from cxrscale.train.normalisation import GroupedBatchNorm2d, GroupedBatchNormAct2d, set_normalisation


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
    x = features(8)
    assert torch.allclose(ours.train()(x), plain.train()(x), atol=1e-6)
    assert torch.allclose(ours.eval()(x), grouped(8, kind).eval()(x), atol=1e-6)
    assert float(ours[0].running_mean.abs().sum()) == 0  # not those of training


@pytest.mark.parametrize("kind", [nn.BatchNorm2d, BatchNormAct2d])
def test_the_micro_batch_does_not_change_the_output(kind):
    x, norm = features(16), grouped(4, kind).train()
    outputs = [torch.cat([norm(part) for part in x.split(micro)]) for micro in (4, 8, 16)]
    assert all(torch.equal(out, outputs[0]) for out in outputs)


#: Small networks of the families whose layers see one row a token or a vector.
TINY = {
    "levit": lambda: Levit(32, 1, 2, (16, 24), 8, (1, 1), (2, 2)),
    "efficientvit_m": lambda: EfficientVitMsra(64, 1, 2, (16, 24, 32), (4, 4, 4), (1, 1, 1), (2, 2, 2)),
    "repvit": lambda: RepVit(1, 64, (8, 16), (1, 1), num_classes=2),
    "shvit": lambda: SHViT(1, 2, "avg", (16, 32, 32), (8, 8, 8), (4, 4, 4), (1, 1, 1)),
    "iformer": lambda: IFormer(1, 2, "avg", (8, 16, 32, 32), (1, 1, 3, 3), (0, 0, 1, 1)),
    "resnet": lambda: build_model("test_resnet", 2, 0),
}


@pytest.mark.parametrize("name", TINY)
def test_the_micro_batch_does_not_change_the_gradient_of_any_family(name):
    """In float64, since few values a channel magnify rounding."""
    torch.manual_seed(0)
    model = set_normalisation(TINY[name](), "groups", 8).double().train()
    side = 32 if name == "levit" else 64
    x, weight = torch.rand(16, 1, side, side, dtype=torch.double), torch.randn(16, 2, dtype=torch.double)

    def gradient(micro):
        model.zero_grad()
        for i in range(0, 16, micro):
            found = model(x[i : i + micro])
            logits = sum(found) if isinstance(found, tuple) else found  # two heads
            (logits * weight[i : i + micro]).sum().backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    halves, whole = gradient(8), gradient(16)
    assert (halves - whole).norm() < 1e-9 * whole.norm()


class OtherNorm(nn.BatchNorm2d):
    """Of a kind that nobody knows."""


class OwnNorm(nn.Module):
    """Batch normalisation that is no subclass of torch's."""

    def __init__(self, channels):
        super().__init__()
        self.register_buffer("running_mean", torch.zeros(channels))


@pytest.mark.parametrize("kind", [OtherNorm, OwnNorm])
def test_layers_that_cannot_be_turned_are_refused_by_name(kind):
    with pytest.raises(StudyError, match=rf"Sequential has layers {kind.__name__}, whose statistics would depend on"):
        set_normalisation(nn.Sequential(nn.BatchNorm2d(3), kind(3)), "groups", 4)


def test_a_part_of_a_network_does_not_guess_its_images():
    model = set_normalisation(nn.Sequential(nn.BatchNorm2d(3)), "groups", 4).train()
    with pytest.raises(RuntimeError, match="call the network, not a part of it"):
        model[0](features(4))


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


def test_frozen_statistics_are_used_and_never_moved():
    model = set_normalisation(nn.Sequential(nn.BatchNorm2d(3)), "frozen")
    model[0].running_mean.fill_(2.0)
    x = features()
    assert torch.allclose(model.train()(x), (x - 2) / (1 + 1e-5) ** 0.5, atol=1e-5)
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


def one_step(at_once, shape, memory_format, dtype, monkeypatch):
    """Output, gradients (input, weight, bias) and bytes kept for the backward pass."""
    monkeypatch.setitem(normalisation.AT_ONCE, "cpu", at_once)
    draw = torch.Generator().manual_seed(0)
    x = (torch.randn(shape, generator=draw) * 3 + 1).to(dtype)
    if len(shape) == 4:
        x = x.to(memory_format=memory_format)
    norm = set_normalisation(nn.Sequential((nn.BatchNorm2d if len(shape) == 4 else nn.BatchNorm1d)(5)), "groups", 4)
    nn.init.normal_(norm[0].weight, generator=draw)
    kept: dict[int, int] = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = norm.train()(x.requires_grad_())
    seen = torch.randn(shape, generator=draw).to(dtype)
    gradients = torch.autograd.grad(out, (x, norm[0].weight, norm[0].bias), seen)
    return (out, *gradients), sum(kept.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("shape", "memory_format"),
    [((12, 5, 6, 7), torch.contiguous_format), ((12, 5, 6, 7), torch.channels_last), ((12, 5), None), ((4, 5), None)],
    ids=str,
)
def test_all_groups_at_once_are_the_groups_one_by_one(shape, memory_format, dtype, monkeypatch):
    ones, bytes_of_ones = one_step(False, shape, memory_format, dtype, monkeypatch)
    whole, bytes_of_whole = one_step(True, shape, memory_format, dtype, monkeypatch)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-2  # one rounding to bfloat16
    for ours, theirs in zip(whole, ones, strict=True):
        assert ours.dtype == theirs.dtype
        assert ours.stride() == theirs.stride()
        assert torch.allclose(ours.float(), theirs.float(), rtol=tolerance, atol=tolerance)
    assert whole[0].grad_fn.name() == "AllGroupsBackward"
    assert bytes_of_whole <= bytes_of_ones


def test_a_network_learns_the_same_from_all_groups_at_once(monkeypatch):
    """Activations in place follow the norms."""
    found = []
    for at_once in (False, True):
        monkeypatch.setitem(normalisation.AT_ONCE, "cpu", at_once)
        model = set_normalisation(build_model("test_efficientnet", 2, 0), "groups", 4).train()
        model(torch.rand(8, 1, 32, 32, generator=torch.Generator().manual_seed(0))).sum().backward()
        found.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert (found[1] - found[0]).norm() < 1e-3 * found[0].norm()
