"""The prepare job through its own `main`, in one process and in several; and what a changed cohort costs."""

import hashlib
import hmac
import json
import os
import subprocess
import sys
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from pydicom.uid import JPEGBaseline8Bit

from penumo_assets.cohort.landing import read_landing
from penumo_assets.cohort.plan import PlanSettings, PreparePlan, plan_cohort
from penumo_assets.cohort.publish import open_manifest, plan_publication, publish, read_manifest
from penumo_assets.cohort.training_items import pack_item
from penumo_assets.configs.prepare import DecodeConfig, EnhanceConfig, LabelsConfig, NpzConfig, PrepareConfig
from penumo_assets.configs.train import DatasetConfig
from penumo_assets.imaging.boxes import drawn
from penumo_assets.imaging.decode import encode_png, read_back
from penumo_assets.imaging.film import film_to_tensor
from penumo_assets.imaging.formats import png as png_format
from penumo_assets.imaging.pack import load_npz
from penumo_assets.imaging.segment import LungSegmenter
from penumo_assets.jobs.contract import JobError
from penumo_assets.jobs.manifest import STAGES, ManifestRow, stage_version
from penumo_assets.jobs.pack.__main__ import Item
from penumo_assets.jobs.pack.splits import assign_splits
from penumo_assets.jobs.prepare import __main__ as prepare
from penumo_assets.jobs.prepare.rows import merged
from penumo_assets.jobs.prepare.work import KEY_VARIABLE, dump_work
from penumo_assets.metrics.preparation import border_quantities
from penumo_assets.phantoms import draw_phantom
from penumo_assets.resources.compute.spec import JobResult
from penumo_assets.resources.storage.object_store import ObjectStore
from penumo_assets.resources.storage.root import Storage
from penumo_assets_tests.imaging.samples import dicom_bytes, jpeg_bytes, png_bytes

COHORT = "films"
LABELS = LabelsConfig(classes=[], file_names="keep")
SETTINGS = PlanSettings(PrepareConfig(), "weights", "key", STAGES)


@dataclass
class House:
    """A store in a folder, and the job run on what lies there."""

    root: Path
    monkeypatch: pytest.MonkeyPatch
    runs: int = 0

    @property
    def store(self) -> ObjectStore:
        return Storage(root=str(self.root)).store

    @property
    def landing(self) -> Path:
        return self.root / "landing" / COHORT

    def land(self, name: str, data: bytes) -> None:
        self.landing.mkdir(parents=True, exist_ok=True)
        (self.landing / name).write_bytes(data)

    def materialize(self, settings: PlanSettings = SETTINGS, *arguments: str) -> PreparePlan:
        """Plan, run the job's `main` in this process, publish; the plan."""
        self.runs += 1
        landing, base = read_landing(self.store, COHORT, LABELS, None), open_manifest(self.store, COHORT)
        plan = plan_cohort(landing, base.rows, settings)
        opt_ml = self.root / "jobs" / str(self.runs)
        inputs = opt_ml / "processing" / "input"
        (inputs / "work").mkdir(parents=True)
        (inputs / "landing").symlink_to(self.landing)
        for name in ("raw", "masks", "preprocessed"):
            (inputs / name).symlink_to(self.root / name)
        (inputs / "work" / "config.json").write_text(settings.config.model_dump_json())
        (inputs / "work" / "work.jsonl").write_bytes(dump_work(plan.items))
        self.monkeypatch.setenv("PENUMO_OPT_ML", str(opt_ml))
        prepare.main(list(arguments))
        outputs = opt_ml / "processing" / "output"
        rows = merged((path.name, path.read_bytes()) for path in (outputs / "rows").iterdir()).values()
        job = JobResult(str(self.runs), {}, f"jobs/{self.runs}/processing/output", {}, {})
        publish(self.store, base, plan_publication(landing, plan, settings, base, rows, job))
        return plan

    @property
    def rows(self) -> dict[str, ManifestRow]:
        return {row.source: row for row in read_manifest(self.store, COHORT)}

    @property
    def values(self) -> dict:
        result = self.root / "jobs" / str(self.runs) / "processing" / "output" / "rows" / "result.json"
        return json.loads(result.read_text())["values"]

    @property
    def contents(self) -> dict[str, tuple]:
        """What became of each file, without what its time of landing decides."""
        return {
            source: (row.status, row.code, row.patient_id, [output.sha256 for output in row.stages.values()])
            for source, row in self.rows.items()
        }

    def files(self, stage: str) -> dict[str, int]:
        """Name and time of writing of a stage's published files."""
        return {path.name: path.stat().st_mtime_ns for path in (self.root / stage / COHORT).rglob("*.*")}


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> House:
    monkeypatch.setenv(KEY_VARIABLE, "a key for phantoms only")
    return House(tmp_path, monkeypatch)


