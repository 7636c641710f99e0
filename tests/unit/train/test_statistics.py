"""Running statistics taken from a sample: against numbers of the whole sample, for every division of it."""

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import nn

from cxrscale.train.models import build_model
from cxrscale.train.normalisation import set_normalisation
from cxrscale.train.statistics import note_statistics, set_statistics, take_statistics


def features(n=16, channels=3, seed=0):
    x = torch.randn(n, channels, 5, 4, generator=torch.Generator().manual_seed(seed)) * 3 + 1
    return x + torch.arange(n).view(-1, 1, 1, 1)  # groups differ in their means


def statistics(model):
    return {k: v for k, v in model.state_dict().items() if "running" in k}


@pytest.mark.parametrize("kind", [nn.BatchNorm2d, BatchNormAct2d])
def test_mean_and_total_variance_of_all_images(kind):
    """Within groups and between them: the mean of the groups' variances would lack the second part."""
    x = features()
    for model in (nn.Sequential(kind(3)), set_normalisation(nn.Sequential(kind(3)), "groups", 4)):
        take_statistics(model, x.split(8))
        assert torch.allclose(model[0].running_mean, x.mean(dim=(0, 2, 3)), rtol=1e-6)
        assert torch.allclose(model[0].running_var, x.var(dim=(0, 2, 3), correction=0), rtol=1e-6)
        assert not model.training
        assert not model[0].training


def test_a_large_mean_costs_no_digits():
    x = 1e4 + features() / 10
    model = set_normalisation(nn.Sequential(nn.BatchNorm2d(3)), "groups", 4)
    take_statistics(model, x.split(4))
    assert torch.allclose(model[0].running_var, x.double().var(dim=(0, 2, 3), correction=0).float(), rtol=1e-3)


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet"])
def test_neither_micro_batch_nor_number_of_processes_matters(name):
    x = torch.rand(32, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    found = []
    for micro in (4, 8, 32):
        model = set_normalisation(build_model(name, 2, 0), "groups", 4)
        take_statistics(model, x.split(micro))
        found.append(statistics(model))
    two = set_normalisation(build_model(name, 2, 0), "groups", 4)
    first, second = (note_statistics(two, part.split(8)) for part in x.split(16))  # stand for two processes

    def add_up(sums):
        sums += torch.cat([second[norm] for norm in first], dim=1)

    set_statistics(first, add_up)
    found.append(statistics(two))
    assert len(found[0]) > 6
    for other in found[1:]:
        assert all(torch.allclose(other[k], v, rtol=1e-5, atol=1e-6) for k, v in found[0].items())


def test_each_layer_sees_what_the_layers_before_it_give_in_training():
    """The second layer's statistics do not depend on the first one's of before."""
    found = []
    for before in (0.0, 50.0):
        torch.manual_seed(0)
        model = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
        model[0].running_mean.fill_(before)
        take_statistics(set_normalisation(model, "groups", 4), features().split(4))
        found.append(statistics(model))
    assert all(torch.equal(found[0][k], found[1][k]) for k in found[0])


def test_frozen_statistics_stay_and_cost_no_pictures():
    model = set_normalisation(nn.Sequential(nn.BatchNorm2d(3)), "frozen")

    def pictures():
        raise AssertionError("pictures were read")
        yield

    take_statistics(model, pictures())
    assert float(model[0].running_mean.abs().sum()) == 0


def test_statistics_of_no_images_are_refused():
    with pytest.raises(ValueError, match="statistics of no images"):
        take_statistics(nn.Sequential(nn.BatchNorm2d(3)), [])


def test_dropout_is_off_meanwhile():
    model = nn.Sequential(nn.Dropout(0.9), nn.BatchNorm2d(3)).train()
    x = features()
    take_statistics(model, [x])
    assert torch.allclose(model[1].running_mean, x.mean(dim=(0, 2, 3)), rtol=1e-6)
