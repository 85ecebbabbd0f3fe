"""What only the local runner promises: its scratch, its supervisor, its processes. The rest: test_job_runners.py."""

import json
import os
import threading
from pathlib import Path

import psutil
import pytest

from penumo_assets.resources.compute.spec import JobFailed, JobSpec
from penumo_assets_tests.resources.bench import Bench, local_bench, wait_until


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return local_bench(tmp_path, monkeypatch)


def scratch(bench: Bench) -> Path:
    return Path(bench.runner.scratch)


def test_a_finished_job_leaves_no_working_files(bench: Bench) -> None:
    result = bench.run()
    assert not (scratch(bench) / result.job_name / "ml").exists()


def test_a_job_sees_only_the_contract_and_what_it_is_given(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "never")
    monkeypatch.setenv("PENUMO_ROOT", "never")
    monkeypatch.setenv("PENUMO_DEID_KEY", "a secret that is long")
    result = bench.run(environment={"TELL_ME": "1"}, secrets=("PENUMO_DEID_KEY",))
    seen = json.loads(result.values["environment"])
    assert seen == {"TELL_ME": "1", "PENUMO_DEID_KEY": "a secret that is long"}
    left_behind = [path for path in scratch(bench).rglob("*") if path.is_file()]
    assert not any(b"a secret that is long" in path.read_bytes() for path in left_behind if path.suffix != ".txt")


def test_other_work_gets_another_name(bench: Bench) -> None:
    names = {
        bench.spec().job_name("p", 1),
        bench.spec("wait").job_name("p", 1),
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


def test_a_killed_program_is_a_failure(bench: Bench) -> None:
    with pytest.raises(JobFailed, match="exit status -9"):
        bench.run("crash")


def test_a_program_over_its_limit_says_so_in_its_log(bench: Bench) -> None:
    with pytest.raises(JobFailed, match="exit status -9") as caught:
        bench.run("wait", max_runtime_seconds=1)
    assert "stopped after the limit" in caught.value.log_tail


def test_a_job_survives_its_orchestrator_and_is_found_again(bench: Bench) -> None:
    name = bench.spec("wait").job_name("penumo", 1)
    orchestrator = threading.Thread(target=lambda: bench.run("wait"), daemon=True)
    orchestrator.start()
    wait_until(lambda: bench.starts() == 1)
    supervisor = psutil.Process(json.loads((scratch(bench) / name / "process.json").read_text())["pid"])
    assert os.getsid(supervisor.pid) == supervisor.pid != os.getsid(0)
    bench.open_gate()
    result = bench.run("wait")
    assert bench.starts() == 1
    assert result.job_name == name
