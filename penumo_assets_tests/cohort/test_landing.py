from pathlib import Path

import pytest

from penumo_assets.cohort.landing import LandingError, is_hidden, parse_labels, read_landing, truth_of
from penumo_assets.resources.storage import FileStore

LABELS = ("normal", "pneumonia")


def parse(text: str):
    return parse_labels(text.encode(), "c", LABELS)


def test_columns_of_the_contract_are_read_and_others_kept() -> None:
    labels = parse("file,patient_id,label,view,sex,age,ward\nimages/a.png,P1,Pneumonia,ap,female,93.0,ICU\n")
    row = labels["images/a.png"]
    assert (row.patient_id, row.label, row.view, row.sex, row.age) == ("P1", "pneumonia", "AP", "F", 90)
    assert row.extra == {"ward": "ICU"}
    assert row.problem is None


def test_empty_cells_are_unknown() -> None:
    row = parse("file,patient_id,label,view,age\na.png,,,,1-5 y\n")["a.png"]
    assert (row.patient_id, row.label, row.view, row.age, row.problem) == (None, None, None, None, None)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("file,patient_id,label\na.png,P1,pnuemonia\n", "unknown_label"),
        ("file,patient_id,label\na.png,P1,normal\na.png,P2,normal\n", "duplicate_label"),
        ("file,patient_id,label\na.png,P1\n", "malformed_label"),
        ("file,patient_id,label\na.png,P1,normal,x,y\n", "malformed_label"),
    ],
)
def test_a_row_that_cannot_be_used_says_why(text: str, code: str) -> None:
    problem = parse(text)["a.png"].problem
    assert problem is not None
    assert problem[0] == code


def test_any_label_is_known_when_none_is_listed() -> None:
    labels = parse_labels(b"file,patient_id,label\na.png,P1,tuberculosis\n", "c", ())
    assert labels["a.png"].label == "tuberculosis"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"name,label\n", "lacks the column.*file, patient_id"),
        (b"", "lacks the column"),
        (b"file,patient_id,label\n\xff\xfe\n", "not a UTF-8 CSV table"),
    ],
)
def test_a_table_that_is_not_the_contract_names_the_cohort(data: bytes, message: str) -> None:
    with pytest.raises(LandingError, match=message) as caught:
        parse_labels(data, "ward-7", LABELS)
    assert "ward-7" in str(caught.value)


def test_markers_masks_and_hidden_files_are_not_images(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    for key in ("images/a.dcm", "notes.txt", "masks/a.png", "_COMPLETE", ".DS_Store", "images/.x/b.png"):
        store.write(f"landing/c/{key}", b"x")
    landing = read_landing(store, "c", LABELS)
    assert [file.source for file in landing.files] == ["images/a.dcm", "notes.txt"]
    truth = truth_of(landing, "images/a.dcm")
    assert truth is not None
    assert truth.source == "masks/a.png"
    assert truth_of(landing, "notes.txt") is None


def test_an_empty_cohort_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(LandingError, match="'c' has no files"):
        read_landing(FileStore(tmp_path), "c", LABELS)


def test_a_mask_whose_name_cannot_be_a_files_is_not_lost(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    store.write("landing/c/a.png", b"x")
    (tmp_path / "landing" / "c" / "masks").mkdir()
    (tmp_path / "landing" / "c" / "masks" / "a\\b.png").write_bytes(b"x")
    landing = read_landing(store, "c", LABELS)
    assert [file.source for file in landing.files] == ["a.png", "masks/a\\b.png"]
    assert landing.truths == {}


@pytest.mark.parametrize("source", ["../up.png", "x/../up.png", "x/./up.png"])
def test_a_key_that_would_leave_its_folder_is_seen_and_a_hidden_one_is_not(source: str) -> None:
    assert not is_hidden(source)
    assert is_hidden(".DS_Store")
    assert is_hidden("images/.a.png.tmp")
    assert is_hidden(".git/../a.png")
