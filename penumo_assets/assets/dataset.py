"""From all cohorts' tensors to one training set, split by patient.

Enters: `npz_tensors` of every cohort, by their manifests. Leaves: packed shards for train, validation and test.
"""

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dagster import (
    AllPartitionMapping,
    AssetDep,
    AssetExecutionContext,
    Config,
    DataVersion,
    Failure,
    MaterializeResult,
    MetadataValue,
    TableRecord,
    asset,
)
from pydantic import Field

from penumo_assets.assets.pages import TRAINING_INDEX, listed, table
from penumo_assets.assets.shared import (
    LEARNING,
    OWNERS,
    PROCESSING_POOL,
    launchpad_config,
    parsed,
    refusals,
    run_job,
)
from penumo_assets.automation import WEEKLY_IF_COHORTS_CHANGED
from penumo_assets.cohort.publish import TRIES, manifest_tags
from penumo_assets.cohort.retire import cohorts_in_use
from penumo_assets.cohort.training_items import (
    ITEMS,
    CohortItems,
    ItemsRecord,
    cohort_items,
    fresh_files,
)
from penumo_assets.configs.train import DatasetConfig
from penumo_assets.records import TrainingSetRecord
from penumo_assets.resources.compute.runner import JobRunner
from penumo_assets.resources.compute.spec import JobInput, JobSpec
from penumo_assets.resources.storage.object_store import ObjectStore, StorageError
from penumo_assets.resources.storage.root import Storage

INDEX_NAME = "index.parquet"
DatasetLaunchpad = launchpad_config(DatasetConfig)


class TrainingSetConfig(Config):
    """Which cohorts train, and how their patients are split."""

    cohorts: list[str] = Field(default=[], description="Cohorts to use; empty: every cohort that has tensors.")
    incremental: bool = Field(
        default=True,
        description="Take images that the training set before holds unchanged from its shards, so that only new "
        "tensors are read. Switch off to pack every tensor again.",
    )
    dataset: DatasetLaunchpad = DatasetLaunchpad()  # type: ignore[valid-type]


@asset(
    deps=[AssetDep("npz_tensors", partition_mapping=AllPartitionMapping())],
    automation_condition=WEEKLY_IF_COHORTS_CHANGED,
    group_name=LEARNING,
    owners=OWNERS,
    kinds={"numpy"},
    code_version="1",
    pool=PROCESSING_POOL,
    description="Labelled tensors of all cohorts, split into train, validation and test by a hash of the patient id "
    "(adding cohorts never moves a patient) and packed into memory-mapped uint8 shards.",
)
def training_set(
    context: AssetExecutionContext, config: TrainingSetConfig, storage: Storage, jobs: JobRunner
) -> MaterializeResult:
    """Pack the labelled tensors of the chosen cohorts and record them as the current training set."""
    store = storage.store
    settings = parsed(DatasetConfig, config.dataset)
    with refusals():
        chosen = sorted({*cohorts_in_use(store, context.instance, config.cohorts)} - {*settings.external})
    previous = TrainingSetRecord.find(store) if config.incremental else None
    before = ItemsRecord.of(store, previous)
    tries = TRIES
    while True:
        tags = manifest_tags(store)
        found = trainable(store, chosen, settings, before)
        try:
            result = run_job(context, jobs, pack_spec(store, found, settings, previous, before))
            break
        except (StorageError, Failure):
            tries -= 1
            if not tries or manifest_tags(store) == tags:
                raise
            context.log.info("another run has published a cohort meanwhile: planning again from what it left")
    digest = result.values["digest"]
    prefix = TrainingSetRecord.prefix_of(digest)
    names = result.outputs["dataset"]
    store.copy_all((result.key("dataset", name), f"{prefix}/{name}") for name in names)
    ItemsRecord(cohorts=found.items, unusable=tuple(result.values["unusable_files"])).write(store, prefix)
    TrainingSetRecord(
        prefix=prefix, names=names, digest=digest, cohorts=tuple(chosen), phantoms=bool(found.phantoms)
    ).write(store)
    store.delete(before.superseded_by(found.items))
    jobs.discard(result.job_name)
    dataset = store.read_json(f"{prefix}/dataset.json")
    return MaterializeResult(
        metadata={
            "dagster/row_count": found.films,
            "dagster/column_schema": TRAINING_INDEX,
            "splits": _split_table(dataset["splits"], dataset["classes"]),
            "too_small_for_intervals": listed(result.values.get("too_small", [])),
            "cohorts": listed(chosen),
            "external": listed(settings.external),
            "cohorts_without": table(found.without, ("cohort", "why")),
            "films_without_patient": found.no_patient,
            "digest": digest,
            "taken_from_previous_set": result.values["reused"],
            "unusable": table(result.values.get("unusable", []), ("file", "reason")),
            "location": store.location(f"{prefix}/dataset.json"),
            **result.metadata,
        },
        data_version=DataVersion(digest),
    )


