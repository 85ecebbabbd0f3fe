import numpy as np
import pytest
from scipy import special
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss

from penumo_assets.metrics import calibration
from penumo_assets.metrics.decision_curve import decision_curve
from penumo_assets.metrics.scores import ScoreError


def draw(seed: int, n: int, classes: int = 2, spread: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits and labels drawn from exactly the probabilities that the logits say."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, spread, (n, classes))
    cumulative = special.softmax(logits, axis=1).cumsum(axis=1)
    return (random.random((n, 1)) > cumulative).sum(axis=1).clip(max=classes - 1), logits


def at(temperature, offsets=()):
    return calibration.Calibration(temperature, offsets)


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("true_temperature", [0.5, 1.0, 3.0])
def test_temperature_and_offsets_that_were_hidden_in_the_logits_are_found(true_temperature, classes):
    labels, logits = draw(0, 20_000, classes)
    offsets = np.linspace(-0.6, 0.6, classes)
    found = calibration.fit_calibration(labels, (logits - offsets) * true_temperature)
    assert found.temperature == pytest.approx(true_temperature, rel=0.05)
    assert found.offsets == pytest.approx(offsets, abs=0.07)


def test_the_fit_is_that_of_a_logistic_regression():
    labels, logits = draw(1, 3000)
    odds = logits[:, 1] - logits[:, 0]
    known = LogisticRegression(C=np.inf).fit(1.8 * odds[:, None] + 0.7, labels)
    found = calibration.fit_calibration(labels, np.stack([np.zeros(3000), 1.8 * odds + 0.7], 1))
    assert 1 / found.temperature == pytest.approx(known.coef_[0, 0], rel=0.01)
    assert found.offsets[1] - found.offsets[0] == pytest.approx(known.intercept_[0], abs=0.01)


def test_offsets_undo_the_prior_that_balanced_class_weights_shift_and_a_temperature_does_not():
    """Prevalence 0.1, probabilities of a model that was trained as if it were 0.5."""
    random = np.random.default_rng(2)
    labels = (random.random(20_000) < 0.1).astype(int)
    odds = 2 * (2 * labels + random.normal(size=20_000)) - 2
    logits = np.stack([-odds / 2, odds / 2], 1)

    def judged(by) -> tuple[float, float]:
        """Calibration error, and net benefit of acting at a probability of 0.1."""
        outcome, predicted = labels[10_000:], calibration.softmax(logits[10_000:], by)[:, 1]
        error = calibration.ece_from_sums(calibration.bin_sums(outcome == 1, predicted).sum(0))
        return error, decision_curve(outcome, predicted, np.array([0.1])).model[0]

    fitted = calibration.fit_calibration(labels[:10_000], logits[:10_000])
    alone = [judged(at(t)) for t in np.geomspace(0.5, 2.0, 15)]
    assert judged(None) == pytest.approx((0.18, 0.046), abs=0.01)
    assert min(error for error, _ in alone) > 0.13
    assert judged(fitted) == pytest.approx((0.01, 0.07), abs=0.01)
    assert judged(fitted)[1] > max(benefit for _, benefit in alone)
    assert fitted.offsets[1] - fitted.offsets[0] == pytest.approx(np.log(0.1 / 0.9), abs=0.2)


def test_a_calibration_without_offsets_is_a_temperature_alone():
    _, logits = draw(3, 50, 3)
    np.testing.assert_allclose(calibration.softmax(logits, at(1.7)), special.softmax(logits / 1.7, axis=1))


def test_one_class_alone_has_no_calibration():
    assert calibration.fit_calibration(np.ones(5, int), np.zeros((5, 2))) is None
    assert calibration.fit_calibration(np.zeros(0, int), np.zeros((0, 2))) is None


def test_separated_classes_and_an_absent_one_stay_finite():
    labels = np.repeat([0, 1], 20)
    logits = np.stack([-(labels - 0.5), labels - 0.5, np.zeros(40)], axis=1)
    found = calibration.fit_calibration(labels, logits)
    assert 0.01 < found.temperature < 1
    assert np.abs(found.offsets).max() < 20


def test_nan_logits_are_refused():
    with pytest.raises(ScoreError, match="NaN"):
        calibration.fit_calibration(np.array([0, 1]), np.array([[0.1, np.nan], [0.2, 0.3]]))


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


def test_the_slope_agrees_with_scikit_learn_and_the_intercept_is_calibration_in_the_large():
    labels, logits = draw(4, 800)
    predicted = calibration.softmax(logits * 1.8 + [0.0, 0.4])[:, 1]
    slope, intercept = calibration.recalibration(labels.astype(float), predicted)
    fitted = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(special.logit(predicted)[:, None], labels)
    assert slope == pytest.approx(fitted.coef_[0, 0], rel=1e-3)
    moved = special.expit(special.logit(predicted) + intercept)
    assert moved.mean() == pytest.approx(labels.mean(), abs=1e-9)
    assert intercept != pytest.approx(fitted.intercept_[0], abs=0.05)


@pytest.mark.parametrize(
    ("outcome", "predicted"),
    [([1, 1], [0.2, 0.8]), ([0, 1], [0.5, 0.5]), ([0, 0, 1, 1], [0.1, 0.2, 0.7, 0.8]), ([1, 0], [0.1, 0.9])],
)
def test_where_no_finite_slope_exists_there_is_none(outcome, predicted):
    assert calibration.recalibration(np.array(outcome, float), np.array(predicted)) is None
