"""From all cohorts' tensors to one training set, split by patient.

Enters: `npz_tensors` of every cohort, by their manifests. Leaves: packed shards for train, validation and test.
"""

import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
from penumo_assets.cohort.publish import TRIES, open_manifest, overtaken
from penumo_assets.cohort.retire import cohorts_in_use
from penumo_assets.configs.train import DatasetConfig
from penumo_assets.imaging.deidentify import is_pseudonym
from penumo_assets.jobs.contract import json_lines
from penumo_assets.jobs.identity import is_trainable, why_untrainable
from penumo_assets.jobs.manifest import ManifestRow
from penumo_assets.records import TrainingSetRecord
from penumo_assets.resources.compute.runner import JobRunner
from penumo_assets.resources.compute.spec import JobInput, JobSpec
from penumo_assets.resources.storage.object_store import ObjectMissing, ObjectStore, StorageError
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
    previous = _previous(store) if config.incremental else None
    tries = TRIES
    while True:
        found = trainable(store, chosen, settings)
        try:
            result = run_job(context, jobs, pack_spec(found.items, settings, previous))
            break
        except (StorageError, Failure):
            tries -= 1
            if not tries or not overtaken(store, found.versions, context.log.info):
                raise
    digest = result.values["digest"]
    prefix = TrainingSetRecord.prefix_of(digest)
    names = result.outputs["dataset"]
    store.copy_all((result.key("dataset", name), f"{prefix}/{name}") for name in names)
    TrainingSetRecord(
        prefix=prefix, names=names, digest=digest, cohorts=tuple(chosen), phantoms=bool(found.phantoms)
    ).write(store)
    jobs.discard(result.job_name)
    dataset = store.read_json(f"{prefix}/dataset.json")
    return MaterializeResult(
        metadata={
            "dagster/row_count": len(found.items),
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
    """What the chosen cohorts can train with: items as jobs/pack takes them, the version of each cohort's manifest,
    which cohorts have none and why, and how many labelled tensors are left out for want of a patient id."""

    items: list[dict]
    versions: dict[str, str | None]
    without: list[dict[str, str]]
    no_patient: int
    phantoms: set[str] = field(default_factory=set)


def trainable(
    store: ObjectStore, chosen: Sequence[str], settings: DatasetConfig, *, external: bool = False
) -> Trainable:
    """The labelled tensors of the cohorts whose patient is known; an ``external`` one may lack a class.

    One manifest is held at a time: all cohorts' rows may not fit in memory.

    Raises
    ------
    Failure
        If there are none, if a label is no declared class or a class has no film, if phantoms and films mix, or if
        some have a key of the split and others none.
    """
    found, no_patient = Trainable([], {}, [], 0), 0
    for cohort in chosen:
        manifest = open_manifest(store, cohort)
        found.versions[cohort] = manifest.version
        labelled = [row for row in manifest.rows if row.label and "npz" in row.stages]
        mine = [pack_item(cohort, row, settings.map) for row in labelled if is_trainable(row)]
        found.items.extend(mine)
        no_patient += len(labelled) - len(mine)
        if mine and manifest.phantoms:
            found.phantoms.add(cohort)
        if not mine:
            found.without.append({"cohort": cohort, "why": why_untrainable(manifest.rows)})
    if films := {item["cohort"] for item in found.items} - found.phantoms if found.phantoms else set():
        raise Failure(
            f"phantoms ({', '.join(sorted(found.phantoms))}) and films ({', '.join(sorted(films))}) never train "
            "together: name the cohorts of one kind in `cohorts`",
            allow_retries=False,
        )
    if not found.items:
        reasons = "; ".join(f"{each['cohort']}: {each['why']}" for each in found.without) or "there is no cohort"
        raise Failure(f"no labelled tensors to train on. {reasons}", allow_retries=False)
    _require_classes(found.items, settings.classes, external)
    _require_one_key(found.items)
    return replace(found, no_patient=no_patient)


def _require_classes(items: Sequence[dict], classes: Sequence[str], some: bool) -> None:
    """Refuse labels that are no class, by name, and classes without a film, unless ``some`` suffice."""
    counts = Counter((item["label"], item["cohort"]) for item in items)
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


def _require_one_key(items: Sequence[dict]) -> None:
    """Refuse films split by their patient's id beside films split by its pseudonym: one patient may be among both."""
    without = sorted({item["cohort"] for item in items if not item["split_key"]})
    if without and any(item["split_key"] for item in items):
        raise Failure(
            f"{', '.join(without)} and other cohorts may show the same patients under different keys of the split: "
            "prepared without PENUMO_DEID_KEY, or by an earlier version. Materialize raw_images with the key that the "
            "other cohorts were prepared with",
            allow_retries=False,
        )


def pack_item(cohort: str, row: ManifestRow, class_of: Mapping[str, str]) -> dict:
    """A labelled tensor as jobs/pack takes it: which file, whose, of what label, and how it landed."""
    values = row.model_dump(include={"image_id", "patient_id", "label", "view", "sex", "age", "mean_intensity"})
    output = row.stages["npz"]
    return values | {
        "label": class_of.get(row.label or "", row.label),
        "file": output.key.removeprefix("npz/"),
        "cohort": cohort,
        "declared_split": row.split,
        # What an earlier version prepared has no key of its own; a DICOM patient's pseudonym is the same.
        "split_key": row.split_key or (row.patient_id if is_pseudonym(row.patient_id or "") else None),
        "sha256": output.sha256,
        "source_width": row.width,
        "source_height": row.height,
        "source_bytes": row.source_bytes,
    }


@dataclass(frozen=True)
class PreviousSet:
    """The training set before: where it lies, and which tensors (file, SHA-256) it holds."""

    shards: JobInput
    tensors: frozenset[tuple[str, str]]


def read_indices(store: ObjectStore, record: TrainingSetRecord) -> dict[str, Any]:
    """The index of each split of a recorded training set, as data frames by object name."""
    import pandas as pd  # loading the definitions does not need it

    names = [name for name in record.names if name.endswith(INDEX_NAME)]
    return {name: pd.read_parquet(io.BytesIO(store.read(f"{record.prefix}/{name}"))) for name in names}


def _previous(store: ObjectStore) -> PreviousSet | None:
    try:
        record = TrainingSetRecord.read(store)
        indices = read_indices(store, record)
    except ObjectMissing:
        return None
    tensors = {pair for frame in indices.values() for pair in zip(frame["file"], frame["sha256"], strict=True)}
    return PreviousSet(record.files, frozenset(tensors))


def pack_spec(items: Sequence[dict], settings: DatasetConfig, previous: PreviousSet | None) -> JobSpec:
    """A job that reads the tensors which are new since ``previous``, and the others from its shards."""
    known = previous.tensors if previous else frozenset()
    fresh = tuple(item["file"] for item in items if (item["file"], item["sha256"]) not in known)
    inputs = {"npz": JobInput("npz", fresh)} if fresh else {}
    if previous and len(fresh) < len(items):
        inputs["previous"] = previous.shards
    return JobSpec(
        kind="processing",
        program="pack",
        asset="training-set",
        partition=None,
        inputs=inputs,
        documents={"index": {"items.jsonl": json_lines(items), "config.json": settings.model_dump_json().encode()}},
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
