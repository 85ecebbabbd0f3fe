"""Which lung segmenter the masks are made with: the bundled weights, your own, or newly trained ones."""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dagster import (
    AllPartitionMapping,
    AssetDep,
    AssetExecutionContext,
    DataVersion,
    Failure,
    MaterializeResult,
    MetadataValue,
    ResourceParam,
    TableRecord,
    asset,
)

import penumo_assets
from penumo_assets.assets.pages import mlflow_run
from penumo_assets.assets.shared import (
    OWNERS,
    SEGMENTATION,
    TRAINING_POOL,
    launchpad_config,
    parsed,
    refusals,
    run_job,
)
from penumo_assets.cohort.errors import LandingError
from penumo_assets.cohort.landing import read_landing
from penumo_assets.cohort.publish import read_manifest, read_settings
from penumo_assets.cohort.retire import cohorts_in_use
from penumo_assets.configs.prepare import PrepareConfig
from penumo_assets.configs.segmenter import RetrainConfig, SegmenterConfig, SegmenterSource, SegmenterStart
from penumo_assets.jobs.contract import json_lines
from penumo_assets.jobs.prepare.work import key_from_environment, key_id
from penumo_assets.models.archive import read_member
from penumo_assets.records import SegmenterRecord
from penumo_assets.resources.compute.runner import JobRunner
from penumo_assets.resources.compute.spec import JobInput, JobResult, JobSpec
from penumo_assets.resources.dagster_run_log import DagsterRunLog, end_mlflow_on_run_finished
from penumo_assets.resources.storage.object_store import ObjectMissing, ObjectStore
from penumo_assets.resources.storage.root import Storage, read_uri
from penumo_assets.resources.tracking import Tracking

WEIGHTS = "lung_unet.safetensors"
BUNDLED_FACTS = Path(penumo_assets.__file__).parent / "models" / "weights" / "lung_unet.json"
MAX_WEIGHTS_BYTES = 64 * 2**20
SegmenterLaunchpad = launchpad_config(SegmenterConfig)


def current_segmenter(store: ObjectStore) -> SegmenterRecord:
    """The recorded segmenter; the bundled one while nothing is recorded."""
    try:
        recorded = SegmenterRecord.read(store)
    except ObjectMissing:
        return bundled_segmenter()
    # A record of bundled weights means those of the installed package, also after an upgrade.
    return recorded if recorded.prefix else bundled_segmenter()


def bundled_segmenter() -> SegmenterRecord:
    return SegmenterRecord(
        prefix="", name=WEIGHTS, sha256=json.loads(BUNDLED_FACTS.read_text(encoding="utf-8"))["sha256"]
    )


@asset(
    deps=[AssetDep("landing", partition_mapping=AllPartitionMapping())],
    group_name=SEGMENTATION,
    owners=OWNERS,
    kinds={"pytorch", "mlflow"},
    code_version="2",
    pool=TRAINING_POOL,
    hooks={end_mlflow_on_run_finished},
    description="Weights of the lung segmenter: the ones bundled with the package (default), your own by URI, or new "
    "ones trained on every cohort that landed with ground-truth masks and measured on held-out patients.",
)
def lung_segmenter(
    context: AssetExecutionContext,
    config: SegmenterLaunchpad,  # type: ignore[valid-type]
    storage: Storage,
    tracking: Tracking,
    mlflow: ResourceParam[DagsterRunLog],
    jobs: JobRunner,
) -> MaterializeResult:
    """Record which weights segment the lungs."""
    settings, store = parsed(SegmenterConfig, config), storage.store
    facts: dict[str, Any] = {}
    if settings.source is SegmenterSource.retrain:
        segmenter, facts = _retrain(context, settings.retrain, store, tracking, mlflow, jobs)
    elif settings.source is SegmenterSource.weights:
        data = read_uri(settings.weights_uri, MAX_WEIGHTS_BYTES)
        segmenter = _keep(store, data, settings.weights_uri.rsplit("/", 1)[-1], settings.weights_sha256 or None)
    else:
        segmenter = bundled_segmenter()
    segmenter.write(store)
    return MaterializeResult(
        metadata={"source": settings.source.value, "weights": segmenter.name, "sha256": segmenter.sha256, **facts},
        data_version=DataVersion(segmenter.sha256),
    )


