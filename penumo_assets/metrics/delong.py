"""Variance of an AUC without resampling, and the paired comparison of two models on the same images.

DeLong, DeLong & Clarke-Pearson 1988 (doi:10.2307/2531595), computed with mid-ranks as in Sun & Xu 2014
(doi:10.1109/LSP.2014.2337313); for patients with several images the clustered form of Obuchowski
1997 (doi:10.2307/2533958).
"""

import numpy as np
from scipy import special  # not scipy.stats: see metrics.auc

from penumo_assets.metrics.records import AucComparison, AucVariance
from penumo_assets.metrics.scores import ScoreError, check_labels_and_scores


def delong(
    labels: np.ndarray, scores: np.ndarray, patients: np.ndarray | None = None, confidence: float = 0.95
) -> AucVariance | None:
    """AUC of (n,) scores with its DeLong variance; clustered by ``patients`` (n,) when given.

    Returns
    -------
    AucVariance, or None if a class has fewer than two images (or patients): no variance exists.

    Raises
    ------
    ScoreError
        For NaN scores or unequal lengths.
    """
    found = _covariance(labels, scores[None], patients)
    if found is None:
        return None
    auc, variance = float(found[0][0]), float(found[1][0, 0])
    if variance <= 0 or auc in (0.0, 1.0):
        return AucVariance(auc=auc, variance=max(variance, 0.0), low=None, high=None)
    names = np.arange(len(labels)) if patients is None else patients
    fewest = min(len(np.unique(names[labels == side])) for side in (0, 1))
    quantile = special.stdtrit(fewest - 1, 0.5 + confidence / 2)
    half = quantile * np.sqrt(variance) / (auc * (1 - auc))
    centre = special.logit(auc)
    low, high = (float(special.expit(centre + step)) for step in (-half, half))
    return AucVariance(auc=auc, variance=variance, low=low, high=high)


def compare_aucs(
    labels: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    patients: np.ndarray | None = None,
    confidence: float = 0.95,
) -> AucComparison | None:
    """Do two models rank the same (n,) images differently well?

    ``z`` and ``p_value`` are None when the difference has no variance (identical rankings).
    Returns None where ``delong`` does.
    """
    found = _covariance(labels, np.stack([first, second]), patients)
    if found is None:
        return None
    aucs, covariance = found
    difference = float(aucs[0] - aucs[1])
    error = float(np.sqrt(max(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1], 0.0)))
    half = special.ndtri(0.5 + confidence / 2) * error
    z = difference / error if error > 1e-12 else None
    p_value = float(2 * special.ndtr(-abs(z))) if z is not None else None
    return AucComparison(
        first=float(aucs[0]),
        second=float(aucs[1]),
        difference=difference,
        standard_error=error,
        low=float(difference - half),
        high=float(difference + half),
        z=z,
        p_value=p_value,
    )


def auc_influence(present: np.ndarray, scores: np.ndarray, patients: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What each patient moves the AUCs by: AUCs (k,) of scores (k, n), and influences (k, patients), sorted by patient.

    The sum over patients of a product of influences is a covariance, that of ``delong`` by patient. Being per patient,
    influences of AUCs of different images, classes or cohorts can be added before they are squared.

    Raises
    ------
    ScoreError
        For NaN scores, unequal lengths, or fewer than two patients with or without the finding.
    """
    for row in scores:
        check_labels_and_scores(present.astype(np.int64), row)
    _, codes = np.unique(patients, return_inverse=True)
    clusters = int(codes.max()) + 1 if len(codes) else 0
    sides = [len(np.unique(codes[side])) for side in (present, ~present)]
    if min(sides) < 2:
        raise ScoreError("an AUC has a variance only with two patients with the finding and two without")
    aucs, v10, v01 = _structural_components(present, scores)
    influence = np.zeros((len(scores), clusters))
    for side, values, count in ((present, v10, sides[0]), (~present, v01, sides[1])):
        scale = np.sqrt(count / (count - 1)) / side.sum()
        influence += scale * _sums_by_cluster(values - aucs[:, None], codes[side], clusters)
    return aucs, influence


def _covariance(
    labels: np.ndarray, scores: np.ndarray, patients: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray] | None:
    """AUCs (k,) and their covariance (k, k) for scores (k, n)."""
    for row in scores:
        check_labels_and_scores(labels, row)
    if patients is not None and len(patients) != len(labels):
        raise ScoreError(f"{len(patients)} patients for {len(labels)} labels")
    present = labels == 1
    aucs, v10, v01 = _structural_components(present, scores)
    if aucs is None:
        return None
    if patients is None:
        if present.sum() < 2 or (~present).sum() < 2:
            return None
        return aucs, _cov(v10) / present.sum() + _cov(v01) / (~present).sum()
    return _clustered(present, patients, aucs, v10, v01)


def _structural_components(present: np.ndarray, scores: np.ndarray) -> tuple:
    """AUCs (k,), and the share of negatives each positive beats (k, m) and of positives that beat each negative."""
    m, n = int(present.sum()), int((~present).sum())
    if m == 0 or n == 0:
        return None, None, None
    positive, negative = scores[:, present], scores[:, ~present]
    all_ranks = _ranks(np.concatenate([positive, negative], axis=1))
    v10 = (all_ranks[:, :m] - _ranks(positive)) / n
    v01 = 1 - (all_ranks[:, m:] - _ranks(negative)) / m
    return v10.mean(1), v10, v01


def _clustered(present, patients, aucs, v10, v01) -> tuple[np.ndarray, np.ndarray] | None:
    """Obuchowski's covariance: sums of structural components per patient, of both kinds together."""
    _, codes = np.unique(patients, return_inverse=True)
    clusters = int(codes.max()) + 1
    with_positive, with_negative = np.unique(codes[present]), np.unique(codes[~present])
    if len(with_positive) < 2 or len(with_negative) < 2:
        return None
    m, n = int(present.sum()), int((~present).sum())
    deviation10 = _sums_by_cluster(v10 - aucs[:, None], codes[present], clusters)
    deviation01 = _sums_by_cluster(v01 - aucs[:, None], codes[~present], clusters)
    i10, i01 = len(with_positive), len(with_negative)
    s10 = i10 / ((i10 - 1) * m) * deviation10 @ deviation10.T
    s01 = i01 / ((i01 - 1) * n) * deviation01 @ deviation01.T
    s11 = clusters / (clusters - 1) * deviation10 @ deviation01.T
    return aucs, s10 / m + s01 / n + (s11 + s11.T) / (m * n)


def _sums_by_cluster(values: np.ndarray, codes: np.ndarray, clusters: int) -> np.ndarray:
    return np.stack([np.bincount(codes, row, clusters) for row in values])


def _cov(components: np.ndarray) -> np.ndarray:
    return np.atleast_2d(np.cov(components))


def _ranks(rows: np.ndarray) -> np.ndarray:
    """The rank of each value in its row from 1 on; equal values share the mean of theirs."""
    found = np.empty(rows.shape)
    for row, ranks in zip(rows, found, strict=True):
        _, at, counts = np.unique(row, return_inverse=True, return_counts=True)
        ranks[:] = (np.cumsum(counts) - (counts - 1) / 2)[at]
    return found
