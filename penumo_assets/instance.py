"""The Dagster instance that the embedded profile uses: ``DAGSTER_HOME``, by default below the storage root."""

import os
from pathlib import Path

from dagster import DagsterInstance

import penumo_assets.configs
from penumo_assets.jobs.contract import write_atomic
from penumo_assets.resources.profile import local_folder


def dagster_home() -> Path:
    """``DAGSTER_HOME``, or ``.penumo/dagster`` in the checkout, with its dagster.yaml in place."""
    folder = Path(os.environ.get("DAGSTER_HOME") or local_folder() / "dagster")
    settings = folder / "dagster.yaml"
    if not settings.exists():
        template = Path(penumo_assets.configs.__file__).parent / "dagster_embedded.yaml"
        write_atomic(settings, template.read_bytes())
    return folder


def open_instance() -> DagsterInstance:
    """The persistent instance, and DAGSTER_HOME set for what runs below this process."""
    os.environ["DAGSTER_HOME"] = str(dagster_home())
    return DagsterInstance.get()
