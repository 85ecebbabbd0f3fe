"""The demo's runs: the jobs of `penumo_assets.automation`, executed in this process, and kept as if the UI had launched
them: they stand in the timeline under their jobs' names and can be launched again from their pages."""

from collections.abc import Mapping, Sequence
from typing import Any

import click
from dagster import DagsterInstance, Definitions
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.errors import DagsterAssetCheckFailedError
from dagster._core.execution.api import execute_run
from dagster._core.execution.execution_result import ExecutionResult
from dagster._core.execution.plan.objects import StepFailureData
from dagster._core.remote_origin import RemoteRepositoryOrigin
from dagster._core.scheduler.instigation import InstigatorState, InstigatorStatus, SensorInstigatorData
from dagster._core.workspace.load_target import WorkspaceFileTarget

from penumo_assets.resources.profile import home

# The one repository of a code location whose definitions have no name.
_REPOSITORY = "__repository__"


class Runs:
    """Executes jobs one after another on one instance."""

    def __init__(self, instance: DagsterInstance, definitions: Definitions) -> None:
        self.instance = instance
        self._definitions = definitions
        (location,) = WorkspaceFileTarget([str(home() / "workspace.yaml")]).create_origins()
        self._origin = RemoteRepositoryOrigin(location, _REPOSITORY)

    def execute(self, job: str, partition: str | None, config: Mapping[str, Any]) -> ExecutionResult:
        """Run a job to its end, or to a check that stopped it: that is a result too.

        Raises
        ------
        click.ClickException
            If it failed, with what the failed step says.
        """
        definition = self._definitions.resolve_job_def(job)
        tags = {".dagster/repository": self._origin.get_label()}
        if partition is not None:
            tags |= definition.get_tags_for_partition_key(partition, selected_asset_keys=None)
        run = self.instance.create_run_for_job(
            definition,
            run_config={"ops": {op: {"config": values} for op, values in config.items()}},
            tags=tags,
            remote_job_origin=self._origin.get_job_origin(job),
        )
        result = execute_run(InMemoryJob(definition), run, self.instance)
        failures = [event.step_failure_data for event in result.all_events if event.is_step_failure]
        if not result.success and not (failures and all(map(_by_a_check, failures))):
            raise click.ClickException(f"{job}: {_why(failures)}")
        return result

    def switch_on(self, name: str) -> None:
        """What the switch on a sensor's page does."""
        sensor = self._definitions.get_repository_def().get_sensor_def(name)
        state = InstigatorState(
            self._origin.get_instigator_origin(name),
            InstigatorType.SENSOR,
            InstigatorStatus.RUNNING,
            SensorInstigatorData(min_interval=sensor.minimum_interval_seconds, sensor_type=sensor.sensor_type),
        )
        if self.instance.get_instigator_state(state.instigator_origin_id, state.selector_id) is None:
            self.instance.add_instigator_state(state)
        else:
            self.instance.update_instigator_state(state)


def _by_a_check(failure: StepFailureData) -> bool:
    """Whether a blocking check stopped the run."""
    return failure.error is not None and failure.error.cls_name == DagsterAssetCheckFailedError.__name__


def _why(failures: Sequence[StepFailureData]) -> str:
    for failure in failures:
        if failure.user_failure_data and failure.user_failure_data.description:
            return failure.user_failure_data.description
        if failure.error:
            return (failure.error.cause or failure.error).message.strip()
    return "the run failed before its first step"
