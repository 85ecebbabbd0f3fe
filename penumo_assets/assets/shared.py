"""What several assets share: names, the launchpad, and how an asset runs a job."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from typing import Any, TypeVar

from dagster import AssetExecutionContext, Config, Failure
from pydantic import BaseModel, Field, create_model

from penumo_assets.assets.pages import text_block
from penumo_assets.cohort.errors import LandingError
from penumo_assets.configs.base import StrictModel
from penumo_assets.jobs.contract import JobError
from penumo_assets.resources.compute.runner import JobRunner
from penumo_assets.resources.compute.spec import JobFailed, JobResult, JobSpec

OWNERS = ["team:radiology-ml"]

INGEST = "ingest"
SEGMENTATION = "segmentation"
IMAGING = "imaging"
LEARNING = "learning"
SERVING = "serving"

# Pools limit how many jobs run side by side; the limits stand in dagster.yaml.
PROCESSING_POOL = "sagemaker_processing"
TRAINING_POOL = "sagemaker_training"

JOB_TAG = "penumo/job"

M = TypeVar("M", bound=StrictModel)


def launchpad_config(model: type[StrictModel]) -> type[Config]:
    """A Dagster config class with the fields of ``model`` and its defaults filled in.

    Bounds are not repeated: `parsed` checks the values with ``model`` itself, which names the field.
    Enumerations are offered as text, so that the launchpad shows the value and not a Python name.
    """
    defaults, fields = model.defaults(), dict[str, Any]()
    for name, info in model.model_fields.items():
        value = getattr(defaults, name)
        kind = info.annotation
        description = info.description or ""
        if isinstance(value, StrictModel):
            kind = launchpad_config(type(value))
            value = kind()
        elif isinstance(value, Enum):
            choices = ", ".join(str(item.value) for item in type(value))
            kind, value, description = str, value.value, f"{description} One of: {choices}."
        fields[name] = (kind, Field(value, description=description))
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


def run_job(context: AssetExecutionContext, runner: JobRunner, spec: JobSpec) -> JobResult:
    """Run ``spec``; the run is tagged with the job's name, so that runs can be found by it.

    Raises
    ------
    Failure
        If the program failed. Running it again on the same inputs would fail again, so it is not retried; what
        failed for lack of capacity or by a fault of the service may be.
    """
    with job_failures():
        result = runner.run(context, spec)
    context.instance.add_run_tags(context.run.run_id, {JOB_TAG: result.job_name})
    return result


def given(context: AssetExecutionContext, config: Config) -> dict[str, Any]:
    """The values that the launch itself set, those that it left to their defaults left out."""
    run_config: Mapping[str, Any] = context.run.run_config
    ops = run_config.get("ops") or {}
    named = ops.get(context.op_execution_context.op_handle.name) or {}
    return _named(config, named.get("config") or {})


def _named(config: BaseModel, names: Mapping[str, Any]) -> dict[str, Any]:
    values = {name: getattr(config, name) for name in names}
    return {
        name: _named(value, names[name] or {}) if isinstance(value, BaseModel) else value
        for name, value in values.items()
    }


@contextmanager
def refusals() -> Iterator[None]:
    """Turn what a cohort is refused for into a Failure that is not retried."""
    try:
        yield
    except (LandingError, JobError) as error:
        raise Failure(str(error), allow_retries=False) from error


@contextmanager
def job_failures() -> Iterator[None]:
    """Turn JobFailed into the Failure that `run_job` describes."""
    try:
        yield
    except JobFailed as failed:
        log = text_block(failed.log_tail)
        raise Failure(
            str(failed), metadata={"log_tail": log, **failed.metadata}, allow_retries=failed.transient
        ) from failed
