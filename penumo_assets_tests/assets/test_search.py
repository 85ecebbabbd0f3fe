"""Hyperparameter search: a space is checked before anything runs, a stopped search goes on, training obeys."""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, ClassVar

import pytest
from dagster import AssetExecutionContext

from penumo_assets.configs.base import ConfigError
from penumo_assets.configs.search import SearchConfig, SearchSpace
from penumo_assets.configs.train import PRESETS, TrainConfig
from penumo_assets.records import SearchRecord, TrainingSetRecord
from penumo_assets.resources.compute.runner import JobRunner
from penumo_assets.resources.compute.search import Trial, best_of, optuna_trials
from penumo_assets.resources.compute.spec import JobFailed, JobResult, JobSpec
from penumo_assets_tests.house import House, failure_of, open_house

SPACE = SearchSpace.parse(
    {
        "parameters": {
            "learning-rate": {"type": "float", "low": 1e-4, "high": 1e-1, "log": True},
            "batch-size": {"type": "integer", "low": 8, "high": 64},
            "input-channels": {"type": "choice", "values": ["3", "4"]},
        }
    }
)


def landscape(values: dict[str, str]) -> float:
    """Highest at a learning rate of 0.01 with the mask channel."""
    return 0.9 - 0.1 * abs(math.log10(float(values["learning-rate"])) + 2) - 0.05 * (values["input-channels"] == "3")


def search(trials: int, done: list[Trial], ran: list[int]) -> list[Trial]:
    def run(number: int, values: dict[str, str]) -> Trial:
        ran.append(number)
        return Trial(number, values, landscape(values), f"job-{number}")

    return list(optuna_trials(SPACE, SearchConfig(trials=trials), done, run))


def test_a_search_finds_the_top_of_a_hill() -> None:
    found = best_of(search(25, [], []))
    assert found is not None
    assert found.value == pytest.approx(0.9, abs=0.03)
    assert found.hyperparameters["input-channels"] == "4"
    assert 8 <= int(found.hyperparameters["batch-size"]) <= 64


def test_a_search_that_stopped_goes_on_as_if_it_had_not() -> None:
    whole = search(9, [], [])
    ran: list[int] = []
    assert search(9, whole[:6], ran) == whole
    assert ran == [6, 7, 8]


