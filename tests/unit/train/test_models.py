import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from cxrscale.common.errors import StudyError
from cxrscale.train.models import (
    build_model,
    calibrate_batch_norm,
    feature_map,
)
from cxrscale.train.normalisation import set_normalisation


def features(n=16, channels=3, seed=0):
    return torch.randn(n, channels, 5, 4, generator=torch.Generator().manual_seed(seed)) * 3 + 1


def test_a_model_takes_grey_and_gives_a_logit_a_finding_fixed_by_the_seed():
    x = torch.rand(2, 1, 32, 32)
    first, same, other = (build_model("test_resnet", 3, seed).eval() for seed in (1, 1, 2))
    assert first(x).shape == (2, 3)
    assert torch.equal(first(x), same(x))
    assert not torch.equal(first(x), other(x))


def test_the_first_convolution_of_imagenet_weights_is_summed_over_rgb(tmp_path):
    import timm

    source = timm.create_model("test_resnet", pretrained=False, in_chans=3)  # 1000 classes
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    model, own = build_model("test_resnet", 3, 0, tmp_path / "w.safetensors"), source.state_dict()
    state = model.state_dict()
    first = next(k for k, v in own.items() if v.ndim == 4)
    assert torch.allclose(state[first], own[first].sum(dim=1, keepdim=True), atol=1e-6)
    others = [k for k in own if k != first and not k.startswith("fc")]
    assert len(others) > 20
    assert all(torch.equal(state[k], own[k]) for k in others)
    assert state["fc.weight"].shape[0] == 3
    # A grey picture gives the same features as it would in all three channels.
    x = torch.rand(1, 1, 32, 32)
    grey = model.eval().forward_features(x)
    assert torch.allclose(grey, source.eval().forward_features(x.expand(1, 3, 32, 32)), atol=1e-4)


def test_unknown_models_and_weights_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(StudyError, match="models: no_such_model cannot be made"):
        build_model("no_such_model", 3, 0)
    save_file({"conv.weight": torch.zeros(1)}, tmp_path / "w.safetensors")
    with pytest.raises(
        StudyError, match=r"test_resnet with .*w.safetensors cannot be made: the file lacks (\d+) of the \1 "
    ):
        build_model("test_resnet", 3, 0, tmp_path / "w.safetensors")
    state = build_model("test_resnet", 3, 0).state_dict()
    lost = [k for k, v in state.items() if v.ndim == 4][1]
    save_file({k: v + 1 for k, v in state.items() if k != lost}, tmp_path / "w.safetensors")
    with pytest.raises(StudyError, match=rf"the file lacks 1 of the \d+ weight tensors, {lost} first"):
        build_model("test_resnet", 3, 0, tmp_path / "w.safetensors")
    save_file(state | {lost: torch.zeros(1, 1, 1, 1)}, tmp_path / "w.safetensors")
    with pytest.raises(StudyError, match=rf"cannot be made: .*\n\tsize mismatch for {lost}"):
        build_model("test_resnet", 3, 0, tmp_path / "w.safetensors")


@pytest.mark.parametrize("group", [None, 4])
def test_calibration_sets_the_mean_over_the_batches(group):
    model = nn.Sequential(nn.BatchNorm2d(3))
    if group:
        set_normalisation(model, "groups", group)
    batches = [features(4, seed=s) for s in range(3)]
    calibrate_batch_norm(model, batches)
    expected = torch.stack([b.mean(dim=(0, 2, 3)) for b in batches]).mean(dim=0)
    assert torch.allclose(model[0].running_mean, expected, atol=1e-5)
    assert model[0].momentum == 0.1
    assert not model.training


def test_a_transformer_has_no_feature_map():
    assert feature_map(build_model("test_resnet", 2, 0).eval(), torch.rand(1, 1, 32, 32)).ndim == 4
    vit = build_model("test_vit", 2, 0)
    with pytest.raises(StudyError, match=r"VisionTransformer gives features of shape .*need \(image, channel, height"):
        feature_map(vit, torch.rand(1, 1, *vit.patch_embed.img_size))
