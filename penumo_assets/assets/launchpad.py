"""Show the typed configurations in Dagster's launchpad: same fields, descriptions and defaults, one definition."""

from enum import Enum
from typing import Any, TypeVar

from dagster import Config
from pydantic import BaseModel, Field, create_model
from pydantic_core import PydanticUndefined

from penumo_assets.configs.base import StrictModel

M = TypeVar("M", bound=StrictModel)


def launchpad_config(model: type[StrictModel], defaults: StrictModel) -> type[Config]:
    """A Dagster config class with the fields of ``model`` and ``defaults`` filled in.

    Bounds are not repeated: `parsed` checks the values with ``model`` itself, which names the field.
    Enumerations are offered as text, so that the launchpad shows the value and not a Python name.
    """
    fields: dict[str, Any] = {}
    for name, info in model.model_fields.items():
        value = getattr(defaults, name)
        kind = info.annotation
        description = info.description or ""
        if isinstance(value, StrictModel):
            kind = launchpad_config(type(value), value)
            value = kind()
        elif isinstance(value, Enum):
            choices = ", ".join(str(item.value) for item in type(value))
            kind, value, description = str, value.value, f"{description} One of: {choices}."
        default = value if value is not PydanticUndefined else ...
        fields[name] = (kind, Field(default, description=description))
    return create_model(model.__name__, __base__=Config, __doc__=model.__doc__, **fields)


def parsed(model: type[M], config: Config) -> M:
    """The validated configuration; fields that ``config`` has beside those of ``model`` are left out.

    Raises
    ------
    ConfigError
        Naming each field that is impossible.
    """
    return model.parse({name: value for name, value in _plain(config).items() if name in model.model_fields})


def _plain(config: BaseModel) -> dict[str, Any]:
    values = {name: getattr(config, name) for name in type(config).model_fields}
    return {name: _plain(value) if isinstance(value, BaseModel) else value for name, value in values.items()}
