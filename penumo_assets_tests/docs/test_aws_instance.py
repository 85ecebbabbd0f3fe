"""The production instance of docs/aws/dagster.yaml, unchanged, on a real PostgreSQL server and an S3 on loopback."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
import yaml
from dagster import AssetKey, DagsterEventType, DagsterInstance, DagsterRunStatus
from dagster._core.run_coordinator import QueuedRunCoordinator
from dagster._core.storage.compute_log_manager import ComputeIOType

import penumo_assets
from penumo_assets.assets.shared import TRAINING_POOL
from penumo_assets_tests.docs.postgres import binaries, running_postgres
from penumo_assets_tests.resources.s3_server import running_s3

pytest.importorskip("dagster_aws", reason="dagster-aws is not installed")
pytest.importorskip("dagster_postgres", reason="dagster-postgres is not installed")

ROOT = Path(penumo_assets.__file__).parent.parent
FOLDER = ROOT / "docs" / "aws"
BUCKET, REGION = "penumo", "eu-central-1"
POSTGRES = binaries()


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    if POSTGRES is None:
        pytest.skip("no PostgreSQL server is installed: initdb was not found")
    with running_postgres(POSTGRES) as url:
        yield url


@pytest.fixture(scope="module")
def production(tmp_path_factory: pytest.TempPathFactory, postgres: str) -> Iterator[Path]:
    """DAGSTER_HOME with the production settings, and the environment they ask for."""
    home = tmp_path_factory.mktemp("dagster")
    shutil.copy(FOLDER / "dagster.yaml", home / "dagster.yaml")
    with running_s3() as server, pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("AWS_", "PENUMO_", "MLFLOW_", "DAGSTER_"))]:
            patch.delenv(name)
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        patch.setenv("AWS_DEFAULT_REGION", REGION)
        patch.setenv("AWS_ENDPOINT_URL", server.endpoint)
        patch.setenv("PENUMO_POSTGRES_URL", postgres)
        patch.setenv("PENUMO_LOG_BUCKET", BUCKET)
        patch.setenv("PENUMO_ROOT", f"s3://{BUCKET}/films")
        patch.setenv("DAGSTER_HOME", str(home))
        server.start_over(BUCKET, REGION)
        yield home


def test_a_run_leaves_its_events_in_postgres_and_its_log_in_s3(production: Path) -> None:
    answer = subprocess.run(
        [Path(sys.executable).parent / "dg", "launch", "-m", "penumo_assets.definitions", "--assets", "lung_segmenter"],
        cwd=production,  # in the container there is no checkout either
        capture_output=True,
        text=True,
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr

    with DagsterInstance.from_config(str(production)) as instance:
        assert {type(instance.run_storage).__name__, type(instance.event_log_storage).__name__} == {
            "PostgresRunStorage",
            "PostgresEventLogStorage",
        }
        (run,) = instance.get_runs()
        assert run.status is DagsterRunStatus.SUCCESS
        event = instance.get_latest_materialization_event(AssetKey("lung_segmenter"))
        assert event is not None
        assert event.run_id == run.run_id
        (captured,) = instance.get_records_for_run(run.run_id, of_type=DagsterEventType.LOGS_CAPTURED).records
        file_key = captured.event_log_entry.dagster_event.logs_captured_data.file_key
        log_key = [run.run_id, "compute_logs", file_key]
        manager = instance.compute_log_manager
        manager.local_manager.delete_logs(log_key=log_key)  # what is read now comes from S3
        manager.download_from_cloud_storage(log_key, ComputeIOType.STDERR)
        log = Path(manager.local_manager.get_captured_local_path(log_key, "err")).read_text()
        assert "STEP_SUCCESS" in log
    listed = boto3.client("s3").list_objects_v2(Bucket=BUCKET)["Contents"]
    assert {item["Key"].split("/")[0] for item in listed} == {"dagster-logs", "films"}


def test_the_settings_say_what_production_needs(production: Path) -> None:
    with DagsterInstance.from_config(str(production)) as instance:
        assert instance.run_retries_enabled
        assert not instance.run_retries_retry_on_asset_or_op_failure
        assert instance.run_monitoring_enabled
        assert not instance.telemetry_enabled
        assert not instance.nux_enabled
        assert isinstance(instance.run_coordinator, QueuedRunCoordinator)
        instance.event_log_storage.set_concurrency_slots(TRAINING_POOL, 2)
        assert instance.event_log_storage.get_concurrency_info(TRAINING_POOL).slot_count == 2


def test_the_image_copies_what_exists_and_its_containers_start_what_it_installs() -> None:
    lines = (FOLDER / "Dockerfile").read_text().splitlines()
    copied = [line.split()[1:-1] for line in lines if line.startswith("COPY")]
    assert copied
    assert all((ROOT / source).exists() for sources in copied for source in sources)
    services = yaml.safe_load((FOLDER / "compose.yaml").read_text())["services"]
    commands = [service["command"].split() for service in services.values() if "command" in service]
    assert len(commands) == 3
    assert all((Path(sys.executable).parent / command[0]).exists() for command in commands)
    workspace = yaml.safe_load((FOLDER / "workspace.yaml").read_text())["load_from"][0]["grpc_server"]
    assert workspace["host"] in services
    assert str(workspace["port"]) in services[workspace["host"]]["command"].split()
    assert (
        workspace["location_name"]
        == yaml.safe_load((ROOT / "workspace.yaml").read_text())["load_from"][0]["python_module"]["location_name"]
    )
