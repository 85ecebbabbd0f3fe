"""Where to cut a score: thresholds chosen on validation data, never on the data they are judged on."""

import numpy as np

from penumo_assets.metrics.scores import check_labels_and_scores


def youden_threshold(labels: np.ndarray, scores: np.ndarray) -> float | None:
    """The threshold that maximises sensitivity + specificity - 1 (Youden 1950; Perkins & Schisterman 2006).

    An image is called positive when its score is at or above the threshold. The threshold is put
    half-way between the lowest score called positive and the highest called negative, so that it is
    not tied to one image; among equally good cuts the one of highest sensitivity is taken.

    Parameters
    ----------
    labels : (n,) array of 0 and 1.
    scores : (n,) float array, higher means more likely positive.

    Returns
    -------
    float, or None if a class is absent.

    Raises
    ------
    ScoreError
        For NaN scores or unequal lengths.
    """
    cuts = _cuts(labels, scores)
    if cuts is None:
        return None
    thresholds, sensitivity, specificity = cuts
    index = sensitivity + specificity - 1
    best = np.flatnonzero(np.isclose(index, index.max(), rtol=0, atol=1e-12))
    return float(thresholds[best[-1]])


def threshold_at_sensitivity(labels: np.ndarray, scores: np.ndarray, sensitivity: float) -> float | None:
    """The highest threshold that still reaches ``sensitivity`` (in 0..1] on these images.

    It has the best specificity among the thresholds that do. None if a class is absent.

    Raises
    ------
    ValueError
        If ``sensitivity`` is not in (0, 1].
    ScoreError
        For NaN scores or unequal lengths.
    """
    if not 0 < sensitivity <= 1:
        raise ValueError(f"sensitivity must lie in (0, 1], got {sensitivity}")
    cuts = _cuts(labels, scores)
    if cuts is None:
        return None
    thresholds, reached, _ = cuts
    return float(thresholds[np.flatnonzero(reached >= sensitivity - 1e-12)[0]])


def _cuts(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Falling thresholds with their sensitivity and specificity, from calling few to calling all."""
    check_labels_and_scores(labels, scores)
    positives, negatives = int((labels == 1).sum()), int((labels == 0).sum())
    if positives == 0 or negatives == 0:
        return None
    distinct = np.unique(scores)[::-1]
    below = np.append(distinct[1:], distinct[-1])
    thresholds = distinct + (below - distinct) / 2
    # Two neighbouring floats have no float between them; the upper one is then the threshold itself.
    thresholds = np.where(thresholds > below, thresholds, distinct)
    called_positive = positives - np.searchsorted(np.sort(scores[labels == 1]), distinct, side="left")
    called_negative = negatives - np.searchsorted(np.sort(scores[labels == 0]), distinct, side="left")
    return thresholds, called_positive / positives, 1 - called_negative / negatives
