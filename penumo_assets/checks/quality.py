"""Checks of what a cohort looks like: how much was rejected, whether masks are believable, how bright its films are."""

import random
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from dagster import AssetCheckExecutionContext, AssetCheckResult, AssetCheckSeverity, Config, asset_check
from pydantic import Field

from penumo_assets.assets.pages import reason_table, reject_table, rounded, table
from penumo_assets.checks.scope import all_cohorts, cohorts_in_question, manifests_in_question, scope
from penumo_assets.cohort.publish import read_manifest
from penumo_assets.jobs.manifest import ManifestRow
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


@asset_check(
    asset="raw_images",
    description="No more files of a cohort are rejected than `max_rate` allows (default 20 %). A warning: rejected "
    "files are left out, the others go on.",
)
def reject_rate(context: AssetCheckExecutionContext, config: RejectRateConfig, storage: Storage) -> AssetCheckResult:
    files, rejected = 0, []
    for rows in manifests_in_question(context, storage.store):
        files += len(rows)
        rejected += [row for row in rows if row.status == "rejected"]
    rate = len(rejected) / max(1, files)
    return AssetCheckResult(
        passed=rate <= config.max_rate,
        severity=AssetCheckSeverity.WARN,
        metadata={
            "judged": scope(context),
            "rate": rounded(rate),
            "tolerated": f"{config.max_rate:.0%}",
            "files": files,
            "by_reason": reason_table(rejected),
            "offenders": reject_table(rejected),
        },
    )


@asset_check(
    asset="lung_masks",
    blocking=True,
    description="No more masks are implausible than `max_rate` allows (default 20 %): more means that the segmenter "
    "does not understand these images. Error: stops the run.",
)
def mask_plausibility(
    context: AssetCheckExecutionContext, config: MaskPlausibilityConfig, storage: Storage
) -> AssetCheckResult:
    judged, offenders = 0, []
    for rows in manifests_in_question(context, storage.store):
        judged += sum("masks" in row.stages or row.code in IMPLAUSIBLE for row in rows)
        offenders += [offender for row in rows if (offender := _mask_offender(row))]
    rate = len(offenders) / max(1, judged)
    return AssetCheckResult(
        passed=rate <= config.max_rate,
        severity=AssetCheckSeverity.ERROR,
        metadata={
            "judged": scope(context),
            "rate": rounded(rate),
            "tolerated": f"{config.max_rate:.0%}",
            "masks": judged,
            "offenders": table(offenders, ("file", "problem", "outcome")),
        },
    )


def _mask_offender(row: ManifestRow) -> dict[str, Any] | None:
    if row.code in IMPLAUSIBLE:
        return {"file": row.source, "problem": row.reason, "outcome": "rejected"}
    fallback = row.stages["masks"].facts.get("fallback") if "masks" in row.stages else None
    return {"file": row.source, "problem": fallback, "outcome": "the whole image was used"} if fallback else None


@asset_check(
    asset="raw_images",
    description="The mean intensity of a cohort's images is distributed as in the other cohorts: population stability "
    "index below `max_psi` (default 0.25), or no higher than chance explains. A warning: another scanner, another "
    "window or another inversion.",
)
def intensity_drift(
    context: AssetCheckExecutionContext, config: IntensityDriftConfig, storage: Storage
) -> AssetCheckResult:
    known, intensities = all_cohorts(context), cache(partial(_intensities, storage.store))  # each manifest once
    rows = [
        _intensity_row(intensities, cohort, _others(known, cohort, config.compared_with), config.max_psi)
        for cohort in cohorts_in_question(context)
    ]
    moved = [row["cohort"] for row in rows if row["moved"] is not False]  # None: its images cannot be compared
    columns = ("cohort", "images", "median", "others_images", "others_median", "index", "chance", "moved")
    return AssetCheckResult(
        passed=not moved,
        severity=AssetCheckSeverity.WARN,
        metadata={
            "judged": scope(context),
            "moved": ", ".join(moved) or "none",
            "tolerated": f"{config.max_psi:g}, or chance",
            "mean_intensity": table(rows, columns),
        },
    )


def _others(known: Sequence[str], cohort: str, most: int) -> list[str]:
    others = [name for name in known if name != cohort]
    return others if len(others) <= most else sorted(random.Random(cohort).sample(others, most))


def _intensity_row(
    intensities: Callable[[str], "np.ndarray"], cohort: str, others: Sequence[str], limit: float
) -> dict[str, Any]:
    import numpy as np  # like scipy below: loading the definitions does not need it

    from penumo_assets.metrics.drift import drift_rows

    own = intensities(cohort)
    reference = np.concatenate([np.empty(0), *map(intensities, others)])
    rows = drift_rows({"mean_intensity": reference}, {"mean_intensity": own}, limit) if len(reference) else []
    index, chance, moved = (rows[0][name] for name in ("index", "chance", "moved")) if rows else (None, None, False)
    return {
        "index": index and round(index, 3),
        "chance": chance and round(chance, 3),
        "moved": moved,
        "cohort": cohort,
        "images": len(own),
        "median": round(float(np.median(own)), 3) if len(own) else None,
        "others_images": len(reference),
        "others_median": round(float(np.median(reference)), 3) if len(reference) else None,
    }


def _intensities(store: ObjectStore, cohort: str) -> "np.ndarray":
    import numpy as np

    return np.array([row.mean_intensity for row in read_manifest(store, cohort) if row.mean_intensity is not None])
