import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penumo_assets.configs.prepare import EnhanceConfig
from penumo_assets.imaging.enhance import crop_box, enhance, fit_mask
from penumo_assets.imaging.errors import ImageRejected
from penumo_assets.imaging.letterbox import Letterbox
from penumo_assets_tests.imaging.samples import phantom

FULL = (slice(0, 512), slice(0, 512))
OFF = {
    "crop_to_lungs": False,
    "clahe": {"enabled": False},
    "gaussian_blur": {"enabled": False},
    "min_max": {"enabled": False},
}


def config(**changes: object) -> EnhanceConfig:
    return EnhanceConfig.parse({**OFF, **changes})


def lungs() -> np.ndarray:
    mask = np.zeros((512, 512), np.uint8)
    mask[120:400, 90:230] = 255
    mask[120:400, 290:430] = 255
    return mask


def radiograph(bits: int = 8) -> np.ndarray:
    pixels = phantom(512, 512, bits)
    return pixels.astype(np.uint8) if bits == 8 else pixels


def half(image: np.ndarray) -> np.ndarray:
    return cv2.resize(image, (224, 224), interpolation=cv2.INTER_AREA)


def stretched(image: np.ndarray) -> np.ndarray:
    low, high = np.percentile(image, [0.5, 99.5], method="inverted_cdf").astype(float)
    return np.rint(np.clip((image - low) * 255 / (high - low), 0, 255)).astype(np.uint8)


def test_with_everything_off_the_image_is_only_resized_and_replicated() -> None:
    result = enhance(radiograph(), lungs(), FULL, config())
    assert result.crop_box == (0, 0, 512, 512)
    for channel in range(3):
        assert np.array_equal(result.image[..., channel], half(radiograph()))


def test_clahe_of_eight_bits_is_opencvs() -> None:
    result = enhance(radiograph(), lungs(), FULL, config(clahe={"enabled": True, "clip_limit": 3, "tile_grid": 4}))
    expected = half(cv2.createCLAHE(3.0, (4, 4)).apply(radiograph()))
    assert np.array_equal(result.image[..., 0], expected)


def test_blur_comes_after_clahe_and_before_the_stretch() -> None:
    steps = config(clahe={"enabled": True}, gaussian_blur={"enabled": True}, min_max={"enabled": True})
    image = cv2.GaussianBlur(cv2.createCLAHE(2.0, (8, 8)).apply(radiograph()), (3, 3), 0.8)
    assert np.array_equal(enhance(radiograph(), lungs(), FULL, steps).image[..., 0], half(stretched(image)))


def test_sharpening_is_an_unsharp_mask() -> None:
    result = enhance(radiograph(), lungs(), FULL, config(sharpen={"enabled": True, "amount": 1.0, "sigma": 2.0}))
    image = radiograph().astype(np.float64)
    blurred = cv2.GaussianBlur(radiograph(), (0, 0), 2.0).astype(np.float64)
    expected = half(np.clip(2 * image - blurred, 0, 255).astype(np.uint8))
    assert np.abs(result.image[..., 0].astype(int) - expected).max() <= 1


@pytest.mark.parametrize(
    "changes", [{}, {"clahe": {"enabled": True}}, {"apply_mask": True, "clahe": {"enabled": True}}]
)
def test_sixteen_bits_give_the_picture_that_eight_give(changes: dict) -> None:
    # A real 16-bit image has values between the 8-bit levels.
    deep = cv2.GaussianBlur(radiograph(16), (0, 0), 1.5)
    steps = config(min_max={"enabled": True}, **changes)
    shallow = enhance(np.rint(deep / 257).astype(np.uint8), lungs(), FULL, steps).image.astype(int)
    difference = np.abs(enhance(deep, lungs(), FULL, steps).image - shallow)
    assert difference.mean() < 1.5


def test_sixteen_bits_keep_a_depth_that_eight_would_lose() -> None:
    # All the picture lies within 1/64 of the range: four levels in 8 bits, hundreds in 16.
    deep = (30000 + (radiograph(16) >> 6)).astype(np.uint16)
    steps = config(gaussian_blur={"enabled": True}, min_max={"enabled": True})
    assert len(np.unique(enhance(deep, lungs(), FULL, steps).image)) > 200


