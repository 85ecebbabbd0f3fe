"""A failed run tells somebody: off until it is switched on and told where to send."""

import os
from collections.abc import Iterable
from typing import Any

from dagster import (
    AssetKey,
    DagsterEventType,
    DagsterRun,
    DefaultSensorStatus,
    RunFailureSensorContext,
    SkipReason,
    run_failure_sensor,
)

from penumo_assets.resources.alerts import AlertError, post_webhook, publish_sns

WEBHOOK_VARIABLE = "PENUMO_ALERT_WEBHOOK_URL"
TOPIC_VARIABLE = "PENUMO_ALERT_SNS_TOPIC_ARN"
UI_VARIABLE = "PENUMO_DAGSTER_UI"
_PARTITION = "dagster/partition"


@run_failure_sensor(
    name="run_failure",
    minimum_interval_seconds=30,
    default_status=DefaultSensorStatus.STOPPED,
    description="Tells of each failed run at PENUMO_ALERT_WEBHOOK_URL or PENUMO_ALERT_SNS_TOPIC_ARN: which run, "
    "assets and partition, with a link if PENUMO_DAGSTER_UI is set. The reason stays in the run's page, because it may "
    "name a file, and a file's name may name a patient.",
)
def run_failure(context: RunFailureSensorContext) -> SkipReason | None:
    """Send one alert."""
    webhook, topic = os.environ.get(WEBHOOK_VARIABLE), os.environ.get(TOPIC_VARIABLE)
    if not webhook and not topic:
        return SkipReason(f"nobody to tell: set {WEBHOOK_VARIABLE} or {TOPIC_VARIABLE}")
    planned = context.instance.get_records_for_run(
        context.dagster_run.run_id, of_type=DagsterEventType.ASSET_MATERIALIZATION_PLANNED
    )
    keys = [record.asset_key for record in planned.records if record.asset_key]
    message = alert(context.dagster_run, keys, os.environ.get(UI_VARIABLE, ""))
    problems = []
    for address, send in ((webhook, post_webhook), (topic, _publish)):
        try:
            if address:
                send(address, message)
        except AlertError as error:
            problems.append(str(error))
    if problems:
        raise AlertError("; ".join(problems))
    return None


def alert(run: DagsterRun, planned: Iterable[AssetKey], ui: str) -> dict[str, Any]:
    """What is told of a failed run: names that this application made or validated, and no free text."""
    assets = sorted({key.to_user_string() for key in planned})
    partition = run.tags.get(_PARTITION)
    what = ", ".join(assets) or run.job_name
    link = f"{ui.rstrip('/')}/runs/{run.run_id}" if ui else ""
    text = f"Run {run.run_id[:8]} failed: {what}" + (f" [{partition}]" if partition else "")
    return {
        "text": f"{text} {link}".strip(),
        "run_id": run.run_id,
        "job": run.job_name,
        "assets": assets,
        "partition": partition,
        "backfill": run.tags.get("dagster/backfill"),
        "url": link or None,
    }


def _publish(topic: str, message: dict[str, Any]) -> None:
    publish_sns(topic, f"Run {message['run_id'][:8]} failed", message)
