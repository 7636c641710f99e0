import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from cxrscale.explain.cam import class_activation_maps, maps_of_pairs, select_boxed, select_images
from cxrscale.train.learner import Learner
from cxrscale.train.models import build_model, has_exact_cam

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
    assert maps.std() > 0
    assert np.array_equal(maps, class_activation_maps(model, x, FINDINGS, "gradcam"))
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("name", ["test_resnet", "densenet121"])
def test_grad_cam_is_the_exact_map_where_that_exists(name):
    """With global average pooling the gradient of each unit is the head's weight over the number of units. DenseNet
    ends with an activation in place, which a hook on it does not survive."""
    model = build_model(name, 3, 0).eval()
    x = pictures(96)
    exact = class_activation_maps(model, x, FINDINGS)
    assert class_activation_maps(model, x, FINDINGS, "gradcam") * 9 == pytest.approx(exact, abs=1e-4)


class InPlace(nn.Module):
    """Features that end with, and a head that begins with, an activation in place; no pooling by average."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(1, 4, 3, stride=8, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.classifier = nn.Linear(4, 2)

    def forward_features(self, x):
        return self.relu(self.convolution(x))

    def forward_head(self, x):
        return self.classifier(x.sub_(0.1).relu_().amax(dim=(2, 3)))

    def forward(self, x):
        return self.forward_head(self.forward_features(x))


@pytest.mark.parametrize("method", ["gradcam", "gradcam++", "layercam"])
def test_activations_in_place_change_no_map(method):
    torch.manual_seed(1)
    model = InPlace().eval()
    x = pictures(64)
    features = model.forward_features(x).detach()
    maps = class_activation_maps(model, x, [0, 1, 0], method)
    assert maps.shape == (3, 8, 8)
    assert maps.std() > 0
    if method == "gradcam":  # worked out without hooks: the gradient is the head's weight at each channel's maximum
        weight = model.classifier.weight.detach()[[0, 1, 0]] * (features.amax(dim=(2, 3)) > 0.1) / 64
        assert maps == pytest.approx(torch.einsum("icyx,ic->iyx", features, weight).numpy(), abs=1e-6)
    if method == "layercam":
        assert maps.min() >= 0


def test_a_map_may_be_negative_throughout():
    """Features are not negative; a head that only takes off speaks against everywhere, and so says each method."""
    model = build_model("test_resnet", 3, 0).eval()
    nn.init.constant_(model.get_classifier().weight, -1.0)
    for method in ("auto", "gradcam"):
        maps = class_activation_maps(model, pictures(96), FINDINGS, method)
        assert maps.max() <= 0
        assert maps.min() < 0


def test_maps_of_pairs_come_in_order_with_their_pictures(reader, record, monkeypatch):
    model = build_model("test_resnet", 2, 0).eval()
    learner = Learner(record, model, torch.device("cpu"))
    ids, findings = ["image40", "image07", "image40"], [1, 0, 0]
    pairs = pd.DataFrame({"finding": ["Noise", "Bright", "Bright"], "image_id": ids})
    whole = list(maps_of_pairs(learner, reader, pairs))
    monkeypatch.setattr("cxrscale.explain.cam.PIXELS", 1)
    single = list(maps_of_pairs(learner, reader, pairs))
    for found in (whole, single):
        assert len(found) == 3
        for (picture, map_), image_id, finding in zip(found, ids, findings, strict=True):
            assert np.array_equal(picture, reader[image_id])
            x = (torch.from_numpy(reader[image_id])[None, None].float() / 255 - 0.4) / 0.2
            assert map_ == pytest.approx(class_activation_maps(model, x, [finding])[0], abs=1e-5)
    assert list(maps_of_pairs(learner, reader, pairs.iloc[:0])) == []


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


def test_boxed_images_show_the_finding_on_test_and_combine():
    frame = targets().assign(subject_id=[f"p{k}" for k in range(60)])
    frame["split"] = np.repeat(["test", "combine", "validate", "train"], [40, 10, 5, 5])
    ids = set(frame["image_id"])
    boxed = [("Edema", f"i{k}") for k in range(19, 60)] + [("Rare", "i8"), ("Unknown", "i7")]
    chosen = select_boxed(frame, ids, boxed, 99)
    assert set(chosen["finding"]) == {"Edema"}  # i8 does not show Rare, and the study knows no Unknown
    by_split = {split: set(rows["image_id"]) for split, rows in chosen.groupby("split")}
    assert by_split == {
        "test": {f"i{k}" for k in range(21, 40, 2)},
        "combine": {f"i{k}" for k in range(41, 50, 2)},
    }
    assert (chosen["subject_id"].str[1:] == chosen["image_id"].str[1:]).all()
    few = select_boxed(frame, ids, boxed, 2)
    assert few["split"].tolist() == ["combine"] * 2 + ["test"] * 2
    without = frame[frame["split"] != "combine"]
    stands_in = select_boxed(without, ids, boxed, 99)
    assert set(stands_in.loc[stands_in["split"] == "combine", "image_id"]) == {"i51", "i53"}
    assert len(select_boxed(frame, ids, [], 99)) == 0
