"""Check of what tensors tell about their classes with the lungs blanked: what the preparation made, and the border."""

import contextlib
import random
from typing import TYPE_CHECKING, Any

from dagster import AssetCheckExecutionContext, AssetCheckResult, AssetCheckSeverity, Config
from pydantic import Field

from penumo_assets.assets.pages import listed, table
from penumo_assets.checks.partitioned import partition_of, partitioned_check
from penumo_assets.cohort.publish import read_manifest
from penumo_assets.jobs.manifest import ManifestRow
from penumo_assets.partitions import cohorts
from penumo_assets.resources.storage.object_store import ObjectMissing, ObjectStore
from penumo_assets.resources.storage.root import Storage

if TYPE_CHECKING:
    from penumo_assets.metrics.records import Estimate

ADDED = ("added", "added_low", "added_high")  # by the preparation to what the film's own border tells


class PreparationConfig(Config):
    """What the preparation may tell."""

    max_auc: float = Field(default=0.55, ge=0.5, le=1, description="ROC-AUC that the interval may not lie above.")
    sample: int = Field(default=500, ge=20, description="Labelled tensors of a cohort that are read; drawn once.")


@partitioned_check(
    cohorts,
    asset="npz_tensors",
    description="With the lungs blanked, neither black bars nor the place of the lungs' outline tell the most common "
    "class of a cohort from the others: the interval of their ROC-AUC reaches down to `max_auc` (default 0.55). The "
    "border is the film's own: only what enhancement adds to it is judged, the difference to its ROC-AUC before any "
    "filter, by as much above 0. A warning: a model can learn the film's shape instead of the lungs. Cohorts of fewer "
    "than ten patients on either side are not judged.",
)
def preparation_reveals(
    context: AssetCheckExecutionContext, config: PreparationConfig, storage: Storage
) -> AssetCheckResult:
    rows = _rows(storage.store, partition_of(context), config)
    columns = ("quantity", "images", "against", "roc_auc", "low", "high", "reveals", "reason", *ADDED)
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

    from penumo_assets.metrics.preparation import BORDER, FILM_BORDER, QUANTITIES
    from penumo_assets.metrics.revealed import added, revealed, revealed_together

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
    unknown = [np.nan] * len(FILM_BORDER)
    before = np.array([row.facts_of("preprocessed").get("film_border", unknown) for row, _ in measured], float)
    more = {name: added(values[name], film, positive, patients) for name, film in zip(BORDER, before.T, strict=True)}
    return [
        {
            "quantity": name,
            "images": len(measured),
            "against": usual,
            **_rounded(("roc_auc", "low", "high"), estimate),
            **(_rounded(ADDED, more[name]) if name in more else dict.fromkeys(ADDED, "not judged")),
            "reveals": (
                (more[name].low or 0) > config.max_auc - 0.5 if name in more else (estimate.low or 0) > config.max_auc
            ),
            "reason": estimate.reason or (more[name].reason if name in more else None),
        }
        for name, estimate in found.items()
    ]


def _rounded(names: tuple[str, str, str], estimate: "Estimate") -> dict[str, float | None]:
    ends = (estimate.value, estimate.low, estimate.high)
    return {name: value and round(value, 3) for name, value in zip(names, ends, strict=True)}


def _measured(store: ObjectStore, films: list[ManifestRow]) -> list[tuple[ManifestRow, dict[str, float]]]:
    """The films whose tensors can be read, with their quantities; `npz_contract` names the others."""
    from penumo_assets.imaging.pack import NpzError, load_npz  # OpenCV
    from penumo_assets.metrics.preparation import preparation_quantities

    measured = []
    for row in films:
        with contextlib.suppress(ObjectMissing, NpzError):
            measured.append((row, preparation_quantities(load_npz(store.read(row.stages["npz"].key)))))
    return measured
