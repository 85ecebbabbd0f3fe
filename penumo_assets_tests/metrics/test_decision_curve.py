import numpy as np
import pytest

from penumo_assets.metrics.decision_curve import decision_curve


def test_net_benefit_agrees_with_counting_by_hand():
    labels = np.array([1, 1, 1, 0, 0, 0, 0, 0, 0, 0])
    probabilities = np.array([0.9, 0.6, 0.2, 0.7, 0.3, 0.1, 0.1, 0.1, 0.05, 0.05])
    curve = decision_curve(labels, probabilities, np.array([0.2, 0.5]))
    assert curve.model == pytest.approx([3 / 10 - 2 / 10 * 0.25, 2 / 10 - 1 / 10 * 1.0])
    assert curve.treat_all == pytest.approx([0.3 - 0.7 * 0.25, 0.3 - 0.7])


def test_treating_all_is_worth_nothing_at_the_prevalence():
    labels = np.array([1, 0, 0, 0])
    curve = decision_curve(labels, np.full(4, 0.5), np.array([0.25]))
    assert curve.treat_all == pytest.approx([0.0])


def test_a_perfect_model_is_worth_the_prevalence_everywhere():
    labels = np.array([1, 0, 0, 0])
    curve = decision_curve(labels, labels * 1.0, np.linspace(0.01, 0.99, 20))
    assert curve.model == pytest.approx(np.full(20, 0.25))


@pytest.mark.parametrize("labels", [[0, 0], [1, 1], []])
def test_one_class_alone_has_no_decision_curve(labels):
    labels = np.array(labels, int)
    assert decision_curve(labels, np.full(len(labels), 0.5), np.array([0.5])) is None


@pytest.mark.parametrize("thresholds", [[0.0, 0.5], [0.5, 1.0], []])
def test_thresholds_outside_0_and_1_are_refused(thresholds):
    with pytest.raises(ValueError, match="strictly between"):
        decision_curve(np.array([0, 1]), np.array([0.1, 0.9]), np.array(thresholds))
