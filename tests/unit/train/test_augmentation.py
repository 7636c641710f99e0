import numpy as np
import pytest
import torch

from cxrscale.train import augmentation
from cxrscale.train.augmentation import Augmentation, augment, image_keys, normalise, uniform, warp, warp_normalised

KEYS = image_keys([f"i{k}" for k in range(6)])


def pictures(n=6, size=32):
    return torch.rand(n, 1, size, size, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def draw(monkeypatch):
    """Set what is drawn: draw(flip=0.0, angle=0.75)."""

    def set_draws(flip: float, angle: float) -> None:
        monkeypatch.setattr(
            augmentation, "uniform", lambda keys, seed, epoch, stream: np.full(len(keys), (flip, angle)[stream])
        )

    return set_draws


def test_nothing_asked_for_is_the_identity():
    x = pictures()
    assert torch.allclose(augment(x, KEYS, Augmentation(0, 0, 0.0, 0.0)), x, atol=1e-6)


def test_a_certain_flip_mirrors_left_to_right():
    x = pictures()
    assert torch.allclose(augment(x, KEYS, Augmentation(0, 0, 1.0, 0.0)), x.flip(3), atol=1e-6)


def test_half_of_the_images_are_flipped():
    keys = image_keys([f"i{k}" for k in range(400)])
    x = torch.tensor([0.0, 1.0]).repeat(400, 1, 2, 1)
    flipped = augment(x, keys, Augmentation(3, 1, 0.5, 0.0))[:, 0, 0, 0] > 0.5
    assert abs(float(flipped.float().mean()) - 0.5) < 0.1  # four standard deviations


@pytest.mark.parametrize(("angle", "quarters"), [(0.75, 1), (0.25, -1), (0.0, 2)])
def test_quarter_turns_are_those_of_torch(draw, angle, quarters):
    """A draw of 0.75 within plus and minus 180 degrees is plus 90: counterclockwise as seen, as torch.rot90."""
    draw(flip=0.9, angle=angle)
    x = pictures()
    assert torch.allclose(augment(x, KEYS, Augmentation(0, 0, 0.5, 180.0)), torch.rot90(x, quarters, (2, 3)), atol=1e-5)


def test_the_flipped_picture_is_rotated(draw):
    draw(flip=0.1, angle=0.75)
    x = pictures()
    assert torch.allclose(
        augment(x, KEYS, Augmentation(0, 0, 0.5, 180.0)), torch.rot90(x.flip(3), 1, (2, 3)), atol=1e-5
    )


def test_what_comes_from_outside_is_black(draw):
    draw(flip=0.9, angle=0.625)  # 45 degrees
    turned = augment(torch.ones(6, 1, 32, 32), KEYS, Augmentation(0, 0, 0.5, 180.0))
    assert turned[:, 0, 0, 0].abs().max() == 0
    assert torch.allclose(turned[:, 0, 16, 16], torch.ones(6))


def test_the_geometry_is_the_same_at_two_resolutions():
    """A smooth picture, drawn at 64 and at 32 pixels, moves to the same place of the image."""

    def blob(size):
        y, x = np.mgrid[0:size, 0:size] + 0.5
        picture = np.exp(-(((x / size - 0.65) / 0.1) ** 2 + ((y / size - 0.4) / 0.1) ** 2))
        return torch.from_numpy(picture.astype(np.float32)).expand(6, 1, size, size)

    large, small = (augment(blob(size), KEYS, Augmentation(5, 2, 0.5, 40.0)) for size in (64, 32))
    assert torch.allclose(torch.nn.functional.avg_pool2d(large, 2), small, atol=0.03)
    assert (small - blob(32)).abs().amax() > 0.3  # they moved


def test_draws_do_not_depend_on_the_batch():
    x = pictures()
    whole = augment(x, KEYS, Augmentation(1, 4, 0.5, 15.0))
    alone = torch.cat([augment(x[i : i + 1], KEYS[i : i + 1], Augmentation(1, 4, 0.5, 15.0)) for i in (5, 0, 3)])
    assert torch.allclose(alone, whole[[5, 0, 3]], atol=1e-6)


def test_uniform_numbers_are_uniform_and_independent():
    keys = image_keys([f"image-{k}" for k in range(5000)])
    draws = np.stack([uniform(keys, *at) for at in [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0)]])
    assert draws.min() >= 0
    assert draws.max() < 1
    assert np.abs(draws.mean(axis=1) - 0.5).max() < 4 / np.sqrt(12 * 5000)
    assert np.abs(np.corrcoef(draws) - np.eye(4)).max() < 4 / np.sqrt(5000)
    assert (uniform(keys, 0, 0, 0) == draws[0]).all()


def test_keys_are_held_constant():
    """A number written down: with other keys every learner would see other augmentations. BLAKE2b, little-endian."""
    assert image_keys(["abc"]).tolist() == [int.from_bytes(bytes.fromhex("d8bb14d833d59559"), "little")]


def test_normalise_by_hand():
    assert normalise(torch.tensor([0.5, 1.0]), 0.5, 0.25).tolist() == [0.0, 2.0]


@pytest.mark.parametrize("size", [64, 257])
def test_the_cpu_warps_as_the_device_does(size):
    """Within one grey level: both interpolate bilinearly between the same points, the CPU then rounds to whole levels
    (measured: 0.5 levels at every size from 256 to 2048 px)."""
    y, x = np.mgrid[0:size, 0:size] / size
    smooth = 127 + 60 * np.sin(9 * x + 4 * y) + 60 * np.cos(11 * y - 3 * x)
    picture = np.clip(smooth + np.random.default_rng(0).normal(0, 3, smooth.shape), 0, 255).astype(np.uint8)
    how = Augmentation(2, 3, 0.5, 60.0)
    device = augment(torch.from_numpy(picture).expand(6, 1, -1, -1).float() / 255, KEYS, how) * 255
    flips = set()
    for matrix, expected in zip(how.matrices(KEYS), device[:, 0].numpy(), strict=True):
        turned = warp(picture, matrix, np.full_like(picture, 99))
        assert np.abs(turned - expected).max() < 1.0
        assert (turned[expected == 0] == 0).all()  # black outside
        flips.add(bool(np.linalg.det(matrix) < 0))
    assert flips == {True, False}


def test_a_picture_that_does_not_move_is_not_copied():
    picture = np.zeros((8, 8), np.uint8)
    still = warp(picture, Augmentation(0, 0, 0.0, 0.0).matrices(KEYS)[0], np.empty_like(picture))
    assert np.shares_memory(still, picture)


@pytest.mark.parametrize("matrix", [np.eye(2), Augmentation(0, 0).matrices(KEYS)[0]], ids=["still", "turned"])
def test_strips_are_the_whole_picture_normalised(matrix):
    picture = np.random.default_rng(0).integers(0, 256, (300, 300)).astype(np.uint8)  # strips of 128, 128, 44 rows
    out = np.empty(picture.shape, np.float32)
    warp_normalised(picture, matrix, Augmentation(0, 0, mean=0.449, standard_deviation=0.226), out)
    whole = torch.from_numpy(warp(picture, matrix, np.empty_like(picture)))
    expected = normalise(whole.float() / 255, 0.449, 0.226).numpy()
    assert np.abs(out - expected).max() < 1.01 / 255 / 0.226  # a value halfway may round the other way
    assert np.mean(np.abs(out - expected) > 1e-5) < 1e-3
