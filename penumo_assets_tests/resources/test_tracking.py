"""MLflow's database on the machine: made whole, or not there."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from penumo_assets.resources.storage.object_store import StorageError
from penumo_assets.resources.tracking import Tracking

pytestmark = pytest.mark.trust

OPEN = "import sys; from penumo_assets.resources.tracking import Tracking; Tracking(tracking_uri=sys.argv[1]).client()"


def few_bytes_to_a_file() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (256 * 1024, 256 * 1024))


def test_a_disk_that_fills_while_the_database_is_made_does_not_spoil_it_for_ever(tmp_path: Path) -> None:
    database = tmp_path / "mlflow" / "mlflow.db"
    uri = f"sqlite:///{database}"
    command = [sys.executable, "-c", OPEN, uri]
    failed = subprocess.run(command, preexec_fn=few_bytes_to_a_file, capture_output=True, text=True, check=False)
    assert failed.returncode != 0
    assert "disk" in failed.stderr
    assert list(database.parent.iterdir()) == []
    Tracking(tracking_uri=uri).client()
    assert MlflowClient(uri).get_experiment_by_name("pneumonia") is not None


def test_two_that_make_the_database_at_once_share_it(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    both = [subprocess.Popen([sys.executable, "-c", OPEN, uri]) for _ in range(2)]
    statuses = [process.wait() for process in both]
    assert 0 in statuses
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".tmp"] == []
    Tracking(tracking_uri=uri).client()
    assert len(MlflowClient(uri).search_experiments(filter_string="name = 'pneumonia'")) == 1


def test_a_folder_that_cannot_be_made_is_told_without_its_path(tmp_path: Path) -> None:
    (tmp_path / "mlflow").write_text("a file where a folder should be")
    with pytest.raises(StorageError, match="MLflow's database") as refusal:
        Tracking(tracking_uri=f"sqlite:///{tmp_path}/mlflow/mlflow.db").client()
    assert str(tmp_path) not in str(refusal.value)
