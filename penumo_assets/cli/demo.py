"""The whole pipeline on phantoms: two cohorts land, are prepared, train, are evaluated, and are predicted."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import click
from dagster import AssetSelection, DagsterInstance, ExecuteInProcessResult, materialize

from penumo_assets.assets.evaluation import existing_reports
from penumo_assets.checks import ASSET_CHECKS
from penumo_assets.cohort.land import land_folder
from penumo_assets.definitions import ASSETS
from penumo_assets.instance import open_instance
from penumo_assets.jobs.manifest import STAGE_ASSETS
from penumo_assets.phantoms import write_cohort
from penumo_assets.resources.profile import home, profile_resources
from penumo_assets.resources.storage.root import Storage

COHORTS = {"phantom-dicom": True, "phantom-png": False}
NOTICE = (
    "The demo runs on PHANTOMS: drawn pictures that look like chest X-rays. Its figures say that the pipeline works, "
    "and nothing about any patient or any real model. Not a medical device."
)
HEADLINE = ("test_roc_auc", "test_pr_auc", "test_accuracy", "test_recall", "test_specificity", "test_f1", "threshold")
# What lands here next is prepared by itself. Models are trained when somebody asks, or who switches weekly_training on.
SWITCHED_ON = ("landing_listing", "cohorts_to_tensors")
# For some 150 small pictures and a minute without a GPU: the defaults are for real films and many more steps.
TRAINING = {
    "resolution": 64,
    "batch_size": 16,
    "learning_rate": 0.003,
    "weight_decay": 0.01,
    "warmup_epochs": 1,
    "label_smoothing": 0.0,
    "ema_decay": 0.9,
}
OPEN_GATES = ("min_roc_auc_low", "min_sensitivity", "max_ece", "min_subgroup_roc_auc")


@dataclass(frozen=True)
class Line:
    """A line of the closing table."""

    asset: str
    partition: str
    images: int | None
    rejected: int | None
    seconds: float


def run_demo(*, patients: int, epochs: int) -> None:
    """Land, prepare, train, evaluate, choose, predict; then print what came out."""
    click.secho(NOTICE, bold=True)
    # The phantoms' patients do not exist; a real cohort needs a secret key that its owner keeps.
    os.environ.setdefault("PENUMO_DEID_KEY", "phantoms-have-no-secrets")
    resources = profile_resources()
    storage: Storage = resources["storage"]
    lines: list[Line] = []
    with open_instance() as instance:
        _land_phantoms(storage, instance, patients)
        run = _Runner(instance, resources, lines)
        for cohort in COHORTS:
            # Some patients have two films, so a tensor's name must say which.
            config = {"npz": {"filename": "{patient_id}_{image_id}"}}
            run.assets(STAGE_ASSETS, cohort, {"prepare_cohort": config})
        run.assets(["training_set"], None, {"training_set": {"cohorts": list(COHORTS)}})
        training = {"epochs": epochs, **TRAINING, "augment": {"probability": 0.3}}
        for architecture in ("resnet34", "resnet50"):
            run.assets(["trained_model"], architecture, {"trained_model": training})
            # Gates are for real films: a phantom model that trained for a minute need not pass them.
            gates = {"gates": dict.fromkeys(OPEN_GATES)}
            run.assets(["evaluation_report"], architecture, {"evaluation_report": gates})
        run.assets(["champion_model"], None, {})
        for cohort in COHORTS:
            run.assets(["predictions"], cohort, {})
        switch_on()
    _print_table(lines)
    _print_reports(storage)


def switch_on() -> None:
    """What the pages of these sensors do, by Dagster's own command, which finds the code location by workspace.yaml."""
    start = [sys.executable, "-m", "dagster", "sensor", "start", "--workspace", str(home() / "workspace.yaml")]
    for name in SWITCHED_ON:
        done = subprocess.run([*start, name], capture_output=True, text=True, check=False)
        if done.returncode:
            raise click.ClickException(f"the sensor {name} could not be switched on:\n{done.stderr[-2000:]}")
    click.echo(f"switched on for `make dev`: {', '.join(SWITCHED_ON)}")


def _land_phantoms(storage: Storage, instance: DagsterInstance, patients: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for number, (cohort, dicom) in enumerate(COHORTS.items()):
            write_cohort(Path(folder) / cohort, cohort, patients=patients, seed=number + 1, dicom=dicom)
            land_folder(storage.store, instance, cohort, Path(folder) / cohort)
            click.echo(f"landed cohort {cohort}: phantoms of {patients} patients")


class _Runner:
    """Materializes assets one after another on one instance, keeping a line of the table for each."""

    def __init__(self, instance: DagsterInstance, resources: Mapping[str, Any], lines: list[Line]) -> None:
        self.instance = instance
        self.resources = resources
        self.lines = lines

    def assets(self, names: Sequence[str], partition: str | None, config: Mapping[str, Any]) -> None:
        label = f"{names[0]} … {names[-1]}" if len(names) > 1 else names[0]
        click.echo(f"materializing {label}" + (f" [{partition}]" if partition else ""))
        started = time.monotonic()
        result = materialize(
            [*ASSETS, *ASSET_CHECKS],
            selection=AssetSelection.assets(*names),
            instance=self.instance,
            partition_key=partition,
            resources=dict(self.resources),
            run_config={"ops": {op: {"config": values} for op, values in config.items()}},
            raise_on_error=True,
        )
        self.lines += self._lines(result, partition, time.monotonic() - started)

    def _lines(self, result: ExecuteInProcessResult, partition: str | None, seconds: float) -> list[Line]:
        lines = []
        for event in result.get_asset_materialization_events():
            materialization = event.step_materialization_data.materialization
            values: dict[str, Any] = {name: item.value for name, item in materialization.metadata.items()}
            count = values.get("dagster/row_count", values.get("test_images"))
            spent = values.get("stage_seconds", seconds)
            name = materialization.asset_key.to_user_string()
            lines.append(Line(name, partition or "", count, values.get("rejected"), spent))
        return lines


def _print_table(lines: Sequence[Line]) -> None:
    click.echo(f"\n{'asset':<22}{'partition':<16}{'images':>8}{'rejected':>10}{'seconds':>9}")
    for line in lines:
        images = "" if line.images is None else str(line.images)
        rejected = "" if line.rejected is None else str(line.rejected)
        click.echo(f"{line.asset:<22}{line.partition:<16}{images:>8}{rejected:>10}{line.seconds:>9.1f}")


def _print_reports(storage: Storage) -> None:
    records = existing_reports(storage.store)
    click.echo(f"\n{'metric (phantoms)':<22}" + "".join(f"{name:>12}" for name in records))
    for metric in HEADLINE:
        values = [record["values"].get(metric) for record in records.values()]
        click.echo(f"{metric:<22}" + "".join(f"{'null' if v is None else f'{v:.3f}':>12}" for v in values))
    for record in records.values():
        uri = urlparse(storage.store.uri(f"{record['prefix']}/report.html"))
        click.echo(f"report: {unquote(uri.path) if uri.scheme == 'file' else uri.geturl()}")
    click.secho(NOTICE, bold=True)
