"""Receptive fields: networks whose field is known in closed form, and sizes worked out by hand."""

from functools import reduce

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from cxrscale.common import tables
from cxrscale.common.rows import ALL_CHANNELS
from cxrscale.explain.contracts import ERF
from cxrscale.explain.field_size import NO_EVIDENCE, NO_FIELD, NO_POSITIVE, centred_square, field_rows, spread
from cxrscale.explain.receptive_field import receptive_fields


def boxes(layers, width=3):
    """Convolutions with all weights one."""
    model = nn.Sequential(*(nn.Conv2d(1, 1, width, padding=width // 2, bias=False) for _ in range(layers)))
    for parameter in model.parameters():
        nn.init.ones_(parameter)
    return model


def batches(size=33, n=2):
    return [torch.rand(n, 1, size, size) for _ in range(2)]


def field_of(features, pictures, evidence=None):
    return receptive_fields(features, pictures, evidence)[0]


@pytest.mark.parametrize(
    ("layers", "width", "variance"),
    [
        (1, 3, 2 / 3),  # nine equal pixels: (1 + 0 + 1) / 3 along each axis
        (1, 5, 2.0),  # (4 + 1 + 0 + 1 + 4) / 5
        (2, 3, 16 / 19),  # 1 2 3 2 1 squared: 1 4 9 4 1; (2 * 4 * 1 + 2 * 1 * 4) / 19
    ],
)
def test_box_convolutions_have_their_closed_form(layers, width, variance):
    energy = field_of(boxes(layers, width), batches()).energy
    assert energy.sum() == pytest.approx(1)
    sigma, centroid = spread(energy)
    assert sigma == pytest.approx(np.sqrt(variance), rel=1e-6)
    assert centroid == pytest.approx((16.5, 16.5))
    reach = layers * (width // 2)
    assert (energy[16 - reach : 17 + reach, 16 - reach : 17 + reach] > 0).all()
    assert energy[: 16 - reach].sum() == 0


@pytest.mark.parametrize(("layers", "width"), [(1, 7), (3, 3), (4, 5), (6, 3)])
def test_a_stack_of_boxes_is_their_convolution(layers, width):
    """The gradient is the convolution of the boxes, whose variances (k^2 - 1) / 12 add up; the energy its square."""
    field = field_of(boxes(layers, width), batches(49))
    assert spread(field.contribution)[0] == pytest.approx(np.sqrt(layers * (width**2 - 1) / 12), rel=1e-6)
    kernel = reduce(np.convolve, [np.ones(width)] * layers)
    square = kernel**2 / (kernel**2).sum()
    expected = np.pad(np.outer(square, square), (49 - len(kernel)) // 2)
    assert field.energy == pytest.approx(expected, abs=1e-7)
    away = np.arange(len(kernel)) - len(kernel) // 2
    assert spread(field.energy)[0] == pytest.approx(np.sqrt((square * away**2).sum()), rel=1e-6)


def test_many_layers_grow_with_the_root_of_their_number():
    """The squared kernel of n boxes tends to a Gaussian of half their summed variance, n * (2 / 3) / 2."""
    assert spread(field_of(boxes(12), batches(49)).energy)[0] == pytest.approx(np.sqrt(12 / 3), rel=0.02)


def test_an_even_map_takes_its_middle_two_units():
    """32 pixels pooled by 4 are 8 x 8 units; the middle four cover pixels 12 to 19."""
    field = field_of(nn.AvgPool2d(4), batches(32))
    assert np.argwhere(field.energy > 0).min() == 12
    assert np.argwhere(field.energy > 0).max() == 19
    assert spread(field.energy)[1] == pytest.approx((16, 16))
    assert [centred_square(field.contribution, share) for share in (0.2, 0.5, 0.99)] == [4, 6, 8]


def test_images_are_averaged_whatever_the_batches():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 5, padding=2), nn.ReLU(), nn.Conv2d(4, 2, 5, padding=2))
    images = torch.rand(6, 1, 21, 21)
    whole = field_of(model, [images])
    parts = field_of(model, images.split(4))
    assert np.allclose(parts.energy, whole.energy, atol=1e-7)
    assert np.allclose(parts.contribution, whole.contribution, atol=1e-7)
    singles = [field_of(model, [image[None]]).energy for image in images]
    assert not np.allclose(singles[0], singles[1], atol=1e-7)


def test_the_evidence_of_a_finding_has_the_field_of_the_channels_it_uses():
    """Channel 0 sees one pixel, channel 1 seven by seven; gradients add before they are squared."""
    model = nn.Conv2d(1, 2, 7, padding=3, bias=False)
    nn.init.zeros_(model.weight)
    with torch.no_grad():
        model.weight[0, 0, 3, 3] = 1
        model.weight[1, 0] = 1
    evidence = torch.tensor([[1.0, 0.0], [0.0, -2.0], [1.0, 1.0], [0.0, 0.0]])
    fields = receptive_fields(model, batches(), evidence)
    both, narrow, wide, sum_, none = fields
    assert spread(narrow.energy)[0] == pytest.approx(0)
    assert spread(wide.energy)[0] == pytest.approx(2)  # (7^2 - 1) / 12 = 4
    assert wide.contribution.sum() == 0  # it only speaks against: there is no positive gradient
    # The middle weighs 2^2, 48 others 1: their mean squared distance is 2 * 4 * 49 / 48.
    assert spread(both.energy)[0] == pytest.approx(np.sqrt(4 * 49 / 52))
    assert sum_.energy == pytest.approx(both.energy)
    assert none is None
    frame = pd.DataFrame(field_rows("trained", ["A", "B", "C", "D"], fields, 4))
    assert frame["finding"].tolist() == [ALL_CHANNELS, "A", "B", "C", "D"]
    assert frame["reason"].fillna("").tolist() == ["", "", NO_POSITIVE, "", NO_FIELD]
    assert frame["square50_px"].isna().tolist() == [False, False, True, False, True]


def test_a_network_that_does_not_look_has_no_field():
    assert receptive_fields(lambda x: x * 0, batches()) == [None]
    assert receptive_fields(boxes(1), [], torch.ones(2, 1)) == [None] * 3


def test_rows_keep_to_the_table_and_give_reasons(tmp_path):
    rows = field_rows("trained", ["A", "B"], receptive_fields(boxes(2), batches()), 4)
    rows += field_rows("random", [], [None], 4)
    frame = pd.DataFrame(rows, columns=[c.name for c in ERF.columns])
    tables.write(ERF, frame, tmp_path / "erf.csv")
    read = tables.read(ERF, tmp_path / "erf.csv").set_index(["state", "finding"])
    assert read["reason"].dropna().to_dict() == {
        ("trained", "A"): NO_EVIDENCE,
        ("trained", "B"): NO_EVIDENCE,
        ("random", ALL_CHANNELS): NO_FIELD,
    }
    assert read.loc[("trained", ALL_CHANNELS), "sigma_px"] == pytest.approx(np.sqrt(16 / 19))
    assert read.loc[("trained", ALL_CHANNELS), "sigma_fraction"] == pytest.approx(np.sqrt(16 / 19) / 33)
    # 1 2 3 2 1 by itself: the middle pixel 9 of 81, the middle nine 49 of 81, all 25 of them everything.
    squares = [read.loc[("trained", ALL_CHANNELS), f"square{s}_px"] for s in (20, 30, 50, 99)]
    assert squares == [3, 3, 3, 5]


def test_sizes_grow_with_the_pixels_of_the_same_image():
    energy = field_of(boxes(3), batches()).energy
    doubled = np.repeat(np.repeat(energy, 4, axis=0), 4, axis=1) / 16
    assert spread(doubled)[0] == pytest.approx(4 * spread(energy)[0], rel=0.05)
