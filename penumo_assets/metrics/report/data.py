"""What a report says about the data: splits, demographics, prevalence, leakage."""

import numpy as np
import pandas as pd

from penumo_assets.metrics.report.content import Ages, Data, Split, Splits
from penumo_assets.metrics.report.inputs import SPLITS, Evaluation
from penumo_assets.metrics.subgroups import subgroup_labels


def data_section(evaluation: Evaluation) -> Data:
    """Counts, prevalence and demographics per split, leakage between splits, and the flow from landing."""
    return Data(
        digest=evaluation.dataset.get("digest"),
        salt=evaluation.dataset.get("salt"),
        split=evaluation.dataset.get("split"),
        classes=tuple(evaluation.classes),
        positive_class=None if evaluation.positive is None else evaluation.classes[evaluation.positive],
        splits=Splits(**{split: _split(evaluation, evaluation.index[split]) for split in SPLITS}),
        leakage=leakage(evaluation.index),
        flow=evaluation.context.flow,
        test_digest=evaluation.context.test_digest,
        test_looks=evaluation.context.test_looks,
        cohorts=tuple(sorted({str(name) for frame in evaluation.index.values() for name in frame["cohort"].unique()})),
    )


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


def _split(evaluation: Evaluation, index: pd.DataFrame) -> Split:
    counts = {name: int((index["target"] == i).sum()) for i, name in enumerate(evaluation.classes)}
    return Split(
        images=len(index),
        patients=int(index["patient_id"].nunique()),
        counts=counts,
        patients_by_class={
            name: int(index.loc[index["target"] == i, "patient_id"].nunique())
            for i, name in enumerate(evaluation.classes)
        },
        prevalence={name: count / len(index) for name, count in counts.items()} if len(index) else None,
        groups={
            attribute: {str(name): int(count) for name, count in names.value_counts().sort_index().items()}
            for attribute, names in subgroup_labels(index).items()
        },
        age=_ages(index),
    )


def _ages(index: pd.DataFrame) -> Ages:
    ages = pd.to_numeric(index["age"], errors="coerce").dropna() if "age" in index else pd.Series(dtype=np.float64)
    first, median, third = (float(ages.quantile(q)) if len(ages) else None for q in (0.25, 0.5, 0.75))
    return Ages(known=len(ages), median=median, first_quartile=first, third_quartile=third)
