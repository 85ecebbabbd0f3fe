"""Training job: a packed training set -> a classifier, the SageMaker way.

Channels ``train`` and ``validation`` (and ``test``, scored once at the end, if it is there) are split
folders that jobs/pack wrote; channel ``pretrained`` may hold weights to start from. Hyperparameters
come as arguments; each is described in configs/train.py. The model (safetensors and metadata.json) goes to
SM_MODEL_DIR, result.json to SM_OUTPUT_DATA_DIR. A job that is started again goes on from its checkpoint.
"""

import argparse
import hashlib
import json
import logging
import os
import platform
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from importlib.metadata import PackageNotFoundError, version
from threading import Event
from typing import Any

import numpy as np
import torch
from torch import nn

from penumo_assets.configs.base import ConfigError
from penumo_assets.configs.search import FINAL_OBJECTIVE
from penumo_assets.configs.train import Architecture, TrainConfig, hyperparameter_fields
from penumo_assets.jobs import contract
from penumo_assets.jobs.checkpoint import Checkpoints
from penumo_assets.jobs.contract import JobError
from penumo_assets.jobs.scores import validation_scores
from penumo_assets.jobs.shards import INDEX_NAME, Split
from penumo_assets.jobs.train.distributed import World, gpu_names, join_world, launch, processes_per_host
from penumo_assets.jobs.train.fit import Training
from penumo_assets.jobs.train.inputs import check_splits, open_channel, pretrained_weights
from penumo_assets.jobs.train.progress import Progress
from penumo_assets.jobs.training_log import TrainingLog
from penumo_assets.models.classifier import build_classifier, save_classifier
from penumo_assets.models.errors import ModelError
from penumo_assets.models.pretrained import pretrained_normalisation

MODULE = "penumo_assets.jobs.train"
RECORDED_PACKAGES = ("torch", "torchvision", "numpy", "safetensors", "penumo-assets")

logger = logging.getLogger(__name__)


def build_parser() -> argparse.ArgumentParser:
    """One option per hyperparameter, with the description and default of its field."""
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}", description=__doc__, allow_abbrev=False)
    parser.add_argument(
        *spellings("model-type"), default=Architecture.resnet34.value, help=f"architecture: {' or '.join(Architecture)}"
    )
    defaults = TrainConfig.defaults().to_hyperparameters()
    for name, _, field in hyperparameter_fields():
        text = f"{field.description} (default: {defaults[name]})".replace("%", "%%")
        parser.add_argument(*spellings(name), default=argparse.SUPPRESS, metavar="VALUE", help=text)
    machine = parser.add_argument_group("the machine, which does not change what is learnt")
    machine.add_argument(
        "--threads", type=int, default=0, help="CPU threads per process; 0: OMP_NUM_THREADS, else the cores shared out"
    )
    machine.add_argument(
        *spellings("processes-per-host"),
        type=int,
        default=0,
        help="processes per host; 0: one per GPU (SM_NUM_GPUS), else one",
    )
    return parser


def spellings(name: str) -> list[str]:
    """The option ``--batch-size`` and, where it differs, ``--batch_size``, as SageMaker's examples pass it."""
    return sorted({f"--{name}", f"--{name.replace('-', '_')}"})


def parse_arguments(argv: list[str] | None) -> tuple[str, TrainConfig, int, int]:
    """Architecture, hyperparameters, threads, processes per host; raises JobError naming what is wrong."""
    arguments, unknown = build_parser().parse_known_args(argv)
    if unknown:
        raise JobError(f"unknown hyperparameters: {' '.join(unknown)} (see python -m {MODULE} --help)")
    values = vars(arguments)
    names = {name.replace("-", "_"): name for name, _, _ in hyperparameter_fields()}
    given = {name: values[option] for option, name in names.items() if option in values}
    try:
        config = TrainConfig.from_hyperparameters(given)
    except ConfigError as error:
        raise JobError(str(error)) from error
    if arguments.model_type not in list(Architecture):
        raise JobError(f"unknown architecture {arguments.model_type!r}: choose one of {', '.join(Architecture)}")
    return arguments.model_type, config, arguments.threads, arguments.processes_per_host


def fingerprint(architecture: str, config: TrainConfig, digest: str) -> str:
    """Identifies a training, for its checkpoint: everything that decides what is learnt."""
    values = [architecture, config.to_hyperparameters(), digest]
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode("utf-8")).hexdigest()


def package_versions() -> dict[str, str]:
    versions = {"python": platform.python_version(), "code": os.environ.get("PENUMO_CODE_VERSION", "")}
    for name in RECORDED_PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue  # the source bundle on SageMaker is not installed as a package
    return {name: text for name, text in versions.items() if text}


def data_tags(architecture: str, train: Split) -> dict[str, str]:
    """What leads from the MLflow run back to the data."""
    cohorts = ",".join(train.dataset.cohorts)[:5000]
    return {
        "penumo.architecture": architecture,
        "penumo.dataset_digest": train.dataset.digest,
        "penumo.cohorts": cohorts,
    }


@contextmanager
def stop_on_sigterm() -> Iterator[Event]:
    """An event that SIGTERM sets: SageMaker sends it two minutes before it takes the machine."""
    asked = Event()
    before = signal.signal(signal.SIGTERM, lambda *_: asked.set())
    try:
        yield asked
    finally:
        signal.signal(signal.SIGTERM, before)


