"""Checks of what a cohort looks like: how much was rejected, whether masks are believable, how bright its films are."""

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dagster import AssetCheckExecutionContext, AssetCheckResult, AssetCheckSeverity, Config
from pydantic import Field

from penumo_assets.assets.pages import reason_table, reject_table, rounded, table
from penumo_assets.checks.partitioned import partition_of, partitioned_check
from penumo_assets.cohort.publish import read_manifest
from penumo_assets.jobs.manifest import ManifestRow
from penumo_assets.partitions import cohorts
from penumo_assets.resources.storage.object_store import ObjectStore
from penumo_assets.resources.storage.root import Storage

if TYPE_CHECKING:
    import numpy as np

IMPLAUSIBLE = ("implausible_mask", "not_a_chest_film")


class RejectRateConfig(Config):
    """How many rejected files are tolerable."""

    max_rate: float = Field(default=0.2, ge=0, le=1, description="Largest share of a cohort's files.")


class MaskPlausibilityConfig(Config):
    """How many implausible masks are tolerable."""

    max_rate: float = Field(default=0.2, ge=0, le=1, description="Largest share of the masks that were judged.")


class IntensityDriftConfig(Config):
    """When a cohort's brightness differs from that of the others."""

    max_psi: float = Field(default=0.25, gt=0, description="Population stability index above which it has drifted.")
    compared_with: int = Field(
        default=20, ge=1, description="Most other cohorts to compare with; of more, so many are drawn, always the same."
    )


@partitioned_check(
    cohorts,
    asset="raw_images",
    description="No more files of a cohort are rejected than `max_rate` allows (default 20 %). A warning: rejected "
    "files are left out, the others go on.",
)
def reject_rate(context: AssetCheckExecutionContext, config: RejectRateConfig, storage: Storage) -> AssetCheckResult:
    rows = read_manifest(storage.store, partition_of(context))
    rejected = [row for row in rows if row.status == "rejected"]
    rate = len(rejected) / max(1, len(rows))
    return AssetCheckResult(
        passed=rate <= config.max_rate,
        severity=AssetCheckSeverity.WARN,
        metadata={
            "rate": rounded(rate),
            "tolerated": f"{config.max_rate:.0%}",
            "files": len(rows),
            "by_reason": reason_table(rejected),
            "offenders": reject_table(rejected),
        },
    )


@partitioned_check(
    cohorts,
    asset="lung_masks",
    blocking=True,
    description="No more masks are implausible than `max_rate` allows (default 20 %): more means that the segmenter "
    "does not understand these images. Error: stops the run.",
)
def mask_plausibility(
    context: AssetCheckExecutionContext, config: MaskPlausibilityConfig, storage: Storage
) -> AssetCheckResult:
    rows = read_manifest(storage.store, partition_of(context))
    judged = sum("masks" in row.stages or row.code in IMPLAUSIBLE for row in rows)
    offenders = [offender for row in rows if (offender := _mask_offender(row))]
    rate = len(offenders) / max(1, judged)
    return AssetCheckResult(
        passed=rate <= config.max_rate,
        severity=AssetCheckSeverity.ERROR,
        metadata={
            "rate": rounded(rate),
            "tolerated": f"{config.max_rate:.0%}",
            "masks": judged,
            "offenders": table(offenders, ("file", "problem", "outcome")),
        },
    )


def _mask_offender(row: ManifestRow) -> dict[str, Any] | None:
    if row.code in IMPLAUSIBLE:
        return {"file": row.source, "problem": row.reason, "outcome": "rejected"}
    fallback = row.facts_of("masks").get("fallback")
    return {"file": row.source, "problem": fallback, "outcome": "the whole image was used"} if fallback else None


@partitioned_check(
    cohorts,
    asset="raw_images",
    description="The mean intensity of a cohort's images is distributed as in the other cohorts: population stability "
    "index below `max_psi` (default 0.25), or no higher than chance explains. A warning: another scanner, another "
    "window or another inversion.",
)
def intensity_drift(
    context: AssetCheckExecutionContext, config: IntensityDriftConfig, storage: Storage
) -> AssetCheckResult:
    import numpy as np  # like SciPy in the next line: loading the definitions needs neither

    from penumo_assets.metrics.drift import drift_rows

    cohort = partition_of(context)
    known = context.instance.get_dynamic_partitions(str(cohorts.name))
    others = _others(sorted(known), cohort, config.compared_with)
    own, reference = _intensities(storage.store, [cohort]), _intensities(storage.store, others)
    rows = drift_rows({"mean_intensity": reference}, {"mean_intensity": own}, config.max_psi) if len(reference) else []
    row = rows[0] if rows else {"index": None, "chance": None, "moved": False}
    found = {
        "population_stability": row["index"],
        "explained_by_chance": row["chance"],
        "images": len(own),
        "median": float(np.median(own)) if len(own) else None,
        "others_images": len(reference),
        "others_median": float(np.median(reference)) if len(reference) else None,
    }
    return AssetCheckResult(
        passed=row["moved"] is False,  # None: its images cannot be compared
        severity=AssetCheckSeverity.WARN,
        metadata={
            "tolerated": f"{config.max_psi:g}, or chance",
            **{name: "none" if value is None else rounded(value) for name, value in found.items()},
        },
    )


def _others(known: Sequence[str], cohort: str, most: int) -> list[str]:
    others = [name for name in known if name != cohort]
    return others if len(others) <= most else sorted(random.Random(cohort).sample(others, most))


def _intensities(store: ObjectStore, names: Sequence[str]) -> "np.ndarray":
    """The mean intensities, (n,) float64, of all images of these cohorts; one manifest is held at a time."""
    import numpy as np

    rows = (row for name in names for row in read_manifest(store, name))
    return np.array([row.mean_intensity for row in rows if row.mean_intensity is not None], np.float64)
