import numpy as np
import pytest
import torch
from torch import nn

from cxrscale.errors import StudyError
from cxrscale.receptive_field import effective_receptive_field, field_size


def boxes(layers, width=3):
    """Convolutions with all weights one."""
    model = nn.Sequential(*(nn.Conv2d(1, 1, width, padding=width // 2, bias=False) for _ in range(layers)))
    for parameter in model.parameters():
        nn.init.ones_(parameter)
    return model


def batches(size=33, n=2):
    return [torch.rand(n, 1, size, size) for _ in range(2)]


@pytest.mark.parametrize(
    ("layers", "width", "variance"),
    [
        (1, 3, 2 / 3),  # nine equal pixels: (1 + 0 + 1) / 3 along each axis
        (1, 5, 2.0),  # (4 + 1 + 0 + 1 + 4) / 5
        (2, 3, 16 / 19),  # 1 2 3 2 1 squared: 1 4 9 4 1; (2 * 4 * 1 + 2 * 1 * 4) / 19
    ],
)
def test_box_convolutions_have_their_closed_form(layers, width, variance):
    energy = effective_receptive_field(boxes(layers, width), batches())
    size = field_size(energy)
    assert energy.sum() == pytest.approx(1)
    assert size.sigma_px == pytest.approx(np.sqrt(variance), rel=1e-6)
    assert size.centroid_px == pytest.approx((16.5, 16.5))
    reach = layers * (width // 2)
    assert (energy[16 - reach : 17 + reach, 16 - reach : 17 + reach] > 0).all()
    assert energy[: 16 - reach].sum() == 0


def test_many_layers_grow_with_the_root_of_their_number():
    """The squared kernel of n boxes tends to a Gaussian of half their summed variance, n * (2 / 3) / 2."""
    sigma = field_size(effective_receptive_field(boxes(12), batches(49))).sigma_px
    assert sigma == pytest.approx(np.sqrt(12 / 3), rel=0.02)


def test_an_even_map_takes_its_middle_two_units():
    """32 pixels pooled by 4 are 8 x 8 units; the middle four cover pixels 12 to 19."""
    energy = effective_receptive_field(nn.AvgPool2d(4), batches(32))
    assert np.argwhere(energy > 0).min() == 12
    assert np.argwhere(energy > 0).max() == 19
    assert field_size(energy).centroid_px == pytest.approx((16, 16))


def test_images_are_averaged_whatever_the_batches():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 5, padding=2), nn.ReLU(), nn.Conv2d(4, 2, 5, padding=2))
    images = torch.rand(6, 1, 21, 21)
    whole = effective_receptive_field(model, [images])
    assert np.allclose(effective_receptive_field(model, images.split(4)), whole, atol=1e-7)
    singles = [effective_receptive_field(model, [image[None]]) for image in images]
    assert not np.allclose(singles[0], singles[1], atol=1e-7)


def test_a_network_that_does_not_look_is_an_error():
    with pytest.raises(StudyError, match="the gradient at the centre is zero for all 4 images"):
        effective_receptive_field(lambda x: x * 0, batches())
    with pytest.raises(StudyError, match="for all 0 images"):
        effective_receptive_field(boxes(1), [])


@pytest.mark.parametrize("centre", [(40.5, 40.5), (30.0, 47.0)])
def test_the_size_of_a_gaussian(centre):
    """Half of an isotropic Gaussian lies within sigma * sqrt(2 ln 2)."""
    y, x = np.mgrid[0:81, 0:81] + 0.5
    energy = np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / (2 * 5.0**2))
    size = field_size(energy / energy.sum())
    assert size.sigma_px == pytest.approx(5.0, rel=0.01)
    assert size.radius50_px == pytest.approx(5.0 * np.sqrt(2 * np.log(2)), rel=0.04)
    assert size.centroid_px == pytest.approx(centre, abs=0.05)


def test_sizes_grow_with_the_pixels_of_the_same_image():
    energy = effective_receptive_field(boxes(3), batches())
    doubled = np.repeat(np.repeat(energy, 4, axis=0), 4, axis=1) / 16
    assert field_size(doubled).sigma_px == pytest.approx(4 * field_size(energy).sigma_px, rel=0.05)
