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


def test_what_has_landed_is_counted(root: Path, tmp_path: Path) -> None:
    source = tmp_path / "films"
    for name in ("a.png", "b.png", "c.png", "masks/a.png"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(b"x")
    labels = source / "labels.csv"
    labels.write_text("file,patient_id,label\na.png,P1,normal\nb.png,unknown,pneumonia\ngone.png,P3,normal\n")
    output = land("c", str(source)).output
    expected = ("3 films, 1 patients, 1 masks", "  normal: 1", "  pneumonia: 1", "  without a label: 1")
    expected += ("  without a patient id in labels.csv: 2", "  rows of labels.csv whose file is not there: 1")
    for line in expected:
        assert line in output.splitlines()
    labels.unlink()
    assert "predicted, not trained on" in land("d", str(source)).output


@pytest.mark.parametrize(
    ("name", "table", "why"),
    [
        ("labels.csv", b"name,label\na.png,normal\n", "lacks the column"),
        ("labels.csv", b"file,patient_id,label\nM\xfcller.png,P1,normal\n", "not a UTF-8 CSV table"),
        ("labels.csv", b"file,patient_id,label\nimages/a.png,P1,normal\n", "names none of the films"),
        ("labels.xlsx", b"PK", "save it as labels.csv"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_before_anything_is_copied(
    root: Path, tmp_path: Path, name: str, table: bytes, why: str
) -> None:
    source = tmp_path / "films"
    source.mkdir()
    (source / "a.png").write_bytes(b"x")
    (source / name).write_bytes(table)
    result = land("c", str(source))
    assert result.exit_code == 1
    assert why in result.output
    assert not (root / "landing").exists()


def test_a_corrected_table_lands_by_itself(root: Path, tmp_path: Path) -> None:
    for folder in ("films", "table"):
        (tmp_path / folder).mkdir()
    (tmp_path / "films" / "a.png").write_bytes(b"x")
    (tmp_path / "table" / "labels.csv").write_text("file,patient_id,label\na.png,P1,normal\n")
    land("c", str(tmp_path / "films"))
    assert "1 films, 1 patients" in land("c", str(tmp_path / "table")).output
