import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from penumo_assets.metrics.delong import compare_aucs, delong
from penumo_assets.metrics.intervals import PatientBootstrap
from penumo_assets.metrics.ranking import Ranking
from penumo_assets.metrics.scores import ScoreError


def two_models(seed: int, n: int = 120) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = random.integers(0, 2, n)
    shared = random.normal(size=n)
    first = np.round(shared + random.normal(size=n) + 1.5 * labels, 1)
    second = shared + random.normal(size=n) + 0.8 * labels
    return labels, first, second


def covariance_by_definition(labels, scores):
    """DeLong et al. 1988, equations 3 to 7, pair by pair."""
    components = []
    for row in scores:
        positive, negative = row[labels == 1], row[labels == 0]
        psi = (positive[:, None] > negative).astype(float) + 0.5 * (positive[:, None] == negative)
        components.append((psi.mean(axis=1), psi.mean(axis=0)))
    s10 = np.cov([c[0] for c in components])
    s01 = np.cov([c[1] for c in components])
    return s10 / (labels == 1).sum() + s01 / (labels == 0).sum()


@pytest.mark.parametrize("seed", range(4))
def test_variance_and_comparison_agree_with_the_definition_pair_by_pair(seed):
    labels, first, second = two_models(seed)
    covariance = covariance_by_definition(labels, [first, second])
    found = delong(labels, first)
    assert found.auc == pytest.approx(roc_auc_score(labels, first))
    assert found.variance == pytest.approx(covariance[0, 0])
    comparison = compare_aucs(labels, first, second)
    error = np.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    assert comparison.standard_error == pytest.approx(error)
    assert comparison.z == pytest.approx(comparison.difference / error)
    assert comparison.p_value == pytest.approx(2 * stats.norm.sf(abs(comparison.z)))
    assert comparison.difference == pytest.approx(roc_auc_score(labels, first) - roc_auc_score(labels, second))


def test_one_image_per_patient_gives_the_same_as_no_patients():
    labels, first, second = two_models(1)
    patients = np.arange(len(labels)).astype(str)
    assert delong(labels, first, patients).variance == pytest.approx(delong(labels, first).variance)
    clustered, plain = compare_aucs(labels, first, second, patients), compare_aucs(labels, first, second)
    assert clustered.standard_error == pytest.approx(plain.standard_error)


def test_copies_of_an_image_add_no_certainty_when_patients_are_known():
    labels, first, _ = two_models(2)
    copied_labels, copied_scores = np.repeat(labels, 4), np.repeat(first, 4)
    patients = np.repeat(np.arange(len(labels)), 4)
    once = delong(labels, first).variance
    assert delong(copied_labels, copied_scores, patients).variance == pytest.approx(once, rel=0.01)
    assert delong(copied_labels, copied_scores).variance < 0.3 * once


def test_the_clustered_variance_agrees_with_the_patient_bootstrap():
    random = np.random.default_rng(0)
    patients = np.repeat(np.arange(300), random.integers(1, 5, 300))
    severity = random.normal(size=300)[patients]
    labels = (severity + random.normal(0, 0.7, len(patients)) > 0.3).astype(int)
    scores = severity + random.normal(size=len(patients))
    bootstrapped = PatientBootstrap(patients, 2000).areas(Ranking.of(labels, scores))[0].std()
    assert delong(labels, scores, patients).variance ** 0.5 == pytest.approx(bootstrapped, rel=0.08)


def test_the_interval_stays_inside_0_and_1_near_the_edge():
    labels = np.repeat([0, 1], 15)
    scores = np.r_[np.arange(15), np.arange(14, 29)] + np.r_[np.zeros(14), 1.5, np.zeros(15)]
    found = delong(labels, scores)
    assert 0.97 < found.auc < 1
    assert 0 < found.low < found.auc < found.high < 1


def test_perfect_separation_has_no_interval_rather_than_one_of_zero_width():
    found = delong(np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.8, 0.9]))
    assert (found.auc, found.variance, found.low, found.high) == (1.0, 0.0, None, None)


def test_a_model_compared_with_itself_has_no_p_value():
    labels, first, _ = two_models(3)
    comparison = compare_aucs(labels, first, first)
    assert (comparison.difference, comparison.standard_error, comparison.p_value) == (0.0, 0.0, None)


def test_under_the_null_the_p_value_is_small_about_as_often_as_it_says():
    rejected = 0
    for seed in range(300):
        random = np.random.default_rng(seed)
        labels = random.integers(0, 2, 100)
        shared = random.normal(size=100) + labels
        first, second = (shared + random.normal(size=100) for _ in range(2))
        rejected += compare_aucs(labels, first, second).p_value < 0.05
    assert 0.02 <= rejected / 300 <= 0.09


@pytest.mark.parametrize("labels", [[1, 1, 1], [0, 0, 0], [1, 0, 0], []])
def test_fewer_than_two_images_of_a_class_have_no_variance(labels):
    labels = np.array(labels, int)
    assert delong(labels, np.arange(len(labels), dtype=float)) is None


def test_two_images_of_one_patient_are_one_patient():
    labels, scores = np.array([1, 1, 0, 0]), np.array([0.4, 0.9, 0.1, 0.5])
    assert delong(labels, scores, np.array(["a", "a", "b", "c"])) is None


def test_nan_scores_are_refused():
    with pytest.raises(ScoreError, match="NaN"):
        compare_aucs(np.array([0, 1]), np.array([0.1, 0.2]), np.array([np.nan, 0.2]))
