import numpy as np
import pytest
from scipy import special
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, log_loss

from penumo_assets.metrics import calibration
from penumo_assets.metrics.scores import ScoreError


def draw(seed: int, n: int, classes: int = 2, spread: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits and labels drawn from exactly the probabilities that the logits say."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, spread, (n, classes))
    cumulative = special.softmax(logits, axis=1).cumsum(axis=1)
    return (random.random((n, 1)) > cumulative).sum(axis=1).clip(max=classes - 1), logits


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("true_temperature", [0.5, 1.0, 3.0])
def test_the_temperature_that_was_hidden_in_the_logits_is_found(true_temperature, classes):
    labels, logits = draw(0, 20_000, classes)
    assert calibration.fit_temperature(labels, logits * true_temperature) == pytest.approx(true_temperature, rel=0.05)


def test_the_fitted_temperature_beats_its_neighbours():
    labels, logits = draw(1, 500)
    logits = logits * 2.5
    fitted = calibration.fit_temperature(labels, logits)
    loss = calibration.negative_log_likelihood(labels, logits, fitted)
    for factor in (0.9, 0.99, 1.01, 1.1):
        assert loss < calibration.negative_log_likelihood(labels, logits, fitted * factor)


def test_the_likelihood_agrees_with_scikit_learn():
    labels, logits = draw(2, 300, 3)
    expected = log_loss(labels, calibration.softmax(logits, 1.7))
    assert calibration.negative_log_likelihood(labels, logits, 1.7) == pytest.approx(expected)


def test_one_class_alone_has_no_temperature():
    assert calibration.fit_temperature(np.ones(5, int), np.zeros((5, 2))) is None
    assert calibration.fit_temperature(np.zeros(0, int), np.zeros((0, 2))) is None


def test_separated_classes_give_a_bounded_temperature():
    labels = np.repeat([0, 1], 20)
    logits = np.stack([-(labels - 0.5), labels - 0.5], axis=1)
    assert 0.04 < calibration.fit_temperature(labels, logits) < 0.1


def test_nan_logits_are_refused():
    with pytest.raises(ScoreError, match="NaN"):
        calibration.fit_temperature(np.array([0, 1]), np.array([[0.1, np.nan], [0.2, 0.3]]))


def ece_by_loop(outcome, predicted, bins):
    total = 0.0
    for b in range(bins):
        low, high = b / bins, (b + 1) / bins
        inside = (predicted >= low) & ((predicted < high) | (b == bins - 1))
        if inside.any():
            total += inside.mean() * abs(outcome[inside].mean() - predicted[inside].mean())
    return total


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_ece_agrees_with_a_loop_over_the_bins(bins):
    random = np.random.default_rng(0)
    predicted = np.r_[random.random(300), 0.0, 1.0]
    outcome = (random.random(302) < predicted**2).astype(float)
    found = calibration.ece_from_sums(calibration.bin_sums(outcome, predicted, bins).sum(0))
    assert found == pytest.approx(ece_by_loop(outcome, predicted, bins))


def test_certain_and_wrong_has_the_largest_error():
    outcome, predicted = np.array([0.0, 1.0]), np.array([1.0, 0.0])
    assert calibration.ece_from_sums(calibration.bin_sums(outcome, predicted).sum(0)) == 1.0


def test_no_images_have_no_error_but_nan():
    assert np.isnan(calibration.ece_from_sums(np.zeros(30)))


@pytest.mark.parametrize("bad", [-0.1, 1.1, np.nan])
def test_what_is_no_probability_is_refused(bad):
    with pytest.raises(ScoreError, match="between 0 and 1"):
        calibration.bin_sums(np.array([1.0]), np.array([bad]))


def test_the_reliability_curve_has_the_known_means_and_empty_bins_are_nan():
    outcome = np.array([0.0, 1.0, 1.0, 1.0])
    predicted = np.array([0.12, 0.18, 0.91, 1.0])
    curve = calibration.reliability(outcome, predicted)
    assert curve.count.tolist() == [0, 2, 0, 0, 0, 0, 0, 0, 0, 2]
    assert curve.mean_predicted[1] == pytest.approx(0.15)
    assert curve.observed[1] == 0.5
    assert curve.mean_predicted[9] == pytest.approx(0.955)
    assert np.isnan(curve.observed[0])


def test_the_binary_brier_score_agrees_with_scikit_learn():
    labels, logits = draw(3, 200)
    probabilities = calibration.softmax(logits)
    found = calibration.brier_per_image(labels, probabilities, 1).mean()
    assert found == pytest.approx(brier_score_loss(labels, probabilities[:, 1]))


def test_the_multi_class_brier_score_sums_over_the_classes():
    probabilities = np.array([[0.5, 0.3, 0.2]])
    assert calibration.brier_per_image(np.array([0]), probabilities, None)[0] == pytest.approx(0.25 + 0.09 + 0.04)


def test_without_a_positive_class_the_event_is_that_the_chosen_class_is_right():
    probabilities = np.array([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7]])
    outcome, predicted = calibration.calibrated_event(np.array([0, 1]), probabilities, None)
    assert outcome.tolist() == [1.0, 0.0]
    assert predicted.tolist() == [0.5, 0.7]


def test_slope_and_intercept_agree_with_scikit_learn():
    labels, logits = draw(4, 800)
    predicted = calibration.softmax(logits * 1.8 + [0.0, 0.4])[:, 1]
    slope, intercept = calibration.recalibration(labels.astype(float), predicted)
    fitted = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(special.logit(predicted)[:, None], labels)
    assert slope == pytest.approx(fitted.coef_[0, 0], rel=1e-3)
    assert intercept == pytest.approx(fitted.intercept_[0], abs=1e-3)


@pytest.mark.parametrize(
    ("outcome", "predicted"),
    [([1, 1], [0.2, 0.8]), ([0, 1], [0.5, 0.5]), ([0, 0, 1, 1], [0.1, 0.2, 0.7, 0.8]), ([1, 0], [0.1, 0.9])],
)
def test_where_no_finite_slope_exists_there_is_none(outcome, predicted):
    assert calibration.recalibration(np.array(outcome, float), np.array(predicted)) is None
