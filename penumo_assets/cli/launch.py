"""`penumo launch`: does what `dg launch` does, and prints counts, reasons and verdicts."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import yaml

from penumo_assets.cli.console import console_logger, shows_everything
from penumo_assets.cli.runs import Runs
from penumo_assets.cohort.errors import LandingError
from penumo_assets.cohort.retire import refuse_retired
from penumo_assets.definitions import build_definitions
from penumo_assets.instance import open_instance
from penumo_assets.partitions import architectures
from penumo_assets.resources.profile import root_store
from penumo_assets.resources.storage.object_store import StorageError


def launch(assets: str, partition: str | None, config: Path | None, config_json: str | None) -> bool:
    """Materialize a selection of assets in this process; whether the run succeeded.

    Raises
    ------
    click.ClickException
        If what was asked for is refused before anything runs.
    """
    run_config = read_config(config, config_json)
    if partition and partition not in architectures.get_partition_keys():
        try:
            refuse_retired(root_store(), partition)
        except (LandingError, StorageError) as error:
            raise click.ClickException(str(error)) from error
    with open_instance() as instance:
        runs = Runs(instance, build_definitions(loggers={"console": console_logger()}))
        if not shows_everything():
            run_config = {**run_config, "loggers": {"console": {}}}
        return runs.execute(runs.job_of(assets), partition, run_config).success


def read_config(file: Path | None, text: str | None) -> Mapping[str, Any]:
    """The run config in a YAML or JSON file, or in JSON on the command line; empty where neither is given."""
    if file is not None and text is not None:
        raise click.UsageError("give --config or --config-json, not both")
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8")) if file else json.loads(text or "{}")
    except (ValueError, yaml.YAMLError) as error:
        raise click.ClickException(f"the configuration cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise click.ClickException('the configuration must be a mapping: {"ops": {"ASSET": {"config": {...}}}}')
    return found
