"""What the segmenter's two looks tell of a picture beside its lungs."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from penumo_assets.configs.prepare import OnBadMask, SegmentConfig
from penumo_assets.imaging.errors import ImageRejected
from penumo_assets.imaging.lung_mask import LOOKS_DISAGREE, Lungs, find_lungs
from penumo_assets.imaging.segment import LungSegmenter
from penumo_assets.imaging.segment_looks import FilmLook, Looks, agreement, bundled_upright, quarters
from penumo_assets.imaging.segment_weights import BUNDLED, bundled_facts
from penumo_assets.phantoms import draw_phantom

FULL = (slice(0, 512), slice(0, 512))
CONFIG = SegmentConfig.defaults()


@pytest.fixture(scope="module")
def segmenter() -> LungSegmenter:
    return LungSegmenter()


def film(seed: int) -> np.ndarray:
    return (draw_phantom(seed, height=512, width=512)[0] >> 4).astype(np.uint8)


def seen(segmenter: LungSegmenter, picture: np.ndarray) -> tuple[FilmLook, Lungs]:
    look = segmenter.look(picture[None]).film()
    return look, find_lungs(look, FULL, CONFIG)


def page() -> np.ndarray:
    picture = np.full((512, 512), 255, np.uint8)
    for row in range(30, 500, 24):
        cv2.putText(picture, "no acute disease of heart or lungs", (20, row), 0, 0.7, 20, 1, cv2.LINE_AA)
    return picture


def clouds() -> np.ndarray:
    noise = cv2.GaussianBlur(np.random.default_rng(3).normal(size=(512, 512)), (0, 0), 12)
    return cv2.normalize(noise, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


def hand() -> np.ndarray:
    picture = np.zeros((512, 512), np.uint8)
    for finger in range(5):
        cv2.line(picture, (90 + 80 * finger, 60 + 30 * abs(finger - 2)), (200 + 30 * finger, 440), 90, 46)
        cv2.line(picture, (90 + 80 * finger, 60 + 30 * abs(finger - 2)), (200 + 30 * finger, 440), 220, 18)
    return cv2.GaussianBlur(picture, (0, 0), 4)


@pytest.mark.parametrize("seed", range(4))
def test_the_looks_agree_on_a_chest_film_and_flag_nothing(segmenter: LungSegmenter, seed: int) -> None:
    look, lungs = seen(segmenter, film(seed))
    assert look.agreement is not None
    assert look.agreement > CONFIG.plausibility.min_look_agreement
    assert (lungs.problems, lungs.flags) == ((), ())
    lungs.refuse_implausible(CONFIG)
    assert lungs.mask is lungs.drawn


@pytest.mark.parametrize("picture", [page(), clouds(), hand()], ids=["page", "clouds", "hand"])
def test_what_is_no_chest_film_is_refused(segmenter: LungSegmenter, picture: np.ndarray) -> None:
    _, lungs = seen(segmenter, picture)
    assert lungs.problems
    with pytest.raises(ImageRejected) as rejection:
        lungs.refuse_implausible(CONFIG)
    assert rejection.value.code in ("not_a_chest_film", "implausible_mask")


def test_looks_that_disagree_are_named_and_the_whole_picture_is_used_where_that_is_asked_for() -> None:
    lungs = np.zeros((512, 512), np.float32)
    lungs[120:400, 90:230] = lungs[120:400, 290:430] = 1
    found = find_lungs(FilmLook(lungs, 0.5, ("looks_rotated",)), FULL, CONFIG)
    assert found.problems == (LOOKS_DISAGREE,)
    with pytest.raises(ImageRejected, match="turned") as rejection:
        found.refuse_implausible(CONFIG)
    assert rejection.value.code == "not_a_chest_film"
    found.refuse_implausible(CONFIG.model_copy(update={"on_bad_mask": OnBadMask.whole_image}))
    assert found.mask.all()
    assert 0 < found.drawn.mean() < 255
    assert find_lungs(FilmLook(lungs, 0.95), FULL, CONFIG).problems == ()
    assert find_lungs(FilmLook(lungs), FULL, CONFIG).problems == ()


def test_a_mask_that_is_implausible_is_refused_as_such_whatever_the_looks_say() -> None:
    found = find_lungs(FilmLook(np.zeros((512, 512), np.float32), 0.0), FULL, CONFIG)
    with pytest.raises(ImageRejected) as rejection:
        found.refuse_implausible(CONFIG)
    assert rejection.value.code == "implausible_mask"


@pytest.mark.parametrize("seed", range(3))
def test_an_inverted_film_is_flagged(segmenter: LungSegmenter, seed: int) -> None:
    look, _ = seen(segmenter, 255 - film(seed))
    assert look.flags == ("looks_inverted",)


@pytest.mark.parametrize("quarter_turns", [1, 2, 3])
@pytest.mark.parametrize("seed", range(3))
def test_a_turned_film_is_flagged(segmenter: LungSegmenter, seed: int, quarter_turns: int) -> None:
    look, _ = seen(segmenter, np.ascontiguousarray(np.rot90(film(seed), quarter_turns)))
    assert "looks_rotated" in look.flags


def test_nothing_is_said_with_other_weights(tmp_path: Path) -> None:
    tensors = load_file(BUNDLED)
    tensors["head.bias"] = tensors["head.bias"] + 0.5
    save_file(tensors, tmp_path / "own.safetensors")
    look = LungSegmenter(tmp_path / "own.safetensors").look(np.stack([film(0), np.rot90(film(0))]))
    assert np.isnan(look.agreement).all()
    assert not look.rotated.any()
    assert look.film().agreement is None


def test_the_judge_belongs_to_the_bundled_weights() -> None:
    judge = bundled_upright()
    assert judge.segmenter == bundled_facts()["sha256"]
    assert judge.weights.shape == (4 * 192,)
    assert np.isfinite(judge.weights).all()


def test_agreement_is_the_dice_of_two_looks() -> None:
    first, second = np.full((2, 2, 4, 4), -1.0)
    first[0, :2], second[0, 1:3] = 1, 1
    np.testing.assert_allclose(agreement(first, second), [0.5, 0.0])


def test_the_four_quarters_of_a_picture_are_averaged_apart() -> None:
    features = np.zeros((1, 2, 4, 4))
    features[0, 1, 2:, :2] = 3
    assert quarters(features).tolist() == [[0, 0, 0, 0, 0, 0, 3, 0]]


def test_the_planes_of_a_colour_film_are_one_film() -> None:
    looks = Looks.of(np.stack([np.zeros((4, 4), np.float32), np.ones((4, 4), np.float32)]))
    looks.agreement[:] = [0.8, 1.0]
    looks.inverted[1] = True
    both = looks.film()
    assert both.agreement == pytest.approx(0.9)
    assert both.flags == ("looks_inverted",)
    assert (both.probability == 0.5).all()
    assert looks.film(slice(0, 1)).flags == ()
