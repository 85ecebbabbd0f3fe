import re
from pathlib import Path

import pytest

from penumo_assets.cohort.errors import LandingError
from penumo_assets.cohort.labels import parse_labels
from penumo_assets.cohort.landing import read_landing
from penumo_assets.cohort.names import is_hidden
from penumo_assets.configs.prepare import LabelsConfig
from penumo_assets.resources.storage.file_store import FileStore

KEPT = LabelsConfig(file_names="keep")


def parse(text: str):
    return parse_labels(text.encode(), "c", KEPT, None)


def test_coded_columns_are_read_and_free_text_is_left_out() -> None:
    labels = parse("file,patient_id,label,view,sex,age,ward\nimages/a.png,P1,Pneumonia,ap,female,93.0,ICU\n")
    row = labels["images/a.png"]
    assert (row.patient_id, row.label, row.view, row.sex, row.age) == ("P1", "pneumonia", "AP", "F", 90)
    assert row.extra == {}
    assert row.problem is None


def test_columns_that_the_settings_name_are_kept() -> None:
    config = LabelsConfig(file_names="keep", keep_columns=["ward", "scanner"])
    table = b"file,patient_id,label,ward,note,phantom\na.png,P1,normal,ICU,Mrs Doe,true\nb.png,P2,normal,,,Mrs Doe\n"
    labels = parse_labels(table, "c", config, None)
    assert labels["a.png"].extra == {"ward": "ICU", "phantom": "true"}
    assert labels["b.png"].extra == {}


@pytest.mark.parametrize(
    ("view", "sex", "read"),
    [("LL", "m", ("LATERAL", "M")), ("AP supine", "other", ("AP", "O")), ("Mrs Doe", "Doe", (None, None))],
)
def test_view_and_sex_are_codes_or_nothing(view: str, sex: str, read: tuple) -> None:
    row = parse(f"file,patient_id,label,view,sex\na.png,P1,normal,{view},{sex}\n")["a.png"]
    assert (row.view, row.sex) == read


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
    assert "P1" not in repr(problem)
    assert "pnuemonia" not in repr(parse(text))


def test_any_label_is_known_when_none_is_listed() -> None:
    labels = parse_labels(
        b"file,patient_id,label\na.png,P1,tuberculosis\n", "c", LabelsConfig(classes=[], file_names="keep"), None
    )
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
        parse_labels(data, "ward-7", KEPT, None)
    assert "ward-7" in str(caught.value)


def test_markers_masks_and_hidden_files_are_not_images(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    for key in ("images/a.dcm", "notes.txt", "masks/a.png", "_COMPLETE", ".DS_Store", "images/.x/b.png"):
        store.write(f"landing/c/{key}", b"x")
    landing = read_landing(store, "c", KEPT, None)
    assert [file.source for file in landing.files] == ["images/a.dcm", "notes.txt"]
    assert {source: truth.source for source, (truth,) in landing.truths.items()} == {"images/a.dcm": "masks/a.png"}


def test_a_landed_name_is_replaced_at_the_door_and_only_the_key_decides_by_what(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    name = "Mueller^Anna/DOE_JANE_1970-01-31.DCM"
    store.write(f"landing/c/{name}", b"x")
    store.write("landing/c/masks/DOE_JANE_1970-01-31.png", b"x")
    store.write("landing/c/labels.csv", f"file,patient_id,label\n{name},P1,normal\ngone.png,P2,normal\n".encode())
    seen = [read_landing(store, "c", LabelsConfig(), key) for key in (None, b"k" * 16, b"l" * 16, b"k" * 16)]
    sources = [landing.files[0].source for landing in seen]
    assert all(re.fullmatch(r"[0-9a-f]{16}\.dcm", source) for source in sources)
    assert len(set(sources)) == 3
    assert sources[1] == sources[3]
    for landing, source in zip(seen, sources, strict=True):
        assert not re.search("doe|mueller|1970|gone", repr(landing), re.IGNORECASE)
        assert landing.files[0].landed_name == name
        (truth,) = landing.truths[source]
        assert truth.landed_name == "masks/DOE_JANE_1970-01-31.png"
        assert landing.labels[source].patient_id == "P1"


def test_an_empty_cohort_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(LandingError, match="'c' has no files"):
        read_landing(FileStore(tmp_path), "c", KEPT, None)


def test_a_mask_whose_name_cannot_be_a_files_is_not_lost(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    store.write("landing/c/a.png", b"x")
    (tmp_path / "landing" / "c" / "masks").mkdir()
    (tmp_path / "landing" / "c" / "masks" / "a\\b.png").write_bytes(b"x")
    landing = read_landing(store, "c", KEPT, None)
    assert [file.source for file in landing.files] == ["a.png", "masks/a\\b.png"]
    assert landing.truths == {}


@pytest.mark.parametrize("source", ["../up.png", "x/../up.png", "x/./up.png"])
def test_a_key_that_would_leave_its_folder_is_seen_and_a_hidden_one_is_not(source: str) -> None:
    assert not is_hidden(source)
    assert is_hidden(".DS_Store")
    assert is_hidden("images/.a.png.tmp")
    assert is_hidden(".git/../a.png")
