"""A cohort's preparation on S3, with a fault at each of its calls in turn."""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

import pytest
from dagster import DagsterInstance, materialize

from penumo_assets.assets.prepare import prepare_cohort
from penumo_assets.cohort.publish import read_manifest
from penumo_assets.partitions import cohorts
from penumo_assets.resources.storage import s3
from penumo_assets.resources.storage.object_store import ObjectStore
from penumo_assets.resources.storage.root import Storage, open_store
from penumo_assets_tests.backfills.stub_jobs import StubJobRunner, png
from penumo_assets_tests.resources.s3_server import S3Server, running_s3
from penumo_assets_tests.trust.outcome import Outcome
from penumo_assets_tests.trust.stages import COHORT
from penumo_assets_tests.trust.state import listed, named
from penumo_assets_tests.trust.witness import Witness

ROOT, REGION = "s3://films/penumo", "us-east-1"
# Once: the client must cope, or say what it was. From a call on: it must say so, and the next launch succeed.
ONCE = ("InternalError", "SlowDown", "reset", "truncate", "flip", "slow", "stall")
LASTING = ("AccessDenied", "InternalError", "reset")
FOR_EVER = 10**6


class Bucket:
    """A bucket on loopback, a cohort of three films in it, and the application on it."""

    def __init__(self, server: S3Server, instance: DagsterInstance, folder: Path) -> None:
        self.server, self.instance, self.folder = server, instance, folder
        self.behind = _open_behind(server)
        self.expected: dict[str, str] = {}
        self.calls = self._undisturbed()

    def _undisturbed(self) -> int:
        self._begin()
        assert self._prepare() == ""
        self.expected = self.tensors()
        return len(self.server.seen)

    def _begin(self) -> None:
        """The bucket as it was when the films had landed; no calls counted."""
        self.server.start_over("films", REGION)
        for number in range(3):
            self.behind.write(f"landing/{COHORT}/{number}.png", png(number))
        self.server.seen.clear()

    def _prepare(self) -> str:
        """Materialize the cohort; why that failed, if it did."""
        storage = Storage(root=ROOT)  # a new client, as a new process would have
        resources = {"storage": storage, "jobs": StubJobRunner(storage=storage)}
        try:
            materialize([prepare_cohort], partition_key=COHORT, instance=self.instance, resources=resources)
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        return ""

    def tensors(self) -> dict[str, str]:
        """SHA-256 of every object that the manifest names, by image and stage; it must be the recorded one."""
        store, found = self.behind, {}
        for row in read_manifest(store, COHORT):
            for stage, output in row.stages.items():
                digest = hashlib.sha256(store.read(output.key)).hexdigest()
                found[f"{row.source} {stage}"] = digest if digest == output.sha256 else "not what was recorded"
        return found

    def disturb(self, kind: str, call: int, *, lasting: bool) -> Outcome:
        """Prepare the cohort with a fault at one call, or from it on; then, if that failed, once more without."""
        self._begin()
        outcome = Outcome("prepare/S3", f"{kind}{' lasting' if lasting else ''}", call)
        with self._watched(outcome):
            self.server.fail("*", kind, FOR_EVER if lasting else 1, after=call)
            with _impatient():
                said = self._prepare()
            self.server.faults.clear()
            if said:
                outcome.launches += 1
                outcome.unclear += [] if said.startswith(("StorageError: ", "Failure: ")) else [said[:300]]
                outcome.lost = self._prepare() != ""
        if self.tensors() != self.expected:
            outcome.corrupted.append("the tensors are not those of an undisturbed run")
        unnamed = listed(self.behind) - named(self.behind)
        outcome.left_over += [f"object: {key}" for key in sorted(unnamed)]
        return outcome

    @contextmanager
    def _watched(self, outcome: Outcome) -> Iterator[None]:
        witness, done = Witness(self.behind, self.folder / "none.db"), Event()

        def watch() -> None:
            while not done.wait(0.2):
                witness.look()

        thread = Thread(target=watch)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
        outcome.looks, outcome.corrupted = witness.looks, sorted(set(witness.faults))


@contextmanager
def bucket(folder: Path) -> Iterator[Bucket]:
    """The bucket, and the environment in which the application finds it."""
    environment = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": REGION}
    with running_s3() as server, DagsterInstance.ephemeral() as instance, pytest.MonkeyPatch.context() as patch:
        for name, value in (environment | {"AWS_ENDPOINT_URL": server.endpoint, **_root(folder)}).items():
            patch.setenv(name, value)
        instance.add_dynamic_partitions(str(cohorts.name), [COHORT])
        yield Bucket(server, instance, folder)


@contextmanager
def _impatient() -> Iterator[None]:
    """Clients that give up sooner than the shipped ones: after one repetition, or a second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(s3, "MAX_RETRIES", 1)
        patch.setattr(s3, "READ_TIMEOUT_SECONDS", 1)
        yield


def walk(here: Bucket, calls: Sequence[int], kinds: Mapping[str, bool] | None = None) -> Iterator[Outcome]:
    """A fault of each kind at each of the calls; ``kinds`` tells whether it lasts."""
    chosen = kinds or {**dict.fromkeys(ONCE, False), **{f"{kind} ": True for kind in LASTING}}
    for kind, lasting in chosen.items():
        for call in calls:
            yield here.disturb(kind.strip(), call, lasting=lasting)


def _open_behind(server: S3Server) -> ObjectStore:
    """The bucket without the faults."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", server.behind)
        return open_store(ROOT)


def _root(folder: Path) -> dict[str, str]:
    return {"PENUMO_ROOT": str(folder / "root"), "AWS_EC2_METADATA_DISABLED": "true", "HOME": os.environ["HOME"]}