@dataclass(frozen=True)
class Trainable:
    """What the chosen cohorts can train with, by cohort; those without any, each with its reason; and how many labelled
    tensors are left out for want of a patient id."""

    items: Mapping[str, CohortItems]
    without: list[dict[str, str]]
    no_patient: int

    @property
    def films(self) -> int:
        return sum(each.films for each in self.items.values())

    @property
    def phantoms(self) -> set[str]:
        return {cohort for cohort, each in self.items.items() if each.phantoms}


def trainable(
    store: ObjectStore,
    chosen: Sequence[str],
    settings: DatasetConfig,
    before: ItemsRecord | None = None,
    *,
    external: bool = False,
) -> Trainable:
    """The labelled tensors of the cohorts whose patient is known; an ``external`` one may lack a class.

    The manifests that are as they were for the set ``before`` are not read.

    Raises
    ------
    Failure
        If there are none, if a label is no declared class or a class has no film, if phantoms and films mix, or if
        some have a key of the split and others none.
    """
    every = cohort_items(store, chosen, settings.map, before.cohorts if before else {})
    items = {cohort: each for cohort, each in every.items() if each.films}
    without = [{"cohort": cohort, "why": each.why} for cohort, each in every.items() if not each.films]
    found = Trainable(items, without, sum(each.no_patient for each in every.values()))
    if found.phantoms and (films := items.keys() - found.phantoms):
        raise Failure(
            f"phantoms ({', '.join(sorted(found.phantoms))}) and films ({', '.join(sorted(films))}) never train "
            "together: name the cohorts of one kind in `cohorts`",
            allow_retries=False,
        )
    if not items:
        reasons = "; ".join(f"{each['cohort']}: {each['why']}" for each in found.without) or "there is no cohort"
        raise Failure(f"no labelled tensors to train on. {reasons}", allow_retries=False)
    _require_classes(items, settings.classes, external)
    _require_one_key(items)
    return found


def _require_classes(items: Mapping[str, CohortItems], classes: Sequence[str], some: bool) -> None:
    """Refuse labels that are no class, by name, and classes without a film, unless ``some`` suffice."""
    counts = {(label, cohort): films for cohort, each in items.items() for label, films in each.labels.items()}
    unknown = [
        f"{label!r} ({films} films of {cohort})"
        for (label, cohort), films in sorted(counts.items())
        if label not in classes
    ]
    if unknown:
        raise Failure(
            f"labels that are no class: {', '.join(unknown)}. Declared are {', '.join(classes)}: add them to "
            "dataset.classes, or to dataset.map with the class that they stand for",
            allow_retries=False,
        )
    missing = [name for name in classes if name not in {label for label, _ in counts}]
    if missing and not some:
        raise Failure(
            f"no film of class {', '.join(missing)} to train on: land some, or name the classes that there are in "
            "dataset.classes",
            allow_retries=False,
        )


def _require_one_key(items: Mapping[str, CohortItems]) -> None:
    """Refuse films split by their patient's id beside films split by its pseudonym: one patient may be among both."""
    without = sorted(cohort for cohort, each in items.items() if each.without_key)
    if without and any(each.without_key < each.films for each in items.values()):
        raise Failure(
            f"{', '.join(without)} and other cohorts may show the same patients under different keys of the split: "
            "prepared without PENUMO_DEID_KEY, or by an earlier version. Materialize raw_images with the key that the "
            "other cohorts were prepared with",
            allow_retries=False,
        )


def read_indices(store: ObjectStore, record: TrainingSetRecord) -> dict[str, Any]:
    """The index of each split of a recorded training set, as data frames by object name."""
    import pandas as pd  # loading the definitions does not need it

    names = [name for name in record.names if name.endswith(INDEX_NAME)]
    return {name: pd.read_parquet(io.BytesIO(store.read(f"{record.prefix}/{name}"))) for name in names}


def pack_spec(
    store: ObjectStore,
    found: Trainable,
    settings: DatasetConfig,
    previous: TrainingSetRecord | None = None,
    before: ItemsRecord | None = None,
) -> JobSpec:
    """A job that reads the tensors that are new since the ``previous`` set, made of ``before``; the others from it."""
    fresh = tuple(fresh_files(store, found.items, before or ItemsRecord()))
    inputs = {"items": JobInput(ITEMS, tuple(each.name for each in found.items.values()))}
    inputs |= {"npz": JobInput("npz", fresh)} if fresh else {}
    if previous and len(fresh) < found.films:
        inputs["previous"] = previous.files
    return JobSpec(
        kind="processing",
        program="pack",
        asset="training-set",
        partition=None,
        inputs=inputs,
        documents={"config": {"config.json": settings.model_dump_json().encode()}},
        outputs=("dataset",),
        result_output="dataset",
    )


def _split_table(splits: dict[str, dict], classes: Iterable[str]) -> MetadataValue:
    records = [
        TableRecord(
            {
                "split": name,
                "patients": split["patients"],
                "images": split["images"],
                **{label: split["counts"].get(label, 0) for label in classes},
            }
        )
        for name, split in splits.items()
    ]
    return MetadataValue.table(records)
