"""What a report says about the data: splits, demographics, prevalence, leakage."""

from typing import Any

import numpy as np
import pandas as pd

from penumo_assets.metrics.report.inputs import SPLITS, Evaluation
from penumo_assets.metrics.subgroups import subgroup_labels


def data_section(evaluation: Evaluation) -> dict[str, Any]:
    """Counts, prevalence and demographics per split, leakage between splits, and the flow from landing."""
    return {
        "digest": evaluation.dataset.get("digest"),
        "salt": evaluation.dataset.get("salt"),
        "classes": evaluation.classes,
        "positive_class": None if evaluation.positive is None else evaluation.classes[evaluation.positive],
        "splits": {split: _split(evaluation, evaluation.index[split]) for split in SPLITS},
        "leakage": leakage(evaluation.index),
        "flow": evaluation.context.get("flow"),
        "cohorts": sorted({str(name) for frame in evaluation.index.values() for name in frame["cohort"].unique()}),
    }


def leakage(index: dict[str, pd.DataFrame]) -> dict[str, int]:
    """How many patients, images and identical pixel contents stand in more than one split."""
    found = {}
    for name, columns in (
        ("patients_in_several_splits", ["patient_id"]),
        ("images_in_several_splits", ["cohort", "image_id"]),
        ("identical_pixels_in_several_splits", ["pixel_sha256"]),
    ):
        if any(set(columns) - set(frame.columns) for frame in index.values()):
            continue
        pairs = pd.concat([frame[columns].dropna().drop_duplicates() for frame in index.values()])
        found[name] = (
            int(pairs.duplicated().groupby([pairs[column] for column in columns]).any().sum()) if len(pairs) else 0
        )
    return found


def _split(evaluation: Evaluation, index: pd.DataFrame) -> dict[str, Any]:
    counts = {name: int((index["target"] == i).sum()) for i, name in enumerate(evaluation.classes)}
    ages = pd.to_numeric(index["age"], errors="coerce").dropna() if "age" in index else pd.Series(dtype=np.float64)
    return {
        "images": len(index),
        "patients": int(index["patient_id"].nunique()),
        "counts": counts,
        "prevalence": {name: count / len(index) for name, count in counts.items()} if len(index) else None,
        "groups": {
            attribute: {str(name): int(count) for name, count in names.value_counts().sort_index().items()}
            for attribute, names in subgroup_labels(index).items()
        },
        "age": {
            "known": len(ages),
            "median": float(ages.median()) if len(ages) else None,
            "first_quartile": float(ages.quantile(0.25)) if len(ages) else None,
            "third_quartile": float(ages.quantile(0.75)) if len(ages) else None,
        },
    }