def _keep(store: ObjectStore, data: bytes, named: str, expected_sha256: str | None) -> SegmenterRecord:
    """Check weights and store them under their digest."""
    from penumo_assets.imaging.segment_weights import WeightsError, parse_weights

    try:
        _, digest = parse_weights(data, named, expected_sha256)
    except WeightsError as error:
        raise Failure(str(error), allow_retries=False) from error
    segmenter = SegmenterRecord(prefix=f"models/lung_segmenter/{digest[:16]}", name=WEIGHTS, sha256=digest)
    store.write(f"{segmenter.prefix}/{segmenter.name}", data)
    return segmenter


def _retrain(
    context: AssetExecutionContext,
    config: RetrainConfig,
    store: ObjectStore,
    tracking: Tracking,
    mlflow: DagsterRunLog,
    jobs: JobRunner,
) -> tuple[SegmenterRecord, dict[str, Any]]:
    with refusals():
        chosen = cohorts_in_use(store, context.instance, config.cohorts)
    rows = [row for cohort in chosen for row in annotated(store, cohort)]
    if not rows:
        raise Failure(
            f"no image with a ground-truth mask in cohorts {', '.join(chosen) or '(none)'}: land masks/ beside the "
            "images and materialize raw_images",
            allow_retries=False,
        )
    environment = mlflow.job_environment()
    result = run_job(context, jobs, _train_spec(config, rows, environment, tracking.job_secrets()))
    scores = {name.removesuffix("/as_is"): score for name, score in result.values["scores"]["held_out"].items()}
    table = _score_table(scores)
    if short := [name for name, score in scores.items() if score["dice"] < config.min_dice]:
        raise Failure(
            f"held-out Dice below min_dice {config.min_dice} in {', '.join(sorted(short))}: the weights before stay",
            metadata={"held_out": table},
            allow_retries=False,
        )
    segmenter = _keep(store, _weights(store, result), WEIGHTS, result.values["sha256"])
    jobs.discard(result.job_name)
    return segmenter, {
        "held_out": table,
        "training_images": sum(counts["images"] for counts in result.values["training_data"].values()),
        "left_out": [f"{item['file']}: {item['reason']}" for item in result.values["refused"]],
        "mlflow_run": mlflow_run(tracking, result.values["mlflow_run_id"]),
        **result.metadata,
    }


def annotated(store: ObjectStore, cohort: str) -> list[dict[str, Any]]:
    """Index rows of a cohort's decoded images that landed with a ground-truth mask.

    The digests of both files are in the rows, so that a changed mask makes another job.
    """
    try:
        settings = PrepareConfig.model_validate(read_settings(store, cohort))
        landing = read_landing(store, cohort, settings.labels, key_from_environment())
    except LandingError:
        return []
    rows = []
    for row in read_manifest(store, cohort):
        truths = landing.truths.get(row.source)
        if truths and "raw" in row.stages:
            rows.append(
                {
                    "file": row.stages["raw"].key.removeprefix("raw/"),
                    "mask": [f"{cohort}/{truth.landed_name}" for truth in truths],
                    "patient_id": row.patient_id or row.image_id,
                    "source": cohort,
                    "image_digest": row.stages["raw"].identity,
                    "mask_etag": [truth.etag for truth in truths],
                }
            )
    return rows


def _train_spec(
    config: RetrainConfig, rows: Sequence[dict[str, Any]], environment: dict[str, str], secrets: tuple[str, ...]
) -> JobSpec:
    flags = config.model_dump(mode="json", include={"stages", "batch_size", "learning_rate", "folds", "seed"})
    arguments = [text for name, value in flags.items() for text in (f"--{name.replace('_', '-')}", str(value))]
    if config.start is SegmenterStart.bundled:
        arguments += ["--initial", "bundled"]
    return JobSpec(
        kind="training",
        program="segment_train",
        asset="lung-segmenter",
        partition=None,
        arguments=(*arguments, "--variants", "as_is"),
        inputs={
            "images": JobInput("raw", tuple(row["file"] for row in rows)),
            "masks": JobInput("landing", tuple(name for row in rows for name in row["mask"])),
        },
        documents={"train": {"index.jsonl": json_lines(rows)}},
        outputs=("model", "data"),
        environment=environment,
        secrets=secrets,
        digest_key=key_id(),
    )


def _weights(store: ObjectStore, result: JobResult) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "model.tar.gz"
        store.download(result.key("model", archive.name), archive)
        return read_member(archive, WEIGHTS, MAX_WEIGHTS_BYTES)


def _score_table(scores: dict[str, dict[str, Any]]) -> MetadataValue:
    columns = ("images", "patients", "dice", "worst_tenth", "iou")
    records = [
        TableRecord({"cohort": name, **{column: round(score[column], 4) for column in columns}})
        for name, score in scores.items()
    ]
    return MetadataValue.table(records)
