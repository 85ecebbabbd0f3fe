"""Why a run config was refused, in words that name what may be written instead."""

from collections.abc import Iterator, Sequence
from difflib import get_close_matches

from dagster import JobDefinition
from dagster._config.errors import EvaluationError, FieldNotDefinedErrorData, FieldsNotDefinedErrorData
from dagster._config.field_utils import Shape


def reasons(job: JobDefinition, errors: Sequence[EvaluationError]) -> list[str]:
    """A sentence for each error: unknown settings with the known ones beside them, all else as Dagster says it."""
    return [_reason(job, error) for error in errors]


def _reason(job: JobDefinition, error: EvaluationError) -> str:
    data, levels = error.error_data, error.stack.levels
    if isinstance(data, FieldNotDefinedErrorData):
        unknown: Sequence[str] = [data.field_name]
    elif isinstance(data, FieldsNotDefinedErrorData):
        unknown = data.field_names
    else:
        return error.message
    shape = _shape_at(job, levels)
    if shape is None:
        return error.message
    names = ", ".join(f'"{name}"' for name in unknown)
    place = ".".join(levels) or "the run config"
    meant = [match for name in unknown for match in _meant(name, shape)]
    hint = f" Did you mean {' or '.join(meant)}?" if meant else ""
    return f"{place} has no setting {names}.{hint} It has: {', '.join(sorted(shape.fields))}"


def _shape_at(job: JobDefinition, levels: Sequence[str]) -> Shape | None:
    found = job.run_config_schema.config_type
    for level in levels:
        if not isinstance(found, Shape) or level not in found.fields:
            return None
        found = found.fields[level].config_type
    return found if isinstance(found, Shape) else None


def _meant(name: str, shape: Shape) -> list[str]:
    """The settings below ``shape``, dotted, whose last part is like ``name``."""
    dotted = list(_settings(shape))
    last = {path.rpartition(".")[2] for path in dotted}
    close = get_close_matches(name, last, n=1)
    return [path for path in dotted if path.rpartition(".")[2] in close]


def _settings(shape: Shape, before: str = "") -> Iterator[str]:
    for name, field in shape.fields.items():
        yield before + name
        if isinstance(field.config_type, Shape):
            yield from _settings(field.config_type, f"{before}{name}.")
