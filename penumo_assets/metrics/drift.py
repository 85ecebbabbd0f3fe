"""Has the data moved away from what a model was trained on? Population stability, with a null to judge it by."""

from dataclasses import dataclass

import numpy as np

BINS = 10
_FLOOR = 0.5  # images added to an empty bin, so that its logarithm is finite


@dataclass(frozen=True)
class Stability:
    """A population stability index.

    ``expected`` is the index that two samples of these sizes from one distribution would have on
    average; an index near it is no sign of drift, however large it looks.
    """

    index: float
    expected: float
    reference_images: int
    images: int


def population_stability(reference: np.ndarray, current: np.ndarray, bins: int = BINS) -> Stability | None:
    """PSI = sum_b (p_b - q_b) ln(p_b / q_b) over quantile bins of the reference (Siddiqi 2006, ch. 10).

    The customary reading is below 0.1 stable, 0.1 to 0.25 moved, above 0.25 another population. Its
    expectation without drift is (bins - 1)(1/n + 1/m) (Yurdakul & Naranjo 2020,
    doi:10.21314/JRMV.2020.227), which for small cohorts alone exceeds 0.1.

    Parameters
    ----------
    reference, current : (n,) and (m,) float arrays; NaN (not known) is left out.

    Returns
    -------
    Stability, or None if either has no known value or the reference is constant.
    """
    reference, current = (np.asarray(values, np.float64) for values in (reference, current))
    reference, current = reference[np.isfinite(reference)], current[np.isfinite(current)]
    if not len(reference) or not len(current):
        return None
    edges = np.unique(np.quantile(reference, np.linspace(0, 1, bins + 1)[1:-1]))
    if not len(edges) or reference.min() == reference.max():
        return None
    p, q = (_shares(values, edges) for values in (reference, current))
    index = float(((p - q) * np.log(p / q)).sum())
    expected = len(edges) * (1 / len(reference) + 1 / len(current))
    return Stability(index, expected, len(reference), len(current))


def _shares(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    counts = np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1).astype(np.float64)
    counts = np.maximum(counts, _FLOOR)
    return counts / counts.sum()