def finish(training: Training, log: TrainingLog, architecture: str, config: TrainConfig) -> None:
    """Save the best epoch's weights, their scores and their origin; ``result.json`` last."""
    progress, dataset = training.progress, training.train_split.dataset
    model = training.best_model()
    probabilities = training.predict(model, training.validation_split)
    scores = validation_scores(training.validation_split.targets, probabilities)
    metrics: dict[str, Any] = {f"validation_{name}": value for name, value in scores.items()}
    metrics |= test_scores(training, model)
    if not training.world.is_main:
        return
    metadata = {
        "schema": "penumo/model/1",
        "architecture": architecture,
        "classes": dataset.classes,
        "input_channels": config.input_channels,
        "image_size": config.resolution,
        "normalisation": training.normalisation,
        "threshold": scores["threshold"],
        "split_salt": dataset.salt,
        "dataset_digest": dataset.digest,
        "cohorts": dataset.cohorts,
        "metrics": {**metrics, "best_epoch": progress.best_epoch},
        "versions": package_versions(),
        "hyperparameters": config.to_hyperparameters(),
    }
    save_classifier(contract.model_dir(), model, metadata)
    model_uri = log.model(contract.model_dir(), len(dataset.classes))
    targets = training.validation_split.targets
    log.finish(progress.best, progress.history, targets, probabilities, dataset.classes)
    if scores["roc_auc"] is not None:
        logger.info("%s=%.6g;", FINAL_OBJECTIVE, scores["roc_auc"])  # what a tuning job reads from the log
    values = result_values(architecture, config, training, metrics)
    values |= {"mlflow_run_id": log.run_id, "mlflow_model_uri": model_uri}
    contract.write_result(contract.output_data_dir(), "train", values)


def test_scores(training: Training, model: nn.Module) -> dict[str, Any]:
    """Loss and ROC-AUC on the channel ``test``, looked at once and decided by nothing; empty without it."""
    folder = contract.channel("test")
    if not (folder / INDEX_NAME).is_file():
        return {}
    split = Split(folder)
    if len(np.unique(split.targets)) < len(split.dataset.classes):
        logger.warning("the test split lacks a class: it is not scored")
        return {}
    scores = validation_scores(split.targets, training.predict(model, split))
    return {f"test_{name}": scores[name] for name in ("loss", "roc_auc")}


def result_values(
    architecture: str, config: TrainConfig, training: Training, metrics: dict[str, Any]
) -> dict[str, Any]:
    """What the asset shows: the scores, and how the training went."""
    progress: Progress = training.progress
    steady = progress.history[1:] or progress.history  # the first epoch warms caches and compiles
    return {
        "architecture": architecture,
        "classes": training.train_split.dataset.classes,
        "dataset_digest": training.train_split.dataset.digest,
        "best_epoch": progress.best_epoch,
        "epochs_run": len(progress.history),
        "stopped_early": len(progress.history) < config.epochs,
        **metrics,
        "threshold": metrics["validation_threshold"],
        "images_per_second": sum(record["images_per_second"] for record in steady) / len(steady),
        "train_images": len(training.train_split),
        "validation_images": len(training.validation_split),
        "processes": training.world.size,
        "device": gpu_names() or "cpu",
        "history": progress.history,
    }


def train(world: World, architecture: str, config: TrainConfig, stop_requested: Callable[[], bool]) -> None:
    """One process's part of the job."""
    splits = {name: open_channel(name) for name in ("train", "validation")}
    check_splits(splits["train"], splits["validation"])
    dataset = splits["train"].dataset
    torch.manual_seed(config.seed)
    try:
        weights = pretrained_weights(config, architecture)
        model = build_classifier(architecture, len(dataset.classes), config.input_channels, weights)
    except ModelError as error:
        raise JobError(str(error)) from error
    checkpoints = Checkpoints(contract.checkpoint_dir(), fingerprint(architecture, config, dataset.digest))
    training = Training(
        model,
        config,
        **splits,
        world=world,
        checkpoints=checkpoints,
        stop_requested=stop_requested,
        normalisation=pretrained_normalisation(weights, config.input_channels),
    )
    resumed, log = training.resume(), TrainingLog()
    if resumed:
        logger.info("going on from the checkpoint: epoch %d", training.progress.epoch)
    tags = data_tags(architecture, splits["train"])
    with log.run(tags, training.progress.mlflow_run_id) if world.is_main else nullcontext():
        training.progress.mlflow_run_id = log.run_id
        log.parameters({"model-type": architecture, **config.to_hyperparameters()})
        log.dataset(dataset)
        training.run(log.epoch)
        finish(training, log, architecture, config)


def main(argv: list[str] | None = None) -> None:
    argv = sys.argv[1:] if argv is None else argv
    architecture, config, threads, processes = parse_arguments(argv)
    per_host = processes or processes_per_host()
    if launch(MODULE, argv, per_host):
        return
    torch.set_num_threads(threads or contract.threads(per_host))
    torch.backends.cudnn.benchmark = True
    world = join_world()
    try:
        with stop_on_sigterm() as asked:
            train(world, architecture, config, asked.is_set)
    finally:
        world.leave()


if __name__ == "__main__":
    contract.run_program(main)
