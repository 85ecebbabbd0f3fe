"""Areas under the ROC and the precision-recall curve, fast enough for thousands of resamples."""

from dataclasses import dataclass

import numpy as np

from penumo_assets.metrics.scores import ScoreError, check_labels_and_scores


@dataclass(frozen=True)
class Ranking:
    """Images in falling order of their score, ties kept together; sorted once, used for every resample.

    order : (n,) int, image indices by falling score.
    positives : (p,) int, positions (in that order) of the positive images.
    group_of_positive : (p,) int, for each of them the index of its tie group among those that hold positives.
    group_starts, group_ends : (g,) int, first position and one past the last position of those tie groups.
    ends : (m,) int, one past the last position of every tie group.
    """

    order: np.ndarray
    positives: np.ndarray
    group_of_positive: np.ndarray
    group_starts: np.ndarray
    group_ends: np.ndarray
    ends: np.ndarray

    @classmethod
    def of(cls, labels: np.ndarray, scores: np.ndarray) -> "Ranking":
        """Sort the images.

        Parameters
        ----------
        labels : (n,) array of 0 and 1.
        scores : (n,) float array, higher means more likely positive.

        Raises
        ------
        ScoreError
            For NaN scores, labels other than 0 and 1, unequal lengths or two-dimensional scores.
        """
        check_labels_and_scores(labels, scores)
        if scores.ndim != 1:
            raise ScoreError(f"a ranking needs one score per image, got {scores.shape}")
        order = np.argsort(-scores, kind="stable")
        descending = scores[order]
        first = np.ones(len(scores), dtype=bool)
        first[1:] = descending[1:] != descending[:-1]
        starts = np.flatnonzero(first)
        ends = np.append(starts[1:], len(scores))
        positives = np.flatnonzero(labels[order])
        groups, group_of_positive = np.unique(np.cumsum(first)[positives] - 1, return_inverse=True)
        return cls(order, positives, group_of_positive, starts[groups], ends[groups], ends)

    def areas(self, weights: np.ndarray) -> tuple[float, float]:
        """ROC-AUC and average precision when image ``order[i]`` counts ``weights[i]`` times.

        ROC-AUC is the Mann-Whitney statistic with ties counted half (Hanley & McNeil 1982,
        doi:10.1148/radiology.143.1.7063747). Average precision is sum_k (R_k - R_{k-1}) P_k over
        distinct scores, without interpolation. Only tie groups that hold positives contribute to
        either, so only those are looked at.

        Parameters
        ----------
        weights : (n,) non-negative integers, in the ranking's order.

        Returns
        -------
        Two floats; NaN where the weighted sample lacks one of the classes.
        """
        weighted_positives = weights[self.positives]
        if len(self.group_ends) < len(self.positives):
            gained = np.bincount(self.group_of_positive, weighted_positives, len(self.group_ends))
        else:
            gained = weighted_positives.astype(np.float64)
        total = np.cumsum(weights)
        count, positives = float(total[-1]) if len(total) else 0.0, float(gained.sum())
        negatives = count - positives
        if positives == 0 or negatives == 0:
            return np.nan, np.nan
        called = total[self.group_ends - 1].astype(np.float64)
        true_positives = np.cumsum(gained)
        called_before = np.where(self.group_starts > 0, total[self.group_starts - 1], 0)
        false_positives = called - true_positives
        false_before = called_before - (true_positives - gained)
        auc = gained @ (negatives - 0.5 * (false_positives + false_before)) / (positives * negatives)
        # A group of weight zero at the top has no calls yet; it gains nothing either.
        average_precision = gained @ (true_positives / np.maximum(called, 1)) / positives
        return float(auc), float(average_precision)

    def roc(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """False and true positive rates (m + 1,) each, from (0, 0) to (1, 1), under weights as in ``areas``.

        None where the weighted sample lacks one of the classes.
        """
        total = np.cumsum(weights)
        of_positives = np.zeros(len(weights), dtype=total.dtype)
        of_positives[self.positives] = weights[self.positives]
        true_positives = np.cumsum(of_positives)
        if not len(total) or true_positives[-1] in (0, total[-1]):
            return None
        at = self.ends - 1
        tp, fp = true_positives[at], (total - true_positives)[at]
        return np.append(0, fp) / fp[-1], np.append(0, tp) / tp[-1]


def roc_auc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Area under the ROC curve of (n,) labels in {0, 1} and (n,) scores; NaN if a class is absent.

    >>> roc_auc(np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.35, 0.8]))
    0.75
    """
    return Ranking.of(labels, scores).areas(np.ones(len(labels), dtype=np.int64))[0]


def average_precision(labels: np.ndarray, scores: np.ndarray) -> float:
    """Area under the precision-recall curve (average precision); NaN if a class is absent."""
    return Ranking.of(labels, scores).areas(np.ones(len(labels), dtype=np.int64))[1]
