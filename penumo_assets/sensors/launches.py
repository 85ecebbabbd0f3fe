"""What the two landing sensors share: how long a tick may take, and how launches become partitions, events and runs."""

import os
import time
from collections.abc import Callable, Sequence

from dagster import (
    AssetKey,
    AssetRecordsFilter,
    AssetSelection,
    DagsterInstance,
    EventLogRecord,
    RunRequest,
    SensorResult,
)

from penumo_assets.assets.shared import IMAGING
from penumo_assets.cohort.land import DATA_VERSION, landing_event
from penumo_assets.cohort.watch.arrivals import LANDING, Arrival
from penumo_assets.cohort.watch.sweep import Launch, launch
from penumo_assets.jobs.manifest import STAGE_TABLE
from penumo_assets.partitions import cohorts

PREPARED = AssetSelection.groups(IMAGING)
SETTLE_VARIABLE = "PENUMO_SETTLE_SECONDS"
SETTLE_SECONDS = 60.0
TICK_SECONDS = 15.0  # Dagster ends a tick after 60; one request to a store that does not answer takes up to 31
MAX_LAUNCHES = 100


def settle_seconds() -> float:
    """How long a cohort must rest before it runs.

    Raises
    ------
    ValueError
        If ``PENUMO_SETTLE_SECONDS`` is no number of seconds.
    """
    text = os.environ.get(SETTLE_VARIABLE) or str(SETTLE_SECONDS)
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise ValueError(f"{SETTLE_VARIABLE} is {text!r}: expected a number of seconds")
    return seconds


def timer(seconds: float) -> Callable[[], bool]:
    """A function that tells whether ``seconds`` have passed from now."""
    end = time.monotonic() + seconds
    return lambda: time.monotonic() > end


def launched(launches: Sequence[Launch], cursor: str) -> SensorResult:
    """Each cohort becomes a partition, landing's materialization and one run that prepares it, by its own settings."""
    return SensorResult(
        run_requests=[RunRequest(run_key=item.run_key, partition_key=item.cohort) for item in launches],
        dynamic_partitions_requests=[cohorts.build_add_request([item.cohort for item in launches])],
        asset_events=[landing_event(item) for item in launches],
        cursor=cursor,
    )


def is_prepared(instance: DagsterInstance, arrival: Arrival) -> bool:
    """Whether a cohort was prepared as it lies there: by a run that began after landing was reported with this digest.

    So it is where somebody landed and prepared it by hand before a sensor was switched on.
    """
    report = _newest(instance, LANDING, arrival.cohort)
    tensors = _newest(instance, STAGE_TABLE["npz"].asset, arrival.cohort)
    if report is None or tensors is None or report.asset_materialization is None:
        return False
    if (report.asset_materialization.tags or {}).get(DATA_VERSION) != launch(arrival, 0).digest:
        return False
    run = instance.get_run_record_by_id(tensors.run_id)
    return run is not None and run.start_time is not None and run.start_time > report.timestamp


def _newest(instance: DagsterInstance, asset: str, cohort: str) -> EventLogRecord | None:
    wanted = AssetRecordsFilter(asset_key=AssetKey(asset), asset_partitions=[cohort])
    records = instance.fetch_materializations(wanted, limit=1).records
    return records[0] if records else None


def refusal(names: Sequence[str]) -> str:
    """Says how many names below landing cannot be a cohort's, and not which: a patient's may be among them."""
    if not names:
        return ""
    rule = "a cohort is a folder named with A-Z a-z 0-9 . _ - (at most 128)"
    return f"left alone in landing/, which shows them: {len(set(names))} names that are no cohort's: {rule}"
