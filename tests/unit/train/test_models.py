import copy

import pytest
import torch
from safetensors.torch import save_file

from cxrscale.common.errors import StudyError
from cxrscale.train.models import build_model, feature_map


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


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_vit"])
def test_logits_are_float32_within_autocast(name):
    """bfloat16 has 128 values between 1 and 2, so many images would share a logit."""
    model = build_model(name, 1, 0).eval()
    side = 160 if name == "test_vit" else 32
    x = torch.rand(24, 1, side, side, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        logits = model(x)
        again = model.forward_head(model.forward_features(x))
    assert logits.dtype == torch.float32
    assert len(logits.unique()) == 24
    assert torch.equal(logits, again)


def test_float32_is_not_tf32():
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    build_model("test_resnet", 1, 0)
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32


def test_a_copied_network_has_its_own_head():
    model = build_model("test_resnet", 1, 0).eval()
    copied = copy.deepcopy(model)
    torch.nn.init.zeros_(copied.get_classifier().weight)
    torch.nn.init.zeros_(copied.get_classifier().bias)
    x = torch.rand(1, 1, 32, 32)
    assert float(copied(x).detach()) == 0
    assert float(model(x).detach()) != 0


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


def test_layers_that_draw_at_random_are_off():
    """What they draw would depend on the micro-batch."""
    for name in ("nextvit_small", "rexnet_100", "ghostnet_050"):
        model = build_model(name, 2, 0)
        rates = [getattr(m, k, 0.0) for m in model.modules() for k in ("p", "drop_prob", "drop_rate")]
        assert len(rates) > 100
        assert not any(rate for rate in rates if isinstance(rate, float)), name


def test_a_transformer_has_no_feature_map():
    assert feature_map(build_model("test_resnet", 2, 0).eval(), torch.rand(1, 1, 32, 32)).ndim == 4
    vit = build_model("test_vit", 2, 0)
    with pytest.raises(StudyError, match=r"VisionTransformer gives features of shape .*need \(image, channel, height"):
        feature_map(vit, torch.rand(1, 1, *vit.patch_embed.img_size))
