"""Exact percentiles of integer images from their histograms: several times faster than sorting."""

import cv2
import numpy as np


def level_counts(values: np.ndarray) -> np.ndarray:
    """How often each level occurs: (256,) float64 for uint8, (65536,) for uint16 (exact to 2**24)."""
    levels = int(np.iinfo(values.dtype).max) + 1
    return cv2.calcHist([values], [0], None, [levels], [0, levels]).reshape(-1).astype(np.float64)


def percentile_levels(counts: np.ndarray, low: float, high: float) -> tuple[int, int]:
    """The levels of two percentiles, as ``numpy.percentile(method="inverted_cdf")`` gives them.

    Raises
    ------
    ValueError
        If nothing was counted.
    """
    cumulated = np.cumsum(counts)
    if not cumulated[-1]:
        raise ValueError("no percentiles of an empty set")
    ranks = np.ceil(np.array([low, high]) / 100 * cumulated[-1])
    first, second = np.searchsorted(cumulated, np.maximum(ranks, 1))
    return int(first), int(second)
