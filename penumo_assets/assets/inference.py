"""From a cohort's tensors to predictions by the champion.

Enters: `npz_tensors` of one cohort, `champion_model`. Leaves: `predictions` (predictions.parquet).
"""

import json

from dagster import AssetExecutionContext, DataVersion, Failure, MaterializeResult, asset

from penumo_assets.assets.catalog import CHAMPION_RECORD, OWNERS, PROCESSING_POOL, SERVING, predictions_record
from penumo_assets.assets.defaults import INFERENCE_DEFAULTS
from penumo_assets.assets.jobs import run_job
from penumo_assets.assets.launchpad import launchpad_config, parsed
from penumo_assets.assets.training import current_model
from penumo_assets.cohort.publish import read_manifest
from penumo_assets.configs.inference import InferenceConfig
from penumo_assets.jobs.manifest import ManifestRow
from penumo_assets.partitions import architectures, cohorts
from penumo_assets.resources.compute.spec import JobInput, JobRunner, JobSpec
from penumo_assets.resources.storage import ObjectMissing, ObjectStore, Storage

InferenceLaunchpad = launchpad_config(InferenceConfig, INFERENCE_DEFAULTS)


@asset(
    deps=["npz_tensors", "champion_model"],
    partitions_def=cohorts,
    group_name=SERVING,
    owners=OWNERS,
    kinds={"pytorch", "parquet"},
    code_version="1",
    pool=PROCESSING_POOL,
    description="One row per image of a cohort, labelled or not: probability per class, decision at the model's "
    "threshold, model version.",
)
def predictions(
    context: AssetExecutionContext,
    config: InferenceLaunchpad,  # type: ignore[valid-type]
    storage: Storage,
    jobs: JobRunner,
) -> MaterializeResult:
    """Classify every tensor of the partition's cohort."""
    settings = parsed(InferenceConfig, config)
    cohort, store = context.partition_key, storage.store
    model, version = chosen_model(store, settings.model_version)
    rows = [row for row in read_manifest(store, cohort) if "npz" in row.stages]
    if not rows:
        raise Failure(f"cohort {cohort!r} has no tensors: materialize npz_tensors first", allow_retries=False)
    result = run_job(context, jobs, _spec(cohort, rows, settings, model, version))
    prefix = f"predictions/{cohort}/{result.job_name}"
    names = result.outputs["predictions"]
    store.copy_all((result.key("predictions", name), f"{prefix}/{name}") for name in names)
    store.write_json(predictions_record(cohort), {"prefix": prefix, "names": list(names), "model_version": version})
    jobs.discard_outputs(result)
    return MaterializeResult(
        metadata={
            "dagster/row_count": len(rows),
            "model_version": version,
            **{name: value for name, value in result.values.items() if isinstance(value, int | float | str)},
            "location": store.location(f"{prefix}/predictions.parquet"),
            **result.metadata,
        },
        data_version=DataVersion(result.job_name),
    )


def chosen_model(store: ObjectStore, wanted: str) -> tuple[dict, str]:
    """The record of the wanted model and the version it is known by."""
    if wanted in architectures.get_partition_keys():
        model = current_model(store, wanted)
        return model, model["job_name"]
    try:
        champion = store.read_json(CHAMPION_RECORD)
    except ObjectMissing as error:
        raise Failure("there is no champion: materialize champion_model first", allow_retries=False) from error
    return champion["model"], champion["version"]


def _spec(cohort: str, rows: list[ManifestRow], settings: InferenceConfig, model: dict, version: str) -> JobSpec:
    outputs = [(row, row.stages["npz"]) for row in rows]
    items = [
        {"file": output.key.rsplit("/", 1)[-1], "sha256": output.sha256}
        | row.model_dump(include={"image_id", "patient_id", "label"})
        for row, output in outputs
    ]
    arguments = ["--batch-size", str(settings.batch_size), "--model-version", version]
    if settings.overlay:
        arguments += ["--overlay", "--overlay-limit", str(settings.overlay_limit)]
    lines = "".join(json.dumps(item, sort_keys=True) + "\n" for item in items)
    return JobSpec(
        kind="processing",
        program="infer",
        asset="predict",
        partition=cohort,
        arguments=tuple(arguments),
        inputs={
            "model": JobInput(model["prefix"], (model["name"],)),
            "npz": JobInput(f"npz/{cohort}", tuple(item["file"] for item in items)),
        },
        documents={"index": {"items.jsonl": lines.encode()}},
        outputs=("predictions",),
        result_output="predictions",
    )
