"""What one odd file does to the commands that write a file per film or a line per name: it costs itself alone."""

import csv
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from penumo_assets.cli.main import main
from penumo_assets.cli.predict_files import FileAnswer, as_text
from penumo_assets.cli.segment_folder import segment_folder
from penumo_assets.cohort.landing import read_landing
from penumo_assets.cohort.plan import PlanSettings, plan_cohort
from penumo_assets.cohort.publish import ManifestHead, dump_manifest, manifest_key
from penumo_assets.configs.prepare import FileNames, LabelsConfig, PrepareConfig
from penumo_assets.jobs.manifest import STAGES
from penumo_assets.resources.storage.file_store import FileStore
from penumo_assets_tests.imaging.samples import phantom

pytestmark = pytest.mark.trust

KEY = "a key for phantoms only"
NAMES = {
    "\x1b]0;owned\x07\x1b[2Jgood.png\rok.png": "\\x1b]0;owned\\x07\\x1b[2Jgood.png\\rok.png",
    "two\tcolumns\nand lines.png": "two\\tcolumns\\nand lines.png",
    "\u202egnp.exe": "\\u202egnp.exe",
    os.fsdecode(b"M\xfcller.png"): "M\\udcfcller.png",
}
ANSWER = {
    "decision": "normal",
    "probabilities": {"normal": 0.9, "pneumonia": 0.1},
    "threshold": 0.5,
    "architecture": "resnet34",
    "model_version": "1",
    "format": "png",
    "view": None,
    "quality_flags": [],
}


def test_a_film_whose_pictures_cannot_be_written_costs_the_others_nothing(tmp_path: Path) -> None:
    films = tmp_path / "films"
    (films / "x.png").mkdir(parents=True)
    film = cv2.imencode(".png", phantom(bits=8).astype("uint8"))[1].tobytes()
    for name in ("good.png", "x", "x.png/y.png", "z.png"):
        (films / name).write_bytes(film)
    # Higher than a JPEG can be.
    noise = np.random.default_rng(0).integers(0, 255, (65_600, 32), np.uint8)
    cv2.imwrite(str(films / "tower.png"), noise)
    counts = segment_folder(films, tmp_path / "out")
    with (tmp_path / "out" / "segment.csv").open(encoding="utf-8", newline="") as file:
        status = {line["file"]: line["status"] for line in csv.DictReader(file)}
    unwritable = {name for name, code in status.items() if code == "unwritable"}
    assert set(status) == {"good.png", "x", "x.png/y.png", "z.png", "tower.png"}
    assert unwritable == {"x.png/y.png", "tower.png"}
    assert counts["unwritable"] == 2
    assert {"good.png.png", "x.png", "z.png.png"} <= {path.name for path in (tmp_path / "out" / "masks").iterdir()}


@pytest.mark.parametrize("file_names", FileNames)
def test_the_names_of_rejected_files_are_listed_as_text_and_none_ends_the_listing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file_names: FileNames
) -> None:
    monkeypatch.setenv("PENUMO_ROOT", str(tmp_path))
    monkeypatch.setenv("PENUMO_DEID_KEY", KEY)
    landing = tmp_path / "landing" / "ward"
    landing.mkdir(parents=True)
    for name in NAMES:
        (landing / name).write_bytes(b"film")
    (landing / "labels.csv").write_text("file,patient_id,label\nq\x1b[31m\u202e.png,P1,normal\n", encoding="utf-8")
    store, config = FileStore(tmp_path), PrepareConfig(labels=LabelsConfig(file_names=file_names))
    landed = read_landing(store, "ward", config.labels, KEY.encode())
    rows = plan_cohort(landed, [], PlanSettings(config, "weights", "key", STAGES)).rows
    head = ManifestHead(schema="penumo/manifest/1", settings=config.model_dump(mode="json"))
    store.write(manifest_key("ward"), dump_manifest(head, rows))
    done = CliRunner().invoke(main, ["rejected", "ward"])
    assert done.exit_code == 0, done.output
    lines = done.output.removesuffix("\n").split("\n")
    assert {line.split("\t")[0] for line in lines} == {*NAMES.values(), "q\\x1b[31m\\u202e.png"}
    assert all(line.count("\t") == 2 and line.replace("\t", "").isprintable() for line in lines)


@pytest.mark.parametrize("name", NAMES)
def test_an_answer_shows_a_files_name_as_text(name: str) -> None:
    for item in (
        FileAnswer(Path(name), None, f"unreadable: {name}"),
        FileAnswer(Path(name), ANSWER, overlay=Path("pictures") / name),
        FileAnswer(Path(name), ANSWER, "no overlay: File name too long"),
    ):
        text = as_text(item)
        assert text.replace("\n", "").isprintable()
        assert text.startswith(f"{NAMES[name]}: ")
        assert ("no overlay" in text) is ("no overlay" in item.reason)
        assert (f"overlay: pictures/{NAMES[name]}" in text) is (item.overlay is not None)