def png(seed: int, side: int = 64) -> bytes:
    film, _ = draw_phantom(seed, height=side, width=side)
    return cv2.imencode(".png", (film >> 4).astype(np.uint8))[1].tobytes()


def test_one_changed_image_among_a_thousand_costs_one_and_a_removed_one_disappears(house: House) -> None:
    pictures = [png(seed) for seed in range(5)]
    for number in range(1000):
        house.land(f"{number:04d}.png", pictures[number % 5])
    settings = replace(SETTINGS, stages=("raw",))
    assert len(house.materialize(settings).items) == 1000
    before = house.files("raw")
    assert len(before) == 1000

    house.land("0500.png", png(77))
    (house.landing / "0123.png").unlink()
    plan = house.materialize(settings)
    assert [item.row.source for item in plan.items] == ["0500.png"]
    assert (house.values["images"], plan.removed) == (1, ("0123.png",))
    after = house.files("raw")
    (gone,) = before.keys() - after.keys()
    assert gone.startswith("0123-")
    (written,) = [name for name in after if after[name] != before[name]]
    assert written.startswith("0500-")
    assert len(house.rows) == 999
    assert not house.materialize(settings).items


def test_several_processes_make_the_bytes_of_one(house: House, tmp_path: Path) -> None:
    twin = House(tmp_path / "twin", house.monkeypatch)
    for place in (house, twin):
        for seed in range(6):
            place.land(f"{seed}.png", png(seed, 96))
        place.land("film.dcm", dicom_bytes(draw_phantom(9, height=96, width=80)[0], BitsStored=12))
        place.land("text.png", b"not a picture")
    house.materialize(SETTINGS, "--workers", "1")
    twin.materialize(SETTINGS, "--workers", "2", "--batch-size", "2")
    assert house.contents == twin.contents
    assert house.rows["text.png"].code == "not_an_image"
    accepted = [row for row in house.rows.values() if row.status == "accepted"]
    assert len(accepted) >= 4, "phantoms this small are still segmented"
    for row in accepted:
        assert load_npz(house.store.read(row.stages["npz"].key)).shape == (224, 224, 4)


def test_stages_are_timed_and_counted(house: House) -> None:
    house.land("a.png", png(1, 96))
    house.materialize()
    assert house.values["images"] == 1
    assert set(house.values["stage_seconds"]) == {"raw", "segment", "masks", "preprocessed", "npz"}
    assert house.values["stage_seconds"]["raw"] > 0


def test_a_reduced_raw_image_leads_to_the_same_masks_geometry(house: House) -> None:
    film, _ = draw_phantom(3, height=1101, width=1030)
    house.land("a.png", cv2.imencode(".png", (film >> 4).astype(np.uint8))[1].tobytes())
    house.materialize()
    whole = house.rows["a.png"]
    settings = replace(SETTINGS, config=PrepareConfig(decode=DecodeConfig(reduce_to=512)))
    house.materialize(settings)
    reduced = house.rows["a.png"]
    assert (reduced.height, reduced.width) == (whole.height, whole.width) == (1101, 1030)
    assert read_back(house.store.read(reduced.stages["raw"].key)).shape == (551, 515)
    assert "reduced:2" in reduced.notes
    boxes = [row.stages["preprocessed"].facts["crop_box"] for row in (whole, reduced)]
    assert np.abs(np.subtract(*boxes)).max() <= 3, "in pixels of the letterbox"


