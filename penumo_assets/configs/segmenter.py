"""Where the lung segmenter's weights come from, and how they are retrained."""

from enum import StrEnum

from pydantic import Field, model_validator

from penumo_assets.configs.base import StrictModel


class SegmenterSource(StrEnum):
    """Which weights segment the lungs."""

    bundled = "bundled"
    weights = "weights"
    retrain = "retrain"


class SegmenterStart(StrEnum):
    """What retraining starts from."""

    bundled = "bundled"
    random = "random"


class RetrainConfig(StrictModel):
    """How the segmenter learns from cohorts that carry ground-truth masks."""

    cohorts: list[str] = Field(default=[], description="Cohorts to learn from; empty: every one with masks/ landed.")
    start: SegmenterStart = Field(
        SegmenterStart.bundled, description="Go on from the bundled weights, or from random ones (needs longer stages)."
    )
    stages: str = Field(
        "128x300,160x300",
        pattern=r"^\d+x\d+(,\d+x\d+)*$",
        description="SIZExSTEPS of each stage: side in pixels, multiple of 32, and batches.",
    )
    batch_size: int = Field(8, ge=2, le=256, description="Images per batch.")
    learning_rate: float = Field(1e-3, gt=0, lt=1, description="Peak rate of AdamW.")
    folds: int = Field(5, ge=2, le=20, description="One of so many folds of patients is held out and measured.")
    seed: int = Field(0, ge=0, description="Of the start and of the batches; the folds do not depend on it.")
    min_dice: float = Field(
        0.9,
        ge=0,
        le=1,
        description="Mean Dice that held-out patients of every cohort must reach; below it the new weights are refused "
        "and the ones before stay.",
    )


class SegmenterConfig(StrictModel):
    """Which lung segmenter the masks are made with."""

    source: SegmenterSource = Field(
        SegmenterSource.bundled,
        description="The weights that ship with the package, your own of the same architecture, or new ones trained "
        "on cohorts with ground-truth masks.",
    )
    weights_uri: str = Field(
        "", description="For source=weights: safetensors file, as s3://bucket/key, file:///path, or a path."
    )
    weights_sha256: str = Field(
        "",
        pattern=r"^([0-9a-fA-F]{64})?$",
        description="Refuse the file unless its SHA-256 is this; empty: not checked.",
    )
    retrain: RetrainConfig = Field(default=RetrainConfig(), description="For source=retrain.")

    @model_validator(mode="after")
    def _named(self) -> "SegmenterConfig":
        if (self.source is SegmenterSource.weights) != bool(self.weights_uri):
            raise ValueError("source=weights and weights_uri go together")
        return self
