"""The whole pipeline on phantoms: two cohorts land, are prepared, train, are evaluated, and are predicted.

All of it happens below ``demo/`` in the root, on a Dagster instance, a key and MLflow names of its own
(`penumo_assets.cli.environment.use_demo`).
"""

import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
from dagster import AssetCheckSeverity
from dagster._core.execution.execution_result import ExecutionResult

from penumo_assets.cli.console import shows_everything
from penumo_assets.cli.demo_summary import NOTICE, print_summary
from penumo_assets.cli.environment import shown
from penumo_assets.cli.runs import Runs, failures, why
from penumo_assets.cli.terminal import Measure, Story, output_to
from penumo_assets.cohort.land import land_folder
from penumo_assets.cohort.publish import read_manifest
from penumo_assets.definitions import build_definitions
from penumo_assets.instance import open_instance
from penumo_assets.partitions import architectures
from penumo_assets.phantoms import write_cohort
from penumo_assets.resources.storage.object_store import ObjectStore

COHORTS = {"phantom-dicom": True, "phantom-png": False}
"""The cohorts, and whether their images are DICOM."""
# What lands here next is prepared by itself. Models are trained when somebody asks, or who switches weekly_training on.
SWITCHED_ON = ("landing_listing", "cohorts_to_tensors")
# Drawn chests are more alike than people's: only equal pictures count as one picture.
ALIKE = {"training_set_duplicates": {"max_distance": 0}}
# For some 270 small pictures and a minute without a GPU: the defaults are for real films and many more steps.
TRAINING = {
    "resolution": 64,
    "batch_size": 16,
    "learning_rate": 0.003,
    "weight_decay": 0.01,
    "warmup_epochs": 1,
    "label_smoothing": 0.0,
    "ema_decay": 0.9,
    "augment": {"probability": 0.3},
}
# The floors are for phantoms and a minute of training: the defaults are for films. `beat_shortcuts` is not asked for:
# some 25 test images of a cohort cannot show that a model is better than a shortcut. The report has the comparison.
GATES = {
    "min_roc_auc_low": 0.6,
    "min_sensitivity": 0.5,
    "min_specificity": 0.5,
    "max_ece": 0.25,
    "min_subgroup_roc_auc": 0.5,
    "beat_shortcuts": False,
}
NO_GATES = dict.fromkeys(GATES) | {"beat_shortcuts": False}


@dataclass
class Demo:
    """A demo under way: where it tells its story, what it runs on, and the runs so far."""

    story: Story
    log: Path | None
    store: ObjectStore
    runs: Runs
    gates: Mapping[str, Any]
    results: list[tuple[str | None, ExecutionResult]] = field(default_factory=list)

    def run(self, job: str, partition: str | None = None, config: Mapping[str, Any] | None = None) -> ExecutionResult:
        """Execute a job and keep its result for the summary; a blocking check that did not pass is a result too.

        Raises
        ------
        click.ClickException
            If it failed, with what the failed step says.
        """
        ops = {op: {"config": values} for op, values in (config or {}).items()}
        result = self.runs.execute(self.runs.repository.get_job(job), partition, {"ops": ops})
        if not result.success and (found := failures(result)):
            raise click.ClickException(f"{job}: {why(found)}")
        self.results.append((partition, result))
        return result

    def logged(self, pattern: bytes) -> Measure | None:
        """The largest number that ``pattern`` finds in what is logged from now on."""
        log = self.log
        if log is None:
            return None
        start = log.stat().st_size

        def measure() -> int:
            with log.open("rb") as file:
                file.seek(start)
                return max(map(int, re.findall(pattern, file.read())), default=0)

        return measure


