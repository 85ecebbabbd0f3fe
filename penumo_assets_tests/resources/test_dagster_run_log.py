"""One MLflow run for a Dagster run that trains, above its jobs' runs."""

from pathlib import Path

import pytest
from dagster import ExecuteInProcessResult, Failure, ResourceParam, asset, materialize
from mlflow.entities import Run

from penumo_assets.resources.dagster_run_log import DagsterRunLog, dagster_run_log, end_mlflow_on_run_finished
from penumo_assets.resources.tracking import Tracking

PARENT = "PENUMO_MLFLOW_PARENT_RUN_ID"


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> Tracking:
    folder = tmp_path_factory.mktemp("mlflow")
    pages = {"dagster_ui": "http://dagster.example"}
    return Tracking(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}", artifact_root=(folder / "a").as_uri(), **pages)


def run_assets(tracking: Tracking, *, trains: bool = True, fails: bool = False) -> ExecuteInProcessResult:
    """A Dagster run of two assets, each of which would start a training."""

    @asset(hooks={end_mlflow_on_run_finished})
    def first(mlflow: ResourceParam[DagsterRunLog]) -> str:
        parent = mlflow.job_environment()[PARENT] if trains else ""
        if fails:
            raise Failure("the training failed", allow_retries=False)
        return parent

    @asset(hooks={end_mlflow_on_run_finished})
    def second(mlflow: ResourceParam[DagsterRunLog]) -> str:
        return mlflow.job_environment()[PARENT] if trains else ""

    @asset(deps=[first, second])
    def last_and_without_mlflow() -> None: ...

    ward = {"tags": {"dagster/partition": "resnet34"}}
    resources = {"tracking": tracking, "mlflow": dagster_run_log}
    return materialize([first, second, last_and_without_mlflow], resources=resources, raise_on_error=False, **ward)


def runs_of(tracking: Tracking, result: ExecuteInProcessResult) -> list[Run]:
    return tracking.client().search_runs([tracking.experiment_id()], f"tags.dagster_run_id = '{result.run_id}'")


def test_all_trainings_of_a_dagster_run_have_one_parent_which_ends_with_it(tracking: Tracking) -> None:
    result = run_assets(tracking)
    (run,) = runs_of(tracking, result)
    assert result.output_for_node("first") == result.output_for_node("second") == run.info.run_id
    assert (run.info.status, run.info.run_name) == ("FINISHED", f"Dagster run {result.run_id[:8]} resnet34")
    assert f"http://dagster.example/runs/{result.run_id}" in run.data.tags["mlflow.note.content"]


def test_two_dagster_runs_have_two_parents(tracking: Tracking) -> None:
    parents = {run_assets(tracking).output_for_node("first") for _ in range(2)}
    assert len(parents) == 2


def test_a_step_that_fails_fails_the_parent_although_another_succeeds_after_it(tracking: Tracking) -> None:
    (run,) = runs_of(tracking, run_assets(tracking, fails=True))
    assert run.info.status == "FAILED"


def test_a_dagster_run_that_trains_nothing_leaves_nothing_in_mlflow(tracking: Tracking) -> None:
    result = run_assets(tracking, trains=False)
    assert result.success
    assert runs_of(tracking, result) == []


def test_a_server_that_cannot_be_used_fails_the_step_that_trains(tmp_path: Path) -> None:
    (tmp_path / "mlflow").write_text("a file where a folder should be")
    result = run_assets(Tracking(tracking_uri=f"sqlite:///{tmp_path}/mlflow/mlflow.db"))
    assert not result.success
    assert {event.step_key for event in result.all_events if event.is_step_failure} == {"first", "second"}
