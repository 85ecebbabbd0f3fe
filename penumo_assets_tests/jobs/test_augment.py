"""Augmentation changes what differs between two films of one patient, and nothing else."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from penumo_assets.configs.train import AugmentConfig
from penumo_assets.jobs.train.augment import NUMBERS_PER_IMAGE, augment, draw, is_gray

NOTHING = AugmentConfig(
    rotation=0, shift=0, scale=0, aspect=0, contrast=0, brightness=0, gamma=0, erasing=0, horizontal_flip=0
)


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    torch.set_num_threads(1)


def only(**changes):
    return NOTHING.model_copy(update=changes)


def images(count=4, channels=4, side=64):
    values = torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(1))
    return values.contiguous(memory_format=torch.channels_last)


def uniform(count=4, seed=0):
    return draw(count, torch.Generator().manual_seed(seed))


def numbers(**columns):
    """One image's chance: 0.5 (no change) but for the named columns."""
    values = torch.full((1, NUMBERS_PER_IMAGE), 0.5)
    for name, value in columns.items():
        values[0, int(name.removeprefix("c"))] = value
    return values


def square(side=65):
    """A white square of 16 in the middle of black, in all channels."""
    values = torch.zeros(1, 4, side, side)
    values[:, :, 24:41, 24:41] = 1
    return values


def test_nothing_asked_changes_nothing():
    torch.testing.assert_close(augment(images(), uniform(), NOTHING), images(), atol=1e-5, rtol=0)


def test_images_that_are_not_chosen_stay_as_they_are():
    config = AugmentConfig(probability=0.0, horizontal_flip=0.5)
    torch.testing.assert_close(augment(images(), uniform(), config), images(), atol=1e-5, rtol=0)


def test_the_same_numbers_give_the_same_images_whatever_batch_they_are_in():
    config, chance = AugmentConfig(horizontal_flip=0.5, erasing=0.5), uniform(6)
    whole = augment(images(6), chance, config)
    parts = torch.cat([augment(images(6)[:2], chance[:2], config), augment(images(6)[2:], chance[2:], config)])
    torch.testing.assert_close(parts, whole)


def test_other_numbers_give_other_images():
    one, two = augment(images(), uniform(seed=1), AugmentConfig()), augment(images(), uniform(seed=2), AugmentConfig())
    assert (one - two).abs().mean() > 0.01


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10_000), channels=st.sampled_from([3, 4]))
def test_whatever_the_chance_the_values_stay_finite_and_in_range(seed, channels):
    strong = AugmentConfig(
        rotation=45,
        shift=0.5,
        scale=0.9,
        aspect=0.9,
        contrast=0.9,
        brightness=0.9,
        gamma=0.9,
        erasing=1,
        horizontal_flip=0.5,
    )
    changed = augment(images(3, channels), uniform(3, seed), strong)
    assert changed.shape == (3, channels, 64, 64)
    assert changed.is_contiguous()
    assert torch.isfinite(changed).all()
    assert changed.min() >= 0
    assert changed.max() <= 1 + 1e-5


def test_the_mask_moves_with_the_image_and_keeps_its_values():
    config = AugmentConfig(gamma=0, contrast=0, brightness=0, erasing=0)
    same = images()[:, :1].repeat(1, 4, 1, 1)
    moved = augment(same, uniform(), config)
    torch.testing.assert_close(moved[:, 3], moved[:, 0])


def test_exposure_and_erasing_leave_the_mask_alone():
    config = only(gamma=0.9, contrast=0.9, brightness=0.9, erasing=1.0)
    changed = augment(images(), uniform(), config)
    torch.testing.assert_close(changed[:, 3], images()[:, 3], atol=1e-5, rtol=0)
    assert (changed[:, :3] - images()[:, :3]).abs().mean() > 0.05


def centre_of_mass(image):
    rows, columns = torch.meshgrid(torch.arange(65.0), torch.arange(65.0), indexing="ij")
    return float((image * rows).sum() / image.sum()), float((image * columns).sum() / image.sum())


def test_a_shift_moves_by_its_share_of_the_side():
    moved = augment(square(), numbers(c4=1.0), only(shift=0.1))[0, 0]  # looks right: the content moves left
    row, column = centre_of_mass(moved)
    assert row == pytest.approx(32, abs=0.05)
    assert column == pytest.approx(32 - 6.5, abs=0.1)