def run_demo(folder: Path, *, patients: int, epochs: int, gates: bool) -> None:
    """Land, prepare, train, evaluate, choose, predict; then print what came out.

    Without ``gates``, a model need not reach anything to become the champion.

    Raises
    ------
    click.ClickException
        If a step fails; the message names the log.
    """
    log = None if shows_everything() else folder / "demo.log"
    with _terminal(log) as story, open_instance() as instance:
        story.say(NOTICE)
        where = f" Log: {shown(log)}" if log else ""
        story.say(f"Everything lies in {shown(folder)}, apart from what is yours.{where}")
        definitions = build_definitions()
        store = (definitions.resources or {})["storage"].store
        demo = Demo(story, log, store, Runs(instance, definitions), GATES if gates else NO_GATES)
        try:
            _steps(demo, patients, epochs)
        except click.ClickException as error:
            raise click.ClickException(
                error.message + (f"\nThe log has the rest: {shown(log)}" if log else "")
            ) from error
        print_summary(story.say, store, demo.results)


def _steps(demo: Demo, patients: int, epochs: int) -> None:
    _land(demo, patients)
    with demo.story.step("choose the lung segmenter") as step:
        demo.run("choose_segmenter")
        step.note = "the weights that come with the package"
    for cohort in COHORTS:
        images = len(list(demo.store.list_objects(f"landing/{cohort}/images")))
        with demo.story.step(f"prepare {cohort}", images, demo.logged(rb"prepared (\d+) of")) as step:
            demo.run("prepare", cohort)
            rejected = sum(row.status == "rejected" for row in read_manifest(demo.store, cohort))
            step.note = f"{images - rejected} images, {rejected} files rejected"
    with demo.story.step("pack the training set") as step:
        result = demo.run("pack_training_set", None, {"training_set": {"cohorts": list(COHORTS)}, **ALIKE})
        step.note = f"{_value(result, 'training_set', 'dagster/row_count')} labelled images, split by patient"
    for architecture in architectures.get_partition_keys():
        with demo.story.step(f"train and evaluate {architecture}", epochs, demo.logged(rb" epoch=(\d+);")) as step:
            config = {"trained_model": TRAINING | {"epochs": epochs}, "evaluation_report": {"gates": demo.gates}}
            result = demo.run("train_and_evaluate", architecture, config)
            checks = [check for check in result.get_asset_check_evaluations() if not check.passed]
            failed = [check.check_name for check in checks if check.severity is AssetCheckSeverity.ERROR]
            step.note = f"test ROC-AUC {_value(result, 'evaluation_report', 'test_roc_auc')}"
            step.note += f"; it cannot become champion: {', '.join(failed)}" if failed else ""
    with demo.story.step("choose the champion") as step:
        result = demo.run("choose_champion")
        version = _value(result, "champion_model", "model_version")
        step.note = f"{_value(result, 'champion_model', 'architecture')}, version {version} in MLflow's registry"
    for cohort in COHORTS:
        with demo.story.step(f"predict {cohort}") as step:
            result = demo.run("predict", cohort)
            step.note = f"{_value(result, 'predictions', 'dagster/row_count')} images"
    for name in SWITCHED_ON:
        demo.runs.switch_on(name)


def _land(demo: Demo, patients: int) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        drawn = Path(scratch)

        def measure() -> int:
            return sum(1 for _ in drawn.glob("*/images/*"))

        expected = round(len(COHORTS) * 1.15 * patients)  # some patients have two films
        with demo.story.step(f"draw and land {len(COHORTS)} cohorts of phantoms", expected, measure) as step:
            for number, (cohort, dicom) in enumerate(COHORTS.items()):
                write_cohort(drawn / cohort, cohort, patients=patients, seed=number + 1, dicom=dicom)
                land_folder(demo.store, demo.runs.instance, cohort, drawn / cohort)
            step.note = f"{measure()} files of {patients} patients each"


def _value(result: ExecutionResult, asset: str, name: str) -> Any:
    """A value on an asset's page, as the run just wrote it."""
    for event in result.get_asset_materialization_events():
        materialization = event.step_materialization_data.materialization
        if materialization.asset_key.to_user_string() == asset:
            return materialization.metadata[name].value
    raise LookupError(f"the run did not materialize {asset}")


@contextmanager
def _terminal(log: Path | None) -> Iterator[Story]:
    steps = 4 + 2 * len(COHORTS) + len(architectures.get_partition_keys())
    if log is None:
        yield Story(sys.stdout, steps)
        return
    log.unlink(missing_ok=True)
    with output_to(log) as terminal:
        yield Story(terminal, steps)
