"""What names a patient goes no further than landing: not its header, its comments, its file's name, nor labels.csv.

A cohort with a planted word in every place that can hold one goes through the whole graph, its rejects and failures
included. Then every byte that was written anywhere but in landing is searched.
"""

import io
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner
from dagster import AssetKey, DagsterInstance

from penumo_assets.cli.main import main
from penumo_assets.cohort.landing import read_landing
from penumo_assets.cohort.publish import read_manifest
from penumo_assets.configs.prepare import LabelsConfig
from penumo_assets.resources.profile import embedded_resources
from penumo_assets.resources.storage.file_store import FileStore
from penumo_assets_tests.house import House
from penumo_assets_tests.test_pipeline import LENIENT, STAGES, TRAINING
from penumo_assets_tests.trust.planting import DIGITS, Planter, write_planted_cohort
from penumo_assets_tests.trust.search import search, word

pytestmark = [pytest.mark.trust, pytest.mark.slow]

KEY = "a key for phantoms only"
PREPARE = {
    "prepare_cohort": {"npz": {"filename": "{image_id}"}},
    "raw_images_patient_identity": {"max_rate": 1.0},  # header and labels.csv hold different words, to tell them apart
}
DATASET = {"training_set": {"dataset": {"test_fraction": 0.3}}}
OVERLAYS = {"predictions": {"overlay": True, "overlay_limit": 4}}


@dataclass
class Ward:
    """A house that a planted cohort went through: ``house`` writes below ``written``, and reads ``films``."""

    house: House
    films: Path
    written: Path
    planted: Planter

    @property
    def names(self) -> dict[str, str]:
        """What landed, by its source: the name that it landed under."""
        landing = read_landing(self.house.store, "ward", LabelsConfig(), KEY.encode())
        return {file.source: file.landed_name for file in landing.files}


@contextmanager
def output_in(folder: Path) -> Iterator[None]:
    """What this process and its children write to stdout and stderr, in two files."""
    folder.mkdir()
    kept = {number: os.dup(number) for number in (1, 2)}
    sys.stdout.flush()
    sys.stderr.flush()
    for number in kept:
        target = os.open(folder / f"output-{number}.txt", os.O_WRONLY | os.O_CREAT)
        os.dup2(target, number)
        os.close(target)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, handle in kept.items():
            os.dup2(handle, number)
            os.close(handle)


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ward]:
    folder, planted = tmp_path_factory.mktemp("trust"), Planter()
    films, written = folder / "films", folder / "written"
    write_planted_cohort(films, planted, patients=16)
    home = written / "dagster"
    home.mkdir(parents=True)
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    with pytest.MonkeyPatch.context() as patch, DagsterInstance.from_config(str(home)) as instance:
        patch.setenv("PENUMO_ROOT", str(written / "root"))
        patch.setenv("PENUMO_DEID_KEY", KEY)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        ward = Ward(House(instance, embedded_resources(), written), films, written, planted)
        with output_in(written / "terminal"):
            through_the_graph(ward)
            into_failures(ward)
            past_the_graph(ward)
        yield ward


def through_the_graph(ward: Ward) -> None:
    house = ward.house
    house.land("ward", ward.films)
    name = f"\\{ward.planted('name of a file: unsafe_name')}.png"
    (ward.written / "root" / "landing" / "ward" / name).write_bytes(b"a name that another system allowed")
    house.materialize(*STAGES, partition="ward", config=PREPARE)
    house.materialize("training_set", config=DATASET)
    house.materialize("trained_model", partition="resnet34", config=TRAINING)
    house.materialize("evaluation_report", partition="resnet34", config=LENIENT)
    house.materialize("champion_model")
    house.materialize("predictions", partition="ward", config=OVERLAYS)


def into_failures(ward: Ward) -> None:
    """A job that fails while it reads what landed, and one whose input is gone when it is laid out."""
    few = ward.films.parent / "few"
    for film in sorted(ward.films.rglob("*/*.dcm"))[:3]:
        target = few / film.relative_to(ward.films)
        target.parent.mkdir(parents=True)
        shutil.copyfile(film, target)
    shutil.copyfile(ward.films / "labels.csv", few / "labels.csv")
    with pytest.MonkeyPatch.context() as without:
        without.delenv("PENUMO_DEID_KEY")
        ward.house.land("keyless", few)
        ward.house.materialize(*STAGES, partition="keyless", config=PREPARE, fails=True)
    ward.house.land("gone", few)
    download = FileStore.download

    def vanishes(store: FileStore, key: str, target: Path) -> None:
        if key.startswith("landing/gone/"):
            store.path(key).unlink()
        download(store, key, target)

    with pytest.MonkeyPatch.context() as meanwhile:
        meanwhile.setattr(FileStore, "download", vanishes)
        ward.house.materialize(*STAGES, partition="gone", config=PREPARE, fails=True)


