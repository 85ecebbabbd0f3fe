"""Two runs that would prepare the same cohort, each a process of its own: one computes, the other waits for it."""

import json
import multiprocessing
import os
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from dagster import AssetExecutionContext, DagsterInstance, materialize

from penumo_assets.assets.prepare import prepare_cohort
from penumo_assets.cohort import claim
from penumo_assets.cohort.claim import claim_key, claimed
from penumo_assets.cohort.publish import read_manifest
from penumo_assets.resources.compute.spec import JobResult, JobSpec
from penumo_assets.resources.storage.file_store import FileStore
from penumo_assets.resources.storage.root import Storage
from penumo_assets_tests.backfills.stub_jobs import StubJobRunner, png
from penumo_assets_tests.browser.site import wait

SPAWN = multiprocessing.get_context("spawn")


class NotedJobRunner(StubJobRunner):
    """Notes how many films each job is to compute, and ends when the note ``go`` is there."""

    notes: str

    def run(self, context: AssetExecutionContext, spec: JobSpec) -> JobResult:
        films = len(spec.documents["work"]["work.jsonl"].splitlines())
        (Path(self.notes) / f"{time.monotonic_ns()}-{os.getpid()}").write_text(str(films))
        while not (Path(self.notes) / "go").exists():
            time.sleep(0.05)
        return super().run(context, spec)


def prepare(root: str, notes: str) -> None:
    """What `dg launch` does: a run on an instance of its own, outside every queue. Notes that it waits for another."""
    os.environ["PENUMO_DEID_KEY"] = "a key for phantoms only"
    acquire, noted = claim._acquire, (Path(notes) / "waits").write_text
    claim._acquire = lambda store, cohort, owner, log: acquire(store, cohort, owner, noted)
    storage = Storage(root=root)
    with DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("cohort", ["ward"])
        resources = {"storage": storage, "jobs": NotedJobRunner(storage=storage, notes=notes)}
        materialize([prepare_cohort], instance=instance, partition_key="ward", resources=resources)


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    """Three films of a ward; jobs do not end before there is a note ``go``."""
    store = FileStore(tmp_path / "root")
    for number in range(3):
        store.write(f"landing/ward/{number}.png", png(number))
    (tmp_path / "notes").mkdir()
    return store


def launch(store: FileStore, notes: Path) -> BaseProcess:
    process = SPAWN.Process(target=prepare, args=(str(store.root), str(notes)))
    process.start()
    return process


def jobs(notes: Path) -> list[int]:
    """How many films each job so far was to compute."""
    return [int(note.read_text() or 0) for note in sorted(notes.iterdir()) if note.name not in ("go", "waits")]


def test_the_second_run_waits_and_computes_what_the_first_did_not(store: FileStore, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    first = launch(store, notes)
    wait(lambda: jobs(notes) == [3] or None, "the first job")
    store.write("landing/ward/late.png", png(9))
    second = launch(store, notes)
    wait(lambda: (notes / "waits").exists() or None, "the second run, which waits")
    second.join(2 * claim.LOOK_SECONDS)
    assert second.is_alive()
    assert jobs(notes) == [3]
    (notes / "go").touch()
    for process in (first, second):
        process.join(60)
        assert process.exitcode == 0
    assert jobs(notes) == [3, 1]
    assert len(read_manifest(store, "ward")) == 4
    assert not store.exists(claim_key("ward"))


def test_what_a_killed_run_claimed_is_taken_over_at_once(store: FileStore, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    first = launch(store, notes)
    wait(lambda: jobs(notes) == [3] or None, "the first job")
    os.kill(first.pid or 0, signal.SIGKILL)
    assert store.exists(claim_key("ward"))
    (notes / "go").touch()
    second = launch(store, notes)
    second.join(600)
    assert second.exitcode == 0
    assert not (notes / "waits").exists(), "it did not have to wait"
    assert jobs(notes) == [3, 3]
    assert not store.exists(claim_key("ward"))
    first.join()


def test_another_machines_claim_holds_as_long_as_it_is_renewed(
    store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claim, "LEASE_SECONDS", 1.0)
    monkeypatch.setattr(claim, "LOOK_SECONDS", 0.05)
    elsewhere = {"owner": "a", "host": "another machine", "pid": 1, "started": 0.0}
    store.write(claim_key("ward"), json.dumps(elsewhere).encode())
    said: list[str] = []
    started = time.monotonic()
    with claimed(store, "ward", said.append):
        assert time.monotonic() - started > 1.0
        held = store.read(claim_key("ward"))
        time.sleep(0.6)
        assert store.read(claim_key("ward")) != held, "it is renewed"
    assert said == ["another run prepares cohort 'ward': waiting until it has ended"]
    assert not store.exists(claim_key("ward"))


@pytest.mark.parametrize("damaged", [b"", b"[1]", b'{"pid": "x"}'])
def test_a_claim_that_cannot_be_read_expires_too(
    store: FileStore, monkeypatch: pytest.MonkeyPatch, damaged: bytes
) -> None:
    monkeypatch.setattr(claim, "LEASE_SECONDS", 0.1)
    monkeypatch.setattr(claim, "LOOK_SECONDS", 0.05)
    store.write(claim_key("ward"), damaged)
    with claimed(store, "ward", lambda _: None):
        assert json.loads(store.read(claim_key("ward")))["pid"] == os.getpid()
