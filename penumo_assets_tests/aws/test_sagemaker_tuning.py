"""A hyperparameter search on SageMaker: what is asked for, that trials run for real, and that it is paid for once."""

import json
from pathlib import Path
from typing import Any

import pytest
from dagster import DagsterExecutionInterruptedError

from penumo_assets.configs.search import OBJECTIVE, SearchConfig, SearchSpace
from penumo_assets.resources.compute.sagemaker.start import hyperparameter_arguments
from penumo_assets.resources.compute.sagemaker.tuning import tuning_job_name
from penumo_assets.resources.compute.search import Trial, best_of
from penumo_assets.resources.compute.spec import JobFailed, JobInput, JobSpec
from penumo_assets_tests.aws import programs
from penumo_assets_tests.aws.emulator import Emulator, JobScript
from penumo_assets_tests.aws.emulator.rules import validate
from penumo_assets_tests.aws.emulator.server import wait_for
from penumo_assets_tests.jobs.training_samples import packed_set
from penumo_assets_tests.resources.bench import Bench, sagemaker_bench

CREATE = "CreateHyperParameterTuningJob"
SPACE = SearchSpace.parse(
    {
        "parameters": {
            "learning-rate": {"type": "float", "low": 1e-4, "high": 1e-2, "log": True},
            "label-smoothing": {"type": "float", "low": 0.0, "high": 0.15},
            "batch-size": {"type": "integer", "low": 8, "high": 64},
            "input-channels": {"type": "choice", "values": ["3", "4"]},
        }
    }
)
TWO = SearchConfig(trials=2, parallel=2)


@pytest.fixture(scope="module", autouse=True)
def _toolkit() -> None:
    """Trials are started by AWS's training toolkit."""
    programs.required()


