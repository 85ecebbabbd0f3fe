import base64

import cv2
import numpy as np
import pytest

from penumo_assets.metrics.report.pictures import CONTOUR_RGB, jpeg_data_uri, with_contour, with_heat


def image() -> np.ndarray:
    pixels = np.full((60, 80, 4), 90, np.uint8)
    pixels[..., 3] = 0
    pixels[20:40, 30:50, 3] = 255
    return pixels


def test_the_contour_runs_along_the_edge_of_the_mask_and_nowhere_else():
    drawn = with_contour(image())
    coloured = (drawn == CONTOUR_RGB).all(axis=2)
    expected = np.zeros((60, 80), bool)
    expected[20:40, 30:50] = True
    expected[21:39, 31:49] = False
    np.testing.assert_array_equal(coloured, expected)
    assert (drawn[~coloured] == 90).all()


def test_an_empty_mask_leaves_the_image_as_it_is_and_the_input_is_not_changed():
    pixels = image()
    before = pixels.copy()
    with_contour(pixels)
    np.testing.assert_array_equal(pixels, before)
    pixels[..., 3] = 0
    np.testing.assert_array_equal(with_contour(pixels), pixels[..., :3])


def test_heat_changes_warm_pixels_only():
    heat = np.zeros((60, 80), np.float32)
    heat[:30] = 1.0
    drawn = with_heat(image()[..., :3], heat)
    assert (drawn[30:] == 90).all()
    assert (drawn[:30] != 90).any(axis=2).all()


def test_a_small_map_is_stretched_over_the_image():
    heat = np.zeros((2, 2), np.float32)
    heat[0, 0] = 1.0
    drawn = with_heat(image()[..., :3], heat).astype(int)
    assert abs(drawn[5, 5] - 90).max() > 20
    assert (drawn[:30, :40] == drawn[5, 5]).all(), "a cell is a cell"
    assert abs(drawn[55, 75] - 90).max() == 0


def test_the_data_uri_decodes_to_the_same_picture():
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[..., 0] = 200
    head, data = jpeg_data_uri(pixels).split(",")
    assert head == "data:image/jpeg;base64"
    decoded = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
    assert cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB).reshape(-1, 3).mean(axis=0) == pytest.approx([200, 0, 0], abs=4)
