"""Folders and tables that people really have: whose a film is, which mask is its own, and which name is which.

Each test draws its films; each stands for a kind of mistake that used to pass in silence.
"""

import unicodedata
from pathlib import Path

import cv2
import numpy as np
import pytest

from penumo_assets.cohort.errors import LandingError
from penumo_assets.cohort.labels import Label, parse_labels
from penumo_assets.cohort.landing import read_landing
from penumo_assets.configs.prepare import LabelsConfig
from penumo_assets.imaging.errors import ImageRejected
from penumo_assets.imaging.person import age_as_written, is_missing, same_but_zeros, sex_code
from penumo_assets.imaging.truth import read_mask, unite
from penumo_assets.imaging.view import view_code
from penumo_assets.jobs.identity import IDENTITY_NOTES, patient_of
from penumo_assets.jobs.manifest import ManifestRow
from penumo_assets.jobs.prepare.work import KEY_VARIABLE
from penumo_assets.phantoms import draw_phantom
from penumo_assets.resources.storage.file_store import FileStore
from penumo_assets_tests.imaging.samples import dicom_bytes
from penumo_assets_tests.jobs.test_prepare import House

KEPT = LabelsConfig(file_names="keep", classes=[])


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> House:
    monkeypatch.setenv(KEY_VARIABLE, "a key for phantoms only")
    return House(tmp_path, monkeypatch)


def put(house: House, name: str, data: bytes | str) -> None:
    path = house.landing / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)


def png(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".png", pixels)[1].tobytes()


def film(seed: int, side: int = 160) -> tuple[bytes, np.ndarray]:
    """A phantom as a PNG file, and the mask of its lungs, {0, 255}."""
    pixels, mask = draw_phantom(seed, height=side, width=side)
    return png((pixels >> 4).astype(np.uint8)), mask


def dicom(**elements: str) -> bytes:
    pixels, _ = draw_phantom(1, height=96, width=96)
    return dicom_bytes(pixels, BitsStored=12, **elements)


def prepared(house: House) -> dict[str, ManifestRow]:
    house.materialize()
    return house.rows


def labelled(table: str | bytes) -> dict[str, Label]:
    return parse_labels(table.encode() if isinstance(table, str) else table, "c", KEPT, None)


# Whose a film is


def test_cases_films_without_a_patient_id_are_noted_and_do_not_train(house: House) -> None:
    put(house, "film_a.dcm", dicom(PatientID=""))
    put(house, "film_b.dcm", dicom(PatientID="UNKNOWN"))
    put(house, "film_c.dcm", dicom(PatientID="H-7"))
    put(house, "labels.csv", "file,patient_id,label\nfilm_a.dcm,,normal\nfilm_b.dcm,n/a,normal\nfilm_c.dcm,-,normal\n")
    rows = prepared(house)
    assert rows["film_a.dcm"].notes[-1:] == ["patient_id:none"]
    assert rows["film_b.dcm"].notes[-2:] == ["patient_id:none", "labels:no_patient_id"]
    assert rows["film_c.dcm"].notes[-1:] == ["labels:no_patient_id"], "the header knows"
    assert len({row.patient_id for row in rows.values()}) == 3


def test_cases_a_table_that_contradicts_the_header_is_noted(house: House) -> None:
    put(house, "film.dcm", dicom(PatientID="0000123", PatientSex="F", PatientAge="062Y"))
    put(house, "other.dcm", dicom(PatientID="77", PatientSex="F", PatientAge="062Y"))
    put(house, "same.dcm", dicom(PatientID="p9 ", PatientSex="F", PatientAge="062Y"))
    put(house, "next.dcm", dicom(PatientID="0000123"))
    head = "file,patient_id,label,sex,age\n"
    table = "film.dcm,123,normal,M,30\nother.dcm,78,normal,F,63\nsame.dcm,P9,normal,w,62\n"
    put(house, "labels.csv", head + table)
    rows = prepared(house)
    doubts = {name: [note for note in row.notes if note in IDENTITY_NOTES] for name, row in rows.items()}
    assert doubts == {
        "film.dcm": ["patient_id:zeros_lost", "sex:differs", "age:differs"],
        "other.dcm": ["patient_id:differs"],
        "same.dcm": [],
        "next.dcm": [],
    }
    assert rows["film.dcm"].patient_id == rows["next.dcm"].patient_id, "one patient, whatever the spreadsheet did"


