"""What metrics leave: numbers with their intervals, or the reason why there are none. Imports nothing heavy."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class Record(BaseModel):
    """A finding: frozen, without NaN, and read back from JSON without converting anything."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        json_schema_serialization_defaults_required=True,
    )


class Estimate(Record):
    """A point estimate and its confidence interval.

    ``value`` is None where the metric is undefined (a class is absent, nothing was called
    positive ...); ``reason`` then says why. An undefined metric is never reported as 0.
    ``low`` and ``high`` are None where there is no interval; ``method`` names how they were made.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    method: str | None = None
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

    resamples: int = Field(default=500, ge=1)
    seed: int = 0
    confidence: float = Field(default=0.95, gt=0, lt=1)
