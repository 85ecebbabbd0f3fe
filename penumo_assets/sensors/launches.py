"""What the two landing sensors share: how long a tick may take, and how launches become partitions, events and runs."""

import os
import time
from collections.abc import Callable, Sequence

from dagster import AssetMaterialization, AssetSelection, RunRequest, SensorResult

from penumo_assets.assets.prepare import ASSET_OF_STAGE
from penumo_assets.cohort.arrivals import LANDING
from penumo_assets.cohort.settle import Launch
from penumo_assets.partitions import cohorts

PREPARED = AssetSelection.assets(*ASSET_OF_STAGE.values())
SETTLE_VARIABLE = "PENUMO_SETTLE_SECONDS"
SETTLE_SECONDS = 60.0
TICK_SECONDS = 15.0  # Dagster ends a tick after 60; one request to a store that does not answer takes up to 31
MAX_LAUNCHES = 100
_DATA_VERSION = "dagster/data_version"  # how an event of an asset that is made elsewhere tells its version


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
    """Each cohort becomes a partition, landing's materialization and one run that prepares it."""
    return SensorResult(
        run_requests=[RunRequest(run_key=item.run_key, partition_key=item.cohort) for item in launches],
        dynamic_partitions_requests=[cohorts.build_add_request([item.cohort for item in launches])],
        asset_events=[
            AssetMaterialization(
                LANDING, partition=item.cohort, metadata={"images": item.images}, tags={_DATA_VERSION: item.digest}
            )
            for item in launches
        ],
        cursor=cursor,
    )


def refusal(names: Sequence[str]) -> str:
    """Says how many names below landing cannot be a cohort's, and not which: a patient's may be among them."""
    if not names:
        return ""
    rule = "a cohort is a folder named with A-Z a-z 0-9 . _ - (at most 128)"
    return f"left alone in landing/, which shows them: {len(set(names))} names that are no cohort's: {rule}"
