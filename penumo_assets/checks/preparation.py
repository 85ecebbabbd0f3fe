"""Check of what tensors tell about their classes with the lungs blanked: what the preparation made, and the border."""

import contextlib
import random
from typing import Any

from dagster import AssetCheckExecutionContext, AssetCheckResult, AssetCheckSeverity, Config
from pydantic import Field

from penumo_assets.assets.pages import listed, table
from penumo_assets.checks.partitioned import partition_of, partitioned_check
from penumo_assets.cohort.publish import read_manifest
from penumo_assets.jobs.manifest import ManifestRow
from penumo_assets.partitions import cohorts
from penumo_assets.resources.storage.object_store import ObjectMissing, ObjectStore
from penumo_assets.resources.storage.root import Storage


class PreparationConfig(Config):
    """What the preparation may tell."""

    max_auc: float = Field(default=0.55, ge=0.5, le=1, description="ROC-AUC that the interval may not lie above.")
    sample: int = Field(default=500, ge=20, description="Labelled tensors of a cohort that are read; drawn once.")


@partitioned_check(
    cohorts,
    asset="npz_tensors",
    description="With the lungs blanked, neither black bars nor the place of the lungs' outline tell the most common "
    "class of a cohort from the others: the interval of their ROC-AUC reaches down to `max_auc` (default 0.55). A "
    "warning: a model can learn the film's shape instead of the lungs. The border is the film's own: its figures are "
    "shown, not judged. Cohorts of fewer than ten patients on either side are not judged.",
)
def preparation_reveals(
    context: AssetCheckExecutionContext, config: PreparationConfig, storage: Storage
) -> AssetCheckResult:
    rows = _rows(storage.store, partition_of(context), config)
    columns = ("quantity", "images", "against", "roc_auc", "low", "high", "reveals", "reason")
    told = [row["quantity"] for row in rows if row["reveals"]]
    return AssetCheckResult(
        passed=not told,
        severity=AssetCheckSeverity.WARN,
        metadata={
            "reveals": listed(told),
            "tolerated": config.max_auc,
            "quantities": table(rows, columns),
        },
    )


def _rows(store: ObjectStore, cohort: str, config: PreparationConfig) -> list[dict[str, Any]]:
    films = [row for row in read_manifest(store, cohort) if row.label and "npz" in row.stages]
    if not films:
        return []
    import numpy as np  # this and SciPy take a second, which loading the definitions must not

    from penumo_assets.metrics.preparation import BORDER, QUANTITIES, revealed
    from penumo_assets.metrics.preparation_together import revealed_together

    measured = _measured(store, random.Random(cohort).sample(films, min(config.sample, len(films))))
    if not measured:
        return []
    labels = [str(row.label) for row, _ in measured]
    usual = max(sorted(set(labels)), key=labels.count)
    positive, patients = np.array(labels) == usual, np.array([str(row.patient_id) for row, _ in measured])
    values = {name: np.array([quantities[name] for _, quantities in measured]) for name in QUANTITIES}
    made = [name for name in QUANTITIES if name not in BORDER]
    together = revealed_together(np.column_stack([values[name] for name in made]), positive, patients)
    found = {"bars and outline": together, **revealed(values, positive, patients)}
    return [
        {
            "quantity": name,
            "images": len(measured),
            "against": usual,
            "roc_auc": estimate.value and round(estimate.value, 3),
            "low": estimate.low and round(estimate.low, 3),
            "high": estimate.high and round(estimate.high, 3),
            "reveals": name not in BORDER and (estimate.low or 0) > config.max_auc,
            "reason": estimate.reason,
        }
        for name, estimate in found.items()
    ]


def _measured(store: ObjectStore, films: list[ManifestRow]) -> list[tuple[ManifestRow, dict[str, float]]]:
    """The films whose tensors can be read, with their quantities; `npz_contract` names the others."""
    from penumo_assets.imaging.pack import NpzError, load_npz  # OpenCV
    from penumo_assets.metrics.preparation import preparation_quantities

    measured = []
    for row in films:
        with contextlib.suppress(ObjectMissing, NpzError):
            measured.append((row, preparation_quantities(load_npz(store.read(row.stages["npz"].key)))))
    return measured
