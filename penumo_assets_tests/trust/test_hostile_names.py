"""Links, pipes and odd names in landing, and patient ids that are paths or only look like others."""

import csv
import os
from pathlib import Path

import cv2
import pytest
from dagster import DagsterInstance

from penumo_assets.cli.predict_files import _read
from penumo_assets.cli.segment_folder import segment_folder
from penumo_assets.cohort import plan
from penumo_assets.cohort.errors import LandingError
from penumo_assets.cohort.land import land_folder
from penumo_assets.cohort.landing import LandedFile, Landing, read_landing
from penumo_assets.cohort.plan import PlanSettings, image_id_of, plan_cohort
from penumo_assets.configs.prepare import DecodeConfig, FileNames, LabelsConfig, PrepareConfig
from penumo_assets.imaging.deidentify import is_plain_text, is_safe_id, pseudonym
from penumo_assets.jobs.contract import write_atomic
from penumo_assets.jobs.infer.handler import BadRequest
from penumo_assets.jobs.manifest import STAGES, ManifestRow, dump_rows, load_rows
from penumo_assets.resources.storage.file_store import FileStore
from penumo_assets.resources.storage.object_store import StorageError, is_key, printable
from penumo_assets_tests.imaging.samples import phantom
from penumo_assets_tests.trust.hostile_folder import LINKS, ODD_NAMES, SPECIAL, within, write_odd_files

pytestmark = pytest.mark.trust

LABELS = LabelsConfig(file_names=FileNames.keep)
SETTINGS = PlanSettings(PrepareConfig(), "weights", "key", STAGES)
KEY = b"a key for phantoms only"
FILM = cv2.imencode(".png", phantom(bits=8).astype("uint8"))[1].tobytes()


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    """A root whose landing/ward-7 holds one file of every odd kind, and a good one."""
    write_odd_files(tmp_path / "root" / "landing" / "ward-7", tmp_path / "outside", FILM)
    (tmp_path / "root" / "landing" / "ward-7" / "good.png").write_bytes(FILM)
    return FileStore(tmp_path / "root")


def planned(landing: Landing) -> dict[str, ManifestRow]:
    """Rows by source, after they were written down and read again."""
    found = plan_cohort(landing, [], SETTINGS)
    rows = load_rows(dump_rows([*found.rows, *(item.row for item in found.items)]))
    return {row.source: row for row in rows}


def test_every_link_pipe_and_odd_name_in_landing_is_rejected_by_name_and_the_rest_goes_on(store: FileStore) -> None:
    with within(20):
        rows = planned(read_landing(store, "ward-7", LABELS, None))
    assert {source: row.code for source, row in rows.items()} == (
        dict.fromkeys((*LINKS, *SPECIAL), "not_a_file")
        | dict.fromkeys(ODD_NAMES.values(), "unsafe_name")
        | {"good.png": None, "hard.png": None}
    )
    assert all(row.stage == "landing" for row in rows.values() if row.code)


def test_nothing_behind_a_link_or_a_pipe_is_read_copied_or_downloaded(store: FileStore, tmp_path: Path) -> None:
    for name in (*LINKS, *SPECIAL, "wards/secret.png"):
        key = f"landing/ward-7/{name}"
        for act in (
            lambda key=key: store.read(key),
            lambda key=key: store.read(key, 100),
            lambda key=key: store.copy(key, "raw/copy.png"),
            lambda key=key: store.download(key, tmp_path / "download"),
        ):
            with within(10), pytest.raises(StorageError):
                act()
    assert not (tmp_path / "download").exists()
    assert not store.exists("raw/copy.png")


def test_a_cohort_or_a_table_that_is_a_link_or_a_pipe_is_not_opened(store: FileStore, tmp_path: Path) -> None:
    landing = store.root / "landing"
    (landing / "ward-8").symlink_to(tmp_path / "outside")
    with pytest.raises(LandingError, match="'ward-8' has no files"):
        read_landing(store, "ward-8", LABELS, None)
    assert store.folders("landing") == ["ward-7"]
    for make in (os.mkfifo, lambda path: path.symlink_to("/etc/hostname")):
        (landing / "ward-7" / "labels.csv").unlink(missing_ok=True)
        make(landing / "ward-7" / "labels.csv")
        with within(10), pytest.raises(LandingError, match=r"labels\.csv of cohort 'ward-7' is no plain file"):
            read_landing(store, "ward-7", LABELS, None)


def test_a_mask_that_is_a_link_is_no_ground_truth_and_not_lost(store: FileStore, tmp_path: Path) -> None:
    (store.root / "landing" / "ward-7" / "masks").mkdir()
    (store.root / "landing" / "ward-7" / "masks" / "good.png").symlink_to(tmp_path / "outside" / "secret.png")
    landing = read_landing(store, "ward-7", LABELS, None)
    assert landing.truths == {}
    assert planned(landing)["masks/good.png"].code == "not_a_file"


def test_penumo_land_copies_files_and_names_what_it_leaves_out(tmp_path: Path) -> None:
    write_odd_files(tmp_path / "folder", tmp_path / "outside", FILM)
    (tmp_path / "folder" / "good.png").write_bytes(FILM)
    store = FileStore(tmp_path / "root")
    with DagsterInstance.ephemeral() as instance, within(60):
        landed = land_folder(store, instance, "ward-7", tmp_path / "folder")
    assert landed.files == 2
    assert sorted(landed.left_out) == sorted([*LINKS, *SPECIAL, *ODD_NAMES.values()])
    keys = [info.key for info in store.list_objects("landing")]
    assert keys == ["landing/ward-7/_COMPLETE", "landing/ward-7/good.png", "landing/ward-7/hard.png"]


