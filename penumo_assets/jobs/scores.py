"""What is measured on the validation split after every epoch. The full evaluation is jobs/evaluate."""

import numpy as np
from sklearn.metrics import balanced_accuracy_score, f1_score, log_loss, roc_auc_score

from penumo_assets.metrics.operating_points import youden_threshold


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
    loss = float(log_loss(targets, probabilities, labels=np.arange(classes)))
    if classes == 2:
        positive = probabilities[:, 1]
        threshold = youden_threshold(targets, positive)
        predicted = (positive >= threshold).astype(int)
        auc, f1 = roc_auc_score(targets, positive), f1_score(targets, predicted, zero_division=0)
    else:
        threshold = None
        predicted = probabilities.argmax(axis=1)
        auc = roc_auc_score(targets, probabilities, multi_class="ovr", average="macro")
        f1 = f1_score(targets, predicted, average="macro", zero_division=0)
    return {
        "loss": loss,
        "roc_auc": float(auc),
        "f1": float(f1),
        "balanced_accuracy": float(balanced_accuracy_score(targets, predicted)),
        "threshold": threshold,
    }
