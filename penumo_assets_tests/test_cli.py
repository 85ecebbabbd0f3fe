from pathlib import Path

import pytest
from click.testing import CliRunner
from dagster import AssetKey, DagsterInstance

from penumo_assets.cli.main import main
from penumo_assets.resources.storage.file_store import FileStore


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PENUMO_ROOT", str(tmp_path / "root"))
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    return tmp_path / "root"


def land(*arguments: str):
    return CliRunner().invoke(main, ["land", *arguments])


def test_landing_a_folder_copies_it_and_registers_the_cohort(root: Path, tmp_path: Path) -> None:
    source = tmp_path / "films"
    (source / "images").mkdir(parents=True)
    (source / "images" / "a b.png").write_bytes(b"x")
    (source / "labels.csv").write_text("file,patient_id,label\n")
    (source / ".hidden").write_text("x")
    (source / "link.png").symlink_to(source / "labels.csv")
    result = land("ward-7", str(source))
    assert result.exit_code == 0, result.output
    assert "Landed 2 files as cohort ward-7" in result.output
    keys = [info.key for info in FileStore(root).list_objects("landing")]
    assert keys == ["landing/ward-7/_COMPLETE", "landing/ward-7/images/a b.png", "landing/ward-7/labels.csv"]
    with DagsterInstance.from_config(str(root / "dagster")) as instance:
        assert instance.get_dynamic_partitions("cohort") == ["ward-7"]
        event = instance.get_latest_materialization_event(AssetKey("landing"))
        assert event is not None
        assert event.dagster_event is not None
        assert event.dagster_event.partition == "ward-7"


def test_landing_again_touches_only_what_changed(root: Path, tmp_path: Path) -> None:
    source = tmp_path / "films"
    source.mkdir()
    (source / "a.png").write_bytes(b"one")
    (source / "b.png").write_bytes(b"two")
    land("c", str(source))
    before = {info.key: info.etag for info in FileStore(root).list_objects("landing/c")}
    (source / "b.png").write_bytes(b"TWO")
    land("c", str(source))
    after = {info.key: info.etag for info in FileStore(root).list_objects("landing/c")}
    assert before["landing/c/a.png"] == after["landing/c/a.png"]
    assert before["landing/c/b.png"] != after["landing/c/b.png"]


@pytest.mark.parametrize("name", ["../x", "a b", "-rf", ".hidden", "ä", "x" * 200])
def test_a_name_that_cannot_be_a_cohort_is_refused(root: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    result = land("--", name, str(tmp_path))
    assert result.exit_code == 1
    assert "not a valid cohort name" in result.output
    assert not (root / "landing").exists()


def test_an_empty_folder_is_refused(root: Path, tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    result = land("c", str(tmp_path / "nothing"))
    assert result.exit_code == 1
    assert "holds no files" in result.output
