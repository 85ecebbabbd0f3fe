"""What is measured on the validation split after every epoch. The full evaluation is jobs/evaluate."""

import numpy as np

from penumo_assets.metrics import classification
from penumo_assets.metrics.operating_points import youden_threshold
from penumo_assets.metrics.ranking import roc_auc


def validation_scores(targets: np.ndarray, probabilities: np.ndarray) -> dict[str, float | None]:
    """Loss, ROC-AUC, F1, balanced accuracy and (two classes) the Youden threshold.

    Parameters
    ----------
    targets : (n,) int
        Every class is present.
    probabilities : (n, classes) float
        Rows sum to 1; of two classes the last is the positive one. With more, ROC-AUC is the mean
        over one-against-rest (Hand & Till's alternative, macro) and F1 is macro.
    """
    classes = probabilities.shape[1]
    positive = 1 if classes == 2 else None
    threshold = youden_threshold(targets, probabilities[:, positive]) if positive else None
    decision = classification.decide(probabilities, threshold, positive)
    matrix = classification.confusion_matrix(targets, decision, classes)
    metrics = classification.decision_metrics(classes, positive)
    judged = [positive] if positive else range(classes)
    return {
        "loss": _log_loss(targets, probabilities),
        "roc_auc": float(np.mean([roc_auc(targets == number, probabilities[:, number]) for number in judged])),
        "f1": float(metrics["f1"](matrix)),
        "balanced_accuracy": float(metrics["balanced_accuracy"](matrix)),
        "threshold": threshold,
    }


def _log_loss(targets: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean -log of the probability of the truth, which counts as at least the smallest step of its type."""
    smallest = np.finfo(probabilities.dtype).eps
    chosen = np.clip(probabilities[np.arange(len(targets)), targets], smallest, 1 - smallest)
    return float(-np.log(chosen).mean())
