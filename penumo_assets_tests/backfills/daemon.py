"""Dagster's daemon, an iteration at a time, on the shipped settings; the UI's own requests start backfills."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml
from dagster import DagsterInstance, DagsterRun
from dagster._core.execution.backfill import BULK_ACTION_TERMINAL_STATUSES, BulkActionStatus
from dagster._core.instance_for_test import instance_for_test
from dagster._core.test_utils import create_test_daemon_workspace_context, freeze_time
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import ModuleTarget
from dagster._daemon.asset_daemon import AssetDaemon
from dagster._daemon.backfill import execute_backfill_iteration
from dagster._daemon.run_coordinator.queued_run_coordinator_daemon import QueuedRunCoordinatorDaemon
from dagster._daemon.sensor import execute_sensor_iteration
from dagster._time import get_current_datetime
from dagster_graphql.test.utils import execute_dagster_graphql

import penumo_assets.configs

SETTINGS = Path(penumo_assets.configs.__file__).parent / "dagster_embedded.yaml"
_LAUNCH = """mutation Launch($params: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $params) {
  __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }"""
_AGAIN = """mutation Again($params: ReexecutionParams!) { reexecutePartitionBackfill(reexecutionParams: $params) {
  __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }"""
_CANCEL = """mutation Cancel($id: String!) { cancelPartitionBackfill(backfillId: $id) { __typename } }"""


@dataclass
class Daemon:
    """The instance, the code location, and what a person does in the UI."""

    instance: DagsterInstance
    workspace: WorkspaceProcessContext
    pause: float
    minutes: int = 0
    next_backfill: float = 0.0

    def backfill(self, assets: Sequence[str], partitions: Sequence[str]) -> str:
        """Launch a backfill; returns its id."""
        params = {"assetSelection": [{"path": [name]} for name in assets], "partitionNames": list(partitions)}
        return str(self.ask(_LAUNCH, {"params": params})["launchPartitionBackfill"]["backfillId"])

    def retry_failed(self, backfill: str) -> str:
        """The UI's *re-execute from failure*; returns the new backfill's id."""
        params = {"parentRunId": backfill, "strategy": "FROM_FAILURE"}
        return str(self.ask(_AGAIN, {"params": params})["reexecutePartitionBackfill"]["backfillId"])

    def cancel(self, backfill: str) -> None:
        self.ask(_CANCEL, {"id": backfill})

    def iterate(self) -> None:
        """One iteration of the run queue, and of the backfill daemon if its last one was ten pauses ago."""
        if time.monotonic() >= self.next_backfill:
            list(execute_backfill_iteration(self.workspace, logging.getLogger("backfill")))
            self.next_backfill = time.monotonic() + 10 * self.pause
        list(QueuedRunCoordinatorDaemon(interval_seconds=1).run_iteration(self.workspace))

    def switch_on(self, *sensors: str) -> None:
        """The switch of each sensor's page."""
        (location,) = self.workspace.create_request_context().code_locations
        (repository,) = location.get_repositories().values()
        for name in sensors:
            self.instance.start_sensor(repository.get_sensor(name))

    def tick_sensors(self) -> None:
        """One tick of every sensor that is on, a minute after the last one by Dagster's clock; then what they asked."""
        self.minutes += 1
        with freeze_time(get_current_datetime() + timedelta(minutes=self.minutes)):
            list(execute_sensor_iteration(self.workspace, logging.getLogger("sensors"), None, None))
            conditions = AssetDaemon(settings={}, pre_sensor_interval_seconds=30)
            conditions._run_iteration_impl(self.workspace, None, {}, {})
        self.iterate()

    def status(self, backfill: str) -> BulkActionStatus:
        state = self.instance.get_backfill(backfill)
        assert state is not None
        return state.status

    def iterate_until(self, reached: Callable[[], bool], seconds: float = 600.0) -> None:
        """Iterate until something is so."""
        end = time.monotonic() + seconds
        while not reached():
            assert time.monotonic() < end, f"not reached within {seconds:.0f} s"
            self.iterate()
            time.sleep(self.pause)

    def finish(self, backfill: str) -> str:
        """Iterate until the backfill has ended; returns its status."""
        self.iterate_until(lambda: self.status(backfill) in BULK_ACTION_TERMINAL_STATUSES)
        return str(self.status(backfill).value)

    def runs(self, backfill: str) -> list[DagsterRun]:
        return [run for run in self.instance.get_runs() if run.tags.get("dagster/backfill") == backfill]

    def ask(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        """What the web server answers."""
        with self.workspace.create_request_context() as context:
            answer = execute_dagster_graphql(context, query, variables)  # type: ignore[arg-type]
        assert answer.errors is None, answer.errors
        return dict(answer.data)


@contextmanager
def running_daemon(module: str, *, in_this_process: bool) -> Iterator[Daemon]:
    """Load ``module`` as the code location. Runs are processes of their own, or happen in this one, one by one."""
    settings = yaml.safe_load(SETTINGS.read_text(encoding="utf-8"))
    target = ModuleTarget(module, attribute="defs", working_directory=None, location_name="penumo_assets")
    with (
        instance_for_test(overrides=settings, synchronous_run_launcher=in_this_process) as instance,
        create_test_daemon_workspace_context(target, instance) as workspace,
    ):
        yield Daemon(instance, workspace, pause=0.0 if in_this_process else 0.5)
