"""What Dagster itself keeps of a run that was killed, under the settings that ship."""

import logging
from datetime import timedelta
from pathlib import Path

import pytest
import yaml
from dagster import DagsterInstance
from dagster._core.instance_for_test import instance_for_test
from dagster._core.test_utils import create_run_for_test, freeze_time
from dagster._daemon.monitoring.concurrency import execute_concurrency_slots_iteration
from dagster._time import get_current_datetime

import penumo_assets
import penumo_assets.configs

pytestmark = pytest.mark.trust
SHIPPED = Path(penumo_assets.configs.__file__).parent / "dagster_embedded.yaml"
ON_AWS = Path(penumo_assets.__file__).parent.parent / "docs" / "aws" / "dagster.yaml"
POOL = "sagemaker_processing"


class Workspace:
    """All that the daemon asks of its workspace here."""

    def __init__(self, instance: DagsterInstance) -> None:
        self.instance = instance


@pytest.mark.parametrize("settings", [SHIPPED, ON_AWS], ids=["embedded", "aws"])
def test_the_slot_of_a_killed_run_is_given_back_so_that_its_pool_goes_on(settings: Path) -> None:
    shipped = yaml.safe_load(settings.read_text(encoding="utf-8"))
    with instance_for_test(overrides={name: shipped[name] for name in ("run_monitoring", "concurrency")}) as instance:
        slots = instance.event_log_storage
        slots.set_concurrency_slots(POOL, 1)
        run = create_run_for_test(instance, "killed")
        assert slots.claim_concurrency_slot(POOL, run.run_id, "prepare_cohort").is_claimed
        instance.report_run_failed(run)
        with freeze_time(get_current_datetime() + timedelta(minutes=3)):
            list(execute_concurrency_slots_iteration(Workspace(instance), logging.getLogger("daemon")))
        assert slots.claim_concurrency_slot(POOL, "the next run", "prepare_cohort").is_claimed
