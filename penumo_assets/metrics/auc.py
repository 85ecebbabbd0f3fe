"""ROC-AUCs with intervals by patient: of one ranking, or the weighted mean of several (classes, cohorts)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special  # scipy.stats takes longer to import, and a check of every cohort's run needs this module

from penumo_assets.metrics.delong import auc_influence
from penumo_assets.metrics.ranking import roc_auc
from penumo_assets.metrics.records import Estimate

MIN_PATIENTS = 10  # with the finding, and as many without; with fewer an interval covers too rarely to be shown


@dataclass(frozen=True)
class Part:
    """One ranking: (m,) whether the finding is present, (m,) scores, and the (m,) patients; ``weight`` in the mean."""

    present: np.ndarray
    scores: np.ndarray
    patients: np.ndarray
    weight: float = 1.0

    @property
    def sides(self) -> tuple[int, int]:
        """Patients with the finding and without."""
        with_finding, without = (len(np.unique(self.patients[side])) for side in (self.present, ~self.present))
        return with_finding, without


def mean_auc(parts: Sequence[Part], confidence: float = 0.95) -> Estimate:
    """Weighted mean of the parts' ROC-AUCs, with DeLong's interval by patient on the logit scale.

    It is as wide as Student's t with the patients of the smallest side, less one: with 10 to 30 of them the normal
    quantile covers 0.924 to 0.938, this 0.947 to 0.958 (simulated).
    Patients that stand in several parts are counted as what they are: their influences are added before the variance
    is taken. At 0 and 1, where DeLong knows no variance, one part has Newcombe's score interval and several have none.
    """
    value = float(np.average([roc_auc(p.present.astype(np.int64), p.scores) for p in parts], weights=_weights(parts)))
    fewest = min(min(part.sides) for part in parts)
    if not np.isfinite(value):
        return Estimate.undefined("undefined: a class is absent")
    if fewest < MIN_PATIENTS:
        return Estimate(value=value, reason=f"no interval: fewer than {MIN_PATIENTS} patients with or without a class")
    variance = _variance(parts)
    if value in (0.0, 1.0) or variance <= 0:
        if len(parts) > 1 or value not in (0.0, 1.0):
            return Estimate(value=value, reason="no interval: every image is ranked alike")
        low, high = newcombe_interval(value, *parts[0].sides, confidence)
        return Estimate(value=value, low=low, high=high, method="Newcombe score, patients")
    quantile = special.stdtrit(fewest - 1, 0.5 + confidence / 2)
    half = quantile * np.sqrt(variance) / (value * (1 - value))
    low, high = (float(special.expit(special.logit(value) + step)) for step in (-half, half))
    return Estimate(value=value, low=low, high=high, method="DeLong on the logit scale, by patient")


def _weights(parts: Sequence[Part]) -> np.ndarray:
    weights = np.array([part.weight for part in parts], np.float64)
    return weights / weights.sum()


def _variance(parts: Sequence[Part]) -> float:
    names = np.unique(np.concatenate([part.patients for part in parts]))
    influence = np.zeros(len(names))
    for weight, part in zip(_weights(parts), parts, strict=True):
        _, by_patient = auc_influence(part.present, part.scores[None], part.patients)
        influence[np.searchsorted(names, np.unique(part.patients))] += weight * by_patient[0]
    return float((influence**2).sum())


def newcombe_interval(value: float, positives: int, negatives: int, confidence: float = 0.95) -> tuple[float, float]:
    """Score interval of an AUC of 0 or 1 from the patients with and without the finding.

    The bound solves (A - theta)^2 = z^2 V(theta) with Hanley & McNeil's variance taken at theta, which is Newcombe's
    method 5 (2006, doi:10.1002/sim.2324) with the exact group sizes.
    """
    from scipy import optimize  # for what is rare

    z2 = special.ndtri(0.5 + confidence / 2) ** 2

    def excess(theta: float) -> float:
        return (1 - theta) ** 2 - z2 * hanley_mcneil_variance(theta, positives, negatives)

    bound = float(optimize.brentq(excess, 0.0, 1 - 1e-12)) if excess(1 - 1e-12) < 0 else 1.0
    return (bound, 1.0) if value == 1.0 else (0.0, 1 - bound)


def hanley_mcneil_variance(auc: float, positives: int, negatives: int) -> float:
    """Variance of an AUC under the exponential model (Hanley & McNeil 1982, doi:10.1148/radiology.143.1.7063747)."""
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    spread = auc * (1 - auc) + (positives - 1) * (q1 - auc**2) + (negatives - 1) * (q2 - auc**2)
    return spread / (positives * negatives)
