"""Metrics of a decision, from confusion matrices; binary and multi-class, one sample or many resamples.

Every function takes a stack of confusion matrices (..., C, C), rows the truth and columns the
decision, and returns (...) float64 with NaN where the metric is undefined. Formulas follow Sokolova
& Lapalme 2009, doi:10.1016/j.ipm.2009.03.002, except where a docstring says otherwise.
"""

from collections.abc import Callable, Sequence

import numpy as np

from penumo_assets.metrics.scores import check_labels_and_scores


def confusion_matrix(truth: np.ndarray, decision: np.ndarray, classes: int) -> np.ndarray:
    """Counts (C, C) int64; row = truth, column = decision."""
    return np.bincount(truth * classes + decision, minlength=classes * classes).reshape(classes, classes)


def decide(probabilities: np.ndarray, threshold: float | None, positive: int | None) -> np.ndarray:
    """The class an image is called, (n,) int.

    With two classes and a ``threshold``: positive when its probability is at or above it. Otherwise
    the class of the highest probability.
    """
    if threshold is None or positive is None:
        return probabilities.argmax(axis=1)
    called = probabilities[:, positive] >= threshold
    return np.where(called, positive, 1 - positive)


def top_k_hits(labels: np.ndarray, probabilities: np.ndarray, k: int) -> np.ndarray:
    """(n,) bool: whether the truth is among the ``k`` most probable classes (ties: lower index first).

    Raises
    ------
    ValueError
        If ``k`` is not in 1..C.
    """
    check_labels_and_scores(labels, probabilities)
    if not 1 <= k <= probabilities.shape[1]:
        raise ValueError(f"top-{k} is not defined for {probabilities.shape[1]} classes")
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
    return (best == labels[:, None]).any(axis=1)


def accuracy(matrix: np.ndarray) -> np.ndarray:
    """Share of images that were called what they are."""
    return _ratio(_hits(matrix).sum(-1), matrix.sum((-2, -1)))


def recall_per_class(matrix: np.ndarray) -> np.ndarray:
    """(..., C): share of each class that was called so (sensitivity); undefined for an absent class."""
    return _ratio(_hits(matrix), matrix.sum(-1))


def precision_per_class(matrix: np.ndarray) -> np.ndarray:
    """(..., C): share of the calls of each class that are right; undefined if it was never called."""
    return _ratio(_hits(matrix), matrix.sum(-2))


def specificity_per_class(matrix: np.ndarray) -> np.ndarray:
    """(..., C): share of the other classes that was not called this one."""
    total = matrix.sum((-2, -1))[..., None]
    others = total - matrix.sum(-1)
    false_calls = matrix.sum(-2) - _hits(matrix)
    return _ratio(others - false_calls, others)


def negative_predictive_value_per_class(matrix: np.ndarray) -> np.ndarray:
    """(..., C): share of the images not called this class that are not it."""
    total = matrix.sum((-2, -1))[..., None]
    not_called = total - matrix.sum(-2)
    missed = matrix.sum(-1) - _hits(matrix)
    return _ratio(not_called - missed, not_called)


def f1_per_class(matrix: np.ndarray) -> np.ndarray:
    """(..., C): 2 TP / (2 TP + FP + FN); undefined for a class that is absent from the truth."""
    present = matrix.sum(-1)
    return _ratio(np.where(present > 0, 2 * _hits(matrix), 0), np.where(present > 0, present + matrix.sum(-2), 0))


def balanced_accuracy(matrix: np.ndarray) -> np.ndarray:
    """Mean recall over the classes (Brodersen et al. 2010, doi:10.1109/ICPR.2010.764)."""
    return recall_per_class(matrix).mean(-1)


def macro_f1(matrix: np.ndarray) -> np.ndarray:
    """Mean F1 over the classes; undefined if a class is absent from the truth."""
    return f1_per_class(matrix).mean(-1)


def micro_f1(matrix: np.ndarray) -> np.ndarray:
    """F1 of the pooled counts; with one label per image it equals the accuracy."""
    hits, total = _hits(matrix).sum(-1), matrix.sum((-2, -1))
    return _ratio(2 * hits, 2 * total)


def youden_index(matrix: np.ndarray) -> np.ndarray:
    """Sensitivity + specificity - 1 of a binary decision (Youden 1950); balanced accuracy x 2 - 1."""
    return recall_per_class(matrix).sum(-1) - 1


def matthews_correlation(matrix: np.ndarray) -> np.ndarray:
    """Multi-class Matthews correlation (Gorodkin 2004, doi:10.1016/j.compbiolchem.2004.09.006).

    Undefined when the truth or the decisions hold one class only.
    """
    matrix = matrix.astype(np.float64)
    truth, called, total = matrix.sum(-1), matrix.sum(-2), matrix.sum((-2, -1))
    covariance = _hits(matrix).sum(-1) * total - (truth * called).sum(-1)
    spread = (total**2 - (truth**2).sum(-1)) * (total**2 - (called**2).sum(-1))
    return _ratio(covariance, np.sqrt(spread))


Metric = Callable[[np.ndarray], np.ndarray]


def decision_metrics(classes: int, positive: int | None) -> dict[str, Metric]:
    """Name to function for every metric of a decision.

    With two classes and a positive one, precision, recall, F1, specificity and negative predictive
    value are the positive class's; otherwise they are means over the classes ("macro").
    """

    def pick(per_class: Metric) -> Metric:
        if classes == 2 and positive is not None:
            return lambda matrix: per_class(matrix)[..., positive]
        return lambda matrix: per_class(matrix).mean(-1)

    metrics: dict[str, Metric] = {
        "accuracy": accuracy,
        "balanced_accuracy": balanced_accuracy,
        "recall": pick(recall_per_class),
        "specificity": pick(specificity_per_class),
        "precision": pick(precision_per_class),
        "negative_predictive_value": pick(negative_predictive_value_per_class),
        "f1": pick(f1_per_class),
        "macro_f1": macro_f1,
        "micro_f1": micro_f1,
        "matthews_correlation": matthews_correlation,
    }
    if classes == 2:
        metrics["youden_index"] = youden_index
    return metrics


def why_undefined(name: str, matrix: np.ndarray, class_names: Sequence[str]) -> str:
    """The reason a metric of ``decision_metrics`` is NaN for this (C, C) matrix, for a person."""
    if matrix.sum() == 0:
        return "no labelled images"
    absent = [name for name, count in zip(class_names, matrix.sum(1), strict=True) if count == 0]
    uncalled = [name for name, count in zip(class_names, matrix.sum(0), strict=True) if count == 0]
    if name in ("precision", "negative_predictive_value", "matthews_correlation") and uncalled:
        return f"no image was called {', '.join(uncalled)}"
    if absent:
        return f"no image of class {', '.join(absent)}"
    return "the denominator is zero"


def _hits(matrix: np.ndarray) -> np.ndarray:
    return np.diagonal(matrix, axis1=-2, axis2=-1)


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    numerator, denominator = np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)
    return np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator > 0)
