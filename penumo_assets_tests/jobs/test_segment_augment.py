"""Augmentation: repeatable, aligned with the mask, within range."""

from dataclasses import fields, replace

import cv2
import numpy as np
import pytest

from penumo_assets.jobs.segment_train.augment import AugmentConfig, add_opacities, augment, draw_bars, warp, white_out

NOTHING = replace(
    AugmentConfig(),
    **{f.name: 0.0 for f in fields(AugmentConfig) if f.name != "scale"},
    scale=(1.0, 1.0),
)


@pytest.fixture
def pair() -> tuple[np.ndarray, np.ndarray]:
    """An image (160, 160) that equals its mask: two ellipses."""
    mask = np.zeros((160, 160), np.uint8)
    cv2.ellipse(mask, (50, 80), (25, 50), 0, 0, 360, 255, -1)
    cv2.ellipse(mask, (112, 80), (22, 46), 0, 0, 360, 255, -1)
    return mask.copy(), mask


def test_the_same_seed_gives_the_same_view(pair: tuple[np.ndarray, np.ndarray]) -> None:
    first, second = (augment(*pair, 128, AugmentConfig(), np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])


def test_every_view_is_eight_bit_gray_and_a_soft_mask(pair: tuple[np.ndarray, np.ndarray]) -> None:
    rng = np.random.default_rng(0)
    for _ in range(60):
        image, mask = augment(*pair, 96, AugmentConfig(), rng)
        assert image.shape == mask.shape == (96, 96)
        assert image.dtype == mask.dtype == np.float32
        assert image.min() >= 0
        assert image.max() <= 255
        np.testing.assert_array_equal(image, np.round(image))
        assert mask.min() >= 0
        assert mask.max() <= 1


def test_nothing_switched_on_only_resizes(pair: tuple[np.ndarray, np.ndarray]) -> None:
    image, mask = augment(*pair, 160, NOTHING, np.random.default_rng(0))
    np.testing.assert_array_equal(image, pair[0])
    np.testing.assert_array_equal(mask, pair[1] / 255)


@pytest.mark.parametrize("elastic", [0.0, 1.0])
def test_image_and_mask_move_together(pair: tuple[np.ndarray, np.ndarray], elastic: float) -> None:
    config = replace(AugmentConfig(), elastic=elastic)
    for seed in range(20):
        image, mask = warp(*pair, 128, config, np.random.default_rng(seed))
        inside = cv2.erode(mask, np.ones((3, 3))) > 0.99
        assert image[inside].min() > 250
        assert inside.sum() > 200


def test_opacities_brighten_and_never_move_the_mask() -> None:
    target = np.zeros((96, 96), np.float32)
    target[20:70, 15:80] = 1
    pixels = np.full((96, 96), 40.0, np.float32)
    pixels[:, 60:] = 200
    whiter = add_opacities(pixels, target, np.random.default_rng(1))
    assert (whiter >= pixels - 1e-3).all()
    assert (whiter > pixels + 20).sum() > 50


def test_a_white_out_hides_one_lung_and_leaves_the_other() -> None:
    target = np.zeros((96, 96), np.float32)
    target[20:70, 10:40] = target[20:70, 56:86] = 1
    pixels = np.where(target > 0, 40, 180).astype(np.float32)
    for seed in range(10):
        whiter = white_out(pixels, target, np.random.default_rng(seed))
        means = sorted([whiter[20:70, 10:40].mean(), whiter[20:70, 56:86].mean()])
        assert means[0] < 60
        assert means[1] > 110


def test_what_a_bar_covers_is_no_lung() -> None:
    for seed in range(20):
        pixels, target = np.full((64, 64), 100.0, np.float32), np.ones((64, 64), np.float32)
        draw_bars(pixels, target, np.random.default_rng(seed))
        np.testing.assert_array_equal(target == 0, pixels != 100)


def test_inversion_happens_about_as_often_as_configured(pair: tuple[np.ndarray, np.ndarray]) -> None:
    config = replace(NOTHING, inversion=0.25)
    rng = np.random.default_rng(2)
    inverted = [augment(*pair, 160, config, rng)[0][0, 0] == 255 for _ in range(400)]
    assert 0.18 < np.mean(inverted) < 0.32
