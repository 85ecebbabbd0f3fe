"""The orchestrator's side of MLflow, by dagster-mlflow: a run for a Dagster run that trains, above its jobs' runs.

Its resource, `mlflow_tracking`, opens the run; its hook, `end_mlflow_on_run_finished`, says that a step failed. Both
are reached through this module for three reasons. dagster-mlflow imports MLflow (3 s), and loading the definitions must
not. It opens its run when a Dagster run starts, also if no step trains in the end, and a server that does not answer
would then stop what needs no MLflow. And its hook ends a run well only after the last step of a job, which may be an
asset check that knows nothing of MLflow: here the run ends with the Dagster run.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from dagster import (
    DagsterEvent,
    Failure,
    HookContext,
    HookDefinition,
    HookExecutionResult,
    InitResourceContext,
    resource,
)

from penumo_assets.jobs.tracking_address import redacted
from penumo_assets.resources.tracking import Tracking

HOOK_NAME = "end_mlflow_on_run_finished"
FINISHED = "FINISHED"
_NAME = "mlflow.runName"
_NOTE = "mlflow.note.content"


class DagsterRunLog:
    """The MLflow run of one Dagster run, opened by the first step that asks for it."""

    def __init__(self, context: InitResourceContext) -> None:
        self._context = context
        self._tracking: Tracking = context.resources.tracking
        self._open = ExitStack()
        self._status = FINISHED
        self.mlflow: Any = None  # dagster-mlflow's object once the run is open

    def job_environment(self) -> dict[str, str]:
        """What a job needs to report to the experiment, as a child of this Dagster run's MLflow run."""
        run_id = self._context.run.run_id if self._context.run else ""
        environment = self._tracking.job_environment(run_id)
        if self.mlflow is None:
            try:
                self._start(run_id)
            except Exception as error:
                raise Failure(f"MLflow cannot begin a run: {redacted(error, self._tracking.address())}") from None
        return environment | {"PENUMO_MLFLOW_PARENT_RUN_ID": self.mlflow.mlflow_run_id}

    def _start(self, run_id: str) -> None:
        partition = self._context.run.tags.get("dagster/partition", "") if self._context.run else ""
        tags = {_NAME: f"Dagster run {run_id[:8]} {partition}".strip()}
        if page := self._tracking.dagster_run_address(run_id):
            tags[_NOTE] = f"The trainings of [this Dagster run]({page}) are below it."
        config = {"experiment_name": self._tracking.experiment, "env": {}, "extra_tags": tags}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it is a beta, and how it asks Dagster: nobody can act on that
            from dagster_mlflow import mlflow_tracking

            open_run = contextmanager(mlflow_tracking.resource_fn)
            self.mlflow = self._open.enter_context(open_run(self._context.replace_config(config)))
        self.mlflow.mlflow_run_id = self.mlflow.active_run().info.run_id

    def _warn(self, text: str) -> None:
        if self._context.log is not None:
            self._context.log.warning(text)

    def end_run(self, status: str = FINISHED) -> None:
        """What the hook says after a step. A failure stays one, whatever succeeds after it."""
        if status != FINISHED:
            self._status = status

    def close(self) -> None:
        """End the run, if there is one, as the steps that trained did."""
        if self.mlflow is None:
            return
        try:
            self._tracking.client()  # MLflow's address is the process's: what a step did with it is undone
            self.mlflow.end_run(self._status)
            self._open.close()
        except Exception as error:  # what was trained is trained
            self._warn(f"MLflow cannot end a run: {redacted(error, self._tracking.address())}")


@resource(required_resource_keys={"tracking"}, description="The MLflow run of a Dagster run, by dagster-mlflow.")
def dagster_run_log(context: InitResourceContext) -> Iterator[DagsterRunLog]:
    """A `DagsterRunLog`, closed when the Dagster run ends."""
    log = DagsterRunLog(context)
    try:
        yield log
    finally:
        log.close()


def _after_a_step(context: HookContext, events: Sequence[DagsterEvent]) -> HookExecutionResult:
    if context.resources.mlflow.mlflow is None:
        return HookExecutionResult(HOOK_NAME, is_skipped=True)
    from dagster_mlflow import end_mlflow_on_run_finished as hook

    return hook.hook_fn(context, events)


# dagster-mlflow's hook, for the assets that train.
end_mlflow_on_run_finished = HookDefinition(name=HOOK_NAME, hook_fn=_after_a_step, required_resource_keys={"mlflow"})
