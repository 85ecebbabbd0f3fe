"""Confidence intervals of any metric: a vectorised bootstrap that resamples patients.

Images of one patient are not independent, so a resample draws patients with replacement and takes
all their images (cluster bootstrap: Field & Welsh 2007, doi:10.1111/j.1467-9868.2007.00593.x). A
resample is a vector of weights, never a copy of the data: statistics that are functions of sums
cost one matrix product, and areas under curves reuse one sort.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from scipy import special, stats

from penumo_assets.metrics.ranking import Ranking
from penumo_assets.metrics.records import Estimate, Settings

Metric = Callable[[np.ndarray], np.ndarray]
MIN_DEFINED = 0.9  # share of resamples in which a metric must be defined to have an interval
MIN_PATIENTS = 50  # with fewer, the interval covers too rarely to be shown
_BAND_RESAMPLES = 500
_LEFT_OUT = 500  # patients that are left out in turn; of more, every so many-th
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
        return self._resampled(self._per_patient(values))

    def of_sums(self, values: np.ndarray, metric: Metric, reason: str = "undefined") -> Estimate:
        """A function of sums over images: ``metric`` of (..., k) sums of ``values`` (n, k) gives (...).

        ``reason`` is reported where it is NaN.
        """
        per_patient = self._per_patient(values)
        total = per_patient.sum(0)
        return self.estimate(
            float(metric(total)), metric(self._resampled(per_patient)), metric(total - per_patient), reason
        )

    def mean(self, values: np.ndarray, reason: str) -> Estimate:
        """Mean of (n,) values, NaN left out."""
        known = np.isfinite(values)
        return self.of_sums(np.column_stack([np.where(known, values, 0.0), known]), _share, reason)

    def average_precision(self, rankings: Sequence[Ranking]) -> Estimate:
        """Mean average precision of one or several rankings of all images (one per class).

        The interval is symmetric on the logit scale (Boyd et al. 2013, doi:10.1007/978-3-642-40994-3_29), with the
        jackknife's variance by patient: it covers where BCa's is too short, at 50 and 100 patients.
        """
        images = np.ones(self.patients, np.int64)
        left_out = np.linspace(0, self.patients - 1, min(self.patients, _LEFT_OUT)).round().astype(int)

        def mean(weights: np.ndarray) -> float:
            return float(np.mean([ranking.areas(weights[self.codes[ranking.order]])[1] for ranking in rankings]))

        value = mean(images)
        if not np.isfinite(value):
            return Estimate.undefined("a class is absent")
        without = np.array([mean(images - (np.arange(self.patients) == patient)) for patient in left_out])
        variance = (self.patients - 1) * without.var()
        if self.patients < MIN_PATIENTS:
            return Estimate(value=value, reason=f"no interval: fewer than {MIN_PATIENTS} patients")
        if not (0 < value < 1 and variance > 0):
            return Estimate(value=value, reason="no interval: every image is ranked alike")
        half = stats.norm.ppf(0.5 + self.confidence / 2) * np.sqrt(variance) / (value * (1 - value))
        low, high = (float(special.expit(special.logit(value) + step)) for step in (-half, half))
        return Estimate(value=value, low=low, high=high, method="jackknife on the logit scale, by patient")

    def areas(self, ranking: Ranking) -> tuple[np.ndarray, np.ndarray]:
        """ROC-AUC and average precision of each resample, (resamples,) twice; NaN where undefined."""
        in_order = self.codes[ranking.order]
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

    def estimate(
        self, value: float, replicates: np.ndarray, without: np.ndarray, reason: str = "undefined"
    ) -> Estimate:
        """BCa interval around ``value`` (Efron 1987, doi:10.1080/01621459.1987.10478410).

        ``replicates`` (resamples,) are the values of the resamples, ``without`` (m,) those with one patient left out:
        from these it takes how much the metric's spread depends on its size. ``reason`` is reported if ``value`` is
        NaN. Without an interval when the metric is undefined in more than a tenth of the resamples (the rest would be
        a biased sample), when all resamples agree, or with fewer than ``MIN_PATIENTS`` patients.
        """
        if not np.isfinite(value):
            return Estimate.undefined(reason)
        defined = replicates[np.isfinite(replicates)]
        why = None
        if self.patients < MIN_PATIENTS:
            why = f"fewer than {MIN_PATIENTS} patients"
        elif len(defined) < MIN_DEFINED * self.resamples:
            why = f"undefined in {self.resamples - len(defined)} of {self.resamples} resamples"
        elif np.ptp(defined) < 1e-12:
            why = "all resamples agree"
        if why:
            return Estimate(value=float(value), resamples=len(defined), reason=f"no interval: {why}")
        low, high = np.quantile(defined, self._bca_levels(value, defined, without[np.isfinite(without)]))
        return Estimate(
            value=float(value),
            low=min(float(low), float(value)),
            high=max(float(high), float(value)),
            method="patient bootstrap, BCa",
            resamples=len(defined),
        )

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

    def _bca_levels(self, value: float, replicates: np.ndarray, without: np.ndarray) -> np.ndarray:
        """Which quantiles of the resamples bound the interval: the percentile ones, moved for bias and skewness."""
        below = (replicates < value).mean() + 0.5 * (replicates == value).mean()
        bias = stats.norm.ppf(np.clip(below, 0.5 / len(replicates), 1 - 0.5 / len(replicates)))
        deviation = without.mean() - without if len(without) else np.zeros(1)
        spread = (deviation**2).sum()
        skew = (deviation**3).sum() / (6 * spread**1.5) if spread > 0 else 0.0
        tail = (1 - self.confidence) / 2
        z = bias + stats.norm.ppf([tail, 1 - tail])
        return stats.norm.cdf(bias + z / (1 - skew * z))


def _share(sums: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return sums[..., 0] / sums[..., 1]


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