def test_a_failed_trial_is_no_best_and_equals_go_to_the_earliest() -> None:
    good, equal = Trial(1, {}, 0.7), Trial(2, {}, 0.7)
    assert best_of([Trial(0, {}, None, reason="out of memory"), good, equal]) == good
    assert best_of([Trial(0, {}, None)]) is None


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"learning_rate": {"type": "float", "low": 1e-4, "high": 1e-2}}, "learning_rate"),
        ({"learning-rate": {"type": "float", "low": 0.0, "high": 1e-2}}, "learning-rate=0.0"),
        ({"learning-rate": {"type": "float", "low": 0.1, "high": 0.01}}, "low must be below high"),
        ({"weight-decay": {"type": "float", "low": 0.0, "high": 0.1, "log": True}}, "logarithmic"),
        ({"batch-size": {"type": "integer", "low": 8.5, "high": 16}}, "whole numbers"),
        ({"input-channels": {"type": "choice", "values": ["3", "5"]}}, "input-channels=5"),
        ({}, "parameters"),
    ],
)
def test_a_space_that_training_would_refuse_is_refused_first(parameters: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SearchSpace.parse({"parameters": parameters})


def test_the_space_that_ships_is_valid() -> None:
    assert "learning-rate" in SearchConfig().search_space().parameters
    with pytest.raises(ConfigError, match="not valid YAML"):
        SearchConfig(space="parameters: [").search_space()


class Landscape(JobRunner):
    """A runner whose trainings score the landscape; learning rates above 0.05 fail."""

    specs: ClassVar[list[JobSpec]] = []

    def run(self, context: AssetExecutionContext, spec: JobSpec) -> JobResult:
        self.specs.append(spec)
        values = {n.removeprefix("--"): v for n, v in zip(spec.arguments[::2], spec.arguments[1::2], strict=True)}
        if float(values["learning-rate"]) > 0.05:
            raise JobFailed("the loss is not a number")
        job = f"job-{len(self.specs)}"
        return JobResult(job, {"validation_roc_auc": landscape(values)}, f"jobs/{job}/output", {}, {})

    def discard(self, job_name: str) -> None:
        return None


class LandscapeTuner(Landscape):
    """A service that runs the whole search."""

    def tune(self, context: Any, spec: JobSpec, space: SearchSpace, config: SearchConfig) -> list[Trial]:
        values = {"learning-rate": "0.01", "input-channels": "4"}
        return [Trial(0, values, 0.5), Trial(1, values, 0.8, "tuned-1"), Trial(2, values, None, reason="stopped")]


@pytest.fixture
def house(tmp_path) -> Iterator[House]:
    """An installation with a training set on record and a runner that only scores."""
    Landscape.specs.clear()
    with open_house(tmp_path) as house:
        names = [f"{split}/index.parquet" for split in ("train", "validation", "test")]
        TrainingSetRecord(prefix="training_set/x", names=tuple(names), digest="d" * 64).write(house.store)
        yield replace(house, resources=house.resources | {"jobs": Landscape(storage=house.resources["storage"])})


def configuration(**values: object) -> dict:
    space = SPACE.model_dump_json()
    return {"hyperparameter_search": {"trials": 8, "epochs": 3, "space": space} | values}


def test_the_best_trial_is_recorded_with_all_others(house: House) -> None:
    result = house.materialize("hyperparameter_search", partition="resnet34", config=configuration())
    record = SearchRecord.read(house.store, "resnet34")
    values = [trial.value for trial in record.trials if trial.value is not None]
    assert record.best.value == max(values)
    assert len(record.trials) == 8
    (event,) = result.asset_materializations_for_node("hyperparameter_search")
    assert event.metadata["failed"].value == 8 - len(values)
    assert len(event.metadata["trials"].records) == 8


def test_no_trial_sees_the_test_split_and_each_has_its_own_job(house: House) -> None:
    house.materialize("hyperparameter_search", partition="resnet34", config=configuration())
    assert {tuple(spec.inputs) for spec in Landscape.specs} == {("train", "validation")}
    assert len({spec.job_name("p", 1) for spec in Landscape.specs}) == 8
    assert all(spec.arguments[spec.arguments.index("--epochs") + 1] == "3" for spec in Landscape.specs)


def test_a_longer_search_repeats_no_training(house: House) -> None:
    house.materialize("hyperparameter_search", partition="resnet34", config=configuration(trials=4))
    house.materialize("hyperparameter_search", partition="resnet34", config=configuration(trials=6))
    assert len(Landscape.specs) == 6


def test_a_service_that_searches_is_left_to_it(house: House) -> None:
    tuned = replace(house, resources=house.resources | {"jobs": LandscapeTuner(storage=house.resources["storage"])})
    tuned.materialize("hyperparameter_search", partition="resnet50", config=configuration())
    assert SearchRecord.read(house.store, "resnet50").best.job_name == "tuned-1"
    assert Landscape.specs == []


def test_training_follows_the_search_only_when_asked(house: House) -> None:
    best = {"learning-rate": "0.0123", "input-channels": "3"}
    found = SearchRecord(objective="validation_roc_auc", dataset_digest="d" * 64, best=Trial(0, best, 0.9))
    found.write(house.store, "resnet34")
    for from_search, rate in ((True, "0.0123"), (False, "0.06")):
        settings = {"trained_model": {"from_search": from_search, "learning_rate": 0.06, "epochs": 7}}
        house.materialize(
            "trained_model", partition="resnet34", config=settings, fails=True
        )  # the runner trains nothing
        arguments = Landscape.specs[-1].arguments
        assert arguments[arguments.index("--learning-rate") + 1] == rate
        assert arguments[arguments.index("--epochs") + 1] == "7"


def test_a_preset_decides_what_a_launch_leaves_out(house: House) -> None:
    settings = {"trained_model": {"preset": "quick", "epochs": 7}}
    house.materialize("trained_model", partition="resnet34", config=settings, fails=True)
    arguments = Landscape.specs[-1].arguments
    given = dict(zip(arguments[::2], arguments[1::2], strict=True))
    assert (given["--preset"], given["--epochs"]) == ("quick", "7")
    assert given["--resolution"] == str(PRESETS["quick"]["resolution"])
    assert given["--batch-size"] == str(TrainConfig.defaults().batch_size)


def test_training_from_a_search_that_never_was_says_so(house: House) -> None:
    settings = {"trained_model": {"from_search": True}}
    result = house.materialize("trained_model", partition="resnet34", config=settings, fails=True)
    assert "hyperparameter_search has not been materialized for resnet34" in failure_of(result)


def test_pretrained_weights_by_uri_become_a_channel(house: House, tmp_path) -> None:
    weights = tmp_path / "my weights.safetensors"
    weights.write_bytes(b"weights")
    settings = {"trained_model": {"pretrained": weights.as_uri()}}
    house.materialize("trained_model", partition="resnet34", config=settings, fails=True)
    channel = Landscape.specs[-1].inputs["pretrained"]
    assert house.store.read(f"{channel.prefix}/{channel.names[0]}") == b"weights"
    missing = house.materialize(
        "trained_model",
        partition="resnet34",
        config={"trained_model": {"pretrained": str(tmp_path / "gone.safetensors")}},
        fails=True,
    )
    assert "gone.safetensors" in str(
        [event.message for event in missing.all_events if event.is_step_failure] + [failure_text(missing)]
    )


def failure_text(result) -> str:
    (event,) = [event for event in result.all_events if event.is_step_failure]
    return event.step_failure_data.error.to_string()
