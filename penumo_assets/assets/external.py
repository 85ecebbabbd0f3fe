"""A cohort that no model has seen, judged by itself.

Enters: `npz_tensors` of one cohort, `champion_model`. Leaves: `external_validation` (report.json, report.html,
predictions.parquet of the cohort).
"""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from dagster import (
    AssetExecutionContext,
    Config,
    Failure,
    MaterializeResult,
    ResourceParam,
    asset,
)
from pydantic import Field

from penumo_assets.assets.dataset import DatasetLaunchpad, pack_spec, trainable
from penumo_assets.assets.evaluation import EvaluationConfig, evaluate_spec, evaluation_context, published_report
from penumo_assets.assets.shared import LEARNING, OWNERS, TRAINING_POOL, given, parsed, refusals, run_job
from penumo_assets.assets.training import SPLITS, TrainLaunchpad, train_spec
from penumo_assets.cohort.retire import refuse_retired, retired_cohorts
from penumo_assets.cohort.training_items import ItemsRecord, fresh_files, read_items
from penumo_assets.configs.train import DatasetConfig, TrainConfig
from penumo_assets.partitions import cohorts
from penumo_assets.promotion import NoChampion, read_champion
from penumo_assets.records import ExternalRecord, ModelRecord, TrainingSetRecord
from penumo_assets.resources.compute.runner import JobRunner
from penumo_assets.resources.compute.spec import JobInput, JobResult
from penumo_assets.resources.dagster_run_log import DagsterRunLog, end_mlflow_on_run_finished
from penumo_assets.resources.storage.object_store import ObjectStore
from penumo_assets.resources.storage.root import Storage
from penumo_assets.resources.tracking import Tracking


class ExternalConfig(Config):
    """How the cohort is judged; and, where it trained the champion, how a model without it is trained."""

    evaluation: EvaluationConfig = EvaluationConfig()
    dataset: DatasetLaunchpad = DatasetLaunchpad()  # type: ignore[valid-type]
    train: TrainLaunchpad = TrainLaunchpad()
    leave_out: bool = Field(
        default=False,
        description="Where the cohort trained the champion: train the champion's architecture anew on the other "
        "cohorts of its training set, and judge that model.",
    )


@asset(
    deps=["npz_tensors", "champion_model"],
    partitions_def=cohorts,
    group_name=LEARNING,
    owners=OWNERS,
    kinds={"scikitlearn", "html", "mlflow"},
    code_version="2",
    pool=TRAINING_POOL,
    hooks={end_mlflow_on_run_finished},
    description="The champion on a labelled cohort that it was not trained on, with threshold and calibration as they "
    "are; with leave_out, for a cohort of its training set, a model that was trained on the others.",
)
def external_validation(
    context: AssetExecutionContext,
    config: ExternalConfig,
    storage: Storage,
    tracking: Tracking,
    mlflow: ResourceParam[DagsterRunLog],
    jobs: JobRunner,
) -> MaterializeResult:
    """Judge a model on the partition's cohort, by itself, and put the report on the model's MLflow run."""
    cohort, store = context.partition_key, storage.store
    settings = parsed(DatasetConfig, config.dataset)
    with refusals():
        refuse_retired(store, cohort)
    found = trainable(store, [cohort], settings, external=True)
    inputs, model, done = _champion(store)
    trained_on = _cohorts(store, inputs["dataset"])
    if cohort in trained_on:
        others = sorted(set(trained_on) - {cohort} - retired_cohorts(store))
        if not config.leave_out or not others:
            raise Failure(
                f"{cohort} trained {model.job_name}: declare it in dataset.external and train again, or set leave_out, "
                "which needs another cohort to train on",
                allow_retries=False,
            )
        reporting = {"environment": mlflow.job_environment(), "secrets": tracking.job_secrets()}
        train = TrainConfig.parse(given(context, config).get("train", {}))
        inputs, model, done = _without(context, jobs, store, others, settings, train, reporting)
    items = read_items(store, found.items[cohort])
    known = evaluation_context(store, config.evaluation, model, [cohort], hashlib.sha256(items).hexdigest())
    inputs["npz"] = JobInput("npz", tuple(fresh_files(store, found.items, ItemsRecord())))
    spec = evaluate_spec(
        cohort, config.evaluation, inputs, known | {"external": cohort}, {"index": {"items.jsonl": items}}
    )
    report = published_report(context, jobs, storage, tracking, ExternalRecord, model, spec)
    for job in done:
        jobs.discard(job.job_name)
    return report


Model = tuple[dict[str, JobInput], ModelRecord, tuple[JobResult, ...]]


def _champion(store: ObjectStore) -> Model:
    """The champion and the training set that it was trained on, as inputs; its record; the jobs that made it here."""
    try:
        champion = read_champion(store)
    except NoChampion as error:
        raise Failure(str(error), allow_retries=False) from error
    prefix = TrainingSetRecord.prefix_of(champion.dataset_digest)
    names = tuple(info.key.removeprefix(f"{prefix}/") for info in store.list_objects(prefix))
    return {"model": champion.serving.archive, "dataset": JobInput(prefix, names)}, champion.model, ()


def _cohorts(store: ObjectStore, dataset: JobInput) -> list[str]:
    if not dataset.names:
        raise Failure(f"{dataset.prefix}, the champion's training set, is gone: train again", allow_retries=False)
    return store.read_json(f"{dataset.prefix}/dataset.json")["cohorts"]


def _without(
    context: AssetExecutionContext,
    jobs: JobRunner,
    store: ObjectStore,
    others: list[str],
    settings: DatasetConfig,
    train: TrainConfig,
    reporting: Mapping[str, Any],
) -> Model:
    """A model of the champion's architecture that was trained on the other cohorts; nobody else uses it."""
    architecture = read_champion(store).architecture
    packed = run_job(context, jobs, pack_spec(store, trainable(store, others, settings), settings))
    dataset = JobInput(f"{packed.output_prefix}/dataset", packed.outputs["dataset"])
    splits = TrainingSetRecord(prefix=dataset.prefix, names=dataset.names, digest=packed.values["digest"])
    spec = train_spec(store, architecture, train, {name: splits.split(name) for name in SPLITS})
    trained = run_job(context, jobs, replace(spec, **reporting))
    model = ModelRecord(
        prefix=f"{trained.output_prefix}/model",
        name="model.tar.gz",
        job_name=trained.job_name,
        dataset_digest=splits.digest,
        mlflow_run_id=trained.values.get("mlflow_run_id"),
        values=trained.values,
    )
    return {"model": model.archive, "dataset": dataset}, model, (packed, trained)
