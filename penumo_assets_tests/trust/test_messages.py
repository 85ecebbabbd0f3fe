"""What is said when something breaks: enough to find the image, nothing that names its patient."""

import logging
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pydicom
import pytest

from penumo_assets.configs.prepare import DecodeConfig, PrepareConfig
from penumo_assets.imaging.decode import decode_image
from penumo_assets.jobs import contract
from penumo_assets.jobs.contract import JobError
from penumo_assets.jobs.manifest import ManifestRow
from penumo_assets.jobs.prepare import __main__ as prepare
from penumo_assets.jobs.prepare.image import Image, guarded
from penumo_assets.jobs.prepare.masks import _against_truth
from penumo_assets.jobs.prepare.work import WorkItem, dump_work
from penumo_assets.resources.storage.file_store import FileStore
from penumo_assets.resources.storage.object_store import StorageError
from penumo_assets_tests.aws.emulator import Emulator
from penumo_assets_tests.imaging.samples import dicom_bytes, phantom
from penumo_assets_tests.resources.bench import Bench, local_bench, sagemaker_bench

pytestmark = pytest.mark.trust

NAME = "DOE_JANE_1931-02-13"


def item(**changes: Any) -> WorkItem:
    row = ManifestRow(image_id="one", source="1f.png", source_etag="", source_bytes=1)
    return WorkItem(row=row, compute=["raw"], fingerprints={"raw": "f"}, landed=f"{NAME}.png", **changes)


def test_a_landed_file_that_cannot_be_read_is_told_by_its_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PENUMO_OPT_ML", str(tmp_path))
    work = tmp_path / "processing" / "input" / "work"
    work.mkdir(parents=True)
    (work / "config.json").write_text(PrepareConfig().model_dump_json())
    (work / "work.jsonl").write_bytes(dump_work([item()]))
    with pytest.raises(SystemExit):
        contract.run_program(prepare.main, ["--workers", "1"])
    reason = (tmp_path / "output" / "failure").read_text()
    assert reason == "stage raw of image one: No such file or directory"
    output = capfd.readouterr()
    assert "image one" in output.out
    assert NAME not in output.out + output.err


def test_an_unexpected_error_is_told_by_where_it_happened(caplog: pytest.LogCaptureFixture) -> None:
    def step(_: Image) -> None:
        raise ValueError(f"no such window: {NAME}")

    image = Image(item())
    with caplog.at_level(logging.INFO):
        guarded(image, "raw", step)
    assert image.item.row.code == "unexpected_error"
    assert "ValueError in stage raw of image one" in caplog.text
    assert "in step" in caplog.text
    assert NAME not in caplog.text + image.item.row.model_dump_json()


def test_a_ground_truth_mask_that_cannot_be_read_is_not_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PENUMO_OPT_ML", str(tmp_path))
    landed = tmp_path / "processing" / "input" / "landing" / "masks"
    landed.mkdir(parents=True)

    def compare(image: Image) -> None:
        _against_truth(image, np.zeros((64, 64), np.uint8))

    whole = cv2.imencode(".png", np.zeros((64, 64), np.uint8))[1].tobytes()
    for data in (b"", b"no picture", whole[: len(whole) // 2]):
        (landed / f"{NAME}.png").write_bytes(data)
        assert _against_truth(Image(item(truths=(f"masks/{NAME}.png",))), np.zeros((64, 64), np.uint8)) == {}
    (landed / f"{NAME}.png").unlink()
    with pytest.raises(JobError, match="stage raw of image one: No such file or directory"):
        guarded(Image(item(truths=(f"masks/{NAME}.png",))), "raw", compare)
    output = capfd.readouterr()
    assert "the ground-truth mask of image one is left out" in caplog.text
    assert NAME not in output.out + output.err + caplog.text


@pytest.mark.parametrize("ask", [lambda s, k: s.read(k), lambda s, k: s.copy(k, "x"), lambda s, k: s.read(f"{k}/../x")])
def test_the_store_tells_a_landed_object_by_its_cohort(tmp_path: Path, ask: Any) -> None:
    key = f"landing/ward-7/{NAME}.png"
    with pytest.raises(StorageError, match="landing/ward-7/…") as caught:
        ask(FileStore(tmp_path), key)
    assert NAME not in str(caught.value)
    assert caught.value.__cause__ is None
    with pytest.raises(StorageError, match=r"raw/ward-7/one\.png"):
        FileStore(tmp_path).read("raw/ward-7/one.png")


@pytest.mark.parametrize(
    ("elements", "notes"),
    [
        ({"RecognizableVisualFeatures": "YES"}, {"recognizable_visual_features"}),
        ({"Modality": "SC"}, {"secondary_capture"}),
        ({"SOPClassUID": pydicom.uid.SecondaryCaptureImageStorage}, {"secondary_capture"}),
        ({"SOPClassUID": pydicom.uid.SecondaryCaptureImageStorage, "BurnedInAnnotation": "NO"}, set()),
        ({"BurnedInAnnotation": "YES"}, set()),
    ],
)
def test_a_header_tells_whether_the_picture_may_show_a_name(elements: dict[str, str], notes: set[str]) -> None:
    image = decode_image(dicom_bytes(phantom(), BitsStored=12, **elements), DecodeConfig())
    assert {note for note in image.notes if "recognizable" in note or "capture" in note} == notes
    assert image.tags.burned_in is {"YES": True, "NO": False}.get(elements.get("BurnedInAnnotation", ""))


@pytest.fixture(params=["local", "sagemaker"])
def bench(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    if request.param == "local":
        return local_bench(tmp_path, monkeypatch)
    emulator: Emulator = request.getfixturevalue("emulator")
    return sagemaker_bench(emulator, tmp_path, monkeypatch)


@pytest.mark.parametrize("how", ["fail", "crash"])
def test_a_job_that_failed_leaves_nothing_of_landing_behind(bench: Bench, tmp_path: Path, how: str) -> None:
    bench.store.write(f"landing/c/{NAME}.txt", b"film;")
    spec = bench.spec(how)
    films = spec.inputs["films"]
    bench.marker.with_suffix(".gate").touch()
    with pytest.raises(Exception, match=r"upside down|killed|exit status|signal"):
        bench.run(how, inputs={"films": type(films)(films.prefix, (*films.names, f"{NAME}.txt"))})
    assert bench.starts() == 1
    assert not list((tmp_path / "scratch").rglob(f"{NAME}*"))
    assert not list(bench.store.list_objects("inputs"))


def test_a_key_too_short_for_a_secret_is_refused_without_being_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    from penumo_assets.jobs.prepare.work import KEY_VARIABLE, key_from_environment

    monkeypatch.setenv(KEY_VARIABLE, "12345")
    with pytest.raises(JobError, match="at least 16 bytes") as caught:
        key_from_environment()
    assert "12345" not in str(caught.value)
