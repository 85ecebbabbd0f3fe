"""One contract, two runners: every promise of `JobRunner` is kept by subprocesses and by SageMaker alike."""

import io
import json
import tarfile
import threading
from pathlib import Path

import psutil
import pytest
from dagster import DagsterExecutionInterruptedError

from penumo_assets.jobs.contract import KEPT_NAMES
from penumo_assets.resources.compute.spec import JobFailed
from penumo_assets_tests.resources.bench import Bench, local_bench, sagemaker_bench, wait_until


@pytest.fixture(params=["local", "sagemaker"])
def bench(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    if request.param == "local":
        return local_bench(tmp_path, monkeypatch)
    return sagemaker_bench(request.getfixturevalue("emulator"), tmp_path, monkeypatch)


def test_a_job_finds_its_inputs_and_leaves_its_outputs(bench: Bench) -> None:
    result = bench.run()
    assert result.outputs["made"] == ("sub/algo-1.txt",)
    assert bench.store.read(result.key("made", "sub/algo-1.txt")) == b"film;note"
    assert result.values["films"] == 1
    assert result.metadata["job_attempt"] == 1
    assert result.metadata["job_status"] == "Completed"
    assert not result.metadata["job_reused"]
    assert [line for line in bench.lines if line.endswith("line")] == ["first line", "last line"]


def test_a_training_job_finds_its_channels_and_leaves_a_model(bench: Bench) -> None:
    result = bench.run(kind="training")
    assert result.outputs["model"] == ("model.tar.gz",)
    with tarfile.open(fileobj=io.BytesIO(bench.store.read(result.key("model", "model.tar.gz")))) as tar:
        assert tar.getnames() == ["weights"]
    assert result.outputs["data"] == ("result.json",)
    assert result.values["films"] == 1


@pytest.mark.parametrize("kind", ["processing", "training"])
def test_a_finished_job_is_reused(bench: Bench, kind: str) -> None:
    first, second = bench.run(kind=kind), bench.run(kind=kind)
    assert bench.starts() == 1
    assert second.metadata["job_reused"]
    assert (first.job_name, first.outputs, first.values) == (second.job_name, second.outputs, second.values)


@pytest.mark.parametrize("kind", ["processing", "training"])
def test_a_job_whose_outputs_were_discarded_runs_again(bench: Bench, kind: str) -> None:
    first = bench.run(kind=kind)
    bench.runner.discard(first.job_name)
    assert not [*bench.store.list_objects("jobs"), *bench.store.list_objects("inputs")]
    second = bench.run(kind=kind)
    assert bench.starts() == 2
    assert second.values == first.values


def test_a_failing_program_says_why_and_the_next_launch_is_a_new_attempt(bench: Bench) -> None:
    with pytest.raises(JobFailed, match="the films are upside down") as caught:
        bench.run("fail")
    assert "first line" in caught.value.log_tail
    assert not caught.value.transient
    with pytest.raises(JobFailed, match="-2 failed"):
        bench.run("fail")
    assert bench.starts() == 2


def test_what_a_failed_attempt_has_finished_is_part_of_the_next(bench: Bench) -> None:
    with pytest.raises(JobFailed, match="half way"):
        bench.run("halves", keeps=True)
    result = bench.run("halves", keeps=True)
    left = {"made": ["first.txt"], "result": ["done.txt"]}
    assert result.values["kept"] == {"done.txt": "first", KEPT_NAMES: json.dumps(left)}
    assert result.outputs["made"] == ("first.txt", "sub/algo-1.txt")
    assert bench.store.read(result.key("made", "first.txt")) == b"a half"
    bench.runner.discard(result.job_name)
    assert not [*bench.store.list_objects("jobs"), *bench.store.list_objects("inputs")]


def test_what_a_failed_attempt_has_left_is_no_part_of_the_next_where_its_program_does_not_use_it(bench: Bench) -> None:
    for _ in range(2):
        with pytest.raises(JobFailed, match="half way"):
            bench.run("halves")


def test_a_failing_training_says_why(bench: Bench) -> None:
    with pytest.raises(JobFailed, match="failed: the films are upside down"):
        bench.run("fail", kind="training")


def test_a_program_that_ends_well_without_a_result_has_failed(bench: Bench) -> None:
    with pytest.raises(JobFailed, match=r"without a valid result\.json"):
        bench.run("silent")


def test_a_second_launch_attaches_to_the_running_job(bench: Bench) -> None:
    results = []
    threads = [threading.Thread(target=lambda: results.append(bench.run("wait"))) for _ in range(2)]
    for thread in threads:
        thread.start()
    wait_until(lambda: bench.starts() >= 1)
    bench.open_gate()
    for thread in threads:
        thread.join(timeout=30)
    assert bench.starts() == 1
    assert [result.metadata["job_status"] for result in results] == ["Completed", "Completed"]


@pytest.mark.parametrize("interruption", [DagsterExecutionInterruptedError, KeyboardInterrupt])
def test_cancelling_the_run_stops_the_job(bench: Bench, interruption: type[BaseException]) -> None:
    def interrupt(line: str) -> None:
        if line == "first line":
            raise interruption

    bench.context.log.info = interrupt
    with pytest.raises(interruption):
        bench.run("wait")
    wait_until(lambda: not psutil.pid_exists(bench.process_id()))


def test_after_a_cancelled_job_comes_a_new_attempt(bench: Bench) -> None:
    test_cancelling_the_run_stops_the_job(bench, KeyboardInterrupt)
    bench.context.log.info = bench.lines.append
    bench.open_gate()
    assert bench.run("wait").metadata["job_attempt"] == 2


def test_a_job_gets_the_variables_it_is_given(bench: Bench) -> None:
    environment = bench.run(environment={"TELL_ME": "1"}).values["environment"]
    assert '"TELL_ME": "1"' in environment
    assert "PENUMO_ROOT" not in environment


def test_a_program_over_its_limit_is_stopped(bench: Bench) -> None:
    with pytest.raises(JobFailed, match=r"exit status -9|run for the longest time it may"):
        bench.run("wait", max_runtime_seconds=1)
    wait_until(lambda: not bench.starts() or not psutil.pid_exists(bench.process_id()))