def test_the_border_before_any_filter_is_noted_whatever_the_filters_make_of_it(house: House) -> None:
    film = (draw_phantom(3, height=300, width=330)[0] >> 4).astype(np.uint8)
    house.land("a.png", cv2.imencode(".png", film)[1].tobytes())
    off = {"enabled": False}
    noted, left = [], []
    for changes in ({"clahe": off, "gaussian_blur": off, "min_max": off}, {}):
        house.materialize(replace(SETTINGS, config=PrepareConfig(enhance=EnhanceConfig.parse(changes))))
        row = house.rows["a.png"]
        noted.append(row.facts_of("preprocessed")["film_border"])
        tensor = load_npz(house.store.read(row.stages["npz"].key))
        left.append(border_quantities(tensor[..., 0].astype(float), tensor[..., 3] > 0))
    assert noted[0] == noted[1]
    assert left[0] == pytest.approx(noted[0], abs=0.001)
    assert abs(left[1][0] - noted[1][0]) > 2


def test_a_readers_box_travels_from_the_table_to_its_place_in_the_tensor(house: House) -> None:
    """The box lies where the films of one patient, with and without opacities, differ."""
    films = {label: draw_phantom(5, height=420, width=340, label=label)[0] >> 4 for label in ("normal", "pneumonia")}
    rows, columns = np.nonzero(np.abs(np.subtract(*(films[label].astype(int) for label in films))) > 8)
    box = f"{columns.min()} {rows.min()} {np.ptp(columns) + 1} {np.ptp(rows) + 1}"
    lines = [f"{label}.png,{label},{label},{box if label == 'pneumonia' else ''}\n" for label in films]
    house.land("labels.csv", ("file,patient_id,label,boxes\n" + "".join(lines)).encode())
    for label, film in films.items():
        house.land(f"{label}.png", cv2.imencode(".png", film.astype(np.uint8))[1].tobytes())
    house.materialize()
    items = {label: Item.model_validate(pack_item(COHORT, house.rows[f"{label}.png"], {})) for label in films}
    pictures = {label: load_npz(house.store.read(f"npz/{item.file}"))[..., 0] for label, item in items.items()}
    inside = drawn(items["pneumonia"].boxes_in_tensor, 224) > 0
    changed = np.abs(pictures["pneumonia"].astype(int) - pictures["normal"])
    assert 0.02 < inside.mean() < 0.7
    assert changed[inside].mean() > 3 * changed[~inside].mean()
    assert items["normal"].boxes_in_tensor == []


