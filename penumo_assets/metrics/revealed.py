"""What the quantities of `preparation` tell of a class: each alone, all together, and more than the film did."""

from collections.abc import Mapping

import numpy as np

from penumo_assets.metrics.auc import MIN_PATIENTS, Part, mean_auc
from penumo_assets.metrics.delong import compare_aucs
from penumo_assets.metrics.logistic import out_of_fold_scores
from penumo_assets.metrics.ranking import roc_auc
from penumo_assets.metrics.records import Estimate


def revealed(
    quantities: Mapping[str, np.ndarray], positive: np.ndarray, patients: np.ndarray, confidence: float = 0.95
) -> dict[str, Estimate]:
    """ROC-AUC of each quantity by itself, in the better of its two directions, which flatters it.

    Parameters
    ----------
    quantities : (n,) values by name; NaN is left out.
    positive : (n,) bool, whether an image is of the class.
    patients : (n,) array of patient identifiers.
    """
    return {name: _alone(values, positive, patients, confidence) for name, values in quantities.items()}


def revealed_together(table: np.ndarray, positive: np.ndarray, patients: np.ndarray) -> Estimate:
    """ROC-AUC of a logistic regression on all columns of an (n, k) table, each image scored by a fold without its
    patient; rows with NaN are left out."""
    known = np.isfinite(table).all(axis=1)
    table, positive, patients = table[known], positive[known], patients[known]
    if min(len(np.unique(patients[side])) for side in (positive, ~positive)) < MIN_PATIENTS:
        return Estimate.undefined(f"fewer than {MIN_PATIENTS} patients with or without the class")
    scores = out_of_fold_scores(table, positive, patients)
    return mean_auc([Part(positive, scores, patients)])


def added(prepared: np.ndarray, film: np.ndarray, positive: np.ndarray, patients: np.ndarray) -> Estimate:
    """How much better a quantity tells the classes apart after the preparation than before it.

    The difference of the two ROC-AUCs, each in its better direction, with DeLong's interval by patient. Rows in which
    either is NaN are left out.
    """
    known = np.isfinite(prepared) & np.isfinite(film)
    positive, patients = positive[known], patients[known]
    if min(len(np.unique(patients[side])) for side in (positive, ~positive)) < MIN_PATIENTS:
        return Estimate.undefined(f"fewer than {MIN_PATIENTS} patients with or without the class")
    after, before = _upwards(prepared[known], positive), _upwards(film[known], positive)
    found = compare_aucs(positive.astype(np.int64), after, before, patients)
    if found is None:
        return Estimate.undefined("the two have no variance")
    return Estimate(value=found.difference, low=found.low, high=found.high, method="DeLong, clustered by patient")


def _alone(values: np.ndarray, positive: np.ndarray, patients: np.ndarray, confidence: float) -> Estimate:
    known = np.isfinite(values)
    values, positive, patients = values[known], positive[known], patients[known]
    if positive.all() or not positive.any():
        return Estimate.undefined("one class only")
    return mean_auc([Part(positive, _upwards(values, positive), patients)], confidence)


def _upwards(values: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """The values, turned so that they rank the class not worse than chance."""
    return values if roc_auc(positive.astype(np.int64), values) >= 0.5 else -values
