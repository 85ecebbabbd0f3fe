import numpy as np
import pytest

from penumo_assets.metrics.performance import DecisionRule
from penumo_assets.metrics.selective import confidence, cut_for_coverage, risk_coverage


def test_confidence_is_the_distance_from_the_threshold_or_between_the_two_likeliest_classes():
    two = np.array([[0.8, 0.2], [0.5, 0.5], [0.1, 0.9]])
    np.testing.assert_allclose(confidence(two, 0.2, 1), [0, np.log(4), np.log(36)], atol=1e-9)
    three = np.array([[0.4, 0.4, 0.2], [0.8, 0.1, 0.1]])
    np.testing.assert_allclose(confidence(three, None, None), [0, np.log(8)], atol=1e-9)


@pytest.mark.parametrize("coverage", [0.5, 0.8, 0.95])
def test_the_cut_leaves_the_share_that_was_asked_for(coverage):
    random = np.random.default_rng(0)
    p = random.random((2000, 1))
    probabilities = np.hstack([1 - p, p])
    cut = cut_for_coverage(confidence(probabilities[:1000], 0.4, 1), coverage)
    rule = DecisionRule(0.4, 1.0, "test", undecided_below=cut)
    assert rule.decides(probabilities[:1000], 1).mean() == pytest.approx(coverage, abs=0.002)
    assert rule.decides(probabilities[1000:], 1).mean() == pytest.approx(coverage, abs=0.05)
    sureness = confidence(probabilities[:1000], 0.4, 1)
    for nudge in (-1e-9, 1e-9):  # an image computed in another batch
        assert ((sureness + nudge >= cut) == (sureness >= cut)).all()
    assert cut_for_coverage(p[:, 0], 1.0) is None
    assert DecisionRule(0.4, 1.0, "test").decides(probabilities, 1).all()


def test_risk_by_coverage_by_hand():
    sureness, right = np.array([3.0, 1.0, 2.0, 2.0]), np.array([True, False, False, True])
    coverage, risk = risk_coverage(sureness, right)
    assert coverage.tolist() == [0.25, 0.75, 0.75, 1.0]
    np.testing.assert_allclose(risk, [0, 1 / 3, 1 / 3, 0.5])