@pytest.fixture
def make_bench(emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    return lambda **settings: sagemaker_bench(emulator, tmp_path, monkeypatch, **settings)


@pytest.fixture
def bench(make_bench: Any) -> Bench:
    return make_bench()


def tune(bench: Bench, do: str = "nothing", config: SearchConfig = TWO, **changes: Any) -> list[Trial]:
    return bench.runner.tune(bench.context, bench.spec(do, kind="training", **changes), SPACE, config)


def searches(emulator: Emulator, bench: Bench) -> list[Any]:
    """Requests that created a search of this test."""
    return [call for call in emulator.calls(CREATE) if str(bench.marker) in json.dumps(call.params) and not call.error]


def test_what_is_asked_for(emulator: Emulator, make_bench: Any) -> None:
    key = "arn:aws:kms:eu-central-1:123456789012:key/1"
    bench = make_bench(kms_key=key, training_instance_type="ml.r5d.xlarge", use_spot=True, max_retries=7)
    tune(bench, config=SearchConfig(trials=2, parallel=9, seed=3), max_runtime_seconds=900)
    (request,) = searches(emulator, bench)
    validate(CREATE, request.params)
    config, definition = request.params["HyperParameterTuningJobConfig"], request.params["TrainingJobDefinition"]
    assert config["Strategy"] == "Bayesian"
    assert config["RandomSeed"] == 3
    assert config["HyperParameterTuningJobObjective"] == {"Type": "Maximize", "MetricName": OBJECTIVE}
    assert config["ResourceLimits"] == {"MaxNumberOfTrainingJobs": 2, "MaxParallelTrainingJobs": 2}
    assert config["ParameterRanges"] == {
        "ContinuousParameterRanges": [
            {"Name": "learning-rate", "MinValue": "0.0001", "MaxValue": "0.01", "ScalingType": "Logarithmic"},
            {"Name": "label-smoothing", "MinValue": "0.0", "MaxValue": "0.15", "ScalingType": "Linear"},
        ],
        "IntegerParameterRanges": [
            {"Name": "batch-size", "MinValue": "8", "MaxValue": "64", "ScalingType": "Linear"},
        ],
        "CategoricalParameterRanges": [{"Name": "input-channels", "Values": ['"3"', '"4"']}],
    }
    assert definition["StaticHyperParameters"] == {
        "marker": json.dumps(str(bench.marker)),
        "do": '"nothing"',
        "lines": '"0"',
        "sagemaker_program": '"start.py"',
        "sagemaker_submit_directory": '"/opt/ml/input/data/code"',
    }
    assert {item["ChannelName"] for item in definition["InputDataConfig"]} == {"films", "notes", "code"}
    assert definition["EnableManagedSpotTraining"]
    assert definition["StoppingCondition"]["MaxRuntimeInSeconds"] == 900
    assert definition["RetryStrategy"] == {"MaximumRetryAttempts": 7}
    assert "VolumeKmsKeyId" not in definition["ResourceConfig"], "it has a disk of its own"
    assert definition["OutputDataConfig"]["KmsKeyId"] == key
    tags = {tag["Key"]: tag["Value"] for tag in request.params["Tags"]}
    assert tags["dagster/run_id"] == "a-run"


@pytest.fixture(scope="module")
def asked(emulator: Emulator, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A request that created a search."""
    with pytest.MonkeyPatch.context() as patch:
        bench = sagemaker_bench(emulator, tmp_path_factory.mktemp("asked"), patch)
        tune(bench)
        (request,) = searches(emulator, bench)
        return request.params


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"HyperParameterTuningJobName": "x" * 33}, "length 33"),
        ({"entry": ["python3", "x.py"]}, "ContainerEntrypoint is unknown"),
        ({"limits": {"MaxNumberOfTrainingJobs": 1, "MaxParallelTrainingJobs": 2}}, "must not be above"),
        ({"static": {"learning-rate": "0.1"}}, "Hyperparameter names must be unique"),
        ({"metrics": []}, "not among the metric definitions"),
        ({"instance": {"InstanceType": "ml.g5.xlarge", "VolumeKmsKeyId": "key"}}, "has local storage"),
    ],
)
def test_the_emulator_refuses_what_the_service_refuses(
    asked: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    params = json.loads(json.dumps(asked))
    definition = params["TrainingJobDefinition"]
    params |= {key: value for key, value in changes.items() if key[0].isupper()}
    params["HyperParameterTuningJobConfig"]["ResourceLimits"] |= changes.get("limits", {})
    definition["StaticHyperParameters"] |= changes.get("static", {})
    definition["ResourceConfig"] |= changes.get("instance", {})
    if "entry" in changes:
        definition["AlgorithmSpecification"]["ContainerEntrypoint"] = changes["entry"]
    if "metrics" in changes:
        definition["AlgorithmSpecification"]["MetricDefinitions"] = changes["metrics"]
    with pytest.raises(Exception, match=message):
        validate(CREATE, params)


def test_trials_run_with_what_was_drawn_and_leave_nothing_behind(emulator: Emulator, bench: Bench) -> None:
    trials = tune(bench, config=SearchConfig(trials=4, parallel=2))
    assert [trial.number for trial in trials] == [0, 1, 2, 3]
    assert bench.starts() == 4
    for trial in trials:
        assert set(trial.hyperparameters) == set(SPACE.parameters)
        rate, channels = float(trial.hyperparameters["learning-rate"]), trial.hyperparameters["input-channels"]
        assert 1e-4 <= rate <= 1e-2
        assert trial.value == pytest.approx(rate + {"3": 0.1, "4": 0.5}[channels], rel=1e-4)
        assert 8 <= int(trial.hyperparameters["batch-size"]) <= 64
    best = best_of(trials)
    assert best is not None
    assert best.value == max(trial.value or 0 for trial in trials)
    assert not [*bench.store.list_objects("jobs"), *bench.store.list_objects("inputs")]
    assert any("4 of 4 trainings completed, 0 failed" in line for line in bench.lines)


def test_a_failed_trial_tells_its_reason_and_the_search_goes_on(emulator: Emulator, bench: Bench) -> None:
    emulator.script("-001-", JobScript(failure="AlgorithmError: the films are upside down, exit code: 1"))
    bad, good = tune(bench, config=SearchConfig(trials=2, parallel=1))
    assert (bad.value, bad.reason) == (None, "the films are upside down")
    assert good.value is not None


def test_a_program_that_fails_leaves_its_own_words(bench: Bench) -> None:
    trials = tune(bench, "fail")
    assert [trial.value for trial in trials] == [None, None]
    assert {trial.reason for trial in trials} == {"the films are upside down"}


def test_a_trial_without_an_objective_is_a_failed_one(bench: Bench) -> None:
    trials = tune(bench, "silent")
    assert {(trial.value, trial.reason) for trial in trials} == {(None, "its log names no final_validation_roc_auc")}


def test_a_search_without_capacity_is_tried_again(emulator: Emulator, bench: Bench) -> None:
    for number in ("-001-", "-002-"):
        emulator.script(number, JobScript(failure="CapacityError: Unable to provision requested ML compute capacity."))
    assert all(trial.value is not None for trial in tune(bench))
    assert [call.name[-2:] for call in searches(emulator, bench)] == ["-1", "-2"]


@pytest.mark.parametrize("operation", [CREATE, "DescribeHyperParameterTuningJob"])
def test_a_throttled_request_is_repeated(emulator: Emulator, bench: Bench, operation: str) -> None:
    emulator.fail(operation, "ThrottlingException", "Rate exceeded", times=2)
    assert len(tune(bench)) == 2
    assert len(searches(emulator, bench)) == 1


def test_after_a_crash_the_same_search_goes_on(emulator: Emulator, bench: Bench) -> None:
    def crash(line: str) -> None:
        if "trainings completed" in line:
            raise RuntimeError("the orchestrator dies")

    bench.context.log.info = crash
    with pytest.raises(RuntimeError, match="dies"):
        tune(bench, "wait")
    bench.open_gate()
    bench.context.log.info = bench.lines.append
    assert all(trial.value is not None for trial in tune(bench, "wait"))
    assert any("Attached to search" in line for line in bench.lines)
    assert tune(bench, "wait") == tune(bench, "wait", config=SearchConfig(trials=2, parallel=1)), "no other search"
    assert len(searches(emulator, bench)) == 1
    assert bench.starts() == 2


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, DagsterExecutionInterruptedError])
def test_a_cancelled_run_stops_the_search(emulator: Emulator, bench: Bench, interruption: Any) -> None:
    def cancel(line: str) -> None:
        if "trainings completed" in line:
            wait_for(lambda: bench.starts() == 2)
            raise interruption

    bench.context.log.info = cancel
    with pytest.raises(interruption):
        tune(bench, "wait")
    (request,) = searches(emulator, bench)
    describe = emulator.client("sagemaker").describe_hyper_parameter_tuning_job

    def stopped() -> Any:
        answer = describe(HyperParameterTuningJobName=request.name)
        return answer if answer["HyperParameterTuningJobStatus"] == "Stopped" else None

    assert wait_for(stopped)["TrainingJobStatusCounters"]["Stopped"] == 2


def test_a_search_that_somebody_stops_is_told_to_have_been_stopped(emulator: Emulator, bench: Bench) -> None:
    def stop(line: str) -> None:
        if "0 of 2 trainings completed, 0 failed" in line:
            (request,) = searches(emulator, bench)
            stopping = emulator.client("sagemaker").stop_hyper_parameter_tuning_job
            stopping(HyperParameterTuningJobName=request.name)

    bench.context.log.info = stop
    with pytest.raises(JobFailed, match=r"was stopped$"):
        tune(bench, "wait")


def test_interrupted_spot_trials_go_on_each_from_its_own_checkpoint(emulator: Emulator, make_bench: Any) -> None:
    bench = make_bench(use_spot=True)
    for number in ("-001-", "-002-"):
        emulator.script(number, JobScript(interrupt_at_checkpoint=True))
    trials = tune(bench, "checkpoint", config=SearchConfig(trials=2, parallel=1))
    jobs = [emulator.api.jobs["Training", trial.job_name] for trial in trials]
    assert [job.interruptions for job in jobs] == [1, 1]
    assert bench.starts() == 4
    restored = {name.split("/")[0] for name in jobs[1].restored}
    assert restored == {trials[1].job_name}, "no trial is given what another left behind"
    assert not [*bench.store.list_objects("jobs")]


def test_a_failed_trial_leaves_no_checkpoint_to_the_next(emulator: Emulator, make_bench: Any) -> None:
    bench = make_bench(use_spot=True)
    trials = tune(bench, "spoil", config=SearchConfig(trials=2, parallel=1))
    assert {trial.reason for trial in trials} == {"the films are upside down"}
    assert emulator.api.jobs["Training", trials[1].job_name].restored == set()
    assert not [*bench.store.list_objects("jobs")]


def test_a_name_is_short_and_says_what_is_searched(bench: Bench) -> None:
    spec = bench.spec(kind="training", partition="resnet34")

    def name(config: SearchConfig = TWO, prefix: str = "penumo", attempt: int = 1) -> str:
        return tuning_job_name(prefix, spec, SPACE, config, attempt)

    assert name().startswith("penumo-resnet34-")
    assert len(name(prefix="a-hospital-with-a-long-name", attempt=99)) <= 32
    assert name(SearchConfig(trials=2, parallel=1)) == name(), "how many run at a time is not what is asked"
    assert len({name(), name(SearchConfig(trials=3)), name(SearchConfig(trials=2, seed=1)), name(attempt=2)}) == 4


def test_a_space_that_sagemaker_cannot_search_is_refused_at_once(emulator: Emulator, bench: Bench) -> None:
    values = [str(number) for number in range(2, 33)]
    wide = SearchSpace.parse({"parameters": {"batch-size": {"type": "choice", "values": values}}})
    with pytest.raises(JobFailed, match="batch-size has more than 30 values"):
        bench.runner.tune(bench.context, bench.spec(kind="training"), wide, TWO)
    assert searches(emulator, bench) == []


def test_what_the_toolkit_and_the_tuner_add_does_not_reach_the_program(tmp_path: Path) -> None:
    path = tmp_path / "hyperparameters.json"
    path.write_text(
        json.dumps(
            {
                "epochs": '"1"',
                "learning-rate": "0.001",
                "sagemaker_program": '"start.py"',
                "_tuning_objective_metric": OBJECTIVE,
            }
        )
    )
    assert hyperparameter_arguments(path, trial=True) == ["--epochs", "1", "--learning-rate", "0.001"]


@pytest.mark.slow
def test_two_real_trainings(emulator: Emulator, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = packed_set(tmp_path / "pack", monkeypatch)
    inputs = {}
    for split in ("train", "validation"):
        files = [path for path in (dataset / split).rglob("*") if path.is_file()]
        names = tuple(sorted(path.relative_to(dataset / split).as_posix() for path in files))
        for name in names:
            bench.store.write(f"training_set/{split}/{name}", (dataset / split / name).read_bytes())
        inputs[split] = JobInput(f"training_set/{split}", names)
    values = {
        "model-type": "resnet34",
        "epochs": "1",
        "warmup-epochs": "0",
        "resolution": "64",
        "num-workers": "0",
        "threads": "1",
    }
    arguments = tuple(text for name, value in values.items() for text in (f"--{name}", value))
    spec = JobSpec("training", "train", "search", "resnet34", arguments, inputs, outputs=("model", "data"))
    trials = bench.runner.tune(bench.context, spec, SPACE, SearchConfig(trials=2, parallel=1))
    assert [trial.reason for trial in trials] == ["", ""]
    assert all(trial.value is not None and 0 <= trial.value <= 1 for trial in trials)
    for trial in trials:
        log = "\n".join(emulator.api.jobs["Training", trial.job_name].messages())
        assert f"final_validation_roc_auc={trial.value:.6g};" in log
