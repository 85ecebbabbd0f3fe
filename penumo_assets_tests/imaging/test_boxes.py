"""A box round a bright spot of a film stays round it in the tensor, whatever letterbox and crop make of the film."""

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from penumo_assets.configs.prepare import EnhanceConfig, PrepareConfig
from penumo_assets.imaging.boxes import Box, drawn, in_tensor, lie_within, parse_boxes
from penumo_assets.imaging.decode import decode_image
from penumo_assets.imaging.enhance import enhance
from penumo_assets.imaging.letterbox import Letterbox
from penumo_assets_tests.imaging.samples import jpeg_bytes

OFF = {"enabled": False}
PLAIN = {"clahe": OFF, "gaussian_blur": OFF, "min_max": OFF}
SPOT: Box = (620, 150, 90, 60)  # right of the middle and above it


def film(height: int, width: int, spot: Box = SPOT) -> np.ndarray:
    """(height, width) uint8: a gray ramp with one bright rectangle."""
    pixels = np.tile(np.linspace(30, 90, width), (height, 1)).astype(np.uint8)
    x, y, across, down = map(int, spot)
    pixels[y : y + down, x : x + across] = 250
    return pixels


def tensor_of(pixels: np.ndarray, changes: dict) -> tuple[np.ndarray, Letterbox, tuple[int, int, int, int]]:
    """The picture that a classifier sees of a film whose lungs fill a part of it, and how it was cut."""
    letterbox = Letterbox.fit(*pixels.shape)
    mask = np.zeros(pixels.shape, np.uint8)
    height, width = pixels.shape
    mask[height // 10 : height * 7 // 10, width // 5 : width * 9 // 10] = 255
    config = EnhanceConfig.parse(PLAIN | changes)
    made = enhance(letterbox.apply(pixels), letterbox.apply(mask, nearest=True), letterbox.content, config)
    return made.image[..., 0], letterbox, made.crop_box


@pytest.mark.parametrize("size", [(600, 900), (1200, 800), (1000, 1000)])
@pytest.mark.parametrize("changes", [{}, {"keep_aspect": True}, {"crop_to_lungs": False}, {"max_squash": 1.0}])
def test_a_box_round_a_bright_spot_stays_round_it(size: tuple[int, int], changes: dict) -> None:
    picture, letterbox, crop_box = tensor_of(film(*size), changes)
    (box,) = in_tensor([SPOT], letterbox, crop_box)
    bright = np.argwhere(picture > 200)
    found = np.array([*bright.min(axis=0)[::-1], *(bright.max(axis=0)[::-1] + 1)])
    assert np.abs(np.array(box) * 224 - found).max() < 2
    inside = drawn([box], 224) > 0
    assert (picture[inside] > 200).mean() > 0.85
    assert (picture[~inside] > 200).mean() < 0.002


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_are_those_of_the_film_as_it_is_shown(orientation: int) -> None:
    """However the file holds its rows: drawn on what Pillow shows of EXIF's eight orientations."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = jpeg_bytes(film(600, 900), exif=exif)
    bright = np.argwhere(np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data)))) > 170)
    (top, left), (bottom, right) = bright.min(axis=0), bright.max(axis=0) + 1
    pixels = decode_image(data, PrepareConfig.defaults().decode).pixels
    picture, letterbox, crop_box = tensor_of(pixels, {"crop_to_lungs": False})
    inside = drawn(in_tensor([(left, top, right - left, bottom - top)], letterbox, crop_box), 224) > 0
    assert (picture[inside] > 170).mean() > 0.85
    assert (picture[~inside] > 170).mean() < 0.002


def test_what_the_crop_does_not_show_is_cut_off_or_left_out() -> None:
    letterbox, crop_box = Letterbox.fit(512, 512), (100, 100, 300, 300)
    boxes: list[Box] = [(50, 50, 100, 100), (0, 0, 90, 90), (150, 200, 400, 50)]
    assert in_tensor(boxes, letterbox, crop_box) == [(0, 0, 0.25, 0.25), (0.25, 0.5, 1, 0.75)]


def test_a_box_that_is_smaller_than_a_pixel_is_drawn() -> None:
    assert [(drawn([box], 4) > 0).sum() for box in ((0.3, 0.3, 0.31, 0.31), (1, 1, 1, 1), (0, 0, 1, 1))] == [1, 1, 16]


def test_boxes_are_read_as_the_table_has_them() -> None:
    assert parse_boxes("264.0 152.0 213.0 379.0; 562.0 152.0 256.0 453.0") == (
        (264, 152, 213, 379),
        (562, 152, 256, 453),
    )
    assert parse_boxes(" ; ") == parse_boxes("") == ()
    assert lie_within([(0, 0, 100, 50)], 50, 100)
    assert not lie_within([(0, 0, 50, 100)], 50, 100)


@pytest.mark.parametrize(
    "text", ["1 2 3", "1 2 3 4 5", "a b c d", "1 2 0 4", "1 2 3 -4", "-1 2 3 4", "nan 2 3 4", "1 2 3 inf"]
)
def test_what_is_no_box_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"no box|convert|unpack"):
        parse_boxes(f"1 2 3 4; {text}")
