"""`penumo predict`: from a raw file to an answer, without a key, a Dagster instance or MLflow."""

import json
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from penumo_assets.cli.main import main
from penumo_assets.imaging.npz_writer import npz_bytes
from penumo_assets.phantoms import write_cohort
from penumo_assets.phantoms.cohort import PLANTED_BIRTH_DATE, PLANTED_NAME
from penumo_assets_tests.house import open_house
from penumo_assets_tests.jobs.training_samples import tensor
from penumo_assets_tests.registry import add_report, set_training_set


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One good DICOM and one good PNG of a phantom."""
    folder, found = tmp_path_factory.mktemp("films"), {}
    for kind, dicom in (("dcm", True), ("png", False)):
        write_cohort(folder / kind, "ward", patients=2, seed=5, dicom=dicom)
        found[kind] = next(p for p in sorted((folder / kind / "images").iterdir()) if "broken" not in p.name)
    return found


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory):
    """A storage root with a champion, and nothing else in the environment."""
    folder = tmp_path_factory.mktemp("root")
    with pytest.MonkeyPatch.context() as patch, open_house(folder) as house:
        set_training_set(house)
        add_report(house, "resnet34", threshold=0.4)
        house.materialize("champion_model")
        shutil.rmtree(folder / "root" / "mlflow")
        patch.delenv("PENUMO_DEID_KEY")
        yield folder / "root"


def predict(*arguments: str | Path):
    return CliRunner().invoke(main, ["predict", *map(str, arguments)])


def test_one_dicom_and_one_png_get_an_answer_and_the_notice(root: Path, films: dict[str, Path]) -> None:
    done = predict(films["dcm"], films["png"])
    assert done.exit_code == 0, done.output
    assert done.output.count("probability of pneumonia: ") == 2
    assert done.output.count("quality flags: ") == 2
    assert "called pneumonia from a probability of 0.400" in done.output
    assert "Not a medical device" in done.output
    assert "trained on PHANTOMS" in done.output


def test_nothing_that_identifies_is_shown(root: Path, films: dict[str, Path]) -> None:
    assert PLANTED_NAME.encode() in films["dcm"].read_bytes()
    output = predict(films["dcm"]).output + predict("--json", films["dcm"]).output
    assert not any(text in output for text in (*PLANTED_NAME.split("^"), PLANTED_BIRTH_DATE))


def test_json_is_one_object_per_file(root: Path, films: dict[str, Path]) -> None:
    lines = predict("--json", films["dcm"], films["png"]).output.splitlines()
    answers = [json.loads(line) for line in lines]
    assert [Path(answer["file"]) for answer in answers] == [films["dcm"], films["png"]]
    for answer in answers:
        assert sum(answer["probabilities"].values()) == pytest.approx(1)
        assert answer["model_version"] == "1"
        assert "Not a medical device" in answer["disclaimer"]


def test_a_tensor_is_answered_too(root: Path, tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(npz_bytes(tensor(1, True)))
    assert json.loads(predict("--json", tmp_path / "a.npz").output)["format"] == "npz"


def test_overlays_of_files_with_one_name_do_not_overwrite_each_other(
    root: Path, films: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    twin = Path(shutil.copy(films["png"], tmp_path / "other" / films["png"].name))
    done = predict(films["png"], twin, "--overlay", tmp_path / "overlays")
    assert done.exit_code == 0, done.output
    pictures = sorted((tmp_path / "overlays").iterdir())
    assert [path.name for path in pictures] == [f"{twin.name}.2.png", f"{twin.name}.png"]
    picture = cv2.imread(str(pictures[0]))
    assert picture.shape == (224, 448, 3)
    assert np.abs(picture[:, :224].astype(int) - picture[:, 224:]).max() > 0


def test_a_file_that_cannot_be_used_has_its_reason_and_the_others_their_answer(
    root: Path, films: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "text.dcm").write_text("not a film")
    os.mkfifo(tmp_path / "pipe.png")
    done = predict(tmp_path / "text.dcm", tmp_path / "gone.png", tmp_path / "pipe.png", films["png"])
    assert done.exit_code == 3
    assert "not_an_image: the file is neither PNG nor JPEG nor DICOM." in done.output
    assert "unreadable: No such file or directory" in done.output
    assert "not_a_file: it is no plain file" in done.output
    assert "probability of pneumonia" in done.output


@pytest.mark.trust
def test_an_overlay_that_cannot_be_written_leaves_its_file_the_answer_and_the_next_its_overlay(
    root: Path, films: dict[str, Path], tmp_path: Path
) -> None:
    long = Path(shutil.copy(films["png"], tmp_path / ("n" * 248 + ".png")))
    done = predict("--json", long, films["png"], "--overlay", tmp_path / "overlays")
    assert done.exit_code == 0, done.output
    first, second = map(json.loads, done.output.splitlines())
    assert first["probabilities"] == second["probabilities"]
    assert first["reason"] == "no overlay: File name too long"
    assert [path.name for path in (tmp_path / "overlays").iterdir()] == [f"{films['png'].name}.png"]
    assert "no overlay: File name too long" in predict(long, "--overlay", tmp_path / "overlays").output


def test_without_a_champion_it_says_what_to_do(
    tmp_path: Path, films: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENUMO_ROOT", str(tmp_path))
    done = predict(films["png"])
    assert done.exit_code == 1
    assert "there is no champion: materialize champion_model first" in done.output


def test_another_version_can_be_asked_and_an_unknown_one_is_refused(root: Path, films: dict[str, Path]) -> None:
    assert predict("--model", "1", films["png"]).exit_code == 0
    done = predict("--model", "previous", films["png"])
    assert done.exit_code == 1
    assert "there is no previous one" in done.output


def test_a_lost_archive_is_an_error_in_words(root: Path, films: dict[str, Path]) -> None:
    archive = root / "models" / "versions" / "1" / "model.tar.gz"
    archive.rename(archive.with_suffix(".away"))
    try:
        done = predict(films["png"])
    finally:
        archive.with_suffix(".away").rename(archive)
    assert done.exit_code == 1
    assert "version 1 cannot be used" in done.output
    assert str(root) not in done.output


def test_a_folder_stands_for_its_images(root: Path, films: dict[str, Path], tmp_path: Path) -> None:
    for name in ("b.png", "ward/a.png", ".hidden.png", "masks/b.png"):
        (tmp_path / "films" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "films" / name).write_bytes(films["png"].read_bytes())
    (tmp_path / "films" / "labels.csv").write_text("file,patient_id,label\n")
    done = predict("--json", tmp_path / "films", films["png"])
    assert done.exit_code == 0, done.output
    named = [Path(json.loads(line)["file"]) for line in done.output.splitlines()]
    assert named == [tmp_path / "films" / "b.png", tmp_path / "films" / "ward" / "a.png", films["png"]]


def test_no_file_is_a_usage_error_and_a_folder_without_images_is_refused(root: Path, tmp_path: Path) -> None:
    assert predict().exit_code == 2
    done = predict(tmp_path)
    assert done.exit_code == 1
    assert "no images there" in done.output
