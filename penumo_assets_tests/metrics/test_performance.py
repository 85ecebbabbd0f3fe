from dataclasses import replace

import numpy as np
import pytest
from sklearn import metrics as sk

from penumo_assets.metrics.calibration import softmax
from penumo_assets.metrics.performance import DecisionRule, Scored, per_class, performance
from penumo_assets.metrics.records import Settings
from penumo_assets.metrics.scores import ScoreError
from penumo_assets_tests.metrics.synthetic import scored

RULE = DecisionRule(0.45, 1.3, "test")
SETTINGS = Settings(resamples=100)


def test_the_binary_estimates_are_scikit_learns_and_lie_in_their_intervals():
    images = scored(150)
    found = performance(images, RULE, SETTINGS)
    probability = images.probabilities[:, 1]
    called = (probability >= 0.45).astype(int)
    expected = {
        "roc_auc": sk.roc_auc_score(images.labels, probability),
        "pr_auc": sk.average_precision_score(images.labels, probability),
        "accuracy": sk.accuracy_score(images.labels, called),
        "precision": sk.precision_score(images.labels, called),
        "recall": sk.recall_score(images.labels, called),
        "f1": sk.f1_score(images.labels, called),
        "matthews_correlation": sk.matthews_corrcoef(images.labels, called),
        "brier_uncalibrated": sk.brier_score_loss(images.labels, probability),
    }
    for name, value in expected.items():
        assert found[name].value == pytest.approx(value), name
        assert found[name].low <= value <= found[name].high, name
    assert "top_2_accuracy" not in found


def test_several_classes_get_means_and_top_k_but_no_youden_index():
    images = scored(200, ["a", "b", "c", "d"])
    found = performance(images, DecisionRule(None, 1.0, "argmax"), SETTINGS)
    probabilities, called = images.probabilities, images.probabilities.argmax(1)
    assert found["roc_auc"].value == pytest.approx(
        sk.roc_auc_score(images.labels, probabilities, multi_class="ovr", average="macro")
    )
    assert found["recall"].value == pytest.approx(sk.recall_score(images.labels, called, average="macro"))
    assert found["top_2_accuracy"].value == pytest.approx(sk.top_k_accuracy_score(images.labels, probabilities, k=2))
    assert "youden_index" not in found
    assert "top_5_accuracy" not in found


def test_a_single_class_leaves_ranking_metrics_undefined_with_the_reason():
    images = scored(40)
    healthy = images.subset(images.labels == 0)
    found = performance(healthy, RULE, SETTINGS)
    for name in ("roc_auc", "pr_auc", "recall", "f1", "balanced_accuracy", "youden_index", "macro_f1"):
        assert found[name].value is None, name
        assert found[name].reason == "no image of class pneumonia", name
    assert 0 < found["specificity"].value <= 1
    assert found["accuracy"].value == found["specificity"].value


def test_no_images_leave_everything_undefined():
    found = performance(scored(20).subset(np.zeros(20, bool)), RULE, SETTINGS)
    assert {estimate.value for estimate in found.values()} == {None}
    assert all(estimate.reason for estimate in found.values())


def test_perfect_scores_still_have_an_interval_of_some_width():
    labels = np.repeat([0, 1], 10)
    images = Scored(labels, np.stack([0.5 - labels, labels - 0.5], 1) * 6.0, np.arange(20).astype(str), ["n", "p"], 1)
    found = performance(images, DecisionRule(0.5, 1.0, "test"), SETTINGS)
    for name in ("roc_auc", "recall", "specificity", "accuracy", "precision", "f1", "balanced_accuracy"):
        assert found[name].value == found[name].high == 1.0, name
        assert 0.5 < found[name].low < 0.97, name
    for name in ("pr_auc", "macro_f1", "matthews_correlation"):
        assert (found[name].value, found[name].low) == (1.0, None), name


def test_calibration_uses_the_temperature_and_ranking_does_not():
    images = scored(150)
    cold, hot = (performance(images, DecisionRule(0.5, t, "test"), SETTINGS) for t in (0.3, 3.0))
    assert cold["ece"].value != hot["ece"].value
    assert cold["ece_uncalibrated"] == hot["ece_uncalibrated"]
    assert cold["roc_auc"] == hot["roc_auc"]
    assert cold["recall"] == hot["recall"]


def test_without_a_calibration_calibrated_figures_are_undefined():
    found = performance(scored(), DecisionRule(0.5, None, "test"), SETTINGS)
    assert found["ece"].value is None
    assert "not calibrated" in found["ece"].reason
    assert found["ece_uncalibrated"].value is not None


def test_the_calibrated_threshold_makes_the_same_decisions():
    images = scored(300)
    for offsets in ((), (0.8, -0.8)):
        rule = replace(RULE, offsets=offsets)
        calibrated = softmax(images.logits, rule.calibration)[:, 1]
        np.testing.assert_array_equal(
            images.probabilities[:, 1] >= rule.threshold, calibrated >= rule.calibrated_threshold
        )


def test_each_class_against_the_rest_agrees_with_scikit_learn():
    images = scored(120, ["a", "b", "c"])
    found = per_class(images, DecisionRule(None, 1.0, "argmax"), SETTINGS)
    for i, name in enumerate("abc"):
        expected = sk.roc_auc_score(images.labels == i, images.probabilities[:, i])
        assert found[name]["roc_auc"].value == pytest.approx(expected)


def test_saturated_probabilities_still_rank():
    """Log-odds of 50 and 60 are both probability 1.0 in double precision, yet not equal."""
    labels = np.array([0, 1, 0, 1])
    odds = np.array([50.0, 60.0, 40.0, 70.0])
    images = Scored(labels, np.stack([-odds / 2, odds / 2], 1), np.arange(4).astype(str), ["n", "p"], 1)
    assert performance(images, RULE, SETTINGS)["roc_auc"].value == 1.0


def test_nan_logits_are_refused():
    with pytest.raises(ScoreError, match="NaN"):
        Scored(np.array([0, 1]), np.array([[0.0, np.nan], [1.0, 0.0]]), np.array(["a", "b"]), ["n", "p"], 1)
