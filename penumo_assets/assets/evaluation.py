"""From a trained model to its report.

Enters: `trained_model`, `training_set`. Leaves: `evaluation_report` (report.json, report.html, predictions.parquet).
"""

import hashlib
import json
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

from penumo_assets.assets.report_context import report_context
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
from penumo_assets.configs.train import Gates
from penumo_assets.metrics.report.content import read_report
from penumo_assets.metrics.report.context import Study
from penumo_assets.partitions import architectures
from penumo_assets.promotion import NoChampion, read_champion
from penumo_assets.records import LooksRecord, ModelRecord, ReportRecord, TrainingSetRecord
from penumo_assets.resources.compute.runner import JobRunner
from penumo_assets.resources.compute.spec import JobInput, JobSpec
from penumo_assets.resources.storage.object_store import ObjectMissing, ObjectStore
from penumo_assets.resources.storage.root import Storage
from penumo_assets.resources.tracking import Tracking

GatesLaunchpad = launchpad_config(Gates)
STUDY = frozenset(Study.model_fields)


class EvaluationConfig(Config):
    """How a model is evaluated, what it must reach, and what only the owner of the study can say of it."""

    bootstrap: int = Field(default=500, description="Resamples (by patient) behind the band of the ROC curve.")
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
    "interval, the threshold chosen by Youden's index on validation, shortcut baselines beside the model, "
    "and a paired comparison with the champion.",
)
def evaluation_report(
    context: AssetExecutionContext, config: EvaluationConfig, storage: Storage, tracking: Tracking, jobs: JobRunner
) -> MaterializeResult:
    """Evaluate the partition's newest model, publish its report, and put it on the model's MLflow run."""
    store, model = storage.store, ModelRecord.need(storage.store, context.partition_key)
    dataset = TrainingSetRecord.need(store)
    test = hashlib.sha256(store.read(f"{dataset.prefix}/test/index.parquet")).hexdigest()
    known = evaluation_context(store, config, model, dataset.cohorts, test)
    inputs = {"model": model.archive, "dataset": dataset.files, **_reference(store, model)}
    spec = evaluate_spec(context.partition_key, config, inputs, known)
    return published_report(context, jobs, storage, tracking, ReportRecord, model, spec)


def evaluation_context(
    store: ObjectStore, config: EvaluationConfig, model: ModelRecord, cohorts: Sequence[str], test: str
) -> dict[str, Any]:
    """What the report says beside the job's figures, which follows `Context`; ``test`` is the digest of the images that
    the model is measured on, which counts as a look at them."""
    known = statements(config.study) | report_context(store, cohorts)
    settings = config.model_dump_json() + json.dumps(known["prepared_with"], sort_keys=True)
    return known | {
        "mlflow_run_id": model.mlflow_run_id,
        "gates": parsed(Gates, config.gates).model_dump(),
        "config_digest": hashlib.sha256(settings.encode()).hexdigest()[:16],
        "test_digest": test,
        "test_looks": LooksRecord.add(store, test[:16], model.job_name),
    }


def published_report(
    context: AssetExecutionContext,
    jobs: JobRunner,
    storage: Storage,
    tracking: Tracking,
    record: type[ReportRecord],
    model: ModelRecord,
    spec: JobSpec,
) -> MaterializeResult:
    """Run the job that measures ``model``, keep its report as the newest of the partition, and show it."""
    store, partition = storage.store, context.partition_key
    result = run_job(context, jobs, spec)
    prefix = f"{record.folder(partition)}/{result.job_name}"
    names = result.outputs["report"]
    store.copy_all((result.key("report", name), f"{prefix}/{name}") for name in names)
    record(prefix=prefix, names=names, model=model, values=result.values).write(store, partition)
    jobs.discard(result.job_name)
    report = read_report(store.read(f"{prefix}/report.json"))
    return MaterializeResult(
        metadata={
            **report_metadata(storage, prefix, report, result.values),
            "mlflow_run": tracked_report(context, store, tracking, model, prefix, report, result.values),
            "model_job": model.job_name,
            **result.metadata,
        },
        data_version=DataVersion(result.job_name),
    )


def evaluate_spec(
    partition: str,
    config: EvaluationConfig,
    inputs: Mapping[str, JobInput],
    known: Mapping[str, Any],
    documents: Mapping[str, Mapping[str, bytes]] | None = None,
) -> JobSpec:
    """The job that measures a model; ``known`` is `evaluation_context`, see jobs/evaluate for inputs and documents."""
    settings = {"bootstrap": config.bootstrap, "seed": config.seed, "coverage": config.coverage}
    return JobSpec(
        kind="processing",
        program="evaluate",
        asset="evaluate",
        partition=partition,
        arguments=tuple(text for name, value in settings.items() for text in (f"--{name}", str(value))),
        inputs=inputs,
        documents={"context": {"context.json": json.dumps(known, sort_keys=True).encode()}, **(documents or {})},
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


def existing_reports(store: ObjectStore) -> dict[str, ReportRecord]:
    """The newest report's record of each architecture that has one."""
    records = {}
    for architecture in architectures.get_partition_keys():
        try:
            records[architecture] = ReportRecord.read(store, architecture)
        except ObjectMissing:
            continue
    return records
