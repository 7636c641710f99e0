import numpy as np
import pytest
import torch

from cxrscale import augmentation
from cxrscale.augmentation import augment, image_keys, normalise, uniform

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
    assert torch.allclose(augment(x, KEYS, 0, 0, 0.0, 0.0), x, atol=1e-6)


def test_a_certain_flip_mirrors_left_to_right():
    x = pictures()
    assert torch.allclose(augment(x, KEYS, 0, 0, 1.0, 0.0), x.flip(3), atol=1e-6)


def test_half_of_the_images_are_flipped():
    keys = image_keys([f"i{k}" for k in range(400)])
    x = torch.tensor([0.0, 1.0]).repeat(400, 1, 2, 1)
    flipped = augment(x, keys, 3, 1, 0.5, 0.0)[:, 0, 0, 0] > 0.5
    assert abs(float(flipped.float().mean()) - 0.5) < 0.1  # four standard deviations


@pytest.mark.parametrize(("angle", "quarters"), [(0.75, 1), (0.25, -1), (0.0, 2)])
def test_quarter_turns_are_those_of_torch(draw, angle, quarters):
    """A draw of 0.75 within plus and minus 180 degrees is plus 90: counterclockwise as seen, as torch.rot90."""
    draw(flip=0.9, angle=angle)
    x = pictures()
    assert torch.allclose(augment(x, KEYS, 0, 0, 0.5, 180.0), torch.rot90(x, quarters, (2, 3)), atol=1e-5)


def test_the_flipped_picture_is_rotated(draw):
    draw(flip=0.1, angle=0.75)
    x = pictures()
    assert torch.allclose(augment(x, KEYS, 0, 0, 0.5, 180.0), torch.rot90(x.flip(3), 1, (2, 3)), atol=1e-5)


def test_what_comes_from_outside_is_black(draw):
    draw(flip=0.9, angle=0.625)  # 45 degrees
    turned = augment(torch.ones(6, 1, 32, 32), KEYS, 0, 0, 0.5, 180.0)
    assert turned[:, 0, 0, 0].abs().max() == 0
    assert torch.allclose(turned[:, 0, 16, 16], torch.ones(6))


def test_the_geometry_is_the_same_at_two_resolutions():
    """A smooth picture, drawn at 64 and at 32 pixels, moves to the same place of the image."""

    def blob(size):
        y, x = np.mgrid[0:size, 0:size] + 0.5
        picture = np.exp(-(((x / size - 0.65) / 0.1) ** 2 + ((y / size - 0.4) / 0.1) ** 2))
        return torch.from_numpy(picture.astype(np.float32)).expand(6, 1, size, size)

    large, small = (augment(blob(size), KEYS, 5, 2, 0.5, 40.0) for size in (64, 32))
    assert torch.allclose(torch.nn.functional.avg_pool2d(large, 2), small, atol=0.03)
    assert (small - blob(32)).abs().amax() > 0.3  # they moved


def test_draws_do_not_depend_on_the_batch():
    x = pictures()
    whole = augment(x, KEYS, 1, 4, 0.5, 15.0)
    alone = torch.cat([augment(x[i : i + 1], KEYS[i : i + 1], 1, 4, 0.5, 15.0) for i in (5, 0, 3)])
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
