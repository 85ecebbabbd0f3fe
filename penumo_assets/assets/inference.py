"""From a cohort's tensors to predictions, by the champion or a named version.

Enters: `npz_tensors` of one cohort, `champion_model`. Leaves: `predictions` (predictions.parquet, overlays/).
"""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dagster import (
    AssetExecutionContext,
    DataVersion,
    Failure,
    MaterializeResult,
    MetadataValue,
    TableMetadataValue,
    asset,
)

from penumo_assets.assets.pages import contact_sheet, listed, overlay_lines, prediction_columns, rounded, table
from penumo_assets.assets.shared import (
    OWNERS,
    PROCESSING_POOL,
    SERVING,
    launchpad_config,
    parsed,
    refusals,
    run_job,
)
from penumo_assets.cohort.publish import TRIES, open_manifest, overtaken
from penumo_assets.cohort.retire import refuse_retired
from penumo_assets.configs.inference import InferenceConfig
from penumo_assets.jobs.contract import json_lines
from penumo_assets.jobs.items import film_item
from penumo_assets.jobs.manifest import ManifestRow
from penumo_assets.jobs.quality import quality_flags
from penumo_assets.partitions import architectures, cohorts
from penumo_assets.promotion import NoChampion, disagreement, read_version
from penumo_assets.records import ModelRecord, PredictionsRecord, TrainingSetRecord
from penumo_assets.resources.compute.runner import JobRunner
from penumo_assets.resources.compute.spec import JobInput, JobSpec
from penumo_assets.resources.storage.object_store import ObjectStore, StorageError
from penumo_assets.resources.storage.root import Storage
from penumo_assets.resources.tracking import CHAMPION, PREVIOUS, Tracking

InferenceLaunchpad = launchpad_config(InferenceConfig)


@dataclass(frozen=True)
class ChosenModel:
    """A model archive, its version, the digest of the data it was trained on, and the prefix of its report, if any."""

    archive: JobInput
    version: str
    dataset_digest: str
    report: str | None


@asset(
    deps=["npz_tensors", "champion_model"],
    partitions_def=cohorts,
    group_name=SERVING,
    owners=OWNERS,
    kinds={"pytorch", "parquet"},
    code_version="2",
    pool=PROCESSING_POOL,
    description="One row per image of a cohort, labelled or not: probability per class, plain and calibrated, "
    "decision at the model's threshold, model version, quality flags; optional Grad-CAM overlays; metrics "
    "with intervals where images have labels.",
)
def predictions(
    context: AssetExecutionContext,
    config: InferenceLaunchpad,  # type: ignore[valid-type]
    storage: Storage,
    tracking: Tracking,
    jobs: JobRunner,
) -> MaterializeResult:
    """Classify every tensor of the partition's cohort."""
    settings = parsed(InferenceConfig, config)
    cohort, store = context.partition_key, storage.store
    with refusals():
        refuse_retired(store, cohort)
    model = chosen_model(store, tracking, settings.model_version)
    tries = TRIES
    while True:
        manifest = open_manifest(store, cohort)
        rows = [row for row in manifest.rows if "npz" in row.stages]
        if not rows:
            raise Failure(f"cohort {cohort!r} has no tensors: materialize npz_tensors first", allow_retries=False)
        try:
            result = run_job(context, jobs, _spec(store, cohort, rows, settings, model))
            break
        except (StorageError, Failure):
            tries -= 1
            if not tries or not overtaken(store, {cohort: manifest.version}, context.log.info):
                raise
    prefix = f"predictions/{cohort}/{result.job_name}"
    names, values = result.outputs["predictions"], result.values
    store.copy_all((result.key("predictions", name), f"{prefix}/{name}") for name in names)
    record = PredictionsRecord(prefix=prefix, names=names, model_version=model.version, drift=values["drift"])
    record.write(store, cohort)
    jobs.discard(result.job_name)
    overlays = _overlays(store, prefix, values) if values["shown"] else {}
    return MaterializeResult(
        metadata={
            "notice": MetadataValue.text("Not a medical device: for research, not for diagnosis."),
            **({"overlay_preview": contact_sheet(store, overlays)} if overlays else {}),
            "dagster/row_count": values["images"],
            **_tables(values),
            "model_version": model.version,
            "trained_on_this_cohort": values["trained_on_this_cohort"],
            **{name: rounded(values[name]) for name in ("architecture", "threshold", "labelled", "overlays")},
            "labels_the_model_does_not_know": listed(values["labels_the_model_does_not_know"]),
            **_psi(values["drift"]),
            "dagster/column_schema": prediction_columns(values["mean_probability"]),
            "location": store.location(f"{prefix}/predictions.parquet"),
            **result.metadata,
        },
        data_version=DataVersion(result.job_name),
    )