def test_kept_pictures_lead_to_the_bytes_that_pictures_written_anew_lead_to(house: House, tmp_path: Path) -> None:
    """In one pass, and from what is stored."""
    film = (draw_phantom(9, height=160, width=140)[0] >> 4).astype(np.uint8)
    colour = np.dstack((film, film // 2, film))
    films = {
        "gray.jpg": jpeg_bytes(film, progressive=True),
        "colour.jpg": jpeg_bytes(colour),
        "gray.png": png_bytes(film),
        "colour.png": png_bytes(colour),
        "jpeg.dcm": dicom_bytes(film, JPEGBaseline8Bit),
        "window.dcm": dicom_bytes(film, JPEGBaseline8Bit, WindowCenter=90, WindowWidth=120),
    }
    names = NpzConfig(filename="{image_id}")
    keep = replace(SETTINGS, config=PrepareConfig(npz=names))
    anew = replace(SETTINGS, config=PrepareConfig(decode=DecodeConfig(raw_format="png"), npz=names))
    step, twin = House(tmp_path / "step", house.monkeypatch), House(tmp_path / "twin", house.monkeypatch)
    for place in (house, step, twin):
        for name, data in films.items():
            place.land(name, data)
    house.materialize(keep)
    for stage in STAGES:
        step.materialize(replace(keep, stages=(stage,)))
    twin.materialize(anew)
    ends = {name: row.stages["raw"].key.rsplit(".")[-1] for name, row in house.rows.items()}
    assert {name for name, end in ends.items() if end == "jpg"} == {"gray.jpg", "colour.jpg", "jpeg.dcm"}
    assert all(row.stages["raw"].key.endswith(".png") for row in twin.rows.values())
    assert step.contents == house.contents
    for name, row in twin.rows.items():
        kept = house.rows[name]
        assert row.status == kept.status == "accepted", (name, row.code)
        assert [row.stages[stage].sha256 for stage in STAGES[1:]] == [kept.stages[s].sha256 for s in STAGES[1:]]
        stored = [read_back(place.store.read(each.stages["raw"].key)) for place, each in ((house, kept), (twin, row))]
        assert np.array_equal(*stored)
    house.materialize(anew)
    assert house.files("raw").keys() == twin.files("raw").keys(), "what was kept is gone"


def test_the_same_pixels_in_other_bytes_are_no_news(house: House) -> None:
    """Encoders of 16 bits write other bytes on other processors."""
    film = dicom_bytes(draw_phantom(9, height=160, width=140)[0], BitsStored=12)
    house.land("film.dcm", film)
    house.materialize()
    before = house.rows["film.dcm"]
    house.land("film.dcm", film)
    os.utime(house.landing / "film.dcm", ns=(1, 1))
    house.monkeypatch.setattr(png_format.isal_zlib, "compress", lambda rows, level, near: zlib.compress(rows, 9))
    assert [item.compute for item in house.materialize().items] == [list(STAGES)]
    after = house.rows["film.dcm"]
    assert after.stages["raw"].fingerprint != before.stages["raw"].fingerprint
    for stage in STAGES:
        assert after.stages[stage].key == before.stages[stage].key
        assert after.stages[stage].sha256 == before.stages[stage].sha256
        assert stage_version([after], stage) == stage_version([before], stage)
    stored = house.store.read(after.stages["raw"].key)
    assert hashlib.sha256(stored).hexdigest() == after.stages["raw"].sha256
    house.land("film.dcm", dicom_bytes(draw_phantom(8, height=160, width=140)[0], BitsStored=12))
    house.materialize()
    assert stage_version([house.rows["film.dcm"]], "raw") != stage_version([before], "raw")


def test_the_digest_of_a_kept_picture_is_that_of_what_is_stored(house: House) -> None:
    picture = jpeg_bytes((draw_phantom(9, height=160, width=140)[0] >> 4).astype(np.uint8))
    house.land("plain.jpg", picture)
    house.land("told.jpg", picture[:2] + b"\xff\xfe\0\x06DOE^" + picture[2:])
    house.materialize()
    for row in house.rows.values():
        stored = house.store.read(row.stages["raw"].key)
        assert row.stages["raw"].sha256 == hashlib.sha256(stored).hexdigest()
        assert (row.source_sha256 == row.stages["raw"].sha256) == (row.source == "plain.jpg")


@pytest.mark.parametrize(
    ("module", "heavy"),
    [("__main__", {"numpy", "cv2", "pydicom", "torch"}), ("stages", {"torch"})],
    ids=["the process that hands out the work", "a worker without masks to make"],
)
def test_what_a_process_does_not_need_is_not_loaded(module: str, heavy: set[str]) -> None:
    code = f"import sys; import penumo_assets.jobs.prepare.{module}; print(*{heavy} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"


def test_a_dicom_file_without_a_key_ends_the_job_in_words(house: House) -> None:
    house.monkeypatch.delenv(KEY_VARIABLE)
    for number in range(3):
        house.land(f"{number}.dcm", dicom_bytes(draw_phantom(1, height=96, width=96)[0], BitsStored=12))
    with pytest.raises(JobError, match="PENUMO_DEID_KEY is not set"):
        house.materialize(SETTINGS, "--workers", "2", "--batch-size", "1")


def test_a_dicom_file_under_a_pictures_name_costs_itself_alone_where_there_is_no_key(house: House) -> None:
    house.monkeypatch.delenv(KEY_VARIABLE)
    film = draw_phantom(1, height=96, width=96)[0]
    house.land("a.png", dicom_bytes(film, BitsStored=12))
    house.land("b.png", encode_png(film))
    keyless = replace(SETTINGS, key_id="")
    house.materialize(keyless)
    assert (house.rows["a.png"].code, house.rows["b.png"].code) == ("dicom_without_key", None)
    assert house.materialize(keyless).items == ()
    house.monkeypatch.setenv(KEY_VARIABLE, "a key that somebody keeps")
    house.materialize(replace(SETTINGS, key_id="k"))
    assert house.rows["a.png"].status == "accepted"


def test_one_patient_has_one_key_of_the_split_in_every_format(house: House) -> None:
    film = draw_phantom(1, height=96, width=96)[0]
    house.land("a.dcm", dicom_bytes(film, BitsStored=12, PatientID="HOSP-0042"))
    house.land("b.png", encode_png(film))
    house.land("labels.csv", b"file,patient_id,label\nb.png,HOSP-0042,normal\n")
    house.materialize()
    dicom, picture = house.rows["a.dcm"], house.rows["b.png"]
    assert picture.patient_id == "HOSP-0042"
    assert dicom.split_key == picture.split_key == dicom.patient_id
    expected = hmac.new(b"a key for phantoms only", b"HOSP-0042", hashlib.sha256).hexdigest()[:16]
    assert picture.split_key == f"p-{expected}", "nobody without the key can test a guess"
    items = [pack_item(COHORT, row, {}) for row in (dicom, picture)]
    for salt in map(str, range(50)):
        splits, _ = assign_splits([Item(**item | {"label": "normal"}) for item in items], DatasetConfig(salt=salt))
        assert sorted(map(len, splits.values())) == [0, 0, 2]
    house.monkeypatch.delenv(KEY_VARIABLE)
    (house.landing / "a.dcm").unlink()
    house.materialize(replace(SETTINGS, key_id=""))
    assert house.rows["b.png"].split_key is None


def test_an_image_that_kills_its_process_becomes_a_rejected_row(house: House) -> None:
    house.land("a.png", png(1))
    plan = plan_cohort(read_landing(house.store, COHORT, LABELS, None), [], SETTINGS)
    row, _ = prepare._crashed(plan.items[0])
    assert (row.status, row.stage, row.code, row.attempted) == ("rejected", "raw", "unexpected_error", {})


@pytest.mark.parametrize("on_gray", [True, False])
def test_the_batch_and_a_single_film_make_the_same_tensor_bit_for_bit(house: House, on_gray: bool) -> None:
    # A narrow one, a colour one and a DICOM file go through the network together in the batch, each by itself after it.
    config = PrepareConfig.parse({"segment": {"seg_on_gray": on_gray}})
    film, _ = draw_phantom(3, height=300, width=260)
    gray = (film >> 4).astype(np.uint8)
    house.land("narrow.png", cv2.imencode(".png", gray)[1].tobytes())
    house.land("colour.png", cv2.imencode(".png", np.dstack([gray // 2 + 60, gray, gray]))[1].tobytes())
    house.land("film.dcm", dicom_bytes((draw_phantom(4, height=200, width=240)[0] >> 4).astype(np.uint16)))
    house.materialize(replace(SETTINGS, config=config))
    segmenter = LungSegmenter()
    for source, row in house.rows.items():
        single = film_to_tensor((house.landing / source).read_bytes(), config, segmenter)
        np.testing.assert_array_equal(single.tensor, load_npz(house.root / row.stages["npz"].key))
        assert row.stages["masks"].facts.get("fallback", "") == ", ".join(single.mask_problems)
    assert len(house.rows) == 3
