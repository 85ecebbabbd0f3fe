"""The embedded defaults: the three YAML files that ship with the package."""

from pathlib import Path

import yaml

import penumo_assets.configs
from penumo_assets.configs.inference import InferenceConfig
from penumo_assets.configs.prepare import PrepareConfig
from penumo_assets.configs.train import DatasetConfig, Gates, TrainConfig

_FOLDER = Path(penumo_assets.configs.__file__).parent
_TRAINING = yaml.safe_load((_FOLDER / "train_config.yaml").read_text(encoding="utf-8"))

PREPARE_DEFAULTS = PrepareConfig.from_yaml(_FOLDER / "prepare_config.yaml")
DATASET_DEFAULTS = DatasetConfig.parse(_TRAINING["dataset"])
TRAIN_DEFAULTS = TrainConfig.parse(_TRAINING["train"])
GATE_DEFAULTS = Gates.parse(_TRAINING["gates"])
INFERENCE_DEFAULTS = InferenceConfig.from_yaml(_FOLDER / "inference_config.yaml")
