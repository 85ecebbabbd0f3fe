"""From the training set to a trained classifier, one per architecture.

Enters: `training_set`. Leaves: `trained_model` (model.tar.gz with safetensors and metadata.json, an MLflow run).
"""

from dagster import AssetExecutionContext, DataVersion, MaterializeResult, MetadataValue, asset

from penumo_assets.assets.catalog import LEARNING, OWNERS, TRAINING_POOL, model_record
from penumo_assets.assets.dataset import current_training_set
from penumo_assets.assets.defaults import TRAIN_DEFAULTS
from penumo_assets.assets.jobs import run_job
from penumo_assets.assets.launchpad import launchpad_config, parsed
from penumo_assets.configs.train import TrainConfig
from penumo_assets.partitions import architectures
from penumo_assets.resources.compute.spec import JobInput, JobRunner, JobSpec
from penumo_assets.resources.storage import ObjectStore, Storage
from penumo_assets.resources.tracking import Tracking

TrainLaunchpad = launchpad_config(TrainConfig, TRAIN_DEFAULTS)
SPLITS = ("train", "validation", "test")


@asset(
    deps=["training_set"],
    partitions_def=architectures,
    group_name=LEARNING,
    owners=OWNERS,
    kinds={"pytorch", "mlflow"},
    code_version="1",
    pool=TRAINING_POOL,
    description="A classifier trained on the current training set under SageMaker's script-mode contract: early "
    "stopping on validation, best weights as safetensors, parameters and curves in MLflow.",
)
def trained_model(
    context: AssetExecutionContext,
    config: TrainLaunchpad,  # type: ignore[valid-type]
    storage: Storage,
    tracking: Tracking,
    jobs: JobRunner,
) -> MaterializeResult:
    """Train the partition's architecture and record the model as its newest."""
    settings = parsed(TrainConfig, config)
    architecture, store = context.partition_key, storage.store
    dataset = current_training_set(store)
    hyperparameters = {"model-type": architecture} | settings.to_hyperparameters()
    spec = JobSpec(
        kind="training",
        program="train",
        asset="train",
        partition=architecture,
        arguments=tuple(text for name, value in hyperparameters.items() for text in (f"--{name}", value)),
        inputs={split: split_channel(dataset, split) for split in SPLITS},
        outputs=("model", "data"),
        environment=tracking.job_environment(context.run.run_id),
    )
    result = run_job(context, jobs, spec)
    prefix = f"models/{architecture}/{result.job_name}"
    store.copy(result.key("model", "model.tar.gz"), f"{prefix}/model.tar.gz")
    record = {
        "prefix": prefix,
        "name": "model.tar.gz",
        "job_name": result.job_name,
        "dataset_digest": dataset["digest"],
        "mlflow_run_id": result.values.get("mlflow_run_id"),
        "values": result.values,
    }
    store.write_json(model_record(architecture), record)
    jobs.discard_outputs(result)
    return MaterializeResult(
        metadata={
            **_plain(result.values),
            "dataset_digest": dataset["digest"],
            "mlflow_run": MetadataValue.md(tracking.run_link(result.values.get("mlflow_run_id"))),
            "location": store.location(f"{prefix}/model.tar.gz"),
            **result.metadata,
        },
        data_version=DataVersion(result.job_name),
    )


def current_model(store: ObjectStore, architecture: str) -> dict:
    """The record of an architecture's newest model."""
    return store.read_json(model_record(architecture))


def split_channel(dataset: dict, split: str) -> JobInput:
    """One split of a recorded training set as a channel."""
    names = tuple(name.removeprefix(f"{split}/") for name in dataset["names"] if name.startswith(f"{split}/"))
    return JobInput(f"{dataset['prefix']}/{split}", names)


def _plain(values: dict) -> dict:
    return {name: value for name, value in values.items() if isinstance(value, int | float | str) and value != ""}
