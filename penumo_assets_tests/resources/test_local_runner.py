"""The local runner against real subprocesses: a small program stands where a job's program would."""

import json
import os
import subprocess
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from dagster import DagsterExecutionInterruptedError

from penumo_assets.resources.compute import local as local_module
from penumo_assets.resources.compute.local import LocalJobRunner
from penumo_assets.resources.compute.spec import JobFailed, JobInput, JobSpec
from penumo_assets.resources.storage import Storage

# Runs in place of `python -m penumo_assets.jobs.{program}`: counts its starts, waits if told to, writes a result.
PROGRAM = """
import json, os, sys, time
from pathlib import Path
from penumo_assets.jobs import contract

def main(argv):
    marker = Path(sys.argv[1])
    with marker.open("a") as file:
        file.write(f"{os.getpid()}\\n")
    print("first line", flush=True)
    if "--fail" in sys.argv:
        raise contract.JobError("the films are upside down")
    if "--crash" in sys.argv:
        os.kill(os.getpid(), 9)
    if "--silent" in sys.argv:
        return
    gate = marker.with_suffix(".gate")
    while "--wait" in sys.argv and not gate.exists():
        time.sleep(0.02)
    data = (contract.processing_input("films") / "a" / "x.txt").read_text()
    note = (contract.processing_input("notes") / "n.json").read_text()
    out = contract.processing_output("made")
    (out / "sub").mkdir()
    (out / "sub" / "y.txt").write_text(data + note)
    print("last line", flush=True)
    shown = {key: os.environ[key] for key in sorted(os.environ) if key.startswith(("PENUMO_", "AWS_", "TELL_"))}
    shown.pop("PENUMO_OPT_ML")
    contract.write_result(contract.processing_output("result"), "probe", {"environment": shown})

contract.run_program(main)
"""


