"""Which parts the application runs on: files, subprocesses and SQLite by default, by environment otherwise."""

import os
from pathlib import Path
from typing import Any

import penumo_assets
from penumo_assets.resources.compute.local import LocalJobRunner
from penumo_assets.resources.storage import FileStore, Storage, open_store
from penumo_assets.resources.tracking import Tracking


def home() -> Path:
    """The checkout this package runs from, or the working directory where it is installed."""
    checkout = Path(penumo_assets.__file__).resolve().parent.parent
    return checkout if (checkout / "workspace.yaml").exists() else Path.cwd()


def storage_root() -> str:
    """``PENUMO_ROOT``: a folder, file:// or s3://; by default ``.penumo`` in the checkout."""
    return os.environ.get("PENUMO_ROOT") or str(home() / ".penumo")


def local_folder() -> Path:
    """Where things live that are files in any case: running jobs, embedded MLflow, the Dagster instance."""
    root = storage_root()
    return home() / ".penumo" if root.startswith("s3://") else _file_root(root)


def _file_root(root: str) -> Path:
    store = open_store(root)
    assert isinstance(store, FileStore)
    return store.root


def embedded_resources() -> dict[str, Any]:
    """Storage under ``PENUMO_ROOT``, jobs as subprocesses, MLflow on SQLite or ``MLFLOW_TRACKING_URI``."""
    local = local_folder()
    storage = Storage(root=storage_root())
    tracking_uri = os.environ.get("MLFLOW_TRACKING_URI")
    return {
        "storage": storage,
        "jobs": LocalJobRunner(storage=storage, scratch=str(local / "scratch")),
        "tracking": Tracking(
            tracking_uri=tracking_uri or f"sqlite:///{local / 'mlflow' / 'mlflow.db'}",
            artifact_root="" if tracking_uri else (local / "mlflow" / "artifacts").as_uri(),
            experiment=os.environ.get("MLFLOW_EXPERIMENT_NAME", "pneumonia"),
            ui_url=os.environ.get("PENUMO_MLFLOW_UI", ""),
        ),
    }
