"""`penumo launch` says what became of a run, and refuses in a sentence: no stack trace for what a user did."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from dagster import DagsterExecutionInterruptedError, DagsterInstance

from penumo_assets.cli.main import main
from penumo_assets.instance import dagster_home
from penumo_assets.phantoms import write_cohort
from penumo_assets.resources.compute.local.job import LocalJob

Penumo = Callable[..., Result]


@pytest.fixture
def penumo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Penumo:
    """The command line, on a root of its own and without a key."""
    monkeypatch.setenv("PENUMO_ROOT", str(tmp_path / "root"))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "dagster"))
    for name in ("PENUMO_DEID_KEY", "MLFLOW_TRACKING_URI", "PENUMO_LOG"):
        monkeypatch.delenv(name, raising=False)
    return lambda *arguments: CliRunner().invoke(main, arguments)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["raw_image"], "'raw_image' selects no assets. There are: champion_model, "),
        (["group:imaging", "--partition", "nowhere"], "there is no cohort 'nowhere' (cohorts: none; land it first"),
        (["predictions"], "name a cohort by --partition"),
        (["trained_model", "--partition", "resnet18"], "no architecture 'resnet18' (architectures: resnet34, resnet50"),
        (["training_set", "--partition", "ward-7"], "these assets have no partitions"),
        (["raw_images,trained_model"], "a launch each"),
        (["training_set", "--config-json", "{"], "the configuration cannot be read"),
        (["training_set", "--config-json", "[]"], "must be a mapping"),
        (["training_set", "--config-json", '{"ops": {"training_set": {"config": {"cohort": []}}}}'], '"cohort"'),
        (
            ["training_set", "--config-json", '{"ops": {"training_set": {"config": {"external": ["a"]}}}}'],
            'ops.training_set.config has no setting "external". Did you mean dataset.external? '
            "It has: cohorts, dataset, incremental",
        ),
        (["training_set", "--config-json", '{"op": {}}'], 'the run config has no setting "op". Did you mean ops?'),
        (
            [
                "trained_model",
                "--partition",
                "resnet34",
                "--config-json",
                '{"ops": {"trained_model": {"config": {"epochs": "many"}}}}',
            ],
            "Invalid scalar at path root:ops:trained_model:config:epochs",
        ),
    ],
)
def test_what_cannot_run_is_refused_in_a_sentence(penumo: Penumo, arguments: list[str], words: str) -> None:
    result = penumo("launch", *arguments)
    assert result.exit_code == 1
    assert "Error: " in result.output
    assert words in result.output
    assert "Traceback" not in result.output


@pytest.mark.slow
def test_a_launch_ends_in_counts_reasons_and_verdicts(penumo: Penumo, tmp_path: Path) -> None:
    write_cohort(tmp_path / "films", "ward-7", patients=3, seed=1, dicom=False)
    penumo("land", "ward-7", str(tmp_path / "films"))
    result = penumo("launch", "group:imaging", "--partition", "ward-7")
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert "raw_images [ward-7]: 5 images, 2 rejected, 7 computed, 0 removed" in lines
    assert "  truncated at stage raw: 1" in lines
    assert any(re.fullmatch(r"checks: [1-9]\d* passed, 1 did not:", line) for line in lines)
    assert [line.split(":")[0] for line in lines if "(warning)" in line] == ["  reject_rate on raw_images (warning)"]
    assert lines[-1] == "the run succeeded"
    assert "Traceback" not in result.output
    assert len(lines) < 40
    with DagsterInstance.from_config(str(tmp_path / "dagster")) as instance:
        (run,) = instance.get_runs()
        assert run.job_name == "prepare"
        assert run.remote_job_origin is not None


def test_a_run_that_is_interrupted_says_so(penumo: Penumo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cohort(tmp_path / "films", "ward-7", patients=1, seed=1, dicom=False)
    penumo("land", "ward-7", str(tmp_path / "films"))

    def interrupted(_: LocalJob) -> str:
        raise DagsterExecutionInterruptedError

    monkeypatch.setattr(LocalJob, "describe", interrupted)
    result = penumo("launch", "group:imaging", "--partition", "ward-7")
    assert result.exit_code == 1
    assert "failed: it was interrupted; launch it again to go on" in result.output
    assert "DagsterExecutionInterruptedError" not in result.output


@pytest.mark.slow
def test_a_run_that_fails_says_why_in_the_assets_words(penumo: Penumo, tmp_path: Path) -> None:
    write_cohort(tmp_path / "films", "ward-7", patients=2, seed=1, dicom=True, broken=False)
    penumo("land", "ward-7", str(tmp_path / "films"))
    result = penumo("launch", "group:imaging", "--partition", "ward-7")
    assert result.exit_code == 1
    assert "patient ids must be pseudonymised, but PENUMO_DEID_KEY is not set: set it to a secret" in result.output
    assert "Traceback" not in result.output
    assert result.output.splitlines()[-1] == "the run failed; its page in Dagster has the whole log"


@pytest.mark.parametrize(
    ("asset", "sentence"),
    [
        ("trained_model", "training_set has not been materialized: materialize it first"),
        ("hyperparameter_search", "training_set has not been materialized: materialize it first"),
        ("evaluation_report", "trained_model has not been materialized for resnet34: materialize it first"),
    ],
)
def test_a_step_whose_input_was_never_made_says_what_to_materialize(penumo: Penumo, asset: str, sentence: str) -> None:
    result = penumo("launch", asset, "--partition", "resnet34")
    assert result.exit_code == 1
    assert f"failed: {sentence}" in result.output
    assert "Traceback" not in result.output
    assert "Stack Trace" not in result.output


def test_a_run_of_dagsters_own_command_ends_in_the_same_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENUMO_ROOT", str(tmp_path))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "dagster"))
    dagster_home()
    command = [sys.executable, "-m", "dagster", "asset", "materialize", "-m", "penumo_assets.definitions"]
    result = subprocess.run([*command, "--select", "training_set"], capture_output=True, text=True)
    assert result.returncode == 1
    printed = result.stdout + result.stderr
    assert not re.search("Stack Trace|Traceback|BetaWarning", printed)
    assert (
        "\n\nfailed: no labelled tensors to train on. there is no cohort\nchecks: 0 passed, 0 did not\n"
        "the run failed; its page in Dagster has the whole log\n"
    ) in printed
