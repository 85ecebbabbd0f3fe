from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from penumo_assets.configs.base import ConfigError
from penumo_assets.configs.prepare import PrepareConfig

PATH = Path(str(files("penumo_assets.configs") / "prepare_config.yaml"))


def test_the_shipped_file_explains_every_key_in_the_models_own_words() -> None:
    text = " ".join(PATH.read_text(encoding="utf-8").replace("#", " ").split())
    missing = [description for description in _descriptions(PrepareConfig) if description not in text]
    assert not missing


def test_an_unknown_key_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"enhance\.clahe\.cliplimit"):
        PrepareConfig.parse({"enhance": {"clahe": {"cliplimit": 2}}})


def _keys(values: Any, prefix: str = "") -> set[str]:
    if not isinstance(values, dict):
        return {prefix}
    return {key for name, value in values.items() for key in _keys(value, f"{prefix}.{name}")}


def _descriptions(model: type[BaseModel]) -> list[str]:
    found = []
    for field in model.model_fields.values():
        found.append(" ".join((field.description or "MISSING").split()))
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found += _descriptions(field.annotation)
    return found
