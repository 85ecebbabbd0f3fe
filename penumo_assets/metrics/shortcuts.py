"""Shortcut baselines: what a model could reach by looking at anything but the lungs.

Aspect ratio, mean intensity, file size, projection, age, sex and what the preparation left beside the lungs are no
findings, yet in pooled public X-ray collections they separate the classes, because the classes come from different
machines, patients and archives (Zech et al. 2018, doi:10.1371/journal.pmed.1002683; DeGrave et al. 2021,
doi:10.1038/s42256-021-00338-7). A model must be judged beside them.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import optimize, special

from penumo_assets.metrics.preparation import BARS, BORDER, FILM_BORDER, OUTLINE, QUANTITIES


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
# Each feature of the file alone, then these together; whom and how the film shows; what the preparation left.
SHORTCUTS = (
    *_SINGLE,
    Shortcut("all", "All three together", tuple(name for item in _SINGLE for name in item.columns)),
    Shortcut("view", "View (AP or PA)", ("is_ap",)),
    Shortcut("age", "Age", ("age",)),
    Shortcut("sex", "Sex", ("is_male",)),
    Shortcut("bar_share", "Black bars", BARS),
    Shortcut("preparation", "Preparation alone: bars and place of the lungs", (*BARS, *OUTLINE)),
    Shortcut("border", "Border of the picture", BORDER),
    Shortcut("film_border", "Border of the film, before enhancement", FILM_BORDER),
)


def shortcut_features(index: pd.DataFrame) -> pd.DataFrame:
    """Feature table (n rows) from an index's source_width, source_height, source_bytes, mean_intensity, view, age, sex
    and QUANTITIES and FILM_BORDER of `metrics.preparation`.

    Ratios and sizes enter as logarithms, so that a logistic fit sees symmetric differences. What is missing, not
    positive, or no AP or PA view, gives NaN.
    """
    width, height = _positive(index, "source_width"), _positive(index, "source_height")
    return pd.DataFrame(
        {
            "log_aspect_ratio": np.log(width / height),
            "mean_intensity": _numeric(index, "mean_intensity"),
            "log_bytes": np.log(_positive(index, "source_bytes")),
            "is_ap": _either(index, "view", "AP", "PA"),
            "age": _numeric(index, "age"),
            "is_male": _either(index, "sex", "M", "F"),
            **{name: _numeric(index, name) for name in (*QUANTITIES, *FILM_BORDER)},
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
        If no fit row has known features, or those that have hold one class only; the message says so.
    """
    known = np.isfinite(features.to_numpy(np.float64)).all(axis=1)
    rows = fit & known
    if not rows.any():
        raise ValueError("it is not known of the training and validation images")
    if len(np.unique(outcome[rows])) < 2:
        raise ValueError("the training and validation images with this feature do not hold both classes")
    values = features.to_numpy(np.float64)
    spread = values[rows].std(axis=0)
    scaled = (values - values[rows].mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    scores = np.full(len(features), np.nan)
    usable = apply & known
    weights = _logistic_regression(scaled[rows], outcome[rows])
    scores[usable] = special.expit(scaled[usable] @ weights[1:] + weights[0])
    return scores[apply]


def _logistic_regression(features: np.ndarray, outcome: np.ndarray) -> np.ndarray:
    """Intercept and weights (k + 1,) for (n, k) features, with half the squared weights as penalty.

    By SciPy and not scikit-learn, because predicting needs it too, where scikit-learn is not installed.
    """

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        linear = features @ weights[1:] + weights[0]
        residual = special.expit(linear) - outcome
        value = (np.logaddexp(0, linear) - outcome * linear).sum() + (weights[1:] ** 2).sum() / 2
        return float(value), np.append(residual.sum(), residual @ features + weights[1:])

    return optimize.minimize(loss, np.zeros(features.shape[1] + 1), jac=True, method="L-BFGS-B").x


def _numeric(index: pd.DataFrame, column: str) -> pd.Series:
    if column not in index:
        return pd.Series(np.nan, index=index.index, dtype=np.float64)
    return pd.to_numeric(index[column], errors="coerce").astype(np.float64)


def _positive(index: pd.DataFrame, column: str) -> pd.Series:
    values = _numeric(index, column)
    return values.where(values > 0)


def _either(index: pd.DataFrame, column: str, yes: str, no: str) -> pd.Series:
    """1 where a text begins with ``yes``, 0 where with ``no``, however it is written; NaN elsewhere."""
    if column not in index:
        return _numeric(index, column)
    texts = index[column].fillna("").astype(str).str.strip().str.upper()
    return pd.Series(np.select([texts.str.startswith(yes), texts.str.startswith(no)], [1.0, 0.0], np.nan), index.index)
