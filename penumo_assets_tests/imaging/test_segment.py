"""From image to mask to verdict, and weights that must not be believed."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from scipy import ndimage

from penumo_assets.configs.prepare import PlausibilityConfig
from penumo_assets.imaging.lung_mask import assess_mask, clean_mask
from penumo_assets.imaging.segment import LungSegmenter, has_content
from penumo_assets.imaging.segment_torch import fold_batch_norms, load_lung_unet
from penumo_assets.imaging.segment_weights import BUNDLED, WeightsError, bundled_facts
from penumo_assets.phantoms import draw_phantom

WHOLE = (slice(0, 512), slice(0, 512))
LIMITS = PlausibilityConfig()


@pytest.fixture(scope="module")
def segmenter() -> LungSegmenter:
    return LungSegmenter()


@pytest.fixture(scope="module")
def films() -> np.ndarray:
    """(3, 512, 512) uint8: smooth random structure."""
    coarse = np.random.default_rng(3).uniform(0, 255, (3, 9, 9))
    return np.stack([np.clip(ndimage.zoom(c, 512 / 9, order=3), 0, 255) for c in coarse]).astype(np.uint8)


def ellipses(*shapes: tuple[int, int, int, int]) -> np.ndarray:
    """(512, 512) uint8 {0, 255} with ellipses (row, column, half height, half width)."""
    rows, columns = np.mgrid[0:512, 0:512]
    mask = np.zeros((512, 512), bool)
    for row, column, height, width in shapes:
        mask |= ((rows - row) / height) ** 2 + ((columns - column) / width) ** 2 <= 1
    return mask.astype(np.uint8) * 255


def chest() -> np.ndarray:
    """(512, 512) uint8: two dark lungs in a gray body with a bright spine, blurred."""
    film = np.full((512, 512), 150.0)
    film[:, 236:276] = 210
    film[ellipses((260, 150, 150, 75), (260, 362, 150, 75)) > 0] = 60
    return ndimage.gaussian_filter(film, 6).astype(np.uint8)


# --- weights


def test_the_digest_is_the_sha256_of_the_bundled_file(segmenter: LungSegmenter) -> None:
    assert segmenter.digest == hashlib.sha256(BUNDLED.read_bytes()).hexdigest() == bundled_facts()["sha256"]


def test_the_bundled_weights_weigh_less_than_8_megabytes() -> None:
    assert BUNDLED.stat().st_size <= 8_000_000


def test_weights_with_another_digest_are_refused_by_name() -> None:
    with pytest.raises(WeightsError, match=r"lung_unet\.safetensors: expected .* SHA-256 00ff, found [0-9a-f]{64}"):
        LungSegmenter(BUNDLED, expected_sha256="00ff")


def test_weights_with_a_wrong_shape_name_the_tensor_and_both_shapes(tmp_path: Path) -> None:
    tensors = load_file(BUNDLED)
    tensors["head.weight"] = torch.zeros(3, 16, 1, 1)
    save_file(tensors, tmp_path / "mine.safetensors")
    with pytest.raises(WeightsError, match=r"mine.*head\.weight: expected .*\(1, 16, 1, 1\), found \(3, 16, 1, 1\)"):
        LungSegmenter(tmp_path / "mine.safetensors")


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    save_file({"conv1.weight": torch.zeros(64, 3, 7, 7)}, tmp_path / "resnet.safetensors")
    with pytest.raises(WeightsError, match=r"resnet.*expected LungUNet weights, but \d+ tensors are missing"):
        LungSegmenter(tmp_path / "resnet.safetensors")


def test_an_unknown_tensor_is_refused(tmp_path: Path) -> None:
    save_file({**load_file(BUNDLED), "teacher": torch.zeros(1)}, tmp_path / "more.safetensors")
    with pytest.raises(WeightsError, match=r"1 tensors are unknown: \['teacher'\]"):
        LungSegmenter(tmp_path / "more.safetensors")


def test_weights_with_nan_are_refused(tmp_path: Path) -> None:
    tensors = load_file(BUNDLED)
    tensors["head.bias"][0] = float("nan")
    save_file(tensors, tmp_path / "nan.safetensors")
    with pytest.raises(WeightsError, match=r"head\.bias: expected finite values"):
        LungSegmenter(tmp_path / "nan.safetensors")


def test_a_pickle_is_refused_without_being_loaded(tmp_path: Path) -> None:
    torch.save({"head.bias": torch.zeros(1)}, tmp_path / "model.pt")
    with pytest.raises(WeightsError, match=r"model\.pt: expected a safetensors file"):
        LungSegmenter(tmp_path / "model.pt")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"gone\.safetensors: segmenter weights cannot be read"):
        LungSegmenter(tmp_path / "gone.safetensors")


# --- prediction


def test_predictions_are_finite_probabilities_of_the_same_size(segmenter: LungSegmenter, films: np.ndarray) -> None:
    probability = segmenter.predict(films)
    assert probability.shape == films.shape
    assert probability.dtype == np.float32
    assert np.isfinite(probability).all()
    assert 0 <= probability.min() <= probability.max() <= 1


def test_an_inverted_film_gives_the_same_mask(segmenter: LungSegmenter) -> None:
    film = chest()
    upright, inverted = segmenter.predict(np.stack([film, 255 - film])) > 0.5
    assert upright.mean() > 0.1
    assert np.mean(upright != inverted) < 0.001  # bytes round differently


def test_half_the_contrast_gives_almost_the_same_mask(segmenter: LungSegmenter) -> None:
    film, _ = draw_phantom(7, height=512, width=512)
    film = (film >> 4).astype(np.uint8)
    full, half = segmenter.predict(np.stack([film, 64 + film // 2])) > 0.5
    assert np.mean(full != half) < 0.005


def test_weights_that_overflow_give_no_nan(tmp_path: Path, films: np.ndarray) -> None:
    tensors = {name: tensor.float() for name, tensor in load_file(BUNDLED).items()}
    tensors["stem.0.weight"] *= 1e38
    tensors["lateral.0.weight"] *= 1e38
    save_file(tensors, tmp_path / "huge.safetensors")
    assert np.isfinite(LungSegmenter(tmp_path / "huge.safetensors").predict(films[:1])).all()


def test_an_image_is_segmented_alike_alone_and_in_a_batch(segmenter: LungSegmenter, films: np.ndarray) -> None:
    together = segmenter.predict(np.concatenate([films] * 4))
    np.testing.assert_allclose(together[10], segmenter.predict(films[1:2])[0], atol=1e-4)


def test_folding_the_normalisation_changes_nothing(films: np.ndarray) -> None:
    plain, folded = load_lung_unet(BUNDLED)[0], fold_batch_norms(load_lung_unet(BUNDLED)[0])
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
    with torch.inference_mode():
        x = torch.from_numpy(films[:, None]).float()
        torch.testing.assert_close(folded(x), plain(x), atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("level", [0, 90, 255])
def test_a_constant_image_has_no_lung_and_fails_the_assessment(segmenter: LungSegmenter, level: int) -> None:
    probability = segmenter.predict(np.full((1, 512, 512), level, np.uint8))[0]
    assert not probability.any()
    assert assess_mask(clean_mask(probability, WHOLE), WHOLE, LIMITS).problems == ("no_lung",)


def test_a_constant_image_between_letterbox_bars_has_no_lung(segmenter: LungSegmenter) -> None:
    image = np.zeros((1, 512, 512), np.uint8)
    image[:, 100:400] = 130
    assert not has_content(image[0])
    assert not segmenter.predict(image).any()


def test_an_empty_batch_gives_an_empty_result(segmenter: LungSegmenter) -> None:
    assert segmenter.predict(np.zeros((0, 512, 512), np.uint8)).shape == (0, 512, 512)


@pytest.mark.parametrize("batch", [np.zeros((512, 512), np.uint8), np.zeros((1, 512, 512), np.float32)])
def test_other_shapes_and_types_are_refused(segmenter: LungSegmenter, batch: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"expected \(N, 512, 512\) uint8"):
        segmenter.predict(batch)


# --- cleaning


def test_only_the_two_largest_components_remain() -> None:
    lungs = ellipses((250, 150, 120, 70), (250, 360, 110, 70))
    speck = ellipses((480, 480, 15, 15))
    np.testing.assert_array_equal(clean_mask((lungs | speck) / 255.0, WHOLE), lungs)


def test_holes_are_filled_but_open_bays_are_not() -> None:
    probability = np.zeros((512, 512), np.float32)
    probability[100:300, 100:300] = 1
    probability[150:200, 150:200] = 0  # hole
    probability[100:140, 220:260] = 0  # bay
    mask = clean_mask(probability, WHOLE)
    assert mask[175, 175] == 255
    assert mask[110, 240] == 0


def test_nothing_outside_the_content_is_lung() -> None:
    mask = clean_mask(np.ones((512, 512), np.float32), (slice(60, 450), slice(0, 512)))
    assert mask[60:450].all()
    assert not mask[:60].any()
    assert not mask[450:].any()


def test_the_threshold_decides() -> None:
    probability = ellipses((250, 150, 120, 70)) / 255 * 0.6
    assert clean_mask(probability, WHOLE, threshold=0.5).any()
    assert not clean_mask(probability, WHOLE, threshold=0.7).any()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.3, 0.7))
def test_cleaning_agrees_with_scipy_on_random_blobs(seed: int, threshold: float) -> None:
    probability = ndimage.zoom(np.random.default_rng(seed).random((16, 16)), 32, order=1)
    labels, count = ndimage.label(probability > threshold, structure=np.ones((3, 3)))
    sizes = ndimage.sum_labels(np.ones_like(labels), labels, np.arange(1, count + 1))
    if len(set(sizes)) < len(sizes):
        return  # a tie may be broken either way
    kept = np.isin(labels, np.argsort(sizes)[::-1][:2] + 1)
    expected = ndimage.binary_fill_holes(kept)
    np.testing.assert_array_equal(clean_mask(probability, WHOLE, threshold) > 0, expected)


# --- assessment


def test_two_lungs_are_plausible_and_measured_by_side() -> None:
    mask = ellipses((250, 150, 150, 80), (250, 360, 140, 70))
    found = assess_mask(mask, WHOLE, LIMITS)
    assert found.problems == ()
    assert found.left_fraction == pytest.approx(np.pi * 150 * 80 / 512**2, rel=0.01)
    assert found.right_fraction == pytest.approx(np.pi * 140 * 70 / 512**2, rel=0.01)
    assert found.area_fraction == pytest.approx(found.left_fraction + found.right_fraction)


def test_fractions_are_of_the_content_not_of_the_bars() -> None:
    mask = ellipses((256, 150, 100, 80), (256, 360, 100, 80))
    half = assess_mask(mask, (slice(128, 384), slice(0, 512)), LIMITS)
    assert half.area_fraction == pytest.approx(2 * assess_mask(mask, WHOLE, LIMITS).area_fraction)


def test_lungs_off_the_middle_are_told_apart_by_their_components() -> None:
    found = assess_mask(ellipses((250, 250, 150, 60), (250, 400, 150, 60)), WHOLE, LIMITS)
    assert found.left_fraction == pytest.approx(found.right_fraction, rel=0.02)
    assert found.problems == ()


def test_joined_lungs_are_divided_by_the_middle_column() -> None:
    found = assess_mask(ellipses((250, 150, 150, 90), (250, 360, 150, 90), (250, 256, 40, 120)), WHOLE, LIMITS)
    assert found.problems == ()
    assert found.left_fraction == pytest.approx(found.right_fraction, rel=0.1)


@pytest.mark.parametrize(
    ("mask", "problem"),
    [
        (np.zeros((512, 512), np.uint8), "no_lung"),
        (ellipses((250, 200, 40, 20), (250, 300, 40, 20)), "too_small"),
        (np.full((512, 512), 255, np.uint8), "too_large"),
        (ellipses((250, 120, 200, 90)), "one_sided"),
        (ellipses((430, 150, 70, 90), (430, 360, 70, 90)), "off_centre"),
    ],
)
def test_an_implausible_mask_is_named_for_what_is_wrong(mask: np.ndarray, problem: str) -> None:
    assert problem in assess_mask(mask, WHOLE, LIMITS).problems


def test_the_limits_are_those_of_the_configuration() -> None:
    mask = ellipses((250, 150, 150, 80), (250, 360, 140, 70))
    assert assess_mask(mask, WHOLE, PlausibilityConfig(min_area_fraction=0.5)).problems == ("too_small",)


# --- real X-rays


@pytest.mark.real
@pytest.mark.parametrize(("variant", "least"), [("as_is", 0.94), ("inverted", 0.93), ("half_contrast", 0.93)])
def test_adults_that_trained_nothing_are_segmented_well(segmenter: LungSegmenter, variant: str, least: float) -> None:
    from penumo_assets.jobs.segment_train.data import read_pair
    from penumo_assets.jobs.segment_train.score import score

    root = os.environ.get("PENUMO_REAL_DATA")
    if not root:
        pytest.skip("PENUMO_REAL_DATA is not set")
    folder = Path(root) / "lungs"
    table = pd.read_csv(folder / "pairs.csv").query("noncommercial == 1").iloc[::4]
    rows = [
        {"file": row.image, "mask": [row.mask], "patient_id": row.group_id, "source": row.source}
        for row in table.itertuples()
    ]
    pairs = [read_pair(folder, folder, row) for row in rows]
    assert np.mean([row["dice"] for row in score(segmenter, pairs, [variant])]) >= least
