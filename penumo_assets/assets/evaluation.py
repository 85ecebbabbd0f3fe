"""From a trained model to its report.

Enters: `trained_model`, `training_set`. Leaves: `evaluation_report` (report.json, report.html, predictions.parquet).
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from dagster import (
    AssetExecutionContext,
    Config,
    DataVersion,
    Failure,
    MaterializeResult,
    asset,
)
from pydantic import Field

from penumo_assets.assets.report_page import report_metadata, tracked_report
from penumo_assets.assets.shared import (
    LEARNING,
    OWNERS,
    PROCESSING_POOL,
    launchpad_config,
    parsed,
    run_job,
)
from penumo_assets.automation import INPUTS_UPDATED, REPORT_FRESHNESS
from penumo_assets.cohort.publish import open_manifest, read_settings
from penumo_assets.configs.train import Gates
from penumo_assets.metrics.report.content import read_report
from penumo_assets.metrics.report.context import Study
from penumo_assets.partitions import architectures
from penumo_assets.promotion import NoChampion, read_champion
from penumo_assets.records import LooksRecord, ModelRecord, ReportRecord, TrainingSetRecord
from penumo_assets.resources.compute.runner import JobRunner
from penumo_assets.resources.compute.spec import JobInput, JobSpec, bundle_digest
from penumo_assets.resources.storage.object_store import ObjectMissing, ObjectStore
from penumo_assets.resources.storage.root import Storage
from penumo_assets.resources.tracking import Tracking

GatesLaunchpad = launchpad_config(Gates)
STUDY = frozenset(Study.model_fields)


class EvaluationConfig(Config):
    """How a model is evaluated, what it must reach, and what only the owner of the study can say of it."""

    bootstrap: int = Field(default=2000, description="Resamples (by patient) behind every 95 % interval.")
    seed: int = Field(default=0, description="Seed of the resampling.")
    coverage: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="Share of the validation images that get an answer; of those least sure, and images like them, the "
        "model says that it has not decided. 1: every image gets one.",
    )
    gates: GatesLaunchpad = GatesLaunchpad()  # type: ignore[valid-type]
    study: dict[str, str] = Field(
        default={}, description=f"Statements for the report, plain text: {', '.join(sorted(STUDY))}."
    )


@asset(
    deps=["trained_model", "training_set"],
    partitions_def=architectures,
    automation_condition=INPUTS_UPDATED,
    freshness_policy=REPORT_FRESHNESS,
    group_name=LEARNING,
    owners=OWNERS,
    kinds={"scikitlearn", "html", "mlflow"},
    code_version="2",
    pool=PROCESSING_POOL,
    description="The newest model of an architecture on the current test split: every metric with a patient-level "
    "bootstrap interval, the threshold chosen by Youden's index on validation, shortcut baselines beside the model, "
    "and a paired comparison with the champion.",
)
def evaluation_report(
    context: AssetExecutionContext, config: EvaluationConfig, storage: Storage, tracking: Tracking, jobs: JobRunner
) -> MaterializeResult:
    """Evaluate the partition's newest model, publish its report, and put it on the model's MLflow run."""
    architecture, store = context.partition_key, storage.store
    model, dataset = ModelRecord.need(store, architecture), TrainingSetRecord.need(store)
    known = statements(config.study) | report_context(store, dataset.cohorts) | count_look(store, dataset, model)
    known["mlflow_run_id"] = model.mlflow_run_id
    known["gates"] = parsed(Gates, config.gates).model_dump()
    settings = config.model_dump_json() + json.dumps(known["prepared_with"], sort_keys=True)
    known["config_digest"] = hashlib.sha256(settings.encode()).hexdigest()[:16]
    inputs = {"model": model.archive, "dataset": dataset.files, **_reference(store, model)}
    documents = {"context": {"context.json": json.dumps(known, sort_keys=True).encode()}}
    result = run_job(context, jobs, evaluate_spec(architecture, config, inputs, documents))
    prefix = f"reports/{architecture}/{result.job_name}"
    names = result.outputs["report"]
    store.copy_all((result.key("report", name), f"{prefix}/{name}") for name in names)
    ReportRecord(prefix=prefix, names=names, model=model, values=result.values).write(store, architecture)
    jobs.discard(result.job_name)
    report = read_report(store.read(f"{prefix}/report.json"))
    return MaterializeResult(
        metadata={
            **report_metadata(storage, prefix, report, result.values),
            "mlflow_run": tracked_report(context, storage.store, tracking, model, prefix, report, result.values),
            "model_job": model.job_name,
            **result.metadata,
        },
        data_version=DataVersion(result.job_name),
    )


def evaluate_spec(
    partition: str,
    config: EvaluationConfig,
    inputs: Mapping[str, JobInput],
    documents: Mapping[str, Mapping[str, bytes]],
) -> JobSpec:
    """The job that measures a model; see jobs/evaluate for its inputs and documents."""
    return JobSpec(
        kind="processing",
        program="evaluate",
        asset="evaluate",
        partition=partition,
        arguments=(
            "--bootstrap",
            str(config.bootstrap),
            "--seed",
            str(config.seed),
            "--coverage",
            str(config.coverage),
        ),
        inputs=inputs,
        documents=documents,
        outputs=("report",),
        result_output="report",
    )


def statements(study: Mapping[str, str]) -> dict[str, Any]:
    """What the study's owner says, for the report; a misspelt key would silently leave an item unanswered.

    Raises
    ------
    Failure
        Naming the keys that no item of the report has.
    """
    if unknown := sorted(set(study) - STUDY):
        known = ", ".join(sorted(STUDY))
        raise Failure(f"study: unknown statements {', '.join(unknown)}; known are {known}", allow_retries=False)
    return dict(study)


def _reference(store: ObjectStore, model: ModelRecord) -> dict[str, JobInput]:
    """The champion's predictions, for a paired comparison; nothing while there is none or for the champion itself."""
    try:
        champion = read_champion(store)
    except NoChampion:
        return {}
    known = store.exists(f"{champion.report}/predictions.parquet")
    own = champion.training_job == model.job_name
    return {"reference": JobInput(champion.report, ("predictions.parquet",))} if known and not own else {}


