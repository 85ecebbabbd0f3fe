"""What the automation conditions ask for, evaluated on the real graph by Dagster's own evaluator. Nothing runs."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from dagster import (
    AssetKey,
    AssetMaterialization,
    AssetSelection,
    DagsterInstance,
    Definitions,
    evaluate_automation_conditions,
)

from penumo_assets.definitions import build_definitions
from penumo_assets.partitions import cohorts
from penumo_assets.sensors.automation import WEEKLY_TRAINING
from penumo_assets.sensors.launches import PREPARED

STAGES = {"raw_images", "lung_masks", "preprocessed_images", "npz_tensors"}
FRIDAY = datetime(2026, 11, 20, 12, tzinfo=UTC)
SATURDAY = datetime(2026, 11, 21, 3, 1, tzinfo=UTC)


@dataclass
class Machine:
    """Ticks of one automation sensor, one after the other."""

    definitions: Definitions
    instance: DagsterInstance
    selection: AssetSelection
    now: datetime = FRIDAY
    cursor: object = None

    def tick(self, after: timedelta = timedelta(minutes=1)) -> set[tuple[str, str | None]]:
        """What is asked for: assets and partitions."""
        self.now += after
        result = evaluate_automation_conditions(
            defs=self.definitions,
            instance=self.instance,
            asset_selection=self.selection,
            evaluation_time=self.now,
            cursor=self.cursor,  # type: ignore[arg-type]
        )
        self.cursor = result.cursor
        return {
            (item.key.to_user_string(), key)
            for item in result.results
            for key in (result.get_requested_partitions(item.key) if result.get_num_requested(item.key) else ())
        }

    def report(self, *assets: str, partition: str | None = None, version: str = "1") -> None:
        for asset in assets:
            event = AssetMaterialization(AssetKey(asset), partition=partition, tags={"dagster/data_version": version})
            self.instance.report_runless_asset_event(event)

    def land(self, cohort: str) -> None:
        self.instance.add_dynamic_partitions(str(cohorts.name), [cohort])


@pytest.fixture(scope="module")
def definitions() -> Definitions:
    return build_definitions()


@pytest.fixture
def imaging(definitions: Definitions) -> Iterator[Machine]:
    with DagsterInstance.ephemeral() as instance:
        machine = Machine(definitions, instance, PREPARED)
        machine.tick()
        yield machine


@pytest.fixture
def training(definitions: Definitions) -> Iterator[Machine]:
    with DagsterInstance.ephemeral() as instance:
        machine = Machine(definitions, instance, WEEKLY_TRAINING)
        machine.tick()
        yield machine


def test_a_cohort_flows_to_its_tensors_once_landing_is_reported(imaging: Machine) -> None:
    imaging.land("ward-7")
    assert imaging.tick() == set()
    imaging.report("landing", partition="ward-7")
    assert imaging.tick() == {(stage, "ward-7") for stage in STAGES}
    assert imaging.tick() == set()


def test_a_prepared_cohort_is_left_alone(imaging: Machine) -> None:
    imaging.land("ward-7")
    imaging.report("landing", *STAGES, partition="ward-7")
    assert imaging.tick() == set()
    imaging.report("landing", partition="ward-7", version="2")
    assert imaging.tick() == set(), "the landing sensors start the incremental run"


def test_models_are_trained_on_saturday_if_a_cohort_changed(training: Machine) -> None:
    training.land("ward-7")
    training.report("npz_tensors", partition="ward-7")
    assert training.tick() == set()
    assert training.tick(SATURDAY - training.now) == {("training_set", None)}
    assert training.tick() == set()
    assert training.tick(timedelta(days=7)) == set(), "nothing has changed since"


def test_a_changed_training_set_trains_and_evaluates_every_architecture(training: Machine) -> None:
    training.report("training_set")
    both = ("resnet34", "resnet50")
    first = training.tick()
    assert {("trained_model", name) for name in both} <= first
    training.report("training_set", version="1")
    assert training.tick() == set(), "packed again with the same content"
    training.report("training_set", version="2")
    assert {("trained_model", name) for name in both} <= training.tick()


def test_a_new_model_is_evaluated_and_a_new_report_reaches_the_champion(training: Machine) -> None:
    training.report("training_set")
    asked = training.tick()
    assert {("trained_model", "resnet34"), ("evaluation_report", "resnet34")} <= asked, "both in one run"
    assert training.tick() == set()
    training.report("trained_model", partition="resnet34")
    assert ("evaluation_report", "resnet34") in training.tick()
    training.report("evaluation_report", partition="resnet34")
    assert ("champion_model", None) in training.tick()
    assert training.tick() == set()


def test_everything_starts_switched_off(definitions: Definitions) -> None:
    sensors = list(definitions.sensors or ())
    assert {sensor.name for sensor in sensors} >= {"landing_listing", "cohorts_to_tensors", "weekly_training"}
    assert {sensor.default_status.value for sensor in sensors} == {"STOPPED"}
    loaded = definitions.get_repository_def().sensor_defs
    assert {sensor.name for sensor in loaded} == {sensor.name for sensor in sensors}, "no sensor of Dagster's own"


def test_the_report_says_when_it_is_old(definitions: Definitions) -> None:
    specs = {spec.key.to_user_string(): spec for spec in definitions.resolve_all_asset_specs()}
    assert specs["evaluation_report"].freshness_policy is not None