def test_cases_notes_on_a_table_go_when_it_is_corrected_and_nothing_is_decoded_again(house: House) -> None:
    put(house, "film.dcm", dicom(PatientID="P1", PatientSex="F"))
    put(house, "labels.csv", "file,patient_id,label,sex\nfilm.dcm,P1,normal,M\n")
    assert "sex:differs" in prepared(house)["film.dcm"].notes
    put(house, "labels.csv", "file,patient_id,label,sex\nfilm.dcm,P1,normal,female\n")
    assert house.materialize().items == ()
    assert "sex:differs" not in house.rows["film.dcm"].notes


@pytest.mark.parametrize(
    ("labelled", "header", "found"),
    [
        ("P1", None, ("P1", [])),
        (None, "P1", ("P1", [])),
        (None, "anonymous", (None, ["patient_id:none"])),
        ("P1", "none", ("P1", [])),
        ("123", "000123", ("000123", ["patient_id:zeros_lost"])),
        ("000123", "123", ("000123", ["patient_id:zeros_lost"])),
        ("123.0", "123", ("123", ["patient_id:zeros_lost"])),
        ("Müller", unicodedata.normalize("NFD", "Müller"), ("Müller", [])),
        ("1230", "123", ("1230", ["patient_id:differs"])),
    ],
)
def test_cases_the_patient_is_told_by_table_and_header(labelled: str, header: str, found: tuple) -> None:
    assert patient_of(labelled, header) == found


def test_cases_words_for_missing_are_no_patient_ids() -> None:
    words = ["", "unknown", "N/A", "#N/A", "n.a.", "None", "-", "--", "?", "0", "000", "NaN", "null", "Anonymous", "x"]
    assert [word for word in words if not is_missing(word)] == []
    assert is_missing("1.23457E+11"), "a spreadsheet's rounding makes one patient of many"
    assert [word for word in ("P0", "100", "9999", "1e5", "Nan-7", "Anna") if is_missing(word)] == []


def test_cases_ids_of_one_table_that_differ_in_zeros_are_noted() -> None:
    rows = labelled("file,patient_id,label\na.png,007,normal\nb.png,7,normal\nc.png,70,normal\n")
    assert [bool(row.notes) for row in rows.values()] == [True, True, False]
    assert not same_but_zeros("7", "7")


def test_cases_ages_and_sexes_are_read_as_words() -> None:
    table = (
        "file,patient_id,label,view,sex,age\na.png,P1,normal,PA,Mujer,414\nb.png,P2,normal,PA,missing,148\n"
        "c.png,P3,normal,PA,M,058Y\nd.png,P4,normal,PA,F,018M\n"
    )
    rows = labelled(table).values()
    assert [row.age for row in rows] == [None, None, 58, 1]
    assert [row.sex for row in rows] == ["F", None, "M", "F"]


@pytest.mark.parametrize(
    ("word", "code"),
    [
        *[(word, "M") for word in ("m", "MALE", "männlich", "Hombre", "homme", "Mann", "Masculino", "м", "男")],
        *[(word, "F") for word in ("f", "Female", "w", "weiblich", "mujer", "Femme", "Frau", "женский", "Kadın", "女")],
        *[(word, "O") for word in ("o", "divers", "Other")],
        *[(word, None) for word in ("missing", "Mrs Doe", "unknown", "Mister?", "1", "", "M/F", "foreign")],
    ],
)
def test_cases_a_sex_is_a_whole_word(word: str, code: str | None) -> None:
    assert sex_code(word) == code


def test_cases_an_m_beside_an_h_is_a_woman_in_spanish() -> None:
    head = "file,patient_id,label,sex\n"
    assert [row.sex for row in labelled(head + "a,P1,normal,H\nb,P2,normal,M\n").values()] == ["M", "F"]
    french = labelled(head + "a,P1,normal,H\nb,P2,normal,F\nc,P3,normal,M\n")
    assert [row.sex for row in french.values()] == ["M", "F", "M"]


