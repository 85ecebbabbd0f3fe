import numpy as np
import pytest
from sklearn import metrics as sk

from penumo_assets.metrics.ranking import Ranking, average_precision, roc_auc
from penumo_assets.metrics.scores import ScoreError


def sample(seed: int, n: int, levels: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = random.integers(0, 2, n)
    scores = random.normal(size=n) + labels
    return labels, np.round(scores * levels) / levels if levels else scores


@pytest.mark.parametrize("levels", [None, 1, 4])
@pytest.mark.parametrize("seed", range(5))
def test_areas_agree_with_scikit_learn_with_and_without_ties(seed, levels):
    labels, scores = sample(seed, 200, levels)
    assert roc_auc(labels, scores) == pytest.approx(sk.roc_auc_score(labels, scores), abs=1e-12)
    assert average_precision(labels, scores) == pytest.approx(sk.average_precision_score(labels, scores), abs=1e-12)


@pytest.mark.parametrize("levels", [None, 2])
@pytest.mark.parametrize("seed", range(10))
def test_weighted_areas_agree_with_scikit_learn_on_repeated_rows(seed, levels):
    labels, scores = sample(seed, 80, levels)
    weights = np.random.default_rng(seed).poisson(1.0, len(labels))
    ranking = Ranking.of(labels, scores)
    repeated = np.repeat(np.arange(len(labels)), weights)
    auc, precision = ranking.areas(weights[ranking.order])
    assert auc == pytest.approx(sk.roc_auc_score(labels[repeated], scores[repeated]), abs=1e-12)
    assert precision == pytest.approx(sk.average_precision_score(labels[repeated], scores[repeated]), abs=1e-12)


def test_the_roc_curve_agrees_with_scikit_learn():
    labels, scores = sample(3, 120, 3)
    ranking = Ranking.of(labels, scores)
    curve = ranking.roc(np.ones(120, np.int64))
    assert curve is not None
    expected_fpr, expected_tpr, _ = sk.roc_curve(labels, scores, drop_intermediate=False)
    np.testing.assert_allclose(curve[0], expected_fpr)
    np.testing.assert_allclose(curve[1], expected_tpr)


def test_all_scores_equal_is_chance_and_not_an_error():
    labels = np.array([0, 1, 1, 0, 1])
    assert roc_auc(labels, np.full(5, 0.3)) == 0.5
    assert average_precision(labels, np.full(5, 0.3)) == pytest.approx(0.6)


@pytest.mark.parametrize("labels", [np.zeros(4, int), np.ones(4, int), np.zeros(0, int)])
def test_a_missing_class_is_undefined_and_not_zero(labels):
    scores = np.linspace(0, 1, len(labels))
    assert np.isnan(roc_auc(labels, scores))
    assert np.isnan(average_precision(labels, scores))


def test_the_top_group_may_have_no_weight():
    labels, scores = np.array([1, 0, 1, 0]), np.array([0.9, 0.8, 0.7, 0.1])
    ranking = Ranking.of(labels, scores)
    auc, precision = ranking.areas(np.array([0, 0, 1, 1]))
    assert (auc, precision) == (1.0, 1.0)


def test_nan_scores_are_refused_with_their_number():
    with pytest.raises(ScoreError, match="1 of 3 scores are NaN"):
        Ranking.of(np.array([0, 1, 1]), np.array([0.1, np.nan, 0.4]))


def test_labels_and_scores_of_different_length_are_refused():
    with pytest.raises(ScoreError, match="same images"):
        Ranking.of(np.array([0, 1, 1]), np.array([0.1, 0.4]))


def test_labels_other_than_0_and_1_are_refused():
    with pytest.raises(ScoreError, match=r"labels lie in 0\.\.2"):
        Ranking.of(np.array([0, 1, 2]), np.array([0.1, 0.4, 0.2]))
