"""One installation for a test: an ephemeral Dagster instance and the embedded resources under a temporary root."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from dagster import AssetSelection, DagsterInstance, ExecuteInProcessResult, materialize

from penumo_assets.checks import ASSET_CHECKS
from penumo_assets.cohort.land import land_folder
from penumo_assets.configs.train import Architecture
from penumo_assets.definitions import ASSETS
from penumo_assets.resources.profile import embedded_resources
from penumo_assets.resources.storage.object_store import ObjectStore
from penumo_assets.resources.tracking import _create_database
from penumo_assets_tests.in_process import resources_in_process
from penumo_assets_tests.models.tiny import use_tiny_networks


@dataclass
class House:
    """An instance and the resources, as one installation has them."""

    instance: DagsterInstance
    resources: dict
    folder: Path

    @property
    def store(self) -> ObjectStore:
        return self.resources["storage"].store

    def materialize(
        self, *names: str, partition: str | None = None, config: dict | None = None, fails: bool = False
    ) -> ExecuteInProcessResult:
        result = materialize(
            [*ASSETS, *ASSET_CHECKS],
            selection=AssetSelection.assets(*names),
            instance=self.instance,
            partition_key=partition,
            resources=self.resources,
            run_config={"ops": {op: {"config": values} for op, values in (config or {}).items()}},
            raise_on_error=not fails,
        )
        assert result.success is not fails
        return result

    def land(self, cohort: str, folder: Path) -> None:
        land_folder(self.store, self.instance, cohort, folder)


@contextmanager
def open_house(folder: Path, *, processes: bool = False) -> Iterator[House]:
    """An installation whose storage root lies in ``folder``.

    Its jobs run in this process, on networks of three thousand weights; with ``processes``, everything is as shipped.
    """
    with pytest.MonkeyPatch.context() as patch, DagsterInstance.ephemeral() as instance:
        patch.setenv("PENUMO_ROOT", str(folder / "root"))
        patch.setenv("PENUMO_DEID_KEY", "a key for phantoms only")
        for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
            patch.delenv(name, raising=False)
        if not processes:
            use_tiny_networks(patch.setattr, Architecture)
            place_database(folder / "root")
        yield House(instance, embedded_resources() if processes else resources_in_process(), folder)


def place_database(root: Path) -> None:
    """MLflow's database, empty, where the embedded profile keeps it."""
    database = root / "mlflow" / "mlflow.db"
    database.parent.mkdir(parents=True, exist_ok=True)
    database.write_bytes(_empty_database())


@cache
def _empty_database() -> bytes:
    """MLflow's database with its tables: creating them takes seconds."""
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / "mlflow.db"
        _create_database(database)
        return database.read_bytes()


def failure_of(result: ExecuteInProcessResult) -> str:
    (event,) = [event for event in result.all_events if event.is_step_failure]
    return str(event.step_failure_data.user_failure_data.description)
