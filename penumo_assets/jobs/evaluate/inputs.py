"""What the evaluate job reads, and what it refuses."""

from pathlib import Path
from typing import Any

import pandas as pd
import torch

from penumo_assets.configs.base import ConfigError
from penumo_assets.configs.documents import DocumentError, parse_json
from penumo_assets.jobs.contract import JobError
from penumo_assets.jobs.shards import TrainingSet
from penumo_assets.metrics.report.context import Context
from penumo_assets.models.archive import extract_model_archive
from penumo_assets.models.classifier import load_classifier
from penumo_assets.models.errors import ModelError

PREDICTIONS_NAME = "predictions.parquet"


def load_model(folder: Path, scratch: Path) -> tuple[torch.nn.Module, dict[str, Any]]:
    """The classifier in ``folder/model.tar.gz``, unpacked into ``scratch`` without trusting it."""
    archive = folder / "model.tar.gz"
    if not archive.is_file():
        raise JobError("input model: no model.tar.gz")
    try:
        return load_classifier(extract_model_archive(archive, scratch))
    except ModelError as error:
        raise JobError(f"the model cannot be used: {error}") from error


def check_agreement(metadata: dict[str, Any], data: TrainingSet) -> None:
    """Refuse a model that was made for other data; the message names both sides."""
    height, width, channels = data.dataset.image_shape
    problems = []
    if list(metadata["classes"]) != list(data.dataset.classes):
        problems.append(f"the model's classes are {metadata['classes']}, the data's {data.dataset.classes}")
    if metadata["input_channels"] > channels:
        problems.append(f"the model takes {metadata['input_channels']} channels, the data has {channels}")
    if metadata["image_size"] > min(height, width):
        size = metadata["image_size"]
        problems.append(f"the model takes images of {size}x{size} pixels, the data has {height}x{width}")
    if metadata["split_salt"] != data.dataset.salt:
        problems.append(
            f"the model's patients were split with salt {metadata['split_salt']!r}, the data's with "
            f"{data.dataset.salt!r}, so test patients may have trained it"
        )
    if problems:
        raise JobError("model and data do not belong together: " + "; ".join(problems))


def read_context(folder: Path) -> Context:
    """``context.json``, or nothing known."""
    path = folder / "context.json"
    if not path.is_file():
        return Context()
    try:
        values = parse_json(path.read_bytes(), None)
    except DocumentError as error:
        raise JobError(f"context.json is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise JobError("context.json must be an object")
    try:
        return Context.parse(values)
    except ConfigError as error:
        raise JobError(f"context.json: {error}") from error


def read_reference(folder: Path) -> pd.DataFrame | None:
    """Another model's predictions.parquet, or nothing."""
    path = folder / PREDICTIONS_NAME
    if not path.is_file():
        return None
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise JobError(f"reference/{PREDICTIONS_NAME} cannot be read: {type(error).__name__}") from error
