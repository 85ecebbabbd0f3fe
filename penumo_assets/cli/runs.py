"""Runs that this process executes, kept as if the UI had launched them: they stand in the timeline under their jobs'
names and can be launched again from their pages."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import click
from dagster import (
    AssetSelection,
    BetaWarning,
    DagsterError,
    DagsterExecutionInterruptedError,
    DagsterInstance,
    DagsterInvalidConfigError,
    Definitions,
    JobDefinition,
)
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.errors import DagsterAssetCheckFailedError
from dagster._core.execution.api import execute_run
from dagster._core.execution.execution_result import ExecutionResult
from dagster._core.execution.plan.objects import StepFailureData
from dagster._core.remote_origin import RemoteRepositoryOrigin
from dagster._core.scheduler.instigation import InstigatorState, InstigatorStatus, SensorInstigatorData
from dagster._core.workspace.load_target import ModuleTarget, WorkspaceFileTarget

from penumo_assets.automation import JOBS
from penumo_assets.cli import refused_config
from penumo_assets.partitions import cohorts
from penumo_assets.resources.profile import home

# The one repository of a code location whose definitions have no name.
_REPOSITORY = "__repository__"
_INSTALLED = ModuleTarget(
    "penumo_assets.definitions", attribute=None, working_directory=None, location_name="penumo_assets"
)


class Runs:
    """Executes jobs one after another on one instance."""

    def __init__(self, instance: DagsterInstance, definitions: Definitions) -> None:
        self.instance = instance
        self.repository = definitions.get_repository_def()
        # Where the package is installed without its checkout, the location is what that file would say.
        file = home() / "workspace.yaml"
        target = WorkspaceFileTarget([str(file)]) if file.exists() else _INSTALLED
        (location,) = target.create_origins()
        self._origin = RemoteRepositoryOrigin(location, _REPOSITORY)

    def execute(self, job: JobDefinition, partition: str | None, config: Mapping[str, Any]) -> ExecutionResult:
        """Run a job with a run config, to its end. What stopped it is in the result.

        Raises
        ------
        click.ClickException
            If the partition or the configuration is refused, with every reason.
        """
        tags = {".dagster/repository": self._origin.get_label()} | self._partition_tags(job, partition)
        try:
            run = self.instance.create_run_for_job(
                job, run_config=config, tags=tags, remote_job_origin=self._origin.get_job_origin(job.name)
            )
        except DagsterInvalidConfigError as error:
            lines = "\n".join(f"  {reason}" for reason in refused_config.reasons(job, error.errors))
            raise click.ClickException(f"the configuration is refused:\n{lines}") from error
        return execute_run(InMemoryJob(job), run, self.instance)

    def job_of(self, selection: str) -> JobDefinition:
        """The job that materializes the assets of a selection as `dg launch --assets` takes it.

        The named job that makes just these, or Dagster's own for them.

        Raises
        ------
        click.ClickException
            If nothing is selected, or assets by cohort and by architecture are mixed.
        """
        graph = self.repository.asset_graph
        try:
            with warnings.catch_warnings():  # Dagster warns of its own use of `AssetSelection.groups`
                warnings.simplefilter("ignore", BetaWarning)
                keys = AssetSelection.from_coercible(selection.split(",")).resolve(graph)
        except DagsterError:
            keys = set()
        if not keys:
            known = ", ".join(sorted(key.to_user_string() for key in graph.materializable_asset_keys))
            raise click.ClickException(f"{selection!r} selects no assets. There are: {known}")
        for job in JOBS:
            if job.selection.resolve(graph) == keys:
                return self.repository.get_job(job.name)
        found = self.repository.get_implicit_job_def_for_assets(keys)
        if found is None or len({graph.get(key).partitions_def for key in keys} - {None}) > 1:
            raise click.ClickException("assets by cohort and assets by architecture need a launch each")
        return found.get_subset(asset_selection=set(keys))

    def _partition_tags(self, job: JobDefinition, partition: str | None) -> dict[str, str]:
        definition = job.partitions_def
        if definition is None:
            if partition is not None:
                raise click.ClickException("these assets have no partitions: leave --partition out")
            return {}
        known = definition.get_partition_keys(dynamic_partitions_store=self.instance)
        if partition is None or partition not in known:
            what = "cohort" if definition == cohorts else "architecture"
            asked = f"there is no {what} {partition!r}" if partition else f"name a {what} by --partition"
            land = "; land it first: penumo land NAME FOLDER" if definition == cohorts else ""
            raise click.ClickException(f"{asked} ({what}s: {', '.join(known) or 'none'}{land})")
        return dict(job.get_tags_for_partition_key(partition, selected_asset_keys=None))

    def switch_on(self, name: str) -> None:
        """What the switch on a sensor's page does."""
        sensor = self.repository.get_sensor_def(name)
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


def failures(result: ExecutionResult) -> list[StepFailureData]:
    """What stopped a run, blocking checks left out: those are verdicts."""
    found = [event.step_failure_data for event in result.all_events if event.is_step_failure]
    return [failure for failure in found if not by_a_check(failure)]


def by_a_check(failure: StepFailureData) -> bool:
    """Whether a blocking check stopped the step."""
    return failure.error is not None and failure.error.cls_name == DagsterAssetCheckFailedError.__name__


def sentence(failure: StepFailureData) -> str | None:
    """What a user can act on; None for a fault of ours, whose stack trace tells more."""
    if failure.user_failure_data and failure.user_failure_data.description:
        return failure.user_failure_data.description
    if failure.error and failure.error.cls_name == DagsterExecutionInterruptedError.__name__:
        return "it was interrupted; launch it again to go on"
    return None


def why(found: Sequence[StepFailureData]) -> str:
    """The first reason that a person can act on, or else the first error."""
    for failure in found:
        if said := sentence(failure):
            return said
        if failure.error:
            return (failure.error.cause or failure.error).message.strip()
    return "the run ended before its first step"
