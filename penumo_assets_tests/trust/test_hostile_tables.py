"""labels.csv as an attack, and the CSV files that this application writes for spreadsheets."""

import csv
import io
import tracemalloc
from pathlib import Path

import cv2
import pandas as pd
import pytest

from penumo_assets.cli.segment_folder import segment_folder
from penumo_assets.cohort.errors import LandingError
from penumo_assets.cohort.labels import parse_labels
from penumo_assets.cohort.landing import read_landing
from penumo_assets.cohort.table import MAX_BYTES, MAX_ROWS
from penumo_assets.configs.prepare import FileNames, LabelsConfig
from penumo_assets.jobs.csv_cells import plain_cell
from penumo_assets.jobs.segment_train import __main__ as segment_train
from penumo_assets.resources.storage.file_store import FileStore
from penumo_assets_tests.imaging.samples import phantom

pytestmark = pytest.mark.trust

LABELS = LabelsConfig(file_names=FileNames.keep)
HEAD = b"file,patient_id,label\n"
FORMULAS = ("=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", " =1", "\uff1d1+1", '=HYPERLINK("http://x","y")')


def test_a_table_of_a_gigabyte_is_refused_by_name_and_not_read(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    store.write("landing/ward-7/a.png", b"x")
    with (tmp_path / "landing" / "ward-7" / "labels.csv").open("wb") as file:
        file.truncate(1 << 30)
    tracemalloc.start()
    with pytest.raises(LandingError, match=f"labels.csv of cohort 'ward-7' has {1 << 30} bytes; {MAX_BYTES}"):
        read_landing(store, "ward-7", LABELS, None)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"file,patient_id,label," + b",".join(b"c%d" % n for n in range(1_000_000)) + b"\n", "columns; 256 are read"),
        (b"file,patient_id,label,label\n", "more than one column label"),
        (HEAD + b"a.png,P1," + b"x" * 100_000_000 + b"\n", "not a UTF-8 CSV table: field larger"),
        (HEAD + b'a.png,"P1' + b"x" * 1_000_000, "not a UTF-8 CSV table"),
        (HEAD.decode().encode("utf-16"), "not a UTF-8 CSV table"),
        (HEAD.decode().encode("utf-32"), "not a UTF-8 CSV table|lacks the column"),
        (HEAD + b"\xed\xa0\x80.png,P1,normal\n", "not a UTF-8 CSV table"),
    ],
    ids=[
        "a million columns",
        "a column twice",
        "a field of 100 MB",
        "an open quote",
        "UTF-16",
        "UTF-32",
        "a surrogate",
    ],
)
def test_a_table_that_is_no_table_of_labels_is_refused_by_the_cohorts_name(data: bytes, reason: str) -> None:
    with pytest.raises(LandingError, match=reason) as caught:
        parse_labels(data, "ward-7", LABELS, None)
    assert "ward-7" in str(caught.value)
    assert len(str(caught.value)) < 300


def test_millions_of_short_rows_end_at_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penumo_assets.cohort.labels.MAX_ROWS", 10_000)
    rows = b"".join(b"%d,,\n" % number for number in range(10_001))
    tracemalloc.start()
    with pytest.raises(LandingError, match="more than 10000 rows: split the cohort"):
        parse_labels(HEAD + rows, "ward-7", LABELS, None)
    per_row = tracemalloc.get_traced_memory()[1] / 10_000
    tracemalloc.stop()
    assert per_row * MAX_ROWS < 1 << 30
    assert len(parse_labels(HEAD + rows[: rows.rindex(b"10000")], "ward-7", LABELS, None)) == 10_000


@pytest.mark.parametrize("row", [b"a.png,P\x001,normal", b"a.png,P1,nor\x1bmal", b"a.png,%s,normal" % (b"P" * 2000)])
def test_a_row_with_control_characters_or_endless_cells_rejects_its_image_alone(row: bytes) -> None:
    labels = parse_labels(HEAD + row + b"\nb.png,P2,normal\n", "c", LABELS, None)
    assert labels["a.png"].problem is not None
    assert labels["a.png"].problem[0] == "malformed_label"
    assert labels["b.png"].problem is None


def test_a_byte_order_mark_is_no_part_of_the_first_column() -> None:
    assert parse_labels(b"\xef\xbb\xbf" + HEAD + b"a.png,P1,normal\n", "c", LABELS, None)["a.png"].patient_id == "P1"


@pytest.mark.parametrize("text", FORMULAS)
def test_a_formula_is_text_in_a_spreadsheet(text: str) -> None:
    assert plain_cell(text) == f"'{text}"


def test_a_formula_after_a_semicolon_is_text_where_that_begins_a_cell() -> None:
    assert plain_cell("film;=cmd|'/C calc'!A0; +1.png") == "film;'=cmd|'/C calc'!A0;' +1.png"


@pytest.mark.parametrize("value", ["a;b.png", "a.png", "P-1", "1e-5", "", -1.5, None, True, "x=1"])
def test_what_is_no_formula_stays_as_it_is(value: object) -> None:
    assert plain_cell(value) == value


def test_segment_csv_runs_no_formula(tmp_path: Path) -> None:
    for name in ("=1+1.png", "-x.png", "@a.png", "good.png"):
        (tmp_path / name).write_bytes(b"no image")
    cv2.imwrite(str(tmp_path / "+film.png"), phantom(bits=8).astype("uint8"))
    segment_folder(tmp_path, tmp_path / "out")
    with (tmp_path / "out" / "segment.csv").open(encoding="utf-8", newline="") as file:
        names = [row["file"] for row in csv.DictReader(file)]
    assert names == ["'+film.png", "'-x.png", "'=1+1.png", "'@a.png", "good.png"]


def test_the_scores_of_a_retraining_run_no_formula(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"file": "=1.png", "patient_id": "@P", "source": "+w", "variant": "as_is", "dice": -0.5, "iou": 0.5}
    monkeypatch.setenv("SM_OUTPUT_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(segment_train, "LungSegmenter", lambda weights: None)
    monkeypatch.setattr(segment_train, "score", lambda segmenter, pairs, variants: [row])
    segment_train.evaluate(tmp_path / "w", {"held_out": []}, ["as_is"])
    written = pd.read_csv(io.BytesIO((tmp_path / "segment_scores.csv").read_bytes()), dtype=str)
    assert written.loc[0, ["file", "patient_id", "source", "dice"]].tolist() == ["'=1.png", "'@P", "'+w", "-0.5"]
