import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penumo_assets.imaging.letterbox import Letterbox, reduced_size, resize
from penumo_assets.phantoms import draw_phantom


@st.composite
def shapes(draw: st.DrawFn) -> tuple[int, int]:
    """Heights and widths with any aspect ratio from 1:20 to 20:1, single pixels included."""
    short = draw(st.integers(1, 60))
    long = draw(st.integers(short, 20 * short))
    return (short, long) if draw(st.booleans()) else (long, short)


@given(shapes(), st.sampled_from([16, 64, 128]))
def test_the_content_keeps_its_aspect_and_lies_in_the_middle(shape: tuple[int, int], size: int) -> None:
    box = Letterbox.fit(*shape, size)
    rows, columns = box.content
    assert 0 <= rows.start < rows.stop <= size
    assert 0 <= columns.start < columns.stop <= size
    assert max(box.content_height, box.content_width) == size
    assert abs(rows.start - (size - rows.stop)) <= 1
    assert abs(columns.start - (size - columns.stop)) <= 1
    # The shorter side is off by rounding at most.
    scale = size / max(shape)
    assert abs(box.content_height - max(1.0, shape[0] * scale)) <= 0.5
    assert abs(box.content_width - max(1.0, shape[1] * scale)) <= 0.5


@given(shapes(), st.sampled_from([np.uint8, np.uint16]), st.sampled_from([(), (3,)]))
def test_padding_is_zero_and_a_constant_image_stays_constant(
    shape: tuple[int, int], dtype: type, channels: tuple[int, ...]
) -> None:
    box = Letterbox.fit(*shape, 64)
    square = box.apply(np.full((*shape, *channels), 200, dtype))
    assert square.shape == (64, 64, *channels)
    assert square.dtype == dtype
    assert (square[box.content] == 200).all()
    square[box.content] = 0
    assert not square.any()


@settings(max_examples=50)
@given(shapes(), st.integers(0, 2**32 - 1))
def test_a_mask_that_fits_comes_back_exactly(shape: tuple[int, int], seed: int) -> None:
    mask = np.random.default_rng(seed).integers(0, 2, shape, dtype=np.uint8) * 255
    box = Letterbox.fit(*shape, max(shape) * 2)
    assert np.array_equal(box.invert_mask(box.apply(mask, nearest=True)), mask)


@settings(max_examples=50)
@given(shapes())
def test_a_full_mask_covers_every_original_pixel_and_no_padding(shape: tuple[int, int]) -> None:
    box = Letterbox.fit(*shape, 32)
    full = np.zeros((32, 32), np.uint8)
    full[box.content] = 255
    assert (box.invert_mask(full) == 255).all()
    assert not box.invert_mask(255 - full).any()


def test_each_pixel_of_an_inverted_mask_is_the_letterbox_pixel_above_its_centre() -> None:
    box = Letterbox.fit(300, 200, 64)
    mask = np.random.default_rng(0).integers(0, 2, (64, 64), dtype=np.uint8) * 255
    rows = (np.arange(300) + 0.5) * box.content_height / 300
    columns = (np.arange(200) + 0.5) * box.content_width / 200
    expected = mask[box.top + rows.astype(int)][:, box.left + columns.astype(int)]
    assert np.array_equal(box.invert_mask(mask), expected)


def test_shrinking_averages_areas() -> None:
    image = np.random.default_rng(1).integers(0, 65536, (64, 64)).astype(np.uint16)
    expected = image.reshape(16, 4, 16, 4).mean(axis=(1, 3))
    assert np.abs(Letterbox.fit(64, 64, 16).apply(image) - expected).max() <= 0.51


@pytest.mark.parametrize(("side", "dtype", "level"), [(2000, np.uint8, 1), (1900, np.uint8, 1), (2000, np.uint16, 257)])
def test_shrinking_a_radiograph_in_two_steps_stays_near_one_area_average(side: int, dtype: type, level: int) -> None:
    film, _ = draw_phantom(5, height=side, width=side)
    image = ((film >> 4) * np.uint16(level)).astype(dtype)
    expected = cv2.resize(image, (512, 512), interpolation=cv2.INTER_AREA)
    difference = np.abs(Letterbox.fit(side, side).apply(image).astype(float) - expected) / level
    assert 0 < difference.mean() <= 0.3, "0 would mean that the fast way was not taken"
    assert np.percentile(difference, 99) <= 1
    assert difference.max() <= 24, "at the edge of a marker, where a pixel lies between two blocks"


@pytest.mark.parametrize("factor", [2, 4, 8])
@pytest.mark.parametrize("shape", [(1200, 1000), (1201, 1003)])
def test_a_reduced_image_lies_where_the_whole_one_does(shape: tuple[int, int], factor: int) -> None:
    film, _ = draw_phantom(6, height=shape[0], width=shape[1])
    box = Letterbox.fit(*shape)
    small = cv2.resize(film, reduced_size(shape, factor)[::-1], interpolation=cv2.INTER_AREA)
    difference = box.apply(film).astype(float) - box.apply(small)
    assert abs(difference.mean()) < 4, "of 4095"
    with pytest.raises(ValueError, match="letterbox made for"):
        box.apply(film[:-9])


def test_a_single_pixel_fills_the_square() -> None:
    assert (Letterbox.fit(1, 1, 8).apply(np.array([[7]], np.uint8)) == 7).all()


def test_an_image_of_the_right_size_is_copied() -> None:
    image = np.arange(64, dtype=np.uint8).reshape(8, 8)
    same = Letterbox.fit(8, 8, 8).apply(image)
    assert np.array_equal(same, image)
    assert not np.shares_memory(same, image)


def test_growing_interpolates_linearly() -> None:
    image = np.array([[0, 100], [0, 100]], np.uint8)
    assert np.array_equal(resize(image, 4, 4), cv2.resize(image, (4, 4), interpolation=cv2.INTER_LINEAR))


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (-1, 5)])
def test_sizes_that_are_not_positive_are_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        Letterbox.fit(*shape)


def test_an_image_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="made for 10x10"):
        Letterbox.fit(10, 10, 16).apply(np.zeros((11, 10), np.uint8))
    with pytest.raises(ValueError, match="16x16 mask"):
        Letterbox.fit(10, 10, 16).invert_mask(np.zeros((15, 16), np.uint8))
