import numpy as np
import pytest
from sklearn.metrics import f1_score, jaccard_score

from penumo_assets.metrics.intervals import PatientBootstrap
from penumo_assets.metrics.segmentation import mean_overlap, overlap


@pytest.mark.parametrize("seed", range(5))
def test_dice_and_iou_agree_with_scikit_learns_f1_and_jaccard(seed):
    random = np.random.default_rng(seed)
    truth, predicted = (random.random((20, 30)) < p for p in (0.4, 0.5))
    found = overlap(truth, predicted.astype(np.uint8) * 255)
    assert found.dice == pytest.approx(f1_score(truth.ravel(), predicted.ravel()))
    assert found.iou == pytest.approx(jaccard_score(truth.ravel(), predicted.ravel()))


def test_one_empty_mask_has_no_overlap_and_two_have_none_to_measure():
    empty, full = np.zeros((4, 4), np.uint8), np.ones((4, 4), np.uint8)
    assert overlap(full, empty).dice == 0.0
    assert overlap(empty, full).iou == 0.0
    assert np.isnan(overlap(empty, empty).dice)
    assert np.isnan(overlap(empty, empty).iou)


def test_masks_of_different_shape_are_refused():
    with pytest.raises(ValueError, match="cannot be compared"):
        overlap(np.zeros((4, 4)), np.zeros((4, 5)))


def test_the_mean_leaves_undefined_images_out_and_has_an_interval():
    bootstrap = PatientBootstrap(np.arange(5), 500)
    found = mean_overlap(np.array([0.9, 0.8, np.nan, 1.0, 0.7]), bootstrap)
    assert found.value == pytest.approx(0.85)
    assert 0.7 <= found.low < 0.85 < found.high <= 1.0


def test_no_ground_truth_is_undefined_and_not_zero():
    found = mean_overlap(np.full(3, np.nan), PatientBootstrap(np.arange(3), 10))
    assert found.value is None
    assert found.reason == "no image with a ground-truth mask"