@pytest.mark.parametrize(
    ("written", "years"),
    [
        ("62,5", 62),
        ("62 years", 62),
        ("18 Monate", 1),
        ("000", 0),
        ("120", 90),
        ("121", None),
        ("1-5", None),
        ("?", None),
    ],
)
def test_cases_an_age_is_in_years(written: str, years: int | None) -> None:
    assert age_as_written(written) == years


@pytest.mark.parametrize(
    ("written", "code"),
    [
        ("CHEST (PA and LAT)", None),
        ("AP FLAT", "AP"),
        ("CHEST PA", "PA"),
        ("Frontal and lateral", None),
        ("bilateral", None),
        ("unilateral AP", "AP"),
        ("PATIENT", None),
        ("postero-anterior", "PA"),
        ("view1_lateral", "LATERAL"),
        ("Thorax seitlich", "LATERAL"),
        ("left lateral decubitus", "DECUBITUS"),
        ("AP_horizontal", "AP"),
    ],
)
def test_cases_a_view_is_lateral_only_if_nothing_says_frontal(written: str, code: str | None) -> None:
    assert view_code(written) == code


# Which mask is a film's own


def test_cases_films_of_one_name_are_each_measured_against_their_own_mask(house: House) -> None:
    table = ["file,patient_id,label"]
    for number in (1, 2, 3):
        data, mask = film(number, 256)
        name = f"patient{number}/study1/view1_frontal.png"
        put(house, name, data)
        put(house, f"masks/{name}", png(mask))
        table.append(f"{name},patient{number},normal")
    put(house, "labels.csv", "\n".join(table))
    rows = prepared(house)
    assert [row.stages["masks"].facts["dice"] > 0.9 for row in rows.values()] == [True] * 3


