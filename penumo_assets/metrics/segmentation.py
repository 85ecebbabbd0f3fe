"""Overlap of a predicted mask with the true one."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Overlap:
    """Dice and IoU of one image; both NaN when neither mask has a pixel."""

    dice: float
    iou: float


def overlap(truth: np.ndarray, predicted: np.ndarray) -> Overlap:
    """Dice = 2|A∩B|/(|A|+|B|) (Dice 1945) and IoU = |A∩B|/|A∪B| (Jaccard 1912) of two (H, W) masks.

    Any non-zero pixel is foreground. When one mask is empty and the other is not, both are 0; when
    both are empty they are undefined (NaN), not 1: there was nothing to find.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    if truth.shape != predicted.shape:
        raise ValueError(f"masks of {truth.shape} and {predicted.shape} cannot be compared")
    truth, predicted = truth.astype(bool), predicted.astype(bool)
    both, size = int((truth & predicted).sum()), int(truth.sum() + predicted.sum())
    if size == 0:
        return Overlap(np.nan, np.nan)
    return Overlap(2 * both / size, both / (size - both))
