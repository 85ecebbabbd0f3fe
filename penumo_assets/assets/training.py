"""From the training set to a trained classifier, one per architecture.

Enters: `training_set`. Leaves: `trained_model` (model.tar.gz with safetensors and metadata.json, an MLflow run).
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from dagster import AssetExecutionContext, DataVersion, Failure, MaterializeResult, MetadataValue, ResourceParam, asset
from pydantic import Field

from penumo_assets.assets.pages import mlflow_run, rounded
from penumo_assets.assets.shared import (
    LEARNING,
    OWNERS,
    TRAINING_POOL,
    given,
    launchpad_config,
    run_job,
)
from penumo_assets.automation import TRAINING_SET_CHANGED
from penumo_assets.configs.train import NO_WEIGHTS, TrainConfig
from penumo_assets.metrics.report.inline import LEARNING_CAPTION, learning_curve
from penumo_assets.partitions import architectures
from penumo_assets.records import ModelRecord, SearchRecord, TrainingSetRecord
from penumo_assets.resources.compute.runner import JobRunner
from penumo_assets.resources.compute.spec import JobInput, JobSpec
from penumo_assets.resources.dagster_run_log import DagsterRunLog, end_mlflow_on_run_finished
from penumo_assets.resources.storage.object_store import ObjectStore
from penumo_assets.resources.storage.root import Storage, read_uri
from penumo_assets.resources.tracking import Tracking

TrainLaunchpad: Any = launchpad_config(TrainConfig)
SPLITS = ("train", "validation", "test")
WITHOUT_FILE = (NO_WEIGHTS, "imagenet")
MAX_WEIGHTS_BYTES = 2 * 2**30


class TrainedModelConfig(TrainLaunchpad):
    """Hyperparameters, and whether a search decides some of them."""

    from_search: bool = Field(
        default=False,
        description="Take what hyperparameter_search found best for this architecture; the other fields stay as given.",
    )


@asset(
    deps=["training_set"],
    partitions_def=architectures,
    automation_condition=TRAINING_SET_CHANGED,
    group_name=LEARNING,
    owners=OWNERS,
    kinds={"pytorch", "mlflow"},
    code_version="1",
    pool=TRAINING_POOL,
    hooks={end_mlflow_on_run_finished},
    description="A classifier trained on the current training set under SageMaker's script-mode contract: early "
    "stopping on validation, best weights as safetensors, parameters and curves in MLflow.",
)
def trained_model(
    context: AssetExecutionContext,
    config: TrainedModelConfig,
    storage: Storage,
    tracking: Tracking,
    mlflow: ResourceParam[DagsterRunLog],
    jobs: JobRunner,
) -> MaterializeResult:
    """Train the partition's architecture and record the model as its newest."""
    launched = given(context, config)  # what it leaves out, the preset decides
    settings = TrainConfig.parse({name: launched[name] for name in TrainConfig.model_fields if name in launched})
    architecture, store = context.partition_key, storage.store
    dataset = TrainingSetRecord.need(store)
    searched = best_hyperparameters(store, architecture) if config.from_search else {}
    spec = train_spec(store, architecture, settings, {split: dataset.split(split) for split in SPLITS}, searched)
    tracked = replace(spec, environment=mlflow.job_environment(), secrets=tracking.job_secrets())
    result = run_job(context, jobs, tracked)
    prefix = f"models/{architecture}/{result.job_name}"
    store.copy(result.key("model", "model.tar.gz"), f"{prefix}/model.tar.gz")
    ModelRecord(
        prefix=prefix,
        name="model.tar.gz",
        job_name=result.job_name,
        dataset_digest=dataset.digest,
        mlflow_run_id=result.values.get("mlflow_run_id"),
        values=result.values,
    ).write(store, architecture)
    jobs.discard(result.job_name)
    return MaterializeResult(
        metadata={
            "mlflow_run": mlflow_run(tracking, result.values.get("mlflow_run_id")),
            **_learning_curve(result.values.get("history", [])),
            **_plain(result.values),
            "dataset_digest": dataset.digest,
            "location": store.location(f"{prefix}/model.tar.gz"),
            "hyperparameters": MetadataValue.json(settings.to_hyperparameters() | searched),
            **result.metadata,
        },
        data_version=DataVersion(result.job_name),
    )


def train_spec(
    store: ObjectStore,
    architecture: str,
    settings: TrainConfig,
    splits: Mapping[str, JobInput],
    searched: Mapping[str, str] | None = None,
) -> JobSpec:
    """A training of an architecture on packed splits; ``searched`` takes the place of single hyperparameters."""
    hyperparameters = {"model-type": architecture} | settings.to_hyperparameters() | dict(searched or {})
    return JobSpec(
        kind="training",
        program="train",
        asset="train",
        partition=architecture,
        arguments=tuple(text for name, value in hyperparameters.items() for text in (f"--{name}", value)),
        inputs={**splits, **_pretrained(store, settings.pretrained)},
        outputs=("model", "data"),
    )


def best_hyperparameters(store: ObjectStore, architecture: str) -> dict[str, str]:
    """What the last search found best.

    Raises
    ------
    Failure
        If there has been no search for this architecture.
    """
    found = SearchRecord.find(store, architecture)
    if found is None:
        reason = f"from_search is set, but hyperparameter_search has not been materialized for {architecture}"
        raise Failure(reason, allow_retries=False)
    return dict(found.best.hyperparameters)


def _pretrained(store: ObjectStore, uri: str) -> dict[str, JobInput]:
    """The weights to start from as a channel: copied into the store under their digest, so that a job finds them."""
    if uri in WITHOUT_FILE:
        return {}
    data = read_uri(uri, MAX_WEIGHTS_BYTES)
    prefix = f"models/pretrained/{hashlib.sha256(data).hexdigest()[:16]}"
    name = re.sub(r"[^A-Za-z0-9._-]", "_", Path(uri).name)
    if not store.exists(f"{prefix}/{name}"):
        store.write(f"{prefix}/{name}", data)
    return {"pretrained": JobInput(prefix, (name,))}


def _learning_curve(history: list[dict[str, float | None]]) -> dict[str, MetadataValue]:
    uri = learning_curve(history)
    return {"learning_curve": MetadataValue.md(f"![learning curve]({uri})\n\n{LEARNING_CAPTION}")} if uri else {}


def _plain(values: dict) -> dict:
    """What a page shows of a training's values; the MLflow run has a line of its own."""
    shown = {name: value for name, value in values.items() if isinstance(value, int | float | str) and value != ""}
    return {name: rounded(value) for name, value in shown.items() if name != "mlflow_run_id"}
