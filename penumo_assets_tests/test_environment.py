"""`penumo`, `dagster` and `dg` agree on their settings without exports, by one `.env`; the demo has settings apart."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from dagster._core.secrets.env_file import get_env_var_dict

from penumo_assets.cli import environment
from penumo_assets.cli.main import main

OURS = ("PENUMO_", "DAGSTER_", "MLFLOW_")


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout in a folder whose name a shell would take apart, which is not the working directory."""
    folder = tmp_path / "my checkout"
    folder.mkdir()
    (tmp_path / "elsewhere").mkdir()
    for name in [name for name in os.environ if name.startswith(OURS)]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(environment, "home", lambda: folder)
    monkeypatch.setattr("penumo_assets.resources.profile.home", lambda: folder)
    monkeypatch.chdir(tmp_path / "elsewhere")
    return folder


@pytest.fixture(autouse=True)
def restored(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test puts into the environment is gone after it."""
    monkeypatch.setattr(os, "environ", os.environ.copy())


def test_installing_writes_the_root_and_the_instance(checkout: Path) -> None:
    result = CliRunner().invoke(main, ["env", "--write"])
    assert result.exit_code == 0, result.output
    assert get_env_var_dict(str(checkout)) == {
        "PENUMO_ROOT": str(checkout / ".penumo"),
        "DAGSTER_HOME": str(checkout / ".penumo" / "dagster"),
    }
    assert (checkout / ".penumo" / "dagster" / "dagster.yaml").is_file()
    assert str(checkout / ".penumo" / "dagster") in result.output


def test_a_users_lines_stay_as_they_are(checkout: Path) -> None:
    mine = "# mine\nPENUMO_ROOT=/films\nPENUMO_DEID_KEY='a secret # of mine'"
    (checkout / ".env").write_text(mine)
    environment.complete_env_file()
    text = (checkout / ".env").read_text()
    assert text.startswith(mine + "\n")
    assert get_env_var_dict(str(checkout))["PENUMO_ROOT"] == "/films"
    assert "DAGSTER_HOME" in get_env_var_dict(str(checkout))
    environment.complete_env_file()
    assert (checkout / ".env").read_text() == text


def test_the_shell_goes_before_the_lines_that_installing_wrote(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment.complete_env_file()
    monkeypatch.setitem(os.environ, "PENUMO_ROOT", "/exported")
    environment.load_env_file()
    assert os.environ["PENUMO_ROOT"] == "/exported"
    assert os.environ["DAGSTER_HOME"] == str(checkout / ".penumo" / "dagster")


def test_the_file_of_the_working_directory_goes_before_the_checkouts(checkout: Path) -> None:
    (checkout / ".env").write_text("PENUMO_ROOT=/checkout\nDAGSTER_HOME=/checkout\n")
    Path(".env").write_text("PENUMO_ROOT=/here\n")
    environment.load_env_file()
    assert os.environ["PENUMO_ROOT"] == "/here"
    assert "DAGSTER_HOME" not in os.environ


def test_settings_are_shown_without_the_key(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "PENUMO_DEID_KEY", "sixteen secret characters")
    result = CliRunner().invoke(main, ["env"])
    assert result.exit_code == 0
    assert "secret" not in result.output
    assert "PENUMO_DEID_KEY  set" in result.output


def test_the_demo_shares_nothing_with_the_user(checkout: Path) -> None:
    os.environ |= {
        "PENUMO_DEID_KEY": "a secret of the user's",
        "MLFLOW_TRACKING_URI": "https://mlflow.example.org",
        "PENUMO_ALERT_WEBHOOK_URL": "https://hooks.example.org",
    }
    mine = environment.settings()
    folder = environment.use_demo()
    demos = environment.settings()
    assert folder == checkout / ".penumo" / "demo"
    for name in ("PENUMO_ROOT", "DAGSTER_HOME"):
        assert demos[name] != mine[name]
        assert Path(demos[name]).is_relative_to(folder)
    assert os.environ["PENUMO_DEID_KEY"] == environment.DEMO_KEY
    assert not {"MLFLOW_TRACKING_URI", "PENUMO_ALERT_WEBHOOK_URL"} & set(os.environ)


def test_on_a_bucket_the_demo_has_a_prefix_and_model_names_of_its_own(checkout: Path) -> None:
    os.environ |= {
        "PENUMO_PROFILE": "aws",
        "PENUMO_ROOT": "s3://films/penumo/",
        "MLFLOW_TRACKING_URI": "https://mlflow.example.org",
    }
    folder = environment.use_demo()
    assert os.environ["PENUMO_ROOT"] == "s3://films/penumo/demo"
    assert Path(os.environ["DAGSTER_HOME"]).is_relative_to(folder)
    assert os.environ["MLFLOW_TRACKING_URI"] == "https://mlflow.example.org"  # jobs can reach no other
    assert {os.environ["MLFLOW_EXPERIMENT_NAME"], os.environ["PENUMO_REGISTERED_MODEL"]} == {"pneumonia-demo"}


@pytest.mark.slow
def test_penumo_and_dagster_find_one_instance_without_exports(tmp_path: Path) -> None:
    home = tmp_path / "instance"
    home.mkdir()
    (tmp_path / ".env").write_text(f"DAGSTER_HOME={home}\nPENUMO_ROOT={tmp_path / 'root'}\n")
    bare = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    said = {}
    for program in (["penumo_assets.cli.main", "env"], ["dagster", "instance", "info"]):
        command = [sys.executable, "-m", *program]
        done = subprocess.run(command, cwd=tmp_path, env=bare, capture_output=True, text=True, check=True)
        said[program[0]] = done.stdout
    assert f"DAGSTER_HOME     {home}\n" in said["penumo_assets.cli.main"]
    assert f"$DAGSTER_HOME: {home}" in said["dagster"]
