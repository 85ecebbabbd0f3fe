"""Confidence intervals: a vectorised bootstrap that resamples patients, and exact ones where it degenerates.

Images of one patient are not independent, so a resample draws patients with replacement and takes
all their images (cluster bootstrap: Field & Welsh 2007, doi:10.1111/j.1467-9868.2007.00593.x). A
resample is a vector of weights, never a copy of the data: statistics that are functions of sums
cost one matrix product, and areas under curves reuse one sort.
"""

from functools import lru_cache

import numpy as np
from scipy import optimize, stats

from penumo_assets.metrics.ranking import Ranking
from penumo_assets.metrics.records import Estimate, Settings

MIN_DEFINED = 0.9  # share of resamples in which a metric must be defined to have an interval
_BAND_RESAMPLES = 500
_CHUNK = 64  # resamples at a time, so that their weights as float64 stay small


class PatientBootstrap:
    """Resamples of one set of images, by patient; every metric of the set uses the same resamples.

    Parameters
    ----------
    patients : (n,) array of patient identifiers (any sortable type).
    resamples : how many resamples; 2,000 give the 2.5 % tail 50 resamples.
    seed : of NumPy's PCG64; the same seed gives the same resamples.
    confidence : two-sided level of the intervals.
    """

    def __init__(self, patients: np.ndarray, resamples: int = 2000, seed: int = 0, confidence: float = 0.95) -> None:
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
        values = np.asarray(values, np.float64)
        values = values[:, None] if values.ndim == 1 else values
        per_patient = np.zeros((self.patients, values.shape[1]))
        np.add.at(per_patient, self.codes, values)
        result = np.empty((self.resamples, values.shape[1]))
        for start in range(0, self.resamples, _CHUNK):
            part = slice(start, start + _CHUNK)
            result[part] = self.weights[part].astype(np.float64) @ per_patient
        return result

    def areas(self, ranking: Ranking, rows: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """ROC-AUC and average precision of each resample, (resamples,) twice; NaN where undefined.

        ``rows`` (m,) are the images that ``ranking`` orders, all of them if absent.
        """
        in_order = (self.codes if rows is None else self.codes[rows])[ranking.order]
        areas = np.array([ranking.areas(weights[in_order]) for weights in self.weights])
        return areas[:, 0], areas[:, 1]

    def roc_band(self, ranking: Ranking, grid: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """Pointwise percentile band of the ROC curve: low and high sensitivity at the false positive rates ``grid``.

        At most ``_BAND_RESAMPLES`` resamples are drawn (vertical averaging, Fawcett 2006,
        doi:10.1016/j.patrec.2005.10.010). None if too many resamples lack a class.
        """
        in_order = self.codes[ranking.order]
        tried = min(self.resamples, _BAND_RESAMPLES)
        curves = [curve for weights in self.weights[:tried] if (curve := ranking.roc(weights[in_order])) is not None]
        if len(curves) < MIN_DEFINED * tried:
            return None
        heights = np.array([_height(*curve, grid) for curve in curves])
        tail = (1 - self.confidence) / 2
        low, high = np.quantile(heights, [tail, 1 - tail], axis=0)
        return low, high

    def estimate(self, value: float, replicates: np.ndarray, reason: str = "undefined") -> Estimate:
        """Percentile interval (Efron & Tibshirani 1993, chapter 13) around ``value``.

        ``reason`` is reported if ``value`` is NaN. Without an interval (None) when the metric is
        undefined in more than a tenth of the resamples: the rest would be a biased sample.
        """
        if not np.isfinite(value):
            return Estimate.undefined(reason)
        defined = replicates[np.isfinite(replicates)]
        if len(defined) < MIN_DEFINED * self.resamples:
            return Estimate(
                value=float(value),
                resamples=len(defined),
                reason=f"no interval: undefined in {self.resamples - len(defined)} of {self.resamples} resamples",
            )
        tail = (1 - self.confidence) / 2
        low, high = np.quantile(defined, [tail, 1 - tail])
        return Estimate(
            value=float(value),
            low=float(low),
            high=float(high),
            method="patient bootstrap, percentile",
            resamples=len(defined),
        )


def widen_degenerate_proportion(estimate: Estimate, patients: int, confidence: float = 0.95) -> Estimate:
    """Replace a bootstrap interval of zero width at 0 or 1 by the Clopper-Pearson interval.

    When all of n patients are called right, every resample says 1.0 and the percentile interval is
    [1, 1], however small n is. The exact binomial bound is honest: for 20 of 20 it starts at 0.83.

    Parameters
    ----------
    patients : patients in the metric's denominator.
    """
    if estimate.value not in (0.0, 1.0) or patients < 1:
        return estimate
    tail = (1 - confidence) / 2
    bound = tail ** (1 / patients)
    low, high = (bound, 1.0) if estimate.value == 1.0 else (0.0, 1 - bound)
    return estimate.model_copy(update={"low": low, "high": high, "method": "Clopper-Pearson, patients", "reason": None})


def widen_degenerate_auc(estimate: Estimate, positives: int, negatives: int, confidence: float = 0.95) -> Estimate:
    """Replace a bootstrap interval of zero width at AUC 0 or 1 by a score interval.

    The bound solves (A - theta)^2 = z^2 V(theta) with Hanley & McNeil's variance taken at theta,
    which is Newcombe's method 5 (2006, doi:10.1002/sim.2324) with the exact group sizes.

    Parameters
    ----------
    positives, negatives : patients with and without the finding.
    """
    if estimate.value not in (0.0, 1.0) or min(positives, negatives) < 1:
        return estimate
    z2 = stats.norm.ppf(0.5 + confidence / 2) ** 2

    def excess(theta: float) -> float:
        return (1 - theta) ** 2 - z2 * hanley_mcneil_variance(theta, positives, negatives)

    bound = optimize.brentq(excess, 0.0, 1 - 1e-12) if excess(1 - 1e-12) < 0 else 1.0
    low, high = (bound, 1.0) if estimate.value == 1.0 else (0.0, 1 - bound)
    found = {"low": float(low), "high": float(high), "method": "Newcombe score, patients", "reason": None}
    return estimate.model_copy(update=found)


def hanley_mcneil_variance(auc: float, positives: int, negatives: int) -> float:
    """Variance of an AUC under the exponential model (Hanley & McNeil 1982, doi:10.1148/radiology.143.1.7063747)."""
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    spread = auc * (1 - auc) + (positives - 1) * (q1 - auc**2) + (negatives - 1) * (q2 - auc**2)
    return spread / (positives * negatives)


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