class Bench:
    """A store, a runner, and the program's marker file."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.storage = Storage(root=str(folder / "root"))
        self.store = self.storage.store
        self.store.write("landing/c/a/x.txt", b"film;")
        self.scratch = folder / "scratch"
        self.runner = LocalJobRunner(storage=self.storage, scratch=str(self.scratch), poll_seconds=0.02)
        self.marker = folder / "starts"
        self.lines: list[str] = []
        self.context = SimpleNamespace(log=SimpleNamespace(info=self.lines.append))
        program = folder / "probe.py"
        program.write_text(PROGRAM)
        real = subprocess.Popen

        def popen(command: list[str], **options):
            at = command.index("-m")
            return real([*command[:at], str(program), str(self.marker), *command[at + 2 :]], **options)

        monkeypatch.setattr(local_module.subprocess, "Popen", popen)

    def spec(self, *arguments: str, **changes) -> JobSpec:
        values = {
            "inputs": {"films": JobInput("landing/c", ("a/x.txt",))},
            "documents": {"notes": {"n.json": b"note"}},
            "outputs": ("made", "result"),
        } | changes
        return JobSpec("processing", "probe", "films", "c 1", arguments=arguments, **values)

    def run(self, *arguments: str, **changes):
        return self.runner.run(self.context, self.spec(*arguments, **changes))

    def starts(self) -> int:
        return len(self.marker.read_text().splitlines()) if self.marker.exists() else 0

    def open_gate(self) -> None:
        self.marker.with_suffix(".gate").touch()


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, monkeypatch)


def wait_until(condition, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def test_a_job_finds_its_inputs_and_leaves_its_outputs(bench: Bench) -> None:
    result = bench.run()
    assert result.outputs["made"] == ("sub/y.txt",)
    assert bench.store.read(result.key("made", "sub/y.txt")) == b"film;note"
    assert result.metadata["job_attempt"] == 1
    assert not result.metadata["job_reused"]
    assert [line for line in bench.lines if line.endswith("line")] == ["first line", "last line"]
    assert not (bench.scratch / result.job_name / "ml").exists()


def test_a_job_sees_only_the_contract_and_what_it_is_given(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "never")
    monkeypatch.setenv("PENUMO_ROOT", "never")
    monkeypatch.setenv("PENUMO_DEID_KEY", "a secret that is long")
    result = bench.run(environment={"TELL_ME": "1"}, secrets=("PENUMO_DEID_KEY",))
    assert result.values["environment"] == {"TELL_ME": "1", "PENUMO_DEID_KEY": "a secret that is long"}
    left_behind = [path for path in bench.scratch.rglob("*") if path.is_file()]
    assert not any(b"a secret that is long" in path.read_bytes() for path in left_behind if path.suffix != ".txt")


def test_a_finished_job_is_reused(bench: Bench) -> None:
    first, second = bench.run(), bench.run()
    assert bench.starts() == 1
    assert second.metadata["job_reused"]
    assert (first.job_name, first.outputs) == (second.job_name, second.outputs)


def test_a_job_whose_outputs_were_discarded_runs_again(bench: Bench) -> None:
    result = bench.run()
    bench.runner.discard_outputs(result)
    assert list(bench.store.list_objects("jobs")) == []
    bench.run()
    assert bench.starts() == 2


def test_other_work_gets_another_name(bench: Bench) -> None:
    names = {
        bench.spec().job_name("p", 1),
        bench.spec("--x").job_name("p", 1),
        bench.spec(documents={"notes": {"n.json": b"other"}}).job_name("p", 1),
        bench.spec().job_name("p", 2),
    }
    assert len(names) == 4
    assert bench.spec(environment={"A": "b"}).job_name("p", 1) in names


def test_a_job_name_fits_sagemaker() -> None:
    spec = JobSpec("training", "train", "trained_model", "an/odd partition " + "x" * 80)
    name = spec.job_name("my_prefix", 12)
    assert len(name) <= 63
    assert name.endswith("-12")
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-")


def test_a_failing_program_says_why_and_the_next_launch_is_a_new_attempt(bench: Bench) -> None:
    with pytest.raises(JobFailed, match="the films are upside down") as caught:
        bench.run("--fail")
    assert "first line" in caught.value.log_tail
    with pytest.raises(JobFailed, match="-2 failed"):
        bench.run("--fail")
    assert bench.starts() == 2


def test_a_killed_program_is_a_failure(bench: Bench) -> None:
    with pytest.raises(JobFailed, match="exit status -9"):
        bench.run("--crash")


def test_a_program_that_ends_well_without_a_result_has_failed(bench: Bench) -> None:
    with pytest.raises(JobFailed, match=r"without a valid result\.json"):
        bench.run("--silent")


def test_a_program_over_its_limit_is_stopped(bench: Bench) -> None:
    with pytest.raises(JobFailed, match="exit status -9") as caught:
        bench.run("--wait", max_runtime_seconds=1)
    assert "stopped after the limit" in caught.value.log_tail


def test_a_second_launch_attaches_to_the_running_job(bench: Bench) -> None:
    results = []
    threads = [threading.Thread(target=lambda: results.append(bench.run("--wait"))) for _ in range(2)]
    for thread in threads:
        thread.start()
    wait_until(lambda: bench.starts() >= 1)
    bench.open_gate()
    for thread in threads:
        thread.join(timeout=30)
    assert bench.starts() == 1
    assert [result.metadata["job_status"] for result in results] == ["Completed", "Completed"]


def test_a_job_survives_its_orchestrator_and_is_found_again(bench: Bench, tmp_path: Path) -> None:
    name = bench.spec("--wait").job_name("penumo", 1)
    orchestrator = threading.Thread(target=lambda: bench.run("--wait"), daemon=True)
    orchestrator.start()
    wait_until(lambda: bench.starts() == 1)
    supervisor = psutil.Process(json.loads((bench.scratch / name / "process.json").read_text())["pid"])
    assert os.getsid(supervisor.pid) == supervisor.pid != os.getsid(0)
    bench.open_gate()
    result = bench.run("--wait")
    assert bench.starts() == 1
    assert result.job_name == name


def test_cancelling_the_run_stops_the_whole_job(bench: Bench) -> None:
    def interrupt(line: str) -> None:
        if line == "first line":
            raise DagsterExecutionInterruptedError

    bench.context.log.info = interrupt
    with pytest.raises(DagsterExecutionInterruptedError):
        bench.run("--wait")
    program = int(bench.marker.read_text())
    wait_until(lambda: not psutil.pid_exists(program))
