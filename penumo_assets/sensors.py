"""New objects in landing become cohort partitions and runs."""

import os
import time

from dagster import (
    AssetMaterialization,
    AssetSelection,
    DefaultSensorStatus,
    RunRequest,
    SensorEvaluationContext,
    SensorResult,
    SkipReason,
    sensor,
)

from penumo_assets.assets.prepare import ASSET_OF_STAGE
from penumo_assets.cohort.arrivals import dump_seen, load_seen, look, settled
from penumo_assets.imaging.deidentify import is_safe_id
from penumo_assets.partitions import cohorts
from penumo_assets.resources.storage import Storage

SETTLE_SECONDS = 60.0


@sensor(
    name="landing_listing",
    asset_selection=AssetSelection.assets(*ASSET_OF_STAGE.values()),
    minimum_interval_seconds=30,
    default_status=DefaultSensorStatus.STOPPED,
    description="Lists landing/. A cohort that has not changed for PENUMO_SETTLE_SECONDS (60), or that holds the "
    "marker _COMPLETE, becomes a partition and is prepared; files that come late start an incremental run.",
)
def landing_listing(context: SensorEvaluationContext, storage: Storage) -> SensorResult:
    """One look at landing."""
    settle = float(os.environ.get("PENUMO_SETTLE_SECONDS", SETTLE_SECONDS))
    arrivals = look(storage.store)
    usable = {cohort: arrival for cohort, arrival in arrivals.items() if is_safe_id(cohort)}
    for cohort in sorted(arrivals.keys() - usable.keys()):
        context.log.warning(f"{cohort!r} is not a valid cohort name (A-Z a-z 0-9 . _ -) and is left alone")
    ready, remember = settled(usable, load_seen(context.cursor), time.time(), settle)
    if not ready:
        reason = SkipReason(f"{len(usable)} cohorts in landing, none newly settled")
        return SensorResult(skip_reason=reason, cursor=dump_seen(remember))
    return SensorResult(
        run_requests=[
            RunRequest(partition_key=cohort, run_key=f"{cohort}:{remember[cohort].digest}") for cohort in ready
        ],
        dynamic_partitions_requests=[cohorts.build_add_request(ready)],
        asset_events=[
            AssetMaterialization("landing", partition=cohort, metadata={"objects": arrivals[cohort].objects})
            for cohort in ready
        ],
        cursor=dump_seen(remember),
    )


SENSORS = [landing_listing]
