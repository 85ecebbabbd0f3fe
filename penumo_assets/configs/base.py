"""What every configuration shares: defaults from its YAML file; unknown keys and impossible values refused by name."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from penumo_assets.configs.documents import MAX_CHARACTERS, DocumentError, parse_yaml

FOLDER = Path(__file__).parent
M = TypeVar("M", bound="StrictModel")


class ConfigError(ValueError):
    """A configuration that cannot be used; the message names each field and what it expected."""


class StrictModel(BaseModel):
    """A frozen model that refuses keys it does not know.

    What a key that is left out means stands in the YAML file that `defaults_from` names, and nowhere else.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    yaml_defaults: ClassVar[Mapping[str, Any]] = {}

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, values: Any) -> Any:
        return {**cls.yaml_defaults, **values} if isinstance(values, dict) else values

    @classmethod
    def defaults(cls) -> Self:
        """Every field at its default."""
        return cls.parse({})

    @classmethod
    def parse(cls, values: Any, called: str = "") -> Self:
        """Validate ``values`` (a mapping); ``called`` is how messages name them.

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
            raise ConfigError(f"{called or cls.__name__} is not valid: " + "; ".join(problems)) from error

    @classmethod
    def from_yaml(cls, path: Path) -> Self:
        """Read a YAML file (no tags, no aliases, every key once) and validate it.

        Raises
        ------
        ConfigError
            Naming the file and the line, or every offending field.
        """
        return cls.parse(read_yaml(path))

    @classmethod
    def from_bytes(cls, data: bytes, called: str) -> Self:
        """Validate what a YAML file holds; ``called`` is how messages name it.

        Raises
        ------
        ConfigError
            As `from_yaml`.
        """
        return cls.parse(_parse(data, called), called)


def defaults_from(name: str) -> Callable[[type[M]], type[M]]:
    """Class decorator: the model's defaults, and those of the models in it, are what the YAML file ``name`` says.

    The file stands in this folder and names every key; a user edits it.

    Raises
    ------
    ConfigError
        Naming the file and each key that is missing, unknown or impossible.
    """

    def take(model: type[M]) -> type[M]:
        try:
            _take_defaults(model, read_yaml(FOLDER / name))
            model.defaults()
        except ConfigError as error:
            raise ConfigError(f"{name}, which holds the defaults: {error}") from error
        return model

    return take


def _take_defaults(model: type[StrictModel], values: Any, path: str = "") -> None:
    if not isinstance(values, dict):
        raise ConfigError(f"{path.rstrip('.') or 'it'} holds no keys")
    if wrong := sorted(values.keys() ^ model.model_fields.keys(), key=str):
        raise ConfigError("; ".join(f"{path}{key} is {'unknown' if key in values else 'missing'}" for key in wrong))
    nested: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, StrictModel):
            _take_defaults(field.annotation, values[name], f"{path}{name}.")
            nested[name] = {}
    model.yaml_defaults = values | nested


def read_yaml(path: Path) -> Any:
    """What a YAML file (no tags, no aliases, every key once) holds.

    Raises
    ------
    ConfigError
        Naming the file and the line.
    """
    with path.open("rb") as file:
        return _parse(file.read(4 * MAX_CHARACTERS + 1), path.name)


def _parse(data: bytes, called: str) -> Any:
    try:
        return parse_yaml(data.decode("utf-8-sig")) or {}
    except (DocumentError, UnicodeDecodeError) as error:
        reason = error if isinstance(error, DocumentError) else "it is not UTF-8"
        raise ConfigError(f"{called} is not valid YAML: {reason}") from error


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
