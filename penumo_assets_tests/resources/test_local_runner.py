"""What only the local runner promises: its scratch, its supervisor, its processes. The rest: test_job_runners.py."""

import contextlib
import errno
import json
import os
import threading
from pathlib import Path

import psutil
import pytest

from penumo_assets.resources.compute.local import claims
from penumo_assets.resources.compute.local import job as local_job
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


def start(bench: Bench, *what: str, **changes: str) -> threading.Thread:
    """A launch in a thread of its own, whose job has begun; it may fail."""

    def launch() -> None:
        with contextlib.suppress(JobFailed):
            bench.run(*what, **changes)

    orchestrator = threading.Thread(target=launch, daemon=True)
    before = bench.starts()
    orchestrator.start()
    wait_until(lambda: bench.starts() > before)
    return orchestrator


def supervisor_of(bench: Bench, name: str) -> psutil.Process:
    record = scratch(bench) / name / "process.json"
    wait_until(record.exists)
    return psutil.Process(json.loads(record.read_text())["pid"])


def test_a_job_whose_supervisor_was_killed_goes_on_alone_and_is_not_started_twice(bench: Bench) -> None:
    orchestrator = start(bench, "wait")
    supervisor_of(bench, bench.spec("wait").job_name("penumo", 1)).kill()
    bench.open_gate()
    assert bench.run("wait").metadata["job_attempt"] == 1
    orchestrator.join(timeout=20)
    assert bench.starts() == 1


def test_the_result_of_a_job_counts_whose_launch_and_supervisor_were_killed(bench: Bench) -> None:
    job = bench.runner._job(bench.spec("wait"), 1)
    assert job.create()
    wait_until(lambda: bench.starts() == 1)
    supervisor_of(bench, job.name).kill()
    bench.open_gate()
    wait_until(lambda: not claims.is_held(job.folder))
    assert bench.run("wait").metadata["job_attempt"] == 1
    assert bench.starts() == 1


def test_a_launch_killed_before_its_job_began_holds_up_nobody(bench: Bench) -> None:
    folder = scratch(bench) / bench.spec().job_name("penumo", 1)
    claim = claims.claim(folder, {"asset": "films", "partition": "c 1"})
    assert claim is not None
    assert claims.is_held(folder)
    os.close(claim)  # what the system does for a process that was killed
    assert bench.run().metadata["job_attempt"] == 2


def test_what_a_killed_program_had_started_ends_with_it(bench: Bench) -> None:
    with pytest.raises(JobFailed, match="exit status -9"):
        bench.run("orphan")
    wait_until(lambda: has_ended(bench.process_id()))  # a signal takes its time; left alone it would live for minutes


def test_what_a_program_left_running_whose_supervisor_was_killed_ends_before_the_next_attempt(bench: Bench) -> None:
    start(bench, "wait")
    name = bench.spec("wait").job_name("penumo", 1)
    root = str(scratch(bench).absolute() / name / "ml")
    stray = os.posix_spawnp("sleep", ["sleep", "600"], os.environ | {"PENUMO_OPT_ML": root})
    supervisor_of(bench, name).kill()
    psutil.Process(bench.process_id()).kill()
    bench.open_gate()
    wait_until(lambda: not claims.is_held(scratch(bench) / name))
    assert bench.run("wait").metadata["job_attempt"] == 2
    assert not psutil.pid_exists(stray)


def test_a_training_goes_on_from_the_checkpoints_of_the_attempt_that_was_killed(bench: Bench) -> None:
    start(bench, "checkpoint", kind="training")
    checkpoint = scratch(bench) / bench.spec("checkpoint", kind="training").job_name("penumo", 1) / "ml" / "checkpoints"
    wait_until((checkpoint / "last.txt").exists)
    psutil.Process(bench.process_id()).kill()
    wait_until(lambda: not claims.is_held(checkpoint.parent.parent))
    result = bench.run("checkpoint", kind="training")
    assert result.metadata["job_attempt"] == 2
    assert result.values["resumed"]


def test_a_success_clears_away_what_killed_launches_of_the_same_work_have_left(bench: Bench) -> None:
    with pytest.raises(JobFailed):
        bench.run("crash")
    never_discarded = bench.run(documents={"notes": {"n.json": b"before"}})
    other = bench.run(partition="another cohort")
    bench.runner.discard(bench.run().job_name)
    left = {path.name for path in scratch(bench).iterdir()}
    assert left == {never_discarded.job_name, other.job_name}  # this process may still read them
    for job in (never_discarded, other):
        os.close(bench.runner._in_use.pop(job.job_name))
    bench.runner.discard(bench.run().job_name)
    assert {path.name for path in scratch(bench).iterdir()} == {other.job_name}
    assert {info.key.split("/")[1] for info in bench.store.list_objects("jobs")} == {other.job_name}


def test_outputs_stay_while_another_run_attached_to_the_job_reads_them(bench: Bench) -> None:
    first = bench.run()
    reader = claims.use(scratch(bench) / first.job_name)
    assert reader is not None
    bench.runner.discard(first.job_name)
    assert bench.store.exists(first.key("made", "sub/algo-1.txt"))
    os.close(reader)
    bench.runner.discard(first.job_name)
    assert not list(bench.store.list_objects("jobs"))


def test_a_scratch_folder_without_space_says_so_and_keeps_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(local_job, "write_atomic", full)
        with pytest.raises(JobFailed, match="No space left on device") as caught:
            bench.run()
    assert str(scratch(bench)) not in str(caught.value)
    assert list(scratch(bench).iterdir()) == []
    assert bench.run().metadata["job_attempt"] == 1


def has_ended(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