def test_penumo_segment_gives_every_link_pipe_and_odd_name_a_line(tmp_path: Path) -> None:
    write_odd_files(tmp_path / "folder", tmp_path / "outside", FILM)
    with within(60):
        segment_folder(tmp_path / "folder", tmp_path / "out")
    with (tmp_path / "out" / "segment.csv").open(encoding="utf-8", newline="") as file:
        status = {row["file"]: row["status"] for row in csv.DictReader(file)}
    refused = dict.fromkeys((*LINKS, *SPECIAL), "not_a_file") | dict.fromkeys(ODD_NAMES.values(), "unsafe_name")
    assert {name: code for name, code in status.items() if name != "hard.png"} == refused
    assert [path.name for path in (tmp_path / "out" / "masks").rglob("*")] == ["hard.png.png"]


@pytest.mark.parametrize("path", ["pipe", "/dev/zero", "."])
def test_penumo_predict_does_not_wait_for_a_pipe_or_read_a_device(path, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    with within(10), pytest.raises(BadRequest, match="not_a_file"):
        _read(Path(path))


def test_a_file_of_gigabytes_is_rejected_by_its_size_and_never_read() -> None:
    limit = DecodeConfig().max_file_bytes
    files = tuple(LandedFile(f"{size}.png", "1", size) for size in (limit, limit + 1, 1 << 50))
    rows = planned(Landing("c", files, {}, {}))
    assert [row.code for row in rows.values()].count("too_large") == 2
    assert rows[f"{limit}.png"].code is None


@pytest.mark.parametrize(
    "key", ["", ".", "..", "a//b", "a/../b", "/a", "a/", *ODD_NAMES, "a/" * 501 + "b", "\x85", "\x00"]
)
def test_a_key_that_cannot_be_a_name_everywhere_is_none(key: str) -> None:
    assert not is_key(f"landing/{key}")


@pytest.mark.parametrize("name", ["a b.png", "é.png", "Übersicht/片.dcm", "=1+1.png", "n" * 240, "CON.png", "-x", ".x"])
def test_an_ordinary_name_is_a_key_and_stays_as_it_is(name: str) -> None:
    assert is_key(f"landing/{name}")
    assert printable(name) == name


def test_a_long_name_can_be_written(tmp_path: Path) -> None:
    write_atomic(tmp_path / ("n" * 255), b"x")
    assert (tmp_path / ("n" * 255)).read_bytes() == b"x"


UNSAFE_IDS = (
    "", "..", "../x", "a/b", "a\\b", "/etc/passwd", ".hidden", "-rf", "a..b", "P1.", "a b", "P\x00", "P\x7f", "é",
    "\u0430", "P1\u200b", "\u202eP1", "P" * 129, "P" * 1024, "CON", "nul", "Com1", "LPT9.x", "aux.npz",
)  # fmt: skip


@pytest.mark.parametrize("value", UNSAFE_IDS)
def test_an_id_that_is_a_path_or_only_looks_like_one_is_not_safe(value: str) -> None:
    assert not is_safe_id(value)


@pytest.mark.parametrize("value", UNSAFE_IDS)
def test_no_such_cohort_can_be_landed(value: str, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(FILM)
    with DagsterInstance.ephemeral() as instance, pytest.raises(LandingError, match="not a valid cohort name"):
        land_folder(FileStore(tmp_path / "root"), instance, value, tmp_path)
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize("value", ["P1", "HOSP-0042", "a.b_c-d", "_x", "con1", "console", "P" * 128])
def test_an_ordinary_id_is_safe(value: str) -> None:
    assert is_safe_id(value)


def test_an_id_with_characters_that_cannot_be_seen_is_no_other_patient() -> None:
    for value in ("P1\u200b", "\ufeffP1", "P1\u202e", "P\x001", "P1\udcff", "P" * 129):
        assert not is_plain_text(value), ascii(value)
    for value in ("P1", "Müller 7", "é", "患者-7", "P" * 128):
        assert is_plain_text(value)


def test_two_ways_to_write_an_accent_are_one_patient_and_two_cases_are_two() -> None:
    assert pseudonym("Ren\u00e9", KEY) == pseudonym("Rene\u0301", KEY)
    assert len({pseudonym(value, KEY) for value in ("p1", "P1", "\u0420" + "1")}) == 3


def test_a_hundred_thousand_files_of_one_name_have_an_id_each() -> None:
    ids = {image_id_of(f"study{number}/IM0001.dcm") for number in range(100_000)}
    assert len(ids) == 100_000
    assert all(is_safe_id(image_id) for image_id in [*list(ids)[:100], *map(image_id_of, ODD_NAMES)])


def test_two_names_that_end_in_one_id_never_share_an_object(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "image_id_of", lambda source: "a-collision")
    rows = planned(Landing("c", tuple(LandedFile(name, "1", 1) for name in ("a.png", "b.png")), {}, {}))
    assert {source: row.code for source, row in rows.items()} == {"a.png": None, "b.png": "unsafe_name"}


def test_names_that_differ_in_case_or_in_what_is_sanitised_are_two_images() -> None:
    names = ("A.png", "a.png", "a+.png", "a_.png", "x/a.png", "x_a.png")
    assert len({image_id_of(name).casefold() for name in names}) == len(names)
