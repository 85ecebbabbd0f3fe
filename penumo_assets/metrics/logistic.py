"""A logistic regression on a small table, each row scored by a fit that has not seen its patient.

By hand, because importing scikit-learn takes a second, and every cohort's run would.
"""

import numpy as np
from scipy import special

_RIDGE = 1.0  # scikit-learn's default, C = 1
_STEPS = 50


def out_of_fold_scores(
    table: np.ndarray, positive: np.ndarray, patients: np.ndarray, folds: int = 5, seed: int = 0
) -> np.ndarray:
    """The (n,) log odds of rows of an (n, k) table, of which ``positive`` (n,) bool are of the class.

    Patients with the class, and those without, are dealt out to the folds in turn. Every fold needs some of both.
    """
    names, at = np.unique(patients, return_inverse=True)
    with_class = np.bincount(at, positive) > 0
    order = np.lexsort((np.random.default_rng(seed).permutation(len(names)), with_class))
    fold = np.empty(len(names), np.intp)
    fold[order] = np.arange(len(names)) % folds
    scores = np.empty(len(table))
    for held_out in range(folds):
        train = fold[at] != held_out
        mean, sd = table[train].mean(axis=0), table[train].std(axis=0)
        scaled = np.column_stack([(table - mean) / np.where(sd > 0, sd, 1.0), np.ones(len(table))])
        scores[~train] = scaled[~train] @ fit(scaled[train], positive[train])
    return scores


def fit(table: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """The (k,) weights by Newton's method; the last column is the constant, whose weight is not held small."""
    ridge = np.full(table.shape[1], _RIDGE)
    ridge[-1] = 0.0
    weights = np.zeros(table.shape[1])
    for _ in range(_STEPS):
        chance = special.expit(table @ weights)
        slope = table.T @ (chance - positive) + ridge * weights
        bend = (table.T * (chance * (1 - chance))) @ table + np.diag(ridge)
        step = np.linalg.solve(bend, slope)
        weights -= step
        if np.abs(step).max() < 1e-9:
            break
    return weights
