"""The YAML files are the defaults, and impossible values are refused by name."""

import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

from penumo_assets.configs.base import ConfigError, StrictModel
from penumo_assets.configs.inference import InferenceConfig
from penumo_assets.configs.train import PRESETS, DatasetConfig, TrainConfig, TrainingFile, hyperparameter_fields

FOLDER = Path(str(files("penumo_assets.configs")))


def test_train_config_yaml_explains_every_key():
    assert_written_out_in_full(TrainingFile, FOLDER / "train_config.yaml")


def test_inference_config_yaml_explains_every_key():
    assert_written_out_in_full(InferenceConfig, FOLDER / "inference_config.yaml")


def assert_written_out_in_full(model: type[StrictModel], path: Path) -> None:
    text = path.read_text()
    for name, field in model.model_fields.items():
        assert f"{name}:" in text
        assert f"# {field.description}" in text


def test_every_hyperparameter_has_a_description_and_a_name_of_its_own():
    fields = list(hyperparameter_fields())
    assert all(field.description for _, _, field in fields)
    assert len({name for name, _, _ in fields}) == len(fields)
    assert "augment-horizontal-flip" in {name for name, _, _ in fields}


@pytest.mark.parametrize("name", ["learning-rte", "augment", "augment-rotate"])
def test_an_unknown_hyperparameter_is_refused(name):
    with pytest.raises(ConfigError, match=name):
        TrainConfig.from_hyperparameters({name: "1"})


def test_a_preset_sets_what_is_left_out_and_nothing_else():
    quick, default = TrainConfig.parse({"preset": "quick"}), TrainConfig.defaults()
    changed = {name for name in TrainConfig.model_fields if getattr(quick, name) != getattr(default, name)}
    assert changed == {"preset", *PRESETS["quick"]}
    assert (quick.resolution, quick.epochs) < (default.resolution, default.epochs)
    own = TrainConfig.parse({"preset": "quick", "epochs": default.epochs})
    assert (own.epochs, own.resolution) == (default.epochs, quick.resolution)
    assert TrainConfig.from_hyperparameters(own.to_hyperparameters()) == own
    with pytest.raises(ConfigError, match=r"preset: .*must be none or one of the presets: quick"):
        TrainConfig.parse({"preset": "quicker"})


def test_what_is_set_in_a_group_leaves_the_presets_rest_of_it(monkeypatch):
    monkeypatch.setitem(PRESETS, "gentle", {"augment": {"rotation": 3.0, "scale": 0.05}})
    found = TrainConfig.from_hyperparameters({"preset": "gentle", "augment-scale": "0.2"}).augment
    assert (found.rotation, found.scale) == (3.0, 0.2)
    assert found.shift == TrainConfig.defaults().augment.shift


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"validation_fraction": 0.6, "test_fraction": 0.4}, "no patient trains"),
        ({"validation_fraction": 0.0}, "validation_fraction"),
        ({"salt": ""}, "salt"),
        ({"shard_images": 0}, "shard_images"),
    ],
)
def test_an_impossible_split_is_refused(values, reason):
    with pytest.raises(ConfigError, match=reason):
        DatasetConfig.parse(values)


def test_a_yaml_value_that_is_no_text_is_refused_for_precision():
    """YAML reads ``off`` as false; it must not become a precision silently."""
    with pytest.raises(ConfigError, match="amp"):
        TrainConfig.parse({"amp": False})


def test_model_versions_are_aliases_numbers_or_architectures():
    for version in ("champion", "previous", "12", "resnet50"):
        assert InferenceConfig.parse({"model_version": version}).model_version == version
    with pytest.raises(ConfigError, match="model_version"):
        InferenceConfig.parse({"model_version": "newest"})


def test_configurations_import_without_torch_or_images():
    code = "import sys, penumo_assets.configs.train, penumo_assets.configs.inference; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


@pytest.mark.parametrize(
    ("classes", "positive", "ordered"),
    [
        (["pneumonia", "normal"], "pneumonia", ["normal", "pneumonia"]),
        (["normal", "pneumonia"], "normal", ["pneumonia", "normal"]),
        (["virus", "normal", "bacterial"], "pneumonia", ["virus", "normal", "bacterial"]),
    ],
)
def test_classes_keep_their_order_and_of_two_the_positive_one_comes_last(classes, positive, ordered):
    assert DatasetConfig.parse({"classes": classes, "positive_class": positive}).ordered_classes == ordered


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"classes": ["normal"]}, "at least 2"),
        ({"classes": ["normal", "normal"]}, "one twice"),
        ({"classes": ["normal", "virus"]}, "positive_class must be one of the classes normal, virus"),
        ({"map": {"bacterial": "pneumnia"}}, "map leads to pneumnia"),
    ],
)
def test_impossible_classes_are_refused(values, reason):
    with pytest.raises(ConfigError, match=reason):
        DatasetConfig.parse(values)
