"""A cohort's preparation on a folder whose disk takes no more from one write on, for each write in turn."""

import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from dagster import DagsterInstance, materialize

from penumo_assets.assets.prepare import prepare_cohort
from penumo_assets.partitions import cohorts
from penumo_assets.resources.storage.file_store import FileStore
from penumo_assets.resources.storage.root import Storage
from penumo_assets_tests.backfills.stub_jobs import StubJobRunner, png
from penumo_assets_tests.trust.disk import failing_writes
from penumo_assets_tests.trust.outcome import Outcome
from penumo_assets_tests.trust.stages import COHORT
from penumo_assets_tests.trust.state import content, listed, named
from penumo_assets_tests.trust.witness import Witness

FAULTS = {"disk full": errno.ENOSPC, "read only": errno.EROFS, "i/o error": errno.EIO}


def walk_writes(folder: Path, every: int = 1) -> Iterator[Outcome]:
    """Each fault from each write on; then, if the run failed, once more without."""
    with DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions(str(cohorts.name), [COHORT])
        _land(folder / "landed")
        store = _copy_of(folder / "landed", folder / "expected")
        with failing_writes(10**6) as written:
            assert _prepare(store, instance) == ""
        expected = content(store, folder / "none.db")
        for fault, number in FAULTS.items():
            for after in range(0, written[0], every):
                outcome = Outcome("prepare/files", fault, after)
                store = _copy_of(folder / "landed", folder / f"{number}-{after}")
                witness = Witness(store, folder / "none.db")
                with failing_writes(after, number):
                    said = _prepare(store, instance)
                witness.look()
                outcome.launches += 1
                outcome.lost = _prepare(store, instance) != ""
                witness.look()
                clear = os.strerror(number) in said and str(folder) not in said
                outcome.unclear += [] if clear else [said[:300]]
                outcome.looks, outcome.corrupted = witness.looks, witness.faults
                if content(store, folder / "none.db") != expected:
                    outcome.corrupted.append("the cohort is not that of an undisturbed run")
                outcome.left_over += sorted(listed(store) - named(store))
                outcome.left_over += [path.name for path in store.root.rglob("*.tmp")]
                yield outcome


def _land(root: Path) -> None:
    store = FileStore(root)
    for number in range(3):
        store.write(f"landing/{COHORT}/{number}.png", png(number))


def _copy_of(landed: Path, root: Path) -> FileStore:
    """The same films, with the times that they landed at: these are part of their entity tags."""
    shutil.copytree(landed, root, copy_function=os.link)
    return FileStore(root)


def _prepare(store: FileStore, instance: DagsterInstance) -> str:
    """Materialize the cohort; why that failed, if it did."""
    storage = Storage(root=str(store.root))
    resources = {"storage": storage, "jobs": StubJobRunner(storage=storage)}
    try:
        materialize([prepare_cohort], partition_key=COHORT, instance=instance, resources=resources)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""