def test_scale_changes_the_area_and_aspect_only_the_proportion():
    area = float(square()[0, 0].sum())
    larger = augment(square(), numbers(c2=1.0), only(scale=0.2))[0, 0]
    assert float(larger.sum()) == pytest.approx(area * 1.44, rel=0.02)
    wider = augment(square(), numbers(c3=1.0), only(aspect=0.44))[0, 0]
    assert float(wider.sum()) == pytest.approx(area, rel=0.02)
    assert float(wider.amax(0).sum() / wider.amax(1).sum()) == pytest.approx(1.44, rel=0.05)


def test_a_rotation_by_ninety_degrees_is_the_arrays_rotation():
    """45 degrees is the largest one asked for; twice that shows the formula against numpy."""
    config = NOTHING.model_copy(update={"rotation": 90.0})
    turned = augment(images(1, side=65), numbers(c1=1.0), config)
    expected = np.rot90(images(1, side=65).numpy(), k=1, axes=(2, 3))
    np.testing.assert_allclose(turned.numpy(), expected, atol=1e-4)


def test_a_flip_is_off_by_default_and_mirrors_when_asked_for():
    assert AugmentConfig().horizontal_flip == 0
    flipped = augment(images(2), uniform(2), only(horizontal_flip=1.0))
    torch.testing.assert_close(flipped, images(2).flip(3), atol=1e-5, rtol=0)


def test_brightness_gamma_and_contrast_do_what_they_say():
    image = images(1) * 0.5 + 0.25
    brighter = augment(image, numbers(c8=1.0), only(brightness=0.1))
    torch.testing.assert_close(brighter[:, :3], (image[:, :3] + 0.1).clamp(0, 1), atol=1e-5, rtol=0)
    gamma = augment(image, numbers(c9=1.0), only(gamma=0.5))
    torch.testing.assert_close(gamma[:, :3], image[:, :3].pow(np.exp(0.5)), atol=1e-5, rtol=0)
    stretched = augment(image, numbers(c7=1.0), only(contrast=0.1))[:, :3]
    assert float(stretched.std() / image[:, :3].std()) == pytest.approx(1.1, abs=0.01)
    assert float(stretched.mean()) == pytest.approx(float(image[:, :3].mean()), abs=1e-3)


def test_erasing_blanks_a_rectangle_of_two_to_fifteen_percent():
    count = 200
    flat = torch.linspace(0, 1, 64).repeat(count, 4, 64, 1)
    erased = augment(flat, uniform(count), only(erasing=1.0))
    changed = (erased[:, 0] - flat[:, 0]).abs() > 1e-4
    share = changed.float().mean(dim=(1, 2))
    assert share.max() < 0.16
    assert 0.06 < share.mean() < 0.10
    for one in changed[:20]:
        rows, columns = one.any(dim=1), one.any(dim=0)
        assert one.sum() >= 0.95 * rows.sum() * columns.sum()  # a rectangle, but for pixels equal to the mean


def test_erasing_happens_as_often_as_asked():
    count = 400
    flat = torch.linspace(0, 1, 32).repeat(count, 3, 32, 1)
    changed = augment(flat, uniform(count), only(erasing=0.25)) - flat
    assert float((changed.abs().amax(dim=(1, 2, 3)) > 1e-3).float().mean()) == pytest.approx(0.25, abs=0.06)


@pytest.mark.parametrize("channels", [3, 4])
def test_gray_images_are_changed_as_three_equal_channels_are(channels):
    gray = images(count=32, channels=channels)
    gray[:, 1] = gray[:, 2] = gray[:, 0]
    numbers, config = draw(32, torch.Generator().manual_seed(5)), AugmentConfig.defaults()
    fast, slow = augment(gray, numbers, config, gray=True), augment(gray, numbers, config)
    assert fast.shape == slow.shape
    torch.testing.assert_close(fast, slow, atol=1e-6, rtol=0)
    assert (slow - gray).abs().amax((1, 2, 3)).gt(0.01).sum() > 16, "most of them were changed"


def test_a_batch_is_gray_only_if_every_pixel_is():
    batch = torch.randint(0, 256, (5, 224, 224, 1), dtype=torch.uint8).expand(-1, -1, -1, 4).contiguous()
    batch[..., 3] = 7
    assert is_gray(batch)
    for image, channel in ((0, 1), (4, 0), (3, 2)):
        coloured = batch.clone()
        coloured[image, 17, 200, channel] ^= 1
        assert not is_gray(coloured)