def test_cases_a_mask_of_zeros_and_ones_is_measured_and_one_without_lung_named(house: House) -> None:
    for name, seed in (("g", 4), ("h", 5)):
        data, mask = film(seed, 256)
        put(house, f"images/{name}.png", data)
        put(house, f"masks/{name}.png", png(mask // 255 if name == "g" else 0 * mask))
    rows = prepared(house)
    assert rows["images/g.png"].stages["masks"].facts["dice"] > 0.9
    assert "dice" not in rows["images/h.png"].stages["masks"].facts
    assert "mask:no_lung" in rows["images/h.png"].notes


@pytest.mark.parametrize("folder", ["Masks", "mask", "MASKS", "lung_masks", "ManualMask", "set1/masks"])
def test_cases_a_folder_of_masks_holds_no_films_however_it_is_written(tmp_path: Path, folder: str) -> None:
    store = FileStore(tmp_path)
    for name in ("images/f.png", f"{folder}/f.png"):
        store.write(f"landing/c/{name}", b"x")
    landing = read_landing(store, "c", KEPT, None)
    assert [file.source for file in landing.files] == ["images/f.png"]
    named = [file.source for masks in landing.truths.values() for file in masks]
    assert (named or [file.source for file, _ in landing.unpaired]) == [f"{folder}/f.png"]


@pytest.mark.parametrize(
    ("films", "masks", "pairs", "left_out"),
    [
        (["p1/v.png", "p2/v.png"], ["masks/v.png"], {}, {"masks/v.png"}),
        (["p1/v.png"], ["masks/p2/v.png"], {}, {"masks/p2/v.png"}),
        (["a.png"], ["masks/a.png", "masks/a.jpg"], {}, {"masks/a.png", "masks/a.jpg"}),
        (["a.png", "a.dcm"], ["masks/a.png"], {}, {"masks/a.png"}),
        (["a.png"], ["masks/b.png"], {}, {"masks/b.png"}),
        (["a.png"], ["leftMask/a.png"], {}, {"leftMask/a.png"}),
        (["images/x/a.dcm"], ["masks/a.png"], {"images/x/a.dcm": {"masks/a.png"}}, set()),
        (["a.png"], ["a_mask.png"], {"a.png": {"a_mask.png"}}, set()),
        (["1.2.840.7"], ["masks/1.2.840.7.png"], {"1.2.840.7": {"masks/1.2.840.7.png"}}, set()),
        (
            ["CXR_png/M_1.png"],
            ["ManualMask/leftMask/M_1.png", "ManualMask/rightMask/M_1.png"],
            {"CXR_png/M_1.png": {"ManualMask/leftMask/M_1.png", "ManualMask/rightMask/M_1.png"}},
            set(),
        ),
        (
            ["a.png"],
            ["masks/a_left.png", "masks/a_right.png"],
            {"a.png": {"masks/a_left.png", "masks/a_right.png"}},
            set(),
        ),
    ],
)
def test_cases_a_pair_is_certain_or_its_mask_is_named(
    tmp_path: Path, films: list[str], masks: list[str], pairs: dict[str, set[str]], left_out: set[str]
) -> None:
    store = FileStore(tmp_path)
    for name in (*films, *masks):
        store.write(f"landing/c/{name}", b"x")
    landing = read_landing(store, "c", KEPT, None)
    assert {name: {mask.source for mask in found} for name, found in landing.truths.items()} == pairs
    assert {mask.source for mask, _ in landing.unpaired} == left_out
    assert {name for name in films if name not in pairs} == set(landing.mask_notes)


def test_cases_a_mask_that_is_left_out_stands_in_the_manifest(house: House) -> None:
    put(house, "p1/v.png", film(1)[0])
    put(house, "masks/p2/v.png", png(film(1)[1]))
    rows = prepared(house)
    assert (rows["masks/p2/v.png"].status, rows["masks/p2/v.png"].code) == ("rejected", "unpaired_mask")
    assert rows["p1/v.png"].notes[-1:] == ["mask:none"]


def lungs() -> np.ndarray:
    drawn = np.zeros((40, 40), bool)
    drawn[8:30, 6:16] = drawn[8:30, 24:34] = True
    return drawn


def drawings() -> dict[str, np.ndarray]:
    drawn = lungs()
    one = drawn.astype(np.uint8)
    clear = np.zeros((40, 40, 4), np.uint8)
    labels = one.copy()
    labels[:, 20:] *= 2
    red = np.zeros((40, 40, 3), np.uint8)
    red[drawn] = (0, 0, 128)  # OpenCV's order: blue, green, red
    over = np.dstack([np.full((40, 40, 3), 255, np.uint8), one * 255])
    black = clear.copy()
    black[..., 3] = one * 200
    opaque = np.dstack([one * 255, one * 255, one * 255, np.full((40, 40), 255, np.uint8)])
    return {
        "0 and 1": one,
        "0 and 255": one * 255,
        "0 and 65535": one.astype(np.uint16) * 65535,
        "0 and 1 in 16 bits": one.astype(np.uint16),
        "left 1, right 2": labels,
        "dark red": red,
        "white, alpha drawn": over,
        "black, alpha drawn": black,
        "opaque": opaque,
    }


@pytest.mark.parametrize("kind", drawings())
def test_cases_a_mask_is_read_however_it_is_drawn(kind: str) -> None:
    assert np.array_equal(read_mask(png(drawings()[kind])), lungs())


@pytest.mark.parametrize("transparent", [False, True])
def test_cases_a_mask_of_a_palette_is_read(tmp_path: Path, transparent: bool) -> None:
    from PIL import Image

    picture = Image.fromarray(lungs().astype(np.uint8), "P")
    picture.putpalette([0, 0, 0, 128, 0, 0])
    picture.save(tmp_path / "a.png", **({"transparency": 0} if transparent else {}))
    assert np.array_equal(read_mask((tmp_path / "a.png").read_bytes()), lungs())


def test_cases_a_mask_with_smooth_edges_is_cut_at_half() -> None:
    smooth = cv2.GaussianBlur(lungs().astype(np.uint8) * 255, (5, 5), 1.2)
    assert np.array_equal(read_mask(png(smooth)), smooth > 127)


@pytest.mark.parametrize("drawn", [np.zeros((40, 40)), np.full((40, 40), 255), np.where(lungs(), 0, 255)])
def test_cases_a_mask_without_lung_or_of_the_background_is_refused(drawn: np.ndarray) -> None:
    with pytest.raises(ImageRejected, match="no lung is drawn"):
        read_mask(png(drawn.astype(np.uint8)))


def test_cases_masks_of_two_lungs_are_united_if_they_are_of_one_size() -> None:
    left, right = lungs(), lungs()
    left[:, 20:] = right[:, :20] = False
    assert np.array_equal(unite([left, right]), lungs())
    with pytest.raises(ImageRejected, match="differ in size"):
        unite([left, right[:-1]])


# Which name is which


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_cases_two_forms_of_an_accent_are_one_name(tmp_path: Path, form: str) -> None:
    store = FileStore(tmp_path)
    other = "NFD" if form == "NFC" else "NFC"
    store.write(f"landing/c/{unicodedata.normalize(form, 'Müller/film.png')}", b"x")
    table = unicodedata.normalize(other, "file,patient_id,label\nMüller/film.png,P1,normal\n")
    store.write("landing/c/labels.csv", table.encode())
    for config in (KEPT, LabelsConfig()):
        landing = read_landing(store, "c", config, None)
        assert landing.labels[landing.files[0].source].patient_id == "P1"


def test_cases_two_files_whose_names_look_the_same_are_both_rejected_by_name(house: House) -> None:
    put(house, "b.png", film(2)[0])
    for form in ("NFC", "NFD"):
        put(house, unicodedata.normalize(form, "Müller.png"), film(1)[0])
    codes = sorted(row.code or "" for row in prepared(house).values())
    assert codes == ["", "ambiguous_name", "ambiguous_name"]


@pytest.mark.parametrize(
    "name", ["images\\a.png", ".\\images\\a.png", "./images/a.png", "images//a.png", "/images/a.png"]
)
def test_cases_a_path_is_read_as_every_system_writes_it(name: str) -> None:
    assert list(labelled(f"file,patient_id,label\n{name},P1,normal\n")) == ["images/a.png"]


@pytest.mark.parametrize(
    "table",
    [
        "\ufefffile,patient_id,label\na.png,P1,normal\n,,\n , ,\n",
        "file;patient_id;label\na.png;P1;normal\n;;\n",
        "sep=;\nfile;patient_id;label\na.png;P1;normal\n",
        "file\tpatient_id\tlabel\na.png\tP1\tnormal\n\t\t\n",
        "File,Patient ID,LABEL\na.png,P1,normal\n\n",
        "file,patient_id,label\na.png,P1,normal,,\n",
        "file,patient_id,label,,\na.png,P1,normal,,\n,,,,\n",
        '"file";"patient_id";"label"\r\n"a.png";"P1";"normal"\r\n;;\r\n',
    ],
)
def test_cases_a_table_is_read_as_a_spreadsheet_saves_it(table: str) -> None:
    rows = labelled(table)
    assert [(name, row.patient_id, row.label, row.problem) for name, row in rows.items()] == [
        ("a.png", "P1", "normal", None)
    ]


def test_cases_a_row_with_a_label_and_no_file_is_still_told() -> None:
    assert list(labelled("file,patient_id,label\na.png,P1,normal\n,P2,normal\n")) == ["a.png", "(no file name)"]


@pytest.mark.parametrize("name", ["Labels.csv", "LABELS.CSV"])
def test_cases_the_table_is_known_in_any_case(tmp_path: Path, name: str) -> None:
    store = FileStore(tmp_path)
    store.write("landing/c/a.png", b"x")
    store.write(f"landing/c/{name}", b"file,patient_id,label\na.png,P1,normal\n")
    assert read_landing(store, "c", KEPT, None).labels["a.png"].patient_id == "P1"
    store.write("landing/c/labels.csv", b"file,patient_id,label\n")
    with pytest.raises(LandingError, match="2 tables of labels"):
        read_landing(store, "c", KEPT, None)