def test_clahe_of_sixteen_bits_has_no_steps() -> None:
    # A ramp through eight of the 256 bins: one step per bin would be 32 levels high.
    ramp = np.tile(np.linspace(30000, 32048, 512).astype(np.uint16), (512, 1))
    steps = config(clahe={"enabled": True, "tile_grid": 1}, min_max={"enabled": True})
    result = enhance(ramp, lungs(), FULL, steps).image[0, :, 0].astype(int)
    assert np.diff(result).max() <= 12


def test_sixteen_bits_become_eight_by_scaling_when_the_stretch_is_off() -> None:
    assert (
        np.abs(enhance(radiograph(16), lungs(), FULL, config()).image[..., 0] - half(radiograph(16)) / 257).max() <= 1
    )


def test_the_crop_is_the_lung_box_with_its_margin_made_square() -> None:
    steps = config(crop_to_lungs=True, crop_margin=0.1, keep_aspect=True)
    # Box 120..400 x 90..430; margins 28 and 34 make 92..428 x 56..464: 408 wide, so 408 high.
    assert enhance(radiograph(), lungs(), FULL, steps).crop_box == (56, 56, 464, 464)


def test_without_keep_aspect_the_crop_is_squashed() -> None:
    steps = config(crop_to_lungs=True, crop_margin=0.0)
    result = enhance(radiograph(), lungs(), FULL, steps)
    assert result.crop_box == (120, 90, 400, 430)
    assert np.array_equal(result.image[..., 0], half(radiograph()[120:400, 90:430]))
    assert result.mask[:, 0].all()
    assert result.mask[:, -1].all()


@pytest.mark.parametrize("place", [(0, 0), (60, 200), (112, 292)])
@pytest.mark.parametrize("size", [(200, 220), (150, 180), (240, 130)])
def test_neither_bars_nor_the_lungs_place_tell_where_the_film_ends(place: tuple, size: tuple) -> None:
    """Lungs at an edge of a wide film, in a corner or in its middle: the same outline, and film all over."""
    content = (slice(100, 412), slice(0, 512))
    square, mask = np.zeros((512, 512), np.uint8), np.zeros((512, 512), np.uint8)
    square[content] = 100 + radiograph()[content] // 2
    top, left = 100 + min(place[0], 312 - size[0]), min(place[1], 512 - size[1])
    mask[top : top + size[0], left : left + size[1]] = 255
    result = enhance(square, mask, content, config(crop_to_lungs=True, crop_margin=0.05))
    assert result.image.min() >= 100
    outline = cv2.boundingRect(result.mask)
    assert np.abs(np.array(outline) - (10, 10, 204, 204)).max() <= 2


def test_what_lies_beyond_the_film_is_its_mirror_image() -> None:
    content = (slice(100, 412), slice(0, 512))
    square, mask = np.zeros((512, 512), np.uint8), np.zeros((512, 512), np.uint8)
    square[content] = radiograph()[content]
    mask[100:324, 100:324] = 255
    result = enhance(square, mask, content, config(crop_to_lungs=True, crop_margin=0.1))
    assert result.crop_box == (78, 78, 346, 346)
    film = cv2.copyMakeBorder(square[100:346, 78:346], 22, 0, 0, 0, cv2.BORDER_REFLECT_101)
    assert np.array_equal(result.image[..., 0], cv2.resize(film, (224, 224), interpolation=cv2.INTER_AREA))
    assert not result.mask[:18].any()


