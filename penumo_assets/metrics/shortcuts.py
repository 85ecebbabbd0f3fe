"""Shortcut baselines: what a model could reach by looking at anything but the lungs.

Aspect ratio, mean intensity and file size say nothing about pneumonia, yet in pooled public X-ray
collections they separate the classes, because the classes come from different machines, ages and
archives (Zech et al. 2018, doi:10.1371/journal.pmed.1002683; DeGrave et al. 2021,
doi:10.1038/s42256-021-00338-7). A model must be judged beside them.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class Shortcut:
    """A feature that is no finding: the columns of ``shortcut_features`` that a baseline may look at."""

    name: str
    title: str
    columns: tuple[str, ...]


_SINGLE = (
    Shortcut("aspect_ratio", "Aspect ratio", ("log_aspect_ratio",)),
    Shortcut("mean_intensity", "Mean intensity", ("mean_intensity",)),
    Shortcut("file_size", "File size", ("log_bytes",)),
)
# Each feature alone, then all together.
SHORTCUTS = (*_SINGLE, Shortcut("all", "All three together", tuple(name for item in _SINGLE for name in item.columns)))


def shortcut_features(index: pd.DataFrame) -> pd.DataFrame:
    """Feature table (n rows) from source_width, source_height, source_bytes and mean_intensity.

    Ratios and sizes enter as logarithms, so that a logistic fit sees symmetric differences. A column
    that is missing or not positive gives NaN.
    """
    width, height = _positive(index, "source_width"), _positive(index, "source_height")
    return pd.DataFrame(
        {
            "log_aspect_ratio": np.log(width / height),
            "mean_intensity": _numeric(index, "mean_intensity"),
            "log_bytes": np.log(_positive(index, "source_bytes")),
        },
        index=index.index,
    )


def shortcut_scores(features: pd.DataFrame, outcome: np.ndarray, fit: np.ndarray, apply: np.ndarray) -> np.ndarray:
    """Fit a logistic regression on the rows ``fit`` and score the rows ``apply``.

    Parameters
    ----------
    features : (n, k) feature table of one shortcut.
    outcome : (n,) array of 0 and 1.
    fit, apply : (n,) bool, disjoint: training and validation rows, and test rows.

    Returns
    -------
    (apply.sum(),) float64 probabilities; NaN where a feature is not known.

    Raises
    ------
    ValueError
        If the fit rows with known features hold one class only; the message says so.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    known = np.isfinite(features.to_numpy(np.float64)).all(axis=1)
    rows = fit & known
    if len(np.unique(outcome[rows])) < 2:
        raise ValueError("the training and validation images with this feature do not hold both classes")
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    model.fit(features.to_numpy(np.float64)[rows], outcome[rows])
    scores = np.full(len(features), np.nan)
    usable = apply & known
    if usable.any():
        scores[usable] = model.predict_proba(features.to_numpy(np.float64)[usable])[:, 1]
    return scores[apply]


def _numeric(index: pd.DataFrame, column: str) -> pd.Series:
    if column not in index:
        return pd.Series(np.nan, index=index.index, dtype=np.float64)
    return pd.to_numeric(index[column], errors="coerce").astype(np.float64)


def _positive(index: pd.DataFrame, column: str) -> pd.Series:
    values = _numeric(index, column)
    return values.where(values > 0)
