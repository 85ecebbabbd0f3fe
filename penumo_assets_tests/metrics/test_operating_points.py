import numpy as np
import pytest
from sklearn.metrics import roc_curve

from penumo_assets.metrics.operating_points import threshold_at_sensitivity, youden_threshold
from penumo_assets.metrics.scores import ScoreError


def rates(labels, scores, threshold):
    called = scores >= threshold
    return called[labels == 1].mean(), 1 - called[labels == 0].mean()


@pytest.mark.parametrize("levels", [None, 5])
@pytest.mark.parametrize("seed", range(8))
def test_youdens_threshold_reaches_the_best_index_of_scikit_learns_curve(seed, levels):
    random = np.random.default_rng(seed)
    labels = random.integers(0, 2, 90)
    scores = random.random(90) + 0.3 * labels
    scores = np.round(scores * levels) / levels if levels else scores
    false_positive, true_positive, _ = roc_curve(labels, scores, drop_intermediate=False)
    sensitivity, specificity = rates(labels, scores, youden_threshold(labels, scores))
    assert sensitivity + specificity - 1 == pytest.approx((true_positive - false_positive).max())


def test_the_threshold_of_separated_classes_lies_half_way_between_them():
    labels, scores = np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.6, 0.9])
    assert youden_threshold(labels, scores) == pytest.approx(0.4)


def test_among_equally_good_thresholds_the_most_sensitive_wins():
    labels, scores = np.array([1, 0, 1, 0]), np.array([0.9, 0.7, 0.5, 0.1])
    threshold = youden_threshold(labels, scores)
    assert rates(labels, scores, threshold) == (1.0, 0.5)


def test_neighbouring_floats_still_give_a_threshold_that_separates_them():
    low = 0.5
    labels, scores = np.array([0, 1]), np.array([low, np.nextafter(low, 1)])
    assert rates(labels, scores, youden_threshold(labels, scores)) == (1.0, 1.0)


@pytest.mark.parametrize("wanted", [0.5, 0.9, 0.95, 1.0])
@pytest.mark.parametrize("seed", range(5))
def test_a_fixed_sensitivity_is_reached_with_the_best_specificity_that_allows_it(seed, wanted):
    random = np.random.default_rng(seed)
    labels = random.integers(0, 2, 70)
    scores = random.random(70) + 0.4 * labels
    sensitivity, specificity = rates(labels, scores, threshold_at_sensitivity(labels, scores, wanted))
    assert sensitivity >= wanted
    tried = [rates(labels, scores, threshold) for threshold in scores]
    assert specificity == max(spec for sens, spec in tried if sens >= wanted)


@pytest.mark.parametrize("labels", [[0, 0], [1, 1], []])
def test_one_class_alone_has_no_threshold(labels):
    labels = np.array(labels, int)
    scores = np.linspace(0, 1, len(labels))
    assert youden_threshold(labels, scores) is None
    assert threshold_at_sensitivity(labels, scores, 0.9) is None


@pytest.mark.parametrize("wanted", [0.0, 1.1, -0.5])
def test_an_impossible_sensitivity_is_refused(wanted):
    with pytest.raises(ValueError, match="sensitivity must lie"):
        threshold_at_sensitivity(np.array([0, 1]), np.array([0.1, 0.2]), wanted)


def test_nan_scores_are_refused():
    with pytest.raises(ScoreError, match="NaN"):
        youden_threshold(np.array([0, 1]), np.array([np.nan, 0.2]))
