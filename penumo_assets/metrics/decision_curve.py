"""Decision curve analysis: is acting on the model better than treating everyone or no one?"""

from dataclasses import dataclass

import numpy as np

from penumo_assets.metrics.scores import check_labels_and_scores


@dataclass(frozen=True)
class DecisionCurve:
    """Net benefit per image at each threshold probability; treating no one has net benefit 0."""

    thresholds: np.ndarray
    model: np.ndarray
    treat_all: np.ndarray


def decision_curve(labels: np.ndarray, probabilities: np.ndarray, thresholds: np.ndarray) -> DecisionCurve | None:
    """Net benefit = TP/n - FP/n x pt/(1 - pt) (Vickers & Elkin 2006, doi:10.1177/0272989X06295361).

    Parameters
    ----------
    labels : (n,) array of 0 and 1.
    probabilities : (n,) calibrated probability of the positive class.
    thresholds : (k,) threshold probabilities in (0, 1).

    Returns
    -------
    DecisionCurve, or None if a class is absent.

    Raises
    ------
    ValueError
        If a threshold is not inside (0, 1).
    """
    check_labels_and_scores(labels, probabilities)
    thresholds = np.asarray(thresholds, np.float64)
    if thresholds.size == 0 or thresholds.min() <= 0 or thresholds.max() >= 1:
        raise ValueError("threshold probabilities must lie strictly between 0 and 1")
    present = labels == 1
    n = len(labels)
    if n == 0 or present.all() or not present.any():
        return None
    odds = thresholds / (1 - thresholds)
    true_positives = present.sum() - np.searchsorted(np.sort(probabilities[present]), thresholds, side="left")
    false_positives = (~present).sum() - np.searchsorted(np.sort(probabilities[~present]), thresholds, side="left")
    return DecisionCurve(
        thresholds,
        true_positives / n - false_positives / n * odds,
        present.mean() - (1 - present.mean()) * odds,
    )
