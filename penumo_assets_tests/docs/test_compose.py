"""docs/compose: one machine without AWS. The file is whole, its instance opens, and its commands are taken."""

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from dagster import DagsterInstance
from dagster._cli import cli as dagster_cli

import penumo_assets
from penumo_assets_tests.docs.commands import CHECKOUT, parse
from penumo_assets_tests.docs.postgres import binaries, running_postgres

FOLDER = CHECKOUT / "docs" / "compose"
POSTGRES = binaries()


@pytest.fixture(scope="module")
def services() -> dict[str, dict]:
    return yaml.safe_load((FOLDER / "compose.yaml").read_text())["services"]


def test_every_command_is_one_that_its_program_takes(services: dict[str, dict]) -> None:
    from mlflow.cli import cli as mlflow_cli

    commands = {name: shlex.split(item["command"]) for name, item in services.items() if "command" in item}
    parse(dagster_cli, commands["code"][1:])
    parse(mlflow_cli, commands["mlflow"][1:])
    assert commands["daemon"][0] == "dagster-daemon"
    assert set(commands) == {"data", "mlflow", "code", "daemon"}


def test_pages_are_open_to_this_machine_only(services: dict[str, dict]) -> None:
    ports = [port for item in services.values() for port in item.get("ports", [])]
    assert len(ports) == 2
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_only_the_code_server_has_the_key_and_the_films(services: dict[str, dict]) -> None:
    with_key = {name for name, item in services.items() if item.get("environment", {}).get("PENUMO_DEID_KEY")}
    assert with_key == {"code"}
    with_films = {name for name, item in services.items() if any("/films" in at for at in item.get("volumes", []))}
    assert with_films == {"code"}


def test_files_that_are_mounted_or_built_from_exist(services: dict[str, dict]) -> None:
    mounts = {mount.split(":")[0] for item in services.values() for mount in item.get("volumes", [])}
    for name in (name for name in mounts if name.startswith("./")):
        assert (FOLDER / name).is_file(), name
    build = services["data"]["build"]
    assert (FOLDER / build["context"] / build["dockerfile"]).is_file()


def test_limits_and_retries_are_those_of_a_single_machine() -> None:
    own = yaml.safe_load((FOLDER / "dagster.yaml").read_text())
    embedded = (Path(penumo_assets.__file__).parent / "configs" / "dagster_embedded.yaml").read_text()
    for name in ("storage", "local_artifact_storage", "compute_logs"):
        del own[name]
    assert own == yaml.safe_load(embedded)


@pytest.mark.skipif(POSTGRES is None, reason="no PostgreSQL server is installed: initdb was not found")
def test_its_instance_opens_on_a_postgres_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (FOLDER / "dagster.yaml").read_text()
    (tmp_path / "dagster.yaml").write_text(text.replace("/data/dagster", str(tmp_path / "data")))
    with running_postgres(POSTGRES) as url:
        monkeypatch.setenv("PENUMO_POSTGRES_URL", url)
        with DagsterInstance.from_config(str(tmp_path)) as instance:
            instance.add_dynamic_partitions("cohort", ["ward-7"])
            assert "postgres" in type(instance.run_storage).__module__
        with DagsterInstance.from_config(str(tmp_path)) as again:
            assert again.get_dynamic_partitions("cohort") == ["ward-7"]


@pytest.mark.skipif(shutil.which("docker-compose") is None, reason="Docker Compose is not installed")
def test_compose_itself_takes_the_file() -> None:
    environment = {"PATH": "/usr/bin:/bin:/usr/local/bin", "PENUMO_POSTGRES_PASSWORD": "x"}
    command = ["docker-compose", "-f", str(FOLDER / "compose.yaml"), "config", "--quiet"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
