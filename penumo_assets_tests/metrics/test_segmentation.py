import numpy as np
import pytest
from sklearn.metrics import f1_score, jaccard_score

from penumo_assets.metrics.segmentation import overlap


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
