"""What a report is made from."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from penumo_assets.metrics.performance import Scored
from penumo_assets.metrics.records import Settings
from penumo_assets.metrics.report.context import Context

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Explained:
    """Grad-CAM of some test images: their patients (m,), the maps' size, and what ``grad_cam.inside`` says of them for
    their lungs and for the boxes that readers drew."""

    patients: np.ndarray
    grid: tuple[int, int]
    lungs: dict[str, np.ndarray]
    boxes: dict[str, np.ndarray]


@dataclass(frozen=True)
class Evaluation:
    """A model's logits on the splits of a training set, and where both come from.

    index : split name to one row per image (image_id, patient_id, cohort, label, target, view, sex,
        age, source_width, source_height, source_bytes, mean_intensity).
    logits : the scored splits, "validation" and "test": (n, C) float64 in the order of ``index``.
    classes, positive : class names in the order of the logits; the positive one of two or None.
    model, dataset : the contents of metadata.json and dataset.json.
    explained : Grad-CAM of test images, or nothing.
    coverage : share of the validation images that get an answer; 1: all.
    context : what the orchestrator knows and the job does not.
    """

    index: dict[str, pd.DataFrame]
    logits: dict[str, np.ndarray]
    classes: list[str]
    positive: int | None
    model: dict[str, Any]
    dataset: dict[str, Any]
    context: Context = field(default_factory=Context)
    settings: Settings = field(default_factory=Settings)
    reference: pd.DataFrame | None = None
    coverage: float = 1.0
    explained: Explained | None = None

    @cached_property
    def scored(self) -> dict[str, Scored]:
        """Validation and test with labels and logits side by side."""
        return {
            split: Scored(
                self.index[split]["target"].to_numpy(np.int64),
                np.asarray(self.logits[split], np.float64),
                self.index[split]["patient_id"].to_numpy(str),
                self.classes,
                self.positive,
            )
            for split in ("validation", "test")
        }