def past_the_graph(ward: Ward) -> None:
    """`penumo predict` and `penumo segment`, on files whose names are harmless: they name results like their input."""
    picked, out = ward.written.parent / "picked", ward.written / "results"
    picked.mkdir()
    films = [path for path in sorted(ward.films.rglob("*")) if path.suffix in (".dcm", ".png") and path.stat().st_size]
    films = [path for path in films if "masks" not in path.parts]
    header = next(film for film in films if word(1) in film.name)  # the one with a word in every element
    for number, film in enumerate([header, *films[::6]]):
        (picked / f"film-{number}{film.suffix}").symlink_to(film)
    files = [str(path) for path in sorted(picked.iterdir())]
    for name, options in (("json", ["--json"]), ("text", ["--overlay", str(out / "predict")])):
        answer = CliRunner().invoke(main, ["predict", *options, *files])
        assert answer.exit_code in (0, 3), answer.output
        (ward.written / f"predict-{name}.txt").write_text(answer.output)
    answer = CliRunner().invoke(main, ["segment", str(picked), "--out", str(out / "segment")])
    assert answer.exit_code == 0, answer.output
    (ward.written / "segment.txt").write_text(answer.output)


def in_landing(relative: Path) -> bool:
    return relative.parts[:2] == ("root", "landing")


def test_nothing_that_was_planted_stands_outside_landing(ward: Ward) -> None:
    found = search(ward.written, in_landing, DIGITS)
    leaks = {f"{ward.planted.places.get(text, text)} ({text})": sorted(places) for text, places in found.items()}
    assert not leaks, json.dumps(leaks, indent=1)[:5000]


def test_every_planted_word_is_found_in_landing(ward: Ward) -> None:
    """The search and the planting are worth something: each place holds its word, and the search sees it."""
    found = search(ward.written / "root" / "landing" / "ward", lambda _: False, DIGITS)
    unseen = {place for text, place in ward.planted.places.items() if text not in found}
    assert not unseen
    assert set(DIGITS) <= set(found)
    assert len(ward.planted.places) > 2000


def test_pictures_of_every_kind_were_kept_as_they_were_coded(ward: Ward) -> None:
    """So that the search above has seen what is kept of each."""
    rows = read_manifest(ward.house.store, "ward")
    kinds = {(row.format, row.stages["raw"].key.rsplit(".")[-1]) for row in rows if "raw" in row.stages}
    assert kinds == {("dicom", "png"), ("dicom", "jpg"), ("jpeg", "jpg"), ("png", "png")}


def test_every_way_to_be_rejected_was_gone(ward: Ward) -> None:
    codes = {row.code for row in read_manifest(ward.house.store, "ward")}
    assert codes >= {
        "missing_file", "unknown_label", "duplicate_label", "malformed_label", "unsafe_name", "empty", "not_an_image",
        "truncated", "not_a_radiograph", "not_chest", "lateral_view", "multi_frame", "too_small", "constant_image",
        "unsafe_patient_id", "implausible_mask", "unsupported_colour", "unsupported_transfer_syntax",
    }  # fmt: skip


def test_who_may_read_landing_finds_each_rejected_file_by_its_name(ward: Ward) -> None:
    answer = CliRunner().invoke(main, ["rejected", "ward"])
    assert answer.exit_code == 0, answer.output
    told = {line.split("\t")[0]: line.split("\t")[2] for line in answer.output.splitlines()}
    rows = [row for row in read_manifest(ward.house.store, "ward") if row.status == "rejected"]
    assert len(told) == len(rows)
    for planted, place in ward.planted.places.items():
        code = place.removeprefix("name of a file: ")
        if code in {row.code for row in rows}:
            (why,) = [why for name, why in told.items() if planted in name]
            assert why.startswith(f"{code}: "), place


def test_text_in_the_picture_is_counted_and_flagged_until_the_prediction(ward: Ward) -> None:
    planted = next(text for text, place in ward.planted.places.items() if place == "name of a file: burned in")
    (source,) = [source for source, name in ward.names.items() if planted in name]
    row = next(row for row in read_manifest(ward.house.store, "ward") if row.source == source)
    assert row.tags["burned_in"] is True
    event = ward.house.instance.get_latest_materialization_event(AssetKey("raw_images"))
    assert event is not None
    assert event.asset_materialization is not None
    assert event.asset_materialization.metadata["burned_in_annotation"].value == 1
    record = ward.house.store.read_json("predictions/ward/current.json")
    table = pd.read_parquet(io.BytesIO(ward.house.store.read(f"{record['prefix']}/predictions.parquet")))
    flags = table.set_index("image_id")["quality_flags"]
    assert "burned_in_annotation" in flags[row.image_id].split(";")
    assert flags.str.contains("burned_in_annotation").sum() == 1


def test_patients_keep_one_pseudonym_each(ward: Ward) -> None:
    rows = [row for row in read_manifest(ward.house.store, "ward") if row.format == "dicom" and row.patient_id]
    assert all(row.patient_id.startswith("p-") for row in rows if row.patient_id)
    assert len({row.patient_id for row in rows}) > 10
