"""The commands about cohorts, on a folder and on a bucket."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner

from penumo_assets.cli.main import main
from penumo_assets.resources.storage.object_store import ObjectStore
from penumo_assets.resources.storage.root import open_store
from penumo_assets_tests.resources.s3_server import S3Server, lead_to, running_s3


@dataclass
class Desk:
    """Where somebody types commands: ``folder`` is theirs, ``store`` the application's."""

    folder: Path
    store: ObjectStore

    def penumo(self, *arguments: str, answer: str | None = None, fails: bool = False) -> str:
        """What a command says, questions answered with ``answer``; it must end with exit status 0, or with 1."""
        done = CliRunner().invoke(main, arguments, input=answer)
        assert done.exit_code == fails, done.output
        assert done.exception is None or isinstance(done.exception, SystemExit)
        return done.output

    def file(self, name: str, text: str) -> str:
        (self.folder / name).write_text(text, encoding="utf-8")
        return str(self.folder / name)

    def films(self, *names: str) -> str:
        """A folder of films to land, each its own name's bytes."""
        for name in names:
            path = self.folder / "films" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(name.encode())
        return str(self.folder / "films")

    def keys(self, prefix: str) -> list[str]:
        return [info.key for info in self.store.list_objects(prefix)]


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    with running_s3() as server:
        yield server


@pytest.fixture(params=["file", "s3"])
def desk(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    root = str(tmp_path / "root")
    if request.param == "s3":
        lead_to(request.getfixturevalue("s3_server"), monkeypatch, "films", "eu-central-1")
        root = "s3://films/below/here"
    monkeypatch.setenv("PENUMO_ROOT", root)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "dagster"))
    monkeypatch.delenv("PENUMO_PROFILE", raising=False)
    monkeypatch.delenv("PENUMO_DEID_KEY", raising=False)
    return Desk(tmp_path, open_store(root))
