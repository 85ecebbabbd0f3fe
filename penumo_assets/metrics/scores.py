"""What counts as valid labels and scores."""

import numpy as np


class ScoreError(ValueError):
    """Scores or labels that no metric may be computed from; the message says which and why."""


def check_labels_and_scores(labels: np.ndarray, scores: np.ndarray) -> None:
    """Refuse what would silently give a wrong number.

    Parameters
    ----------
    labels : (n,) integer or bool array.
    scores : (n,) or (n, C) float array; one row per label.

    Raises
    ------
    ScoreError
        If the lengths differ, a score is NaN or infinite, or a label is negative or beyond C - 1
        (for one-dimensional scores: beyond 1).
    """
    if labels.ndim != 1 or scores.ndim not in (1, 2) or len(labels) != len(scores):
        raise ScoreError(f"labels {labels.shape} and scores {scores.shape} do not describe the same images")
    bad = ~np.isfinite(scores)
    if bad.any():
        rows = int(bad.any(axis=1).sum()) if bad.ndim == 2 else int(bad.sum())
        raise ScoreError(f"{rows} of {len(scores)} scores are NaN or infinite: the model's output cannot be evaluated")
    classes = scores.shape[1] if scores.ndim == 2 else 2
    if len(labels) and (labels.min() < 0 or labels.max() >= classes):
        raise ScoreError(f"labels lie in {labels.min()}..{labels.max()}, the scores know classes 0..{classes - 1}")
