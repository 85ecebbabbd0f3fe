"""How good predictions are where the images have labels: every metric with its interval, and the shortcut baselines."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from penumo_assets.metrics.performance import DecisionRule, Scored, performance
from penumo_assets.metrics.records import Settings
from penumo_assets.metrics.report.baselines import shortcut_section
from penumo_assets.metrics.report.inputs import Evaluation


def measured(
    arrived: pd.DataFrame,
    logits: np.ndarray,
    classes: Sequence[str],
    rule: DecisionRule,
    trained_on: pd.DataFrame | None = None,
) -> dict[str, list[dict[str, Any]]]:
    """``metrics`` and ``shortcuts`` as rows of tables; empty without an image whose label is a class.

    Parameters
    ----------
    arrived : one row per image with label, patient_id, cohort and what shortcuts look at.
    logits : (n, C) float64 of these images.
    trained_on : the index of the model's training images, which shortcuts are fitted on.
    """
    known = arrived["label"].isin(classes).to_numpy()
    if not known.any():
        return {"metrics": [], "shortcuts": []}
    frame = arrived[known].reset_index(drop=True)
    frame["target"] = [list(classes).index(label) for label in frame["label"]]
    positive = 1 if len(classes) == 2 else None
    patients = frame["patient_id"].to_numpy(str)
    scored = Scored(frame["target"].to_numpy(np.int64), logits[known], patients, classes, positive)
    found = {
        "metrics": [
            {"metric": name, **estimate.model_dump(include={"value", "low", "high", "reason"})}
            for name, estimate in performance(scored, rule, Settings()).items()
        ],
        "shortcuts": [],
    }
    if trained_on is None:
        return found
    evaluation = Evaluation(
        index={"train": trained_on, "validation": frame[:0], "test": frame},
        logits={"validation": logits[:0], "test": logits[known]},
        classes=list(classes),
        positive=positive,
        model={},
        dataset={},
    )
    found["shortcuts"] = [
        row.model_dump(include={"finding", "cohort", "shortcut", "images", "verdict"})
        | {"shortcut_auc": row.shortcut_auc.value, "model_auc": row.model_auc.value}
        for row in shortcut_section(evaluation).rows
        if row.shortcut_auc.value is not None
    ]
    return found
