"""A vectorised bootstrap that resamples patients, for the band of a ROC curve and for means.

Images of one patient are not independent, so a resample draws patients with replacement and takes
all their images (cluster bootstrap: Field & Welsh 2007, doi:10.1111/j.1467-9868.2007.00593.x). A
resample is a vector of weights, never a copy of the data: statistics that are functions of sums
cost one matrix product, and areas under curves reuse one sort.
"""

from functools import lru_cache

import numpy as np

from penumo_assets.metrics.ranking import Ranking
from penumo_assets.metrics.records import Settings

MIN_DEFINED = 0.9  # share of resamples in which a curve must be defined to have a band
_CHUNK = 64  # resamples at a time, so that their weights as float64 stay small


class PatientBootstrap:
    """Resamples of one set of images, by patient; every metric of the set uses the same resamples.

    Parameters
    ----------
    patients : (n,) array of patient identifiers (any sortable type).
    resamples : how many resamples.
    seed : of NumPy's PCG64; the same seed gives the same resamples.
    confidence : two-sided level of the intervals.
    """

    def __init__(self, patients: np.ndarray, resamples: int = 500, seed: int = 0, confidence: float = 0.95) -> None:
        if resamples < 1:
            raise ValueError(f"resamples must be at least 1, got {resamples}")
        if not 0 < confidence < 1:
            raise ValueError(f"confidence must lie between 0 and 1, got {confidence}")
        _, self.codes = np.unique(patients, return_inverse=True)
        self.patients = int(self.codes.max()) + 1 if len(self.codes) else 0
        self.resamples = resamples
        self.confidence = confidence
        self.weights = _multinomial_weights(self.patients, resamples, seed)

    @classmethod
    def of(cls, patients: np.ndarray, settings: Settings) -> "PatientBootstrap":
        """Resamples of these images' patients (n,)."""
        return cls(patients, settings.resamples, settings.seed, settings.confidence)

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Sum of ``values`` (n, k) or (n,) over the images of each resample: (resamples, k) float64."""
        return self._resampled(self._per_patient(values))

    def areas(self, ranking: Ranking) -> tuple[np.ndarray, np.ndarray]:
        """ROC-AUC and average precision of each resample, (resamples,) twice; NaN where undefined."""
        in_order = self.codes[ranking.order]
        areas = np.array([ranking.areas(weights[in_order]) for weights in self.weights])
        return areas[:, 0], areas[:, 1]

    def roc_band(self, ranking: Ranking, grid: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """Pointwise percentile band of the ROC curve: low and high sensitivity at the false positive rates ``grid``.

        By vertical averaging (Fawcett 2006, doi:10.1016/j.patrec.2005.10.010). None if too many resamples lack a class.
        """
        in_order = self.codes[ranking.order]
        curves = [curve for weights in self.weights if (curve := ranking.roc(weights[in_order])) is not None]
        if len(curves) < MIN_DEFINED * self.resamples:
            return None
        heights = np.array([_height(*curve, grid) for curve in curves])
        tail = (1 - self.confidence) / 2
        low, high = np.quantile(heights, [tail, 1 - tail], axis=0)
        return low, high

    def _per_patient(self, values: np.ndarray) -> np.ndarray:
        values = np.asarray(values, np.float64)
        values = values[:, None] if values.ndim == 1 else values
        summed = np.zeros((self.patients, values.shape[1]))
        np.add.at(summed, self.codes, values)
        return summed

    def _resampled(self, per_patient: np.ndarray) -> np.ndarray:
        result = np.empty((self.resamples, per_patient.shape[1]))
        for start in range(0, self.resamples, _CHUNK):
            part = slice(start, start + _CHUNK)
            result[part] = self.weights[part].astype(np.float64) @ per_patient
        return result


def _height(false_positive: np.ndarray, true_positive: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """The ROC curve's sensitivity at ``grid``: the highest one on its vertical steps."""
    last = np.append(false_positive[1:] != false_positive[:-1], True)
    return np.interp(grid, false_positive[last], true_positive[last])


@lru_cache(maxsize=4)
def _multinomial_weights(patients: int, resamples: int, seed: int) -> np.ndarray:
    """(resamples, patients) int32, read-only: how often each patient is drawn in each resample.

    Kept for the last few sizes, because a report looks at the same patients many times.
    """
    random = np.random.default_rng(seed)
    weights = np.zeros((resamples, patients), dtype=np.int32)
    if patients:
        for row in weights:
            row[:] = np.bincount(random.integers(0, patients, size=patients), minlength=patients)
    weights.setflags(write=False)
    return weights
