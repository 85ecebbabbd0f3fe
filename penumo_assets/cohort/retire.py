"""Take a cohort out of use for good: out of every training set, sensor and list of partitions, and bring it back.

``retired/{cohort}.json`` says so under the root, for every Dagster instance that works there. It is written first and
removed last, so a retirement, an erasure or a return that broke off is finished by the same command.
"""

import getpass
from collections.abc import Collection, Sequence
from datetime import UTC, datetime

from dagster import DagsterInstance, RunsFilter
from dagster._core.storage.dagster_run import IN_PROGRESS_RUN_STATUSES

from penumo_assets.cohort.errors import LandingError
from penumo_assets.cohort.names import require_cohort_name
from penumo_assets.cohort.publish import manifest_key
from penumo_assets.cohort.settings import settings_key
from penumo_assets.cohort.training_items import ITEMS
from penumo_assets.cohort.watch.arrivals import LANDING
from penumo_assets.jobs.manifest import STAGES
from penumo_assets.partitions import cohorts
from penumo_assets.records import RetiredRecord
from penumo_assets.resources.storage.object_store import ObjectStore

_PARTITION = "dagster/partition"


def retired_cohorts(store: ObjectStore) -> set[str]:
    """The names of all cohorts that are retired."""
    return {info.key.split("/", 1)[1].removesuffix(".json") for info in store.list_objects("retired")}


def refuse_retired(store: ObjectStore, cohort: str) -> None:
    """Raise LandingError if a cohort is retired."""
    if record := RetiredRecord.find(store, cohort):
        raise LandingError(
            f"cohort {cohort!r} was retired on {record.at[:10]} by {record.by} ({record.reason}): use another name, or "
            f"bring it back by penumo retire {cohort} --undo"
        )


def cohorts_in_use(store: ObjectStore, instance: DagsterInstance, named: Sequence[str] = ()) -> list[str]:
    """The cohorts that are named, or else all that there are, by name.

    Raises
    ------
    LandingError
        If one that is named is retired.
    """
    for cohort in named:
        refuse_retired(store, cohort)
    return sorted(named or {*instance.get_dynamic_partitions(str(cohorts.name))} - retired_cohorts(store))


def retire(store: ObjectStore, instance: DagsterInstance, cohort: str, reason: str) -> RetiredRecord:
    """Retire a cohort, or finish doing so.

    Raises
    ------
    LandingError
        If there is no such cohort, a run is at work on it, or it is not said why.
    """
    require_cohort_name(cohort)
    record = RetiredRecord.find(store, cohort)
    if record is None:
        known = instance.get_dynamic_partitions(str(cohorts.name))
        if cohort not in known and not any(objects_of(store, cohort).values()):
            raise LandingError(
                f"there is no cohort {cohort!r} to retire (cohorts: {', '.join(sorted(known)) or 'none'})"
            )
        if not reason.strip():
            raise LandingError('say why, without naming a patient: --reason "..."')
    _refuse_while_running(instance, cohort)
    if record is None:
        record = RetiredRecord(by=_person(), at=_now(), reason=reason.strip())
        record.write(store, cohort)
    instance.delete_dynamic_partition(str(cohorts.name), cohort)
    return record


def bring_back(store: ObjectStore, instance: DagsterInstance, cohort: str) -> None:
    """Undo a retirement. What was erased stays erased, and can be prepared again from landing.

    Raises
    ------
    LandingError
        If it is not retired.
    """
    require_cohort_name(cohort)
    if RetiredRecord.find(store, cohort) is None:
        raise LandingError(f"cohort {cohort!r} is not retired")
    if objects_of(store, cohort)[LANDING]:
        instance.add_dynamic_partitions(str(cohorts.name), [cohort])
    store.delete([RetiredRecord.key(cohort)])


def objects_of(store: ObjectStore, cohort: str) -> dict[str, list[str]]:
    """The keys of all objects that are a cohort's alone, by the folder below the root.

    In the order of their erasure: what a manifest names must not go before it.
    """
    singles = {"manifests": manifest_key(cohort), "settings": settings_key(cohort)}
    found = {folder: [key] if store.exists(key) else [] for folder, key in singles.items()}
    for folder in (*STAGES, ITEMS, "predictions", LANDING):
        found[folder] = [info.key for info in store.list_objects(f"{folder}/{cohort}")]
    return found


def erase(store: ObjectStore, cohort: str, record: RetiredRecord, folders: Collection[str]) -> RetiredRecord:
    """Remove a retired cohort's objects below these folders of the root; the record says how many each held."""
    found = {folder: keys for folder, keys in objects_of(store, cohort).items() if folder in folders and keys}
    # A second call finds what the first one left: how many there were stands in the record already.
    counts = {folder: max(len(keys), record.erased.get(folder, 0)) for folder, keys in found.items()}
    record = record.model_copy(update={"erased": {**record.erased, **counts}, "erased_at": ""})
    record.write(store, cohort)
    for keys in found.values():
        store.delete(keys)
    record = record.model_copy(update={"erased_at": _now()})
    record.write(store, cohort)
    return record


def _refuse_while_running(instance: DagsterInstance, cohort: str) -> None:
    """A partition that goes while a run of it is under way breaks Dagster's automation page."""
    busy = RunsFilter(statuses=list(IN_PROGRESS_RUN_STATUSES), tags={_PARTITION: cohort})
    if run := next(iter(instance.get_runs(busy, limit=1)), None):
        raise LandingError(f"run {run.run_id[:8]} is at work on cohort {cohort!r}: let it end, or terminate it first")


def _person() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return "unknown"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