def report_context(store: ObjectStore, names: Sequence[str]) -> dict[str, Any]:
    """What the report says of the way the data came: counts and exclusions per cohort, Dice, versions."""
    flow: dict[str, dict[str, Any]] = {}
    dices, phantoms = [], False
    for cohort in names:
        manifest = open_manifest(store, cohort)
        rows = manifest.rows
        rejected = Counter(row.code or "" for row in rows if row.status == "rejected")
        labelled = sum(row.label is not None for row in rows if "npz" in row.stages)
        usable = sum("npz" in row.stages for row in rows)
        flow[cohort] = {
            "landed": len(rows),
            "accepted": usable,
            "rejected": dict(rejected.most_common()),
            "unlabelled": usable - labelled,
        }
        for row in rows:
            facts = row.stages["masks"].facts if "masks" in row.stages else {}
            if "dice" in facts:
                dices.append(
                    {
                        "cohort": cohort,
                        "patient_id": row.patient_id,
                        "image_id": row.image_id,
                        "dice": facts["dice"],
                        "iou": facts["iou"],
                    }
                )
        phantoms = phantoms or manifest.phantoms
    return {
        "flow": flow,
        "dice": dices,
        "prepared_with": {cohort: read_settings(store, cohort) for cohort in names},
        "code_version": bundle_digest()[:16],
        "phantoms": phantoms,
    }


def count_look(store: ObjectStore, dataset: TrainingSetRecord, model: ModelRecord) -> dict[str, Any]:
    """The digest of the test images, and how many models were measured on them, this one included."""
    digest = hashlib.sha256(store.read(f"{dataset.prefix}/test/index.parquet")).hexdigest()
    return {"test_digest": digest, "test_looks": LooksRecord.add(store, digest[:16], model.job_name)}


def existing_reports(store: ObjectStore) -> dict[str, ReportRecord]:
    """The newest report's record of each architecture that has one."""
    records = {}
    for architecture in architectures.get_partition_keys():
        try:
            records[architecture] = ReportRecord.read(store, architecture)
        except ObjectMissing:
            continue
    return records
