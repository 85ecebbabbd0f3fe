"""Dagster's and MLflow's own pages on this machine, with the settings of this environment."""

import os
import subprocess
import sys
from pathlib import Path

import click

from penumo_assets.instance import dagster_home
from penumo_assets.resources.profile import REPORTS_URL, home, profile_resources
from penumo_assets.resources.tracking import Tracking


def open_dagster(port: int) -> None:
    """Become `dg dev`. Run beside its instance, because `dg` would put `.env` of the checkout over this environment."""
    folder = dagster_home()
    os.environ["DAGSTER_HOME"] = str(folder)
    os.chdir(folder)
    click.echo(f"Dagster's UI: http://127.0.0.1:{port} (Ctrl-C ends it)")
    if os.environ.get("PENUMO_REPORTS_URL", REPORTS_URL) == REPORTS_URL:
        subprocess.Popen([sys.executable, "-m", "penumo_assets.cli.main", "reports", "--beside"])
    _become("dg", "dev", "--workspace", str(home() / "workspace.yaml"), "--port", str(port))


def open_mlflow(port: int) -> None:
    """Become `mlflow server` on the tracking database of this environment, or say where its server is."""
    tracking: Tracking = profile_resources()["tracking"]
    uri = tracking.address()
    if uri.startswith(("http://", "https://")):
        raise click.ClickException("MLFLOW_TRACKING_URI names a server: its pages are there")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    page = f"http://127.0.0.1:{port}/#/experiments/{tracking.experiment_id()}/runs?workflowType=machine_learning"
    click.echo(f"MLflow's UI: {page} (Ctrl-C ends it)")
    _become(
        "mlflow", "server", "--backend-store-uri", uri, "--host", "127.0.0.1", "--port", str(port), "--workers", "1"
    )


def _become(name: str, *arguments: str) -> None:
    program = str(Path(sys.executable).parent / name)
    os.execv(program, [program, *arguments])
