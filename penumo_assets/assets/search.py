"""Which hyperparameters train best: an optional search, one per architecture.

Enters: `training_set` (train and validation only). Leaves: `hyperparameter_search`, which `trained_model` follows if
its ``from_search`` is set.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from dagster import (
    AssetExecutionContext,
    DataVersion,
    Failure,
    MaterializeResult,
    MetadataValue,
    ResourceParam,
    TableRecord,
    asset,
)

from penumo_assets.assets.shared import (
    LEARNING,
    OWNERS,
    TRAINING_POOL,
    job_failures,
    launchpad_config,
    parsed,
)
from penumo_assets.assets.training import train_spec
from penumo_assets.configs.search import OBJECTIVE, SearchConfig, SearchSpace
from penumo_assets.configs.train import TrainConfig
from penumo_assets.partitions import architectures
from penumo_assets.records import SearchRecord, TrainingSetRecord
from penumo_assets.resources.compute.runner import JobRunner
from penumo_assets.resources.compute.search import Trial, best_of
from penumo_assets.resources.compute.spec import JobSpec
from penumo_assets.resources.dagster_run_log import DagsterRunLog, end_mlflow_on_run_finished
from penumo_assets.resources.storage.object_store import ObjectStore
from penumo_assets.resources.storage.root import Storage
from penumo_assets.resources.tracking import Tracking

SearchLaunchpad = launchpad_config(SearchConfig)


@asset(
    deps=["training_set"],
    partitions_def=architectures,
    group_name=LEARNING,
    owners=OWNERS,
    kinds={"optuna", "mlflow"},
    code_version="1",
    pool=TRAINING_POOL,
    hooks={end_mlflow_on_run_finished},
    description="The hyperparameters with the highest validation ROC-AUC among a number of trainings: chosen by Optuna "
    "locally, by a hyperparameter tuning job on SageMaker, from the same search space. Optional; the test split is "
    "not looked at.",
)
def hyperparameter_search(
    context: AssetExecutionContext,
    config: SearchLaunchpad,  # type: ignore[valid-type]
    storage: Storage,
    tracking: Tracking,
    mlflow: ResourceParam[DagsterRunLog],
    jobs: JobRunner,
) -> MaterializeResult:
    """Search for one architecture and record every trial."""
    settings = parsed(SearchConfig, config)
    space, store, architecture = settings.search_space(), storage.store, context.partition_key
    dataset = TrainingSetRecord.need(store)
    spec = trial_spec(store, architecture, dataset, settings)
    spec = replace(spec, environment=mlflow.job_environment(), secrets=tracking.job_secrets())
    with job_failures():
        trials = jobs.tune(context, spec, space, settings)
    best = best_of(trials)
    if best is None:
        reasons = "; ".join(sorted({trial.reason for trial in trials}))
        raise Failure(f"every one of {len(trials)} trainings failed: {reasons}", allow_retries=False)
    record = SearchRecord(objective=OBJECTIVE, dataset_digest=dataset.digest, best=best, trials=tuple(trials))
    record.write(store, architecture)
    found = record.model_dump(mode="json", exclude={"trials"})
    return MaterializeResult(
        metadata={
            "best_" + OBJECTIVE: float(best.value or 0),
            "best_hyperparameters": MetadataValue.json(dict(best.hyperparameters)),
            "best_job": best.job_name,
            "trials": _table(trials, space),
            "failed": sum(trial.value is None for trial in trials),
            "dataset_digest": dataset.digest,
            "location": store.location(record.key(architecture)),
        },
        data_version=DataVersion(hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()),
    )


def trial_spec(store: ObjectStore, architecture: str, dataset: TrainingSetRecord, config: SearchConfig) -> JobSpec:
    """One training of the search, with the default hyperparameters; the test split stays out of reach."""
    settings = TrainConfig.parse({"epochs": config.epochs})
    splits = {split: dataset.split(split) for split in ("train", "validation")}
    return replace(train_spec(store, architecture, settings, splits), asset="search")


def _table(trials: Sequence[Trial], space: SearchSpace) -> MetadataValue:
    records: list[dict[str, Any]] = [
        {
            "trial": trial.number,
            OBJECTIVE: "failed" if trial.value is None else f"{trial.value:.4f}",
            **{name: trial.hyperparameters.get(name, "") for name in space.parameters},
            "job": trial.job_name or trial.reason[:200],
        }
        for trial in sorted(trials, key=lambda trial: -(trial.value if trial.value is not None else -1.0))
    ]
    return MetadataValue.table([TableRecord(record) for record in records])
