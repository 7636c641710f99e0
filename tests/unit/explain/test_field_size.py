"""Sizes of receptive fields, worked out by hand."""

import numpy as np
import pytest
from scipy.stats import norm

from cxrscale.explain.field_size import ReceptiveField, centred_square, cut_share, edge_ratio, field_size, radius


def gaussian(size, centre, sigma):
    y, x = np.mgrid[0:size, 0:size] + 0.5
    energy = np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / (2 * sigma**2))
    return energy / energy.sum()


@pytest.mark.parametrize("centre", [(40.5, 40.5), (30.0, 47.0)])
def test_the_size_of_a_gaussian(centre):
    """Within sigma * sqrt(2 ln (1 / (1 - q))) lies the share q."""
    energy = gaussian(81, centre, 5.0)
    size = field_size(ReceptiveField(energy, energy))
    assert size["sigma_px"] == pytest.approx(5.0, rel=0.01)
    assert size["radius50_px"] == pytest.approx(5.0 * np.sqrt(2 * np.log(2)), rel=0.04)
    assert size["radius95_px"] == pytest.approx(5.0 * np.sqrt(2 * np.log(20)), rel=0.04)
    assert (size["centroid_x_px"], size["centroid_y_px"]) == pytest.approx(centre, abs=0.05)
    assert size["radius95_fraction"] == pytest.approx(size["radius95_px"] / 81)


def test_centred_squares_by_hand():
    """Rings of 4, 12 and 20 pixels that hold 0.4, 0.36 and 0.24."""
    map_ = np.full((6, 6), 0.012)
    map_[1:5, 1:5] = 0.03
    map_[2:4, 2:4] = 0.1
    assert map_.sum() == pytest.approx(1)
    expected = {0.2: 2, 0.4: 2, 0.41: 4, 0.76: 4, 0.77: 6, 0.99: 6, 1.0: 6}
    assert {share: centred_square(map_, share) for share in expected} == expected
    odd = np.zeros((5, 5))
    odd[2, 2], odd[0, 0] = 0.3, 0.7
    assert [centred_square(odd, share) for share in (0.3, 0.31)] == [1, 5]


def test_the_radius_is_interpolated_within_what_each_distance_holds():
    map_ = np.array([[0.025, 0.1, 0.025], [0.1, 0.5, 0.1], [0.025, 0.1, 0.025]])
    assert radius(map_, 0.5) == 0
    assert radius(map_, 0.55) == pytest.approx(0.5)
    assert radius(map_, 0.9) == pytest.approx(1)
    assert radius(map_, 0.95) == pytest.approx(np.sqrt(2))


def test_what_reaches_the_border_by_hand():
    """32 pixels: the ring is 2 wide and holds 32^2 - 28^2 = 240 of 1,024 pixels."""
    map_ = np.zeros((32, 32))
    map_[10:20, 10:20] = 1.0
    assert edge_ratio(map_) == 0
    map_[0, 0] = 100.0
    assert edge_ratio(map_) == pytest.approx((100 / 240) / (200 / 1024))
    assert edge_ratio(np.full((5, 5), 0.04)) == pytest.approx(1)


@pytest.mark.parametrize("sigma", [0.05, 0.2, 0.4, 1.0])
def test_what_a_gaussian_loses_is_found_from_what_is_left(sigma):
    energy = gaussian(256, (128, 128), sigma * 256)
    beyond = 1 - (1 - 2 * norm.sf(0.5 / sigma)) ** 2
    assert cut_share(energy) == pytest.approx(beyond, abs=0.003)


def test_an_even_map_says_nothing_of_what_is_beyond():
    assert cut_share(np.full((64, 64), 1 / 4096)) > 0.99
    corners = np.zeros((8, 8))
    corners[[0, 0, 7, 7], [0, 7, 0, 7]] = 0.25
    assert cut_share(corners) == 1


@pytest.mark.parametrize("length", [0.08, 0.15, 0.3])
def test_a_field_with_long_tails_loses_more_than_a_gaussian_would(length):
    """exp(-r / length) over five times the picture's side, of which the picture is cut out."""
    y, x = (np.mgrid[0:640, 0:640] + 0.5) / 128 - 2.5
    field = np.exp(-np.hypot(x, y) / length)
    within = field[256:384, 256:384]
    lost = 1 - within.sum() / field.sum()
    assert 0 <= cut_share(within / within.sum()) < 0.6 * lost
    assert edge_ratio(within / within.sum()) > 0.03
