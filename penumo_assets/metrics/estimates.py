"""What a metric leaves: a number with its interval, or the reason why there is none; and what valid scores are."""

from typing import Annotated

import numpy as np
from pydantic import ConfigDict, Field, ValidationInfo, field_validator

from penumo_assets.configs.base import StrictModel

Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class ScoreError(ValueError):
    """Scores or labels that no metric may be computed from; the message says which and why."""


class Record(StrictModel):
    """A finding: frozen, without NaN, and read back from JSON without converting anything."""

    model_config = ConfigDict(strict=True, json_schema_serialization_defaults_required=True)


class Estimate(Record):
    """A point estimate and its confidence interval.

    ``value`` is None where the metric is undefined (a class is absent, nothing was called
    positive ...); ``reason`` then says why. An undefined metric is never reported as 0.
    ``low`` and ``high`` are None where there is no interval; ``method`` names how they were made.
    ``resamples`` counts the bootstrap resamples in which the metric was defined.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    method: str | None = None
    resamples: Count | None = None
    reason: str | None = Field(default=None, validate_default=True)

    @field_validator("reason")
    @classmethod
    def _undefined_says_why(cls, reason: str | None, info: ValidationInfo) -> str | None:
        if "value" in info.data and info.data["value"] is None:
            if not reason:
                raise ValueError("an undefined metric needs a reason")
            if info.data.get("low") is not None or info.data.get("high") is not None:
                raise ValueError("an undefined metric has no interval")
        return reason

    @classmethod
    def undefined(cls, reason: str) -> "Estimate":
        return cls(value=None, reason=reason)


class AucVariance(Record):
    """An AUC, its variance and a confidence interval on the logit scale (so within 0..1).

    ``low`` and ``high`` are None when the variance is zero (perfect separation): the method then
    knows no uncertainty, which is not the same as there being none.
    """

    auc: float
    variance: float = Field(ge=0)
    low: float | None
    high: float | None


class AucComparison(Record):
    """Paired comparison of two models: difference first - second, its standard error, z and two-sided p."""

    first: float
    second: float
    difference: float
    standard_error: float
    low: float
    high: float
    z: float | None
    p_value: Share | None


class Settings(Record):
    """How intervals are made."""

    resamples: int = Field(default=2000, ge=1)
    seed: int = 0
    confidence: float = Field(default=0.95, gt=0, lt=1)


def check_labels_and_scores(labels: np.ndarray, scores: np.ndarray) -> None:
    """Refuse what would silently give a wrong number.

    Parameters
    ----------
    labels : (n,) integer or bool array.
    scores : (n,) or (n, C) float array; one row per label.

    Raises
    ------
    ScoreError
        If the lengths differ, a score is NaN or infinite, or a label is negative or beyond C - 1
        (for one-dimensional scores: beyond 1).
    """
    if labels.ndim != 1 or scores.ndim not in (1, 2) or len(labels) != len(scores):
        raise ScoreError(f"labels {labels.shape} and scores {scores.shape} do not describe the same images")
    bad = ~np.isfinite(scores)
    if bad.any():
        rows = int(bad.any(axis=1).sum()) if bad.ndim == 2 else int(bad.sum())
        raise ScoreError(f"{rows} of {len(scores)} scores are NaN or infinite: the model's output cannot be evaluated")
    classes = scores.shape[1] if scores.ndim == 2 else 2
    if len(labels) and (labels.min() < 0 or labels.max() >= classes):
        raise ScoreError(f"labels lie in {labels.min()}..{labels.max()}, the scores know classes 0..{classes - 1}")
