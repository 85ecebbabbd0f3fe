"""What every configuration shares: unknown keys and impossible values are refused by name."""

from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from penumo_assets.configs.documents import MAX_CHARACTERS, DocumentError, parse_yaml


class ConfigError(ValueError):
    """A configuration that cannot be used; the message names each field and what it expected."""


class StrictModel(BaseModel):
    """A frozen model that refuses keys it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

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
        """Read a YAML file (no tags, no aliases, every key once) and validate it.

        Raises
        ------
        ConfigError
            Naming the file and the line, or every offending field.
        """
        try:
            with path.open(encoding="utf-8") as file:
                values = parse_yaml(file.read(MAX_CHARACTERS + 1)) or {}
        except (DocumentError, UnicodeDecodeError) as error:
            reason = error if isinstance(error, DocumentError) else "it is not UTF-8"
            raise ConfigError(f"{path.name} is not valid YAML: {reason}") from error
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