def chosen_model(store: ObjectStore, tracking: Tracking, wanted: str) -> ChosenModel:
    """The model that a configuration names: an alias, a version number, or an architecture's newest.

    Raises
    ------
    Failure
        If there is no such model, or MLflow and the record disagree on who holds an alias.
    """
    if wanted in architectures.get_partition_keys():
        model = ModelRecord.need(store, wanted)
        return ChosenModel(model.archive, model.job_name, model.dataset_digest, None)
    try:
        record = read_version(store, wanted)
        problem = disagreement(store, tracking) if wanted in (CHAMPION, PREVIOUS) else None
    except NoChampion as error:
        raise Failure(str(error), allow_retries=False) from error
    if problem:
        raise Failure(problem, allow_retries=False)
    return ChosenModel(record.serving.archive, record.version, record.dataset_digest, record.report)


def _spec(
    store: ObjectStore, cohort: str, rows: Sequence[ManifestRow], settings: InferenceConfig, model: ChosenModel
) -> JobSpec:
    items = [_item(row) for row in rows]
    arguments = ["--batch-size", str(settings.batch_size), "--model-version", model.version]
    arguments += ["--max-psi", str(settings.max_psi), "--device", settings.compute_device]
    if settings.overlay:
        arguments += ["--overlay", "--overlay-limit", str(settings.overlay_limit)]
    inputs = {
        "model": model.archive,
        "npz": JobInput("npz", tuple(item["file"] for item in items)),
    }
    if model.report is not None:
        inputs["reference"] = JobInput(model.report, ("predictions.parquet",))
    trained_on = TrainingSetRecord.prefix_of(model.dataset_digest)
    if store.exists(f"{trained_on}/train/index.parquet"):
        inputs["training"] = JobInput(trained_on, ("train/index.parquet",))
    return JobSpec(
        kind="processing",
        program="infer",
        asset="predict",
        partition=cohort,
        arguments=tuple(arguments),
        inputs=inputs,
        documents={"index": {"items.jsonl": json_lines(items)}},
        outputs=("predictions",),
        result_output="predictions",
    )


def _item(row: ManifestRow) -> dict[str, Any]:
    seen = row.stages["masks"].facts if "masks" in row.stages else {}
    problems = [problem for problem in seen.get("fallback", "").split(", ") if problem]
    flags = quality_flags(row.notes, row.tags.get("burned_in"), problems, seen.get("flags", ()))
    return film_item(row) | {"quality_flags": flags}


def _tables(values: Mapping[str, Any]) -> dict[str, TableMetadataValue]:
    """What was decided, what is unusual about the images, and which could not be used."""
    decisions = (
        {"class": label, "decided": images, "mean_probability": values["mean_probability"].get(label, "none")}
        for label, images in values["decisions"].items()
    )
    flags = ({"flag": flag, "images": images} for flag, images in values["quality_flags"].items())
    return {
        "decisions": table(decisions, ("class", "decided", "mean_probability")),
        "quality_flags": table(flags, ("flag", "images")),
        "unusable": table(values["unusable"], ("file", "reason")),
        "metrics": table(_without_none(values["metrics"]), ("metric", "value", "low", "high", "reason")),
        "shortcuts": table(
            _without_none(values["shortcuts"]),
            ("finding", "cohort", "shortcut", "images", "shortcut_auc", "model_auc", "verdict"),
        ),
    }


def _without_none(rows: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    return ({name: "none" if value is None else value for name, value in row.items()} for row in rows)


def _overlays(store: ObjectStore, prefix: str, values: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """The key of each overlay that is shown, and what stands above it."""
    table = csv.DictReader(io.StringIO(store.read(f"{prefix}/predictions.csv").decode("utf-8")))
    rows = {Path(row["file"]).stem: row for row in table}
    positive = list(values["mean_probability"])[-1]
    return {f"{prefix}/overlays/{name}": overlay_lines(rows[Path(name).stem], positive) for name in values["shown"]}


def _psi(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Stability indices as numbers that Dagster plots over time."""
    return {f"psi_{row['feature']}": rounded(row["index"]) for row in rows if row["index"] is not None}
