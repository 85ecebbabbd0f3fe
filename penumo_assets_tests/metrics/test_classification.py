import numpy as np
import pytest
from sklearn import metrics as sk

from penumo_assets.metrics import classification as c
from penumo_assets.metrics.scores import ScoreError


def decisions(seed: int, classes: int, n: int = 150) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    truth = random.integers(0, classes, n)
    return truth, np.where(random.random(n) < 0.6, truth, random.integers(0, classes, n))


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("seed", range(3))
def test_every_metric_agrees_with_scikit_learn(seed, classes):
    truth, called = decisions(seed, classes)
    matrix = c.confusion_matrix(truth, called, classes)
    np.testing.assert_array_equal(matrix, sk.confusion_matrix(truth, called))
    np.testing.assert_allclose(c.precision_per_class(matrix), sk.precision_score(truth, called, average=None))
    np.testing.assert_allclose(c.recall_per_class(matrix), sk.recall_score(truth, called, average=None))
    np.testing.assert_allclose(c.f1_per_class(matrix), sk.f1_score(truth, called, average=None))
    assert c.accuracy(matrix) == pytest.approx(sk.accuracy_score(truth, called))
    assert c.balanced_accuracy(matrix) == pytest.approx(sk.balanced_accuracy_score(truth, called))
    assert c.macro_f1(matrix) == pytest.approx(sk.f1_score(truth, called, average="macro"))
    assert c.micro_f1(matrix) == pytest.approx(sk.f1_score(truth, called, average="micro"))
    assert c.matthews_correlation(matrix) == pytest.approx(sk.matthews_corrcoef(truth, called))
    for i in range(classes):
        rest = sk.recall_score(truth != i, called != i)
        assert c.specificity_per_class(matrix)[i] == pytest.approx(rest)
        npv = sk.precision_score(truth != i, called != i)
        assert c.negative_predictive_value_per_class(matrix)[i] == pytest.approx(npv)


def test_a_worked_table_gives_the_textbook_values():
    """Altman & Bland 1994 (BMJ 308:1552): 231 true, 32 false positives, 27 false, 54 true negatives."""
    matrix = np.array([[54, 32], [27, 231]])
    found = {name: float(metric(matrix)) for name, metric in c.decision_metrics(2, positive=1).items()}
    assert found["recall"] == pytest.approx(231 / 258)
    assert found["specificity"] == pytest.approx(54 / 86)
    assert found["precision"] == pytest.approx(231 / 263)
    assert found["negative_predictive_value"] == pytest.approx(54 / 81)
    assert round(found["recall"], 2) == 0.90
    assert round(found["specificity"], 2) == 0.63
    assert found["youden_index"] == pytest.approx(231 / 258 + 54 / 86 - 1)


def test_a_stack_of_matrices_gives_what_each_gives_alone():
    stack = np.array([c.confusion_matrix(*decisions(seed, 3), 3) for seed in range(4)])
    for name, metric in c.decision_metrics(3, None).items():
        np.testing.assert_allclose(metric(stack), [metric(one) for one in stack], err_msg=name)


def test_with_a_positive_class_in_first_place_its_own_rates_are_reported():
    matrix = np.array([[8, 2], [5, 85]])
    found = c.decision_metrics(2, positive=0)
    assert found["recall"](matrix) == pytest.approx(0.8)
    assert found["specificity"](matrix) == pytest.approx(85 / 90)


@pytest.mark.parametrize(
    ("name", "matrix", "reason"),
    [
        ("recall", [[5, 2], [0, 0]], "no image of class pneumonia"),
        ("specificity", [[0, 0], [1, 4]], "no image of class normal"),
        ("precision", [[5, 0], [2, 0]], "no image was called pneumonia"),
        ("negative_predictive_value", [[0, 5], [0, 2]], "no image was called normal"),
        ("matthews_correlation", [[5, 0], [2, 0]], "no image was called pneumonia"),
        ("balanced_accuracy", [[5, 2], [0, 0]], "no image of class pneumonia"),
        ("f1", [[5, 2], [0, 0]], "no image of class pneumonia"),
        ("macro_f1", [[5, 2], [0, 0]], "no image of class pneumonia"),
        ("youden_index", [[5, 2], [0, 0]], "no image of class pneumonia"),
        ("accuracy", [[0, 0], [0, 0]], "no labelled images"),
    ],
)
def test_an_undefined_metric_is_nan_and_says_why(name, matrix, reason):
    matrix = np.array(matrix)
    assert np.isnan(c.decision_metrics(2, positive=1)[name](matrix))
    assert c.why_undefined(name, matrix, ["normal", "pneumonia"]) == reason


def test_accuracy_is_defined_with_one_class_only():
    assert c.accuracy(np.array([[6, 2], [0, 0]])) == 0.75


def test_f1_is_zero_and_not_undefined_when_every_positive_is_missed():
    assert c.f1_per_class(np.array([[5, 0], [3, 0]]))[1] == 0.0


def test_a_score_at_the_threshold_is_positive():
    probabilities = np.array([[0.6, 0.4], [0.61, 0.39], [0.2, 0.8]])
    np.testing.assert_array_equal(c.decide(probabilities, 0.4, 1), [1, 0, 1])


def test_without_a_threshold_the_most_probable_class_is_called():
    np.testing.assert_array_equal(c.decide(np.array([[0.2, 0.5, 0.3], [0.4, 0.3, 0.3]]), None, None), [1, 0])


@pytest.mark.parametrize("k", [1, 2, 3])
def test_top_k_agrees_with_scikit_learn(k):
    random = np.random.default_rng(0)
    labels, probabilities = random.integers(0, 4, 60), random.dirichlet(np.ones(4), 60)
    found = c.top_k_hits(labels, probabilities, k).mean()
    assert found == pytest.approx(sk.top_k_accuracy_score(labels, probabilities, k=k, labels=range(4)))


def test_top_k_beyond_the_number_of_classes_is_refused():
    with pytest.raises(ValueError, match="top-5 is not defined for 4 classes"):
        c.top_k_hits(np.zeros(2, int), np.full((2, 4), 0.25), 5)


def test_nan_probabilities_are_refused():
    with pytest.raises(ScoreError, match="NaN"):
        c.top_k_hits(np.zeros(1, int), np.array([[np.nan, 1.0]]), 1)