@pytest.mark.parametrize(
    ("columns", "box"),
    [
        (slice(200, 300), (100, 175, 400, 325)),  # 300 x 100 pixels become 300 x 150
        (slice(0, 100), (100, 0, 400, 150)),  # at the film's end the box is shifted
    ],
)
def test_a_crop_is_widened_by_film_until_it_is_squashed_no_more_than_allowed(columns: slice, box: tuple) -> None:
    mask = np.zeros((512, 512), np.uint8)
    mask[100:400, columns] = 255
    assert crop_box(mask, FULL, config(crop_to_lungs=True, crop_margin=0.0, max_squash=2.0)) == box
    narrow = (slice(0, 512), slice(columns.start, columns.start + 120))
    alone = crop_box(mask, narrow, config(crop_to_lungs=True, crop_margin=0.0, max_squash=2.0))
    assert (alone[1], alone[3]) == (narrow[1].start, narrow[1].stop), "no further than the film reaches"


def test_a_square_crop_is_moved_onto_the_content_rather_than_into_padding() -> None:
    mask = np.zeros((512, 512), np.uint8)
    mask[10:100, 5:305] = 255
    steps = config(crop_to_lungs=True, crop_margin=0.0, keep_aspect=True)
    assert crop_box(mask, FULL, steps) == (0, 5, 300, 305)


def test_a_mask_over_everything_makes_the_content_the_crop() -> None:
    content = (slice(100, 412), slice(0, 512))
    mask = np.zeros((512, 512), np.uint8)
    mask[content] = 255
    assert crop_box(mask, content, config(crop_to_lungs=True, crop_margin=0.0)) == (100, 0, 412, 512)
    assert crop_box(mask, content, config(crop_to_lungs=False)) == (100, 0, 412, 512)
    assert crop_box(mask, content, config(crop_to_lungs=True, keep_aspect=True)) == (0, 0, 512, 512)


@pytest.mark.parametrize("crop", [True, False])
def test_padding_changes_nothing_and_stays_black(crop: bool) -> None:
    """The content of a wide image comes out as if it had been processed alone."""
    content = (slice(128, 384), slice(0, 512))
    square = np.zeros((512, 512), np.uint8)
    square[content] = radiograph()[128:384]
    mask = np.zeros((512, 512), np.uint8)
    mask[content] = 255
    steps = EnhanceConfig.parse({"crop_to_lungs": crop, "keep_aspect": True})
    result = enhance(square, mask, content, steps)
    image = cv2.GaussianBlur(cv2.createCLAHE(2.0, (8, 8)).apply(np.ascontiguousarray(square[content])), (3, 3), 0.8)
    padded = np.zeros((512, 512), np.uint8)
    padded[content] = stretched(image)
    assert np.array_equal(result.image[..., 0], half(padded))
    assert not result.image[:55].any()
    assert not result.image[170:].any()


def test_a_mask_sets_the_outside_to_zero_and_takes_its_statistics_from_the_inside() -> None:
    square = radiograph()
    bright = square.copy()
    bright[lungs() == 0] = 255
    steps = EnhanceConfig.parse({"apply_mask": True})
    result, other = enhance(square, lungs(), FULL, steps), enhance(bright, lungs(), FULL, steps)
    assert not result.image[result.mask == 0].any()
    assert np.array_equal(result.image, other.image)
    inside = result.image[result.mask > 0]
    assert inside.min() <= 5
    assert inside.max() >= 250


def test_the_edge_of_a_masked_lung_is_not_darkened_by_the_outside() -> None:
    square = np.full((512, 512), 200, np.uint8)
    square[200:300, 200:300] = 100
    square[lungs() == 0] = 0
    steps = config(apply_mask=True, gaussian_blur={"enabled": True, "kernel_size": 31, "sigma": 10})
    result = enhance(square, lungs(), FULL, steps)
    core = cv2.erode(result.mask, np.ones((3, 3), np.uint8)) > 0
    assert result.image[core].min() >= 100


