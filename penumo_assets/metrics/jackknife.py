"""Intervals of metrics that have none of their own: the jackknife, which leaves out one patient after the other.

Images of one patient are not independent, so they are left out together. The interval is symmetric on the logit scale
between the metric's ends (for PR-AUC: Boyd et al. 2013, doi:10.1007/978-3-642-40994-3_29). It takes Student's t at the
degrees of freedom of its variance: where a few patients decide a metric, only those few speak for it.
"""

from collections.abc import Callable, Sequence

import numpy as np
from scipy import special  # not scipy.stats: see metrics.auc

from penumo_assets.metrics.ranking import Ranking
from penumo_assets.metrics.records import Estimate

Metric = Callable[[np.ndarray], np.ndarray]
Ends = tuple[float, float]
SHARE: Ends = (0.0, 1.0)
MIN_PATIENTS = 50  # with fewer, the interval covers too rarely to be shown
_LEFT_OUT = 500  # rankings are made again without at most so many patients; of more, every so many-th


class PatientJackknife:
    """One set of images, each patient's left out in turn.

    Parameters
    ----------
    patients : (n,) array of patient identifiers (any sortable type).
    confidence : two-sided level of the intervals.
    """

    def __init__(self, patients: np.ndarray, confidence: float = 0.95) -> None:
        _, self.codes = np.unique(patients, return_inverse=True)
        self.patients = int(self.codes.max()) + 1 if len(self.codes) else 0
        self.confidence = confidence

    def of_sums(self, values: np.ndarray, metric: Metric, reason: str = "undefined", ends: Ends = SHARE) -> Estimate:
        """A function of sums over images: ``metric`` of (..., k) sums of ``values`` (n, k) gives (...).

        ``reason`` is reported where it is NaN; it lies between ``ends``.
        """
        per_patient = np.zeros((self.patients, values.shape[1]))
        np.add.at(per_patient, self.codes, values)
        total = per_patient.sum(0)
        return self.estimate(float(metric(total)), metric(total - per_patient), reason, ends)

    def mean(self, values: np.ndarray, reason: str, ends: Ends = SHARE) -> Estimate:
        """Mean of (n,) values between ``ends``, NaN left out."""
        known = np.isfinite(values)
        return self.of_sums(np.column_stack([np.where(known, values, 0.0), known]), _share, reason, ends)

    def average_precision(self, rankings: Sequence[Ranking]) -> Estimate:
        """Mean average precision of one or several rankings of all images (one per class)."""
        images = np.ones(self.patients, np.int64)
        left_out = np.linspace(0, self.patients - 1, min(self.patients, _LEFT_OUT)).round().astype(int)

        def mean(weights: np.ndarray) -> float:
            return float(np.mean([ranking.areas(weights[self.codes[ranking.order]])[1] for ranking in rankings]))

        without = [mean(images - (np.arange(self.patients) == patient)) for patient in left_out]
        return self.estimate(mean(images), np.array(without), "a class is absent")

    def estimate(self, value: float, without: np.ndarray, reason: str = "undefined", ends: Ends = SHARE) -> Estimate:
        """The interval around ``value`` from (m,) values ``without`` one patient each.

        ``reason`` is reported if ``value`` is NaN. Without an interval with fewer than ``MIN_PATIENTS`` patients, where
        the metric hangs on a single patient, and where no patient makes a difference, as at a perfect score.
        """
        if not np.isfinite(value):
            return Estimate.undefined(reason)
        why = None
        if self.patients < MIN_PATIENTS:
            why = f"fewer than {MIN_PATIENTS} patients"
        elif not np.isfinite(without).all():
            why = "undefined without a single patient"
        elif np.ptp(without) < 1e-12:
            why = "no patient makes a difference"
        if why:
            return Estimate(value=value, reason=f"no interval: {why}")
        deviation, span = without - without.mean(), ends[1] - ends[0]
        error = np.sqrt((self.patients - 1) * (deviation**2).mean()) / span
        share = np.clip((value - ends[0]) / span, 1e-9, 1 - 1e-9)
        quantile = special.stdtrit(degrees_of_freedom(deviation), 0.5 + self.confidence / 2)
        half = quantile * error / (share * (1 - share))
        low, high = (ends[0] + span * float(special.expit(special.logit(share) + step)) for step in (-half, half))
        return Estimate(value=value, low=low, high=high, method="jackknife on the logit scale, by patient")


def degrees_of_freedom(deviation: np.ndarray) -> float:
    """Satterthwaite's, of the variance that (m,) patients' ``deviation`` from the mean make; at most m - 1.

    Patients that weigh alike give m - 1, a few that weigh more than all others about their number (Pan & Wall 2002,
    doi:10.1002/sim.1142).
    """
    squares, most = deviation**2, len(deviation) - 1
    spread = ((squares - squares.mean()) ** 2).sum()
    return float(min(2 * squares.sum() ** 2 / spread, most)) if spread > 0 else float(most)


def _share(sums: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return sums[..., 0] / sums[..., 1]
