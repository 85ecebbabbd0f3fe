"""New objects in landing, found by listing it: needs nothing but read access, costs one request per 1,000 objects."""

import time
from dataclasses import dataclass, replace
from functools import partial

from dagster import DefaultSensorStatus, SensorEvaluationContext, SensorResult, SkipReason, sensor

from penumo_assets.cohort.retire import retired_cohorts
from penumo_assets.cohort.watch.arrivals import LANDING, START, Position, look
from penumo_assets.cohort.watch.sweep import Sweep, UnreadableCursor, dump_sweep, load_sweep, plan_sweep
from penumo_assets.resources.storage.object_store import StorageError
from penumo_assets.resources.storage.root import Storage
from penumo_assets.sensors.launches import (
    MAX_LAUNCHES,
    PREPARED,
    TICK_SECONDS,
    is_prepared,
    launched,
    refusal,
    settle_seconds,
    timer,
)


@dataclass
class Reached:
    """Where the last tick of this process left the listing: a key, which may be a patient's name, so in no cursor."""

    position: Position = START


_reached = Reached()


@sensor(
    name="landing_listing",
    asset_selection=PREPARED,
    minimum_interval_seconds=30,
    default_status=DefaultSensorStatus.STOPPED,
    description="Lists landing/, a piece per tick where it is large. A cohort that has not changed for "
    "PENUMO_SETTLE_SECONDS (60), or that holds the marker _COMPLETE, becomes a partition and is prepared; files that "
    "come, change or go later start an incremental run. For a bucket too large to list, use landing_events instead.",
)
def landing_listing(context: SensorEvaluationContext, storage: Storage) -> SensorResult:
    """One piece of the listing."""
    out_of_time, now = timer(TICK_SECONDS), time.time()
    settle = settle_seconds()
    sweep, store = _sweep(context, now), storage.failing_fast()
    try:
        seen = look(store.list_objects(LANDING, sweep.position.after), sweep.position, out_of_time)
        retired = retired_cohorts(store)
        seen = replace(seen, arrivals=tuple(each for each in seen.arrivals if each.cohort not in retired))
        plan = plan_sweep(sweep, seen, now, settle, MAX_LAUNCHES, partial(is_prepared, context.instance))
        cursor = dump_sweep(plan.sweep)
        result = launched(plan.launches, cursor) if plan.launches else None
    except (StorageError, OSError) as error:
        reason = error if isinstance(error, StorageError) else error.strerror or type(error).__name__
        return SensorResult(skip_reason=SkipReason(f"landing cannot be listed: {reason}"), cursor=context.cursor)
    refused = refusal(seen.refused)
    if refused:
        context.log.warning(refused)
    _reached.position = plan.sweep.position
    if result:
        return result
    words = [f"{len(seen.arrivals)} cohorts looked at, none newly settled"]
    words += [f"{plan.settling} still changing"] if plan.settling else []
    words += [f"{plan.without_images} without an image"] if plan.without_images else []
    words += ["the listing goes on at the next tick"] if seen.position else []
    words += [refused] if refused else []
    return SensorResult(skip_reason=SkipReason("; ".join(words)), cursor=cursor)


def _sweep(context: SensorEvaluationContext, now: float) -> Sweep:
    try:
        return load_sweep(context.cursor, now, _reached.position)
    except UnreadableCursor as error:
        context.log.warning(f"{error}: every cohort is looked at anew, and what has not changed is not computed again")
        return Sweep(int(now))
