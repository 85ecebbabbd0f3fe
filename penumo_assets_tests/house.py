"""One installation for a test: an ephemeral Dagster instance and the embedded resources under a temporary root."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from dagster import AssetSelection, DagsterInstance, ExecuteInProcessResult, materialize

from penumo_assets.checks import ASSET_CHECKS
from penumo_assets.cohort.land import land_folder
from penumo_assets.definitions import ASSETS
from penumo_assets.resources.profile import embedded_resources
from penumo_assets.resources.storage.object_store import ObjectStore


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
def open_house(folder: Path) -> Iterator[House]:
    """An installation whose storage root lies in ``folder``."""
    with pytest.MonkeyPatch.context() as patch, DagsterInstance.ephemeral() as instance:
        patch.setenv("PENUMO_ROOT", str(folder / "root"))
        patch.setenv("PENUMO_DEID_KEY", "a key for phantoms only")
        for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
            patch.delenv(name, raising=False)
        yield House(instance, embedded_resources(), folder)


def failure_of(result: ExecuteInProcessResult) -> str:
    (event,) = [event for event in result.all_events if event.is_step_failure]
    return str(event.step_failure_data.user_failure_data.description)
