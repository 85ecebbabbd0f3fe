"""`make demo` as a newcomer runs it, beside data of their own; with fewer phantoms and one epoch."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from dagster import DagsterInstance

from penumo_assets.automation import JOBS
from penumo_assets.cli.demo import NO_GATES, SWITCHED_ON
from penumo_assets.cli.main import main
from penumo_assets.cli.runs import Runs
from penumo_assets.configs.train import Architecture
from penumo_assets.definitions import build_definitions
from penumo_assets.instance import open_instance
from penumo_assets.jobs.manifest import STAGE_ASSETS
from penumo_assets_tests.browser.site import Site, start_command, wait
from penumo_assets_tests.house import House
from penumo_assets_tests.in_process import resources_in_process
from penumo_assets_tests.models.tiny import use_tiny_networks

pytestmark = pytest.mark.slow
MOST_LINES = 80
DEMO = ("demo", "--patients", "40", "--epochs", "1", "--no-gates")
FILMS = 16
FAKES = ("models/champion.json", "training_set/current.json", "models/resnet34/current.json")
DIVISION = {"dataset": {"split": "stratified", "test_fraction": 0.3}}
TRAINING = {"epochs": 1, "warmup_epochs": 0, "resolution": 32, "batch_size": 8, "num_workers": 0}
EVALUATION = {"bootstrap": 50, "gates": NO_GATES}


@dataclass
class Told:
    """What the demo printed, where it worked, and what the user had before and after; whether that was of films."""

    output: str
    root: Path
    environment: dict[str, str]
    before: dict[str, Any]
    after: dict[str, Any]
    films: bool


def users(root: Path) -> dict[str, Any]:
    """What a user has: partitions, switches and runs, and every file by its digest, the demo's folder left out."""
    with DagsterInstance.from_config(str(root / "dagster")) as instance:
        found: dict[str, Any] = {
            "partitions": instance.get_dynamic_partitions("cohort"),
            "switches": {state.name: state.status.value for state in instance.all_instigator_state()},
            "runs": sorted(run.run_id for run in instance.get_runs()),
        }
    files = [path for path in root.rglob("*") if path.is_file() and path.relative_to(root).parts[0] != "demo"]
    files += root.parent.glob("*.db")
    return found | {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def copy_films(folder: Path) -> bool:
    """Real films below ``folder``, half of them of each class; whether there are any."""
    data = os.environ.get("PENUMO_REAL_DATA")
    if not data:
        return False
    source = Path(data) / "pneumonia" / "kermany"
    rows = pd.read_csv(source / "labels.csv", dtype=str).groupby("label").head(FILMS // 2)
    for file in rows["file"]:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / file, folder / file)
    rows.to_csv(folder / "labels.csv", index=False)
    return True


def train_on_films(house: House, films: Path) -> None:
    """A champion of the user's, on a network of three thousand weights: what it is worth is not asked here."""
    house.land("ward-7", films)
    house.materialize(*STAGE_ASSETS, partition="ward-7")
    house.materialize("training_set", config={"training_set": DIVISION})
    house.materialize("trained_model", partition="resnet34", config={"trained_model": TRAINING})
    house.materialize("evaluation_report", partition="resnet34", config={"evaluation_report": EVALUATION})
    house.materialize("champion_model")
    house.materialize("predictions", partition="ward-7")


def pretend_to_have_trained(house: House, films: Path) -> None:
    films.mkdir()
    (films / "a.png").write_bytes(b"a film of the user's")
    house.land("ward-7", films)
    for name in FAKES:
        house.store.write_json(name, {"the user": "made this"})


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    """The demo, run where a user has landed a cohort, has a champion, and keeps an MLflow database."""
    folder = tmp_path_factory.mktemp("demo")
    root = folder / "root"
    ours = ("PENUMO_", "DAGSTER_", "MLFLOW_", "AWS_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    environment |= {"PENUMO_ROOT": str(root), "DAGSTER_HOME": str(root / "dagster")}
    environment |= {"PENUMO_DEID_KEY": "a secret of the user's", "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mine.db"}
    films = copy_films(folder / "films")
    with pytest.MonkeyPatch.context() as patch, chdir(folder):  # where MLflow puts a database's artifacts
        use_tiny_networks(patch.setattr)
        for name in [name for name in os.environ if name.startswith(ours)]:
            patch.delenv(name)
        for name, value in environment.items():
            patch.setenv(name, value)
        with open_instance() as instance:
            house = House(instance, resources_in_process(), folder)
            (train_on_films if films else pretend_to_have_trained)(house, folder / "films")
            Runs(instance, build_definitions()).switch_on("weekly_training")
    before = users(root)
    command = [sys.executable, "-m", "penumo_assets.cli.main", *DEMO]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
    assert done.stderr == ""
    return Told(done.stdout, root, environment, before, users(root), films)


def test_the_demo_goes_from_phantoms_to_predictions_and_says_what_it_made(told: Told) -> None:
    assert told.output.count("runs on PHANTOMS") == 2
    table = {tuple(line.split()[:2]) for line in told.output.splitlines()}
    made = [(asset, cohort) for asset in ("npz_tensors", "predictions") for cohort in ("phantom-dicom", "phantom-png")]
    made += [("trained_model", "resnet34"), ("trained_model", "resnet50"), ("evaluation_report", "resnet50")]
    assert table.issuperset(made)
    assert re.search(r"^ROC-AUC +0\.\d{3} \(0\.\d\d to [01]\.\d\d\) +0\.\d{3} ", told.output, re.MULTILINE)
    pages = [Path(path) for path in re.findall(r"^report: (.*)$", told.output, re.MULTILINE)]
    assert [page.parent.parent.name for page in pages] == ["resnet34", "resnet50"]
    assert re.search(
        r"^champion: version 1 \((resnet\d\d)\)\nchallenger: version 2 \((?!\1)resnet\d\d\): \w+ ROC-AUC 0\.\d{3}, ",
        told.output,
        re.MULTILINE,
    )
    for page in pages:
        assert page.read_text().startswith("<!DOCTYPE html>")
        assert json.loads(page.with_name("report.json").read_text())


def test_its_story_is_short_and_the_log_has_the_rest(told: Told) -> None:
    lines = told.output.splitlines()
    assert len(lines) <= MOST_LINES
    assert [line for line in lines if re.search(r" - (DEBUG|INFO) - |Warning:|Traceback", line)] == []
    assert [line[:5] for line in lines if re.match(r"[ \d]\d/\d+ ", line)] == [f"{n:>2}/10" for n in range(1, 11)]
    (log,) = re.findall(r"Log: (.*)$", told.output, re.MULTILINE)
    assert "prepare_cohort" in Path(log).read_text()


def test_whatever_is_not_green_has_its_reason(told: Told) -> None:
    (heading,) = re.findall(r"^checks: \d+ passed, (\d+) did not", told.output, re.MULTILINE)
    reasons = re.findall(r"^  (\w+) on (\w+)(?: of [\w-]+)?: .+", told.output, re.MULTILINE)
    assert len(reasons) == int(heading)
    rejected = re.findall(r"^  (phantom-\w+) [0-9a-f]{16}\.\w+  (\w+): .+", told.output, re.MULTILINE)
    assert sorted(rejected) == [
        (name, code) for name in ("phantom-dicom", "phantom-png") for code in ("not_an_image", "truncated")
    ]


def test_a_healthy_cohort_is_green(told: Told) -> None:
    for check in ("intensity_drift", "drift", "reject_rate", "mask_plausibility", "npz_contract", "duplicates"):
        assert f"  {check} on " not in told.output


def test_nothing_of_the_users_is_touched(told: Told) -> None:
    assert told.after == told.before
    assert (told.after["partitions"], told.after["switches"]) == (["ward-7"], {"weekly_training": "RUNNING"})


@pytest.mark.real
def test_that_was_a_champion_of_real_films_with_its_runs_and_its_database(told: Told) -> None:
    if not told.films:
        pytest.skip("PENUMO_REAL_DATA is not set")
    assert json.loads((told.root / "models/champion.json").read_text())["phantoms"] is False
    assert json.loads((told.root / "training_set/current.json").read_text())["cohorts"] == ["ward-7"]
    assert len(told.before["runs"]) == 6
    assert str(told.root.parent / "mine.db") in told.before


def test_the_next_commands_work_as_they_stand(told: Told) -> None:
    commands = re.findall(r"^  (\S*penumo --demo .*)$", told.output, re.MULTILINE)
    assert len(commands) == 3
    said = {}
    for command in commands[1:]:  # the first opens the UI: below
        done = subprocess.run(command, shell=True, env=told.environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        said[command.split()[2]] = done.stdout
    assert "probability of pneumonia" in said["predict"]
    assert "trained on PHANTOMS" in said["predict"]
    assert "broken_text.dcm" in said["rejected"]


def test_a_second_demo_runs_as_well_and_touches_nothing_either(
    told: Told, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Its jobs in this process, on networks of three thousand weights."""
    use_tiny_networks(monkeypatch.setattr, Architecture)
    for name in ("PENUMO_ROOT", "DAGSTER_HOME", "PENUMO_DEID_KEY", "MLFLOW_TRACKING_URI"):
        monkeypatch.setenv(name, told.environment[name])
    monkeypatch.setattr("penumo_assets.cli.demo.build_definitions", lambda: build_definitions(resources_in_process()))
    main(list(DEMO), standalone_mode=False)
    assert re.search(r"^champion: version \d", capfd.readouterr().out, re.MULTILINE)
    assert users(told.root) == told.before


@pytest.fixture(scope="module")
def site(told: Told) -> Iterator[Site]:
    """`make dev-demo`."""
    site = start_command(["--demo", "dev"], told.root / "demo", told.environment)
    yield site
    site.stop()


def test_the_demos_pages_show_its_runs_by_their_jobs_names(told: Told, site: Site) -> None:
    query = "{runsOrError{... on Runs{results{pipelineName status repositoryOrigin{repositoryLocationName}}}}}"
    runs = site.ask(query)["runsOrError"]["results"]
    assert {run["pipelineName"] for run in runs} >= {job.name for job in JOBS}
    assert {run["repositoryOrigin"]["repositoryLocationName"] for run in runs} == {"penumo_assets"}


def test_a_run_of_the_demo_can_be_launched_again_from_its_page(told: Told, site: Site) -> None:
    runs = site.ask("{runsOrError{... on Runs{results{runId pipelineName}}}}")["runsOrError"]["results"]
    parent, *_ = [run["runId"] for run in runs if run["pipelineName"] == "choose_segmenter"]
    mutation = """mutation($parent: String!) {
        launchRunReexecution(reexecutionParams: {parentRunId: $parent, strategy: ALL_STEPS}) {__typename
        ... on LaunchRunSuccess {run {runId}}
        ... on PythonError {message}}}"""
    answer = site.ask(mutation, parent=parent)["launchRunReexecution"]
    assert answer["__typename"] == "LaunchRunSuccess", answer

    def ended() -> str | None:
        status = {run["runId"]: run["status"] for run in site.runs()}[answer["run"]["runId"]]
        return status if status in {"SUCCESS", "FAILURE", "CANCELED"} else None

    assert wait(ended, "the run") == "SUCCESS"


def test_sensors_are_on_in_the_demos_instance(told: Told, site: Site) -> None:
    query = """{sensorsOrError(
        repositorySelector: {repositoryName: "__repository__", repositoryLocationName: "penumo_assets"}
    ) {... on Sensors {results {name sensorState {status}}}}}"""
    states = {item["name"]: item["sensorState"]["status"] for item in site.ask(query)["sensorsOrError"]["results"]}
    assert {name for name, status in states.items() if status == "RUNNING"} == set(SWITCHED_ON)
