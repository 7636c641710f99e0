import numpy as np
import pandas as pd
import pytest
import torch

from cxrscale.cam import class_activation_maps, has_exact_cam, select_images
from cxrscale.models import build_model

FINDINGS = [0, 2, 1]


def pictures(size=64):
    return torch.randn(3, 1, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "densenet121"])
def test_the_exact_maps_mean_plus_bias_is_the_logit(name):
    model = build_model(name, 3, 0).eval()
    torch.nn.init.normal_(model.get_classifier().bias)
    assert has_exact_cam(model)
    x = pictures()
    maps = class_activation_maps(model, x, FINDINGS)
    with torch.no_grad():
        logits = model(x)[range(3), FINDINGS].numpy()
    bias = model.get_classifier().bias.detach().numpy()[FINDINGS]
    assert maps.ndim == 3
    assert maps.dtype == np.float32
    assert maps.mean(axis=(1, 2)) + bias == pytest.approx(logits, abs=1e-4)
    assert maps.std() > 0


@pytest.mark.parametrize("name", ["test_convnext", "mobilenetv3_small_050"])
def test_other_networks_take_grad_cam(name):
    """ConvNeXt normalises, MobileNetV3 convolves once more after pooling: no exact map exists."""
    model = build_model(name, 3, 0).eval()
    assert not has_exact_cam(model)
    x = pictures(96)
    maps = class_activation_maps(model, x, FINDINGS)
    assert maps.shape == (3, 3, 3)
    assert np.isfinite(maps).all()
    assert maps.min() >= 0
    assert maps.max() <= 1


def targets():
    n = 60
    return pd.DataFrame(
        {
            "image_id": [f"i{k}" for k in range(n)],
            "split": np.where(np.arange(n) < 40, "test", "train"),
            "target:Edema": np.arange(n) % 2,
            "mask:Edema": np.where(np.arange(n) < 20, 0, 1),
            "target:Fracture": 0,
            "mask:Fracture": 1,
            "target:Rare": (np.arange(n) == 7).astype(int),
            "mask:Rare": 1,
        }
    )


def test_selected_images_show_the_finding_on_test():
    ids = set(targets()["image_id"]) - {"i21"}
    chosen = select_images(targets(), ids, ["Edema", "Fracture", "Rare"], 4)
    assert chosen["finding"].tolist() == ["Edema"] * 4 + ["Rare"]
    possible = {f"i{k}" for k in range(23, 40, 2)}
    assert set(chosen["image_id"][:4]) <= possible
    assert chosen["image_id"][4] == "i7"
    everything = select_images(targets(), ids, ["Edema"], 99)
    assert set(everything["image_id"]) == possible


def test_the_selection_is_the_same_for_any_order_of_rows():
    ids = set(targets()["image_id"])
    expected = select_images(targets(), ids, ["Edema", "Rare"], 3)
    for seed in range(5):
        shuffled = targets().sample(frac=1, random_state=seed)
        pd.testing.assert_frame_equal(select_images(shuffled, ids, ["Edema", "Rare"], 3), expected)
    assert len(expected) == 4


def test_nothing_to_select_is_an_empty_table():
    empty = select_images(targets(), set(), ["Edema"], 3)
    assert list(empty.columns) == ["finding", "image_id"]
    assert len(empty) == 0
