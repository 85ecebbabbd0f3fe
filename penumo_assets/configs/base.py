"""What every configuration shares: unknown keys and impossible values are refused by name."""

from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError


class ConfigError(ValueError):
    """A configuration that cannot be used; the message names each field and what it expected."""


class StrictModel(BaseModel):
    """A frozen model that refuses keys it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    def parse(cls, values: Any) -> Self:
        """Validate ``values`` (a mapping).

        Raises
        ------
        ConfigError
            Naming every offending field.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            problems = [
                f"{'.'.join(str(part) for part in item['loc']) or cls.__name__}: {item['msg']}"
                for item in error.errors(include_url=False, include_input=False)
            ]
            raise ConfigError(f"{cls.__name__} is not valid: " + "; ".join(problems)) from error

    @classmethod
    def from_yaml(cls, path: Path) -> Self:
        """Read a YAML file (safe loader: no tags, no objects) and validate it."""
        try:
            values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        except yaml.YAMLError as error:
            raise ConfigError(f"{path.name} is not valid YAML: {error}") from error
        return cls.parse(values)


def leaves(model: BaseModel, prefix: str = "") -> list[tuple[str, Any, str]]:
    """Every key of a configuration (``segment.threshold``) with its value and its description, in the model's order."""
    found: list[tuple[str, Any, str]] = []
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            found += leaves(value, f"{prefix}{name}.")
        else:
            found.append((f"{prefix}{name}", value, field.description or ""))
    return found
