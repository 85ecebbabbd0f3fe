"""Intervals of proportions whose images come from patients: Wilson's, and Agresti and Caffo's for a mean of several.

Images of a patient are no independent trials. Both intervals are computed at the effective number of images: the
images divided by the design effect, which is the variance by patient over the binomial one (Korn & Graubard 1998).
"""

from collections.abc import Sequence

import numpy as np
from scipy import special  # not scipy.stats: see metrics.auc

from penumo_assets.metrics.jackknife import degrees_of_freedom
from penumo_assets.metrics.records import Estimate

Trials = tuple[np.ndarray, np.ndarray]


def proportion(hits: np.ndarray, patients: np.ndarray, reason: str, confidence: float = 0.95) -> Estimate:
    """Share of (m,) bool ``hits`` with Wilson's interval (1927, doi:10.1080/01621459.1927.10502953) by (m,) patients.

    ``reason`` is reported if there is no image. An interval at 0 or 1 is never a single point.
    """
    if not len(hits):
        return Estimate.undefined(reason)
    value, n = float(hits.mean()), effective_images(hits, patients)
    z = special.ndtri(0.5 + confidence / 2)
    centre = (value + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(value * (1 - value) / n + z**2 / (4 * n**2))
    # At 0 and 1 the ends are the value itself, but for rounding.
    low, high = (min(max(float(end), 0.0), 1.0) for end in (centre - half, centre + half))
    return Estimate(value=value, low=min(low, value), high=max(high, value), method="Wilson, by patient")


def mean_proportion(trials: Sequence[Trials], reason: str, confidence: float = 0.95) -> Estimate:
    """Mean of several proportions, each of its own images, such as balanced accuracy.

    The interval adds one hit and one miss to each (Agresti & Caffo 2000, doi:10.1080/00031305.2000.10474560).

    Parameters
    ----------
    trials : of each proportion the (m,) bool hits and the (m,) patients.
    reason : reported if one of them has no image.
    """
    if not all(len(hits) for hits, _ in trials):
        return Estimate.undefined(reason)
    value = float(np.mean([hits.mean() for hits, _ in trials]))
    sizes = np.array([effective_images(*trial) for trial in trials])
    smoothed = (np.array([hits.mean() for hits, _ in trials]) * sizes + 1) / (sizes + 2)
    error = np.sqrt((smoothed * (1 - smoothed) / (sizes + 2)).sum()) / len(trials)
    half = special.ndtri(0.5 + confidence / 2) * error
    low, high = (min(max(float(smoothed.mean() + step), 0.0), 1.0) for step in (-half, half))
    return Estimate(value=value, low=min(low, value), high=max(high, value), method="Agresti-Caffo, by patient")


def effective_images(hits: np.ndarray, patients: np.ndarray) -> float:
    """As many independent images have this variance; between the number of patients' largest shares and all images."""
    _, codes = np.unique(patients, return_inverse=True)
    films = np.bincount(codes)
    value, count, clusters = hits.mean(), len(hits), len(films)
    if value in (0.0, 1.0) or clusters < 2:
        return float(clusters)
    spread = np.bincount(codes, hits) - value * films
    variance = clusters / (clusters - 1) * (spread**2).sum() / count**2
    effect = variance / (value * (1 - value) / count)
    images = count / min(max(effect, 1.0), films.max())
    if 1 < films.max() > effect:  # the variance by patient is itself estimated, from few patients badly
        images *= (special.stdtrit(count - 1, 0.975) / special.stdtrit(degrees_of_freedom(spread), 0.975)) ** 2
    return float(images)
