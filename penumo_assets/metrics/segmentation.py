"""Overlap of a predicted mask with the true one."""

from dataclasses import dataclass

import numpy as np

from penumo_assets.metrics.intervals import PatientBootstrap
from penumo_assets.metrics.records import Estimate


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


def mean_overlap(values: np.ndarray, bootstrap: PatientBootstrap) -> Estimate:
    """Mean of (n,) per-image values, NaN left out, with its interval by patient."""
    values = np.asarray(values, np.float64)
    defined = np.isfinite(values)
    if not defined.any():
        return Estimate.undefined("no image with a ground-truth mask")
    sums = bootstrap.sums(np.column_stack([np.where(defined, values, 0), defined]))
    with np.errstate(invalid="ignore"):
        replicates = sums[:, 0] / sums[:, 1]
    return bootstrap.estimate(float(values[defined].mean()), replicates)