def test_real_colour_is_kept_and_gray_replaces_it_when_asked() -> None:
    colour = np.dstack((radiograph(), radiograph() // 2, 255 - radiograph()))
    kept = enhance(colour, lungs(), FULL, config(colour="rgb")).image
    for channel in range(3):
        assert np.array_equal(kept[..., channel], half(np.ascontiguousarray(colour[..., channel])))
    gray = enhance(colour, lungs(), FULL, config()).image
    assert np.array_equal(gray[..., 0], half(cv2.cvtColor(colour, cv2.COLOR_RGB2GRAY)))
    assert np.array_equal(gray[..., 0], gray[..., 2])


def test_gray_laid_out_as_colour_comes_out_gray() -> None:
    gray = enhance(radiograph(), lungs(), FULL, EnhanceConfig()).image.astype(int)
    rgb = enhance(cv2.merge([radiograph()] * 3), lungs(), FULL, EnhanceConfig.parse({"colour": "rgb"})).image
    assert np.abs(rgb - gray).max() <= 2


def test_a_stored_crop_box_gives_the_same_mask_again() -> None:
    result = enhance(radiograph(), lungs(), FULL, EnhanceConfig())
    assert np.array_equal(fit_mask(lungs(), result.crop_box), result.mask)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 400),
    st.floats(0.05, 20),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.sampled_from([np.uint8, np.uint16]),
    st.sampled_from(["constant", "random"]),
    st.integers(0, 2**32 - 1),
)
def test_any_image_and_any_mask_keep_the_promises(
    height: int, aspect: float, crop: bool, keep: bool, masked: bool, dtype: type, kind: str, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    shape = (height, max(1, round(height * aspect)))
    pixels = np.full(shape, 77, dtype) if kind == "constant" else rng.integers(0, 256, shape).astype(dtype)
    box = Letterbox.fit(*shape)
    mask = np.zeros((512, 512), np.uint8)
    rows, columns = box.content
    top, left = int(rng.integers(rows.start, rows.stop)), int(rng.integers(columns.start, columns.stop))
    mask[top : int(rng.integers(top, rows.stop)) + 1, left : int(rng.integers(left, columns.stop)) + 1] = 255
    steps = EnhanceConfig.parse({"crop_to_lungs": crop, "keep_aspect": keep, "apply_mask": masked})
    try:
        result = enhance(box.apply(pixels), mask, box.content, steps)
    except ImageRejected:
        result = None
    if result is None:
        assert kind == "constant" or mask.any(1).sum() * mask.any(0).sum() < 300 or min(shape) < 20
        return
    assert kind == "random"
    assert result.image.shape == (224, 224, 3)
    assert result.image.dtype == np.uint8
    assert set(np.unique(result.mask)) <= {0, 255}
    top, left, bottom, right = result.crop_box
    assert top < bottom
    assert left < right
    if keep:
        assert bottom - top == right - left
        assert min(top, left) >= 0
        assert max(bottom, right) <= 512


@pytest.mark.parametrize(
    ("square", "mask", "message"),
    [
        (np.zeros((512, 512), np.float32), lungs(), "uint8 or uint16"),
        (np.zeros((512, 500), np.uint8), lungs(), "square"),
        (np.zeros((512, 512, 4), np.uint8), lungs(), "square"),
        (radiograph(), lungs()[:256], "mask"),
        (radiograph(), lungs().astype(np.uint16), "mask"),
        (radiograph(), np.zeros((512, 512), np.uint8), "empty"),
    ],
)
def test_what_cannot_be_enhanced_is_refused(square: np.ndarray, mask: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        enhance(square, mask, FULL, EnhanceConfig())


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("bits", [8, 16])
def test_a_picture_that_is_white_but_for_a_few_pixels_about_the_lungs_is_refused(masked: bool, bits: int) -> None:
    clipped = radiograph(bits)
    clipped[:, 60:] = np.iinfo(clipped.dtype).max
    with pytest.raises(ImageRejected) as rejection:
        enhance(clipped, lungs(), FULL, EnhanceConfig.parse({"apply_mask": masked, "crop_margin": 0}))
    assert rejection.value.code == "constant_image"
    half_clipped = radiograph(bits)
    half_clipped[:, 256:] = np.iinfo(clipped.dtype).max
    assert enhance(half_clipped, lungs(), FULL, EnhanceConfig.parse({"apply_mask": masked})).image.any()


@pytest.mark.parametrize("box", [(0, 0, 0, 10), (-9, 0, 0, 10), (0, 512, 10, 520)])
def test_a_crop_box_outside_the_mask_is_refused(box: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="shows nothing"):
        fit_mask(lungs(), box)
