"""What watches: new objects in landing, cohorts and models to bring up to date, failed runs.

All are off until switched on. A sensor is thin: what follows from what it saw is decided in `penumo_assets.cohort`.
"""

import os

from dagster import SensorDefinition

from penumo_assets.sensors.alerts import run_failure
from penumo_assets.sensors.automation import AUTOMATION_SENSORS
from penumo_assets.sensors.events import QUEUE_VARIABLE, landing_events
from penumo_assets.sensors.listing import landing_listing


def sensors() -> list[SensorDefinition]:
    """The sensors of this installation: `landing_events` is there where a queue is named."""
    events = [landing_events] if os.environ.get(QUEUE_VARIABLE) else []
    return [landing_listing, *events, *AUTOMATION_SENSORS, run_failure]
