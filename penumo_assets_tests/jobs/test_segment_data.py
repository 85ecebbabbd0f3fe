"""The training channel: what is read, what is refused, who stands in which fold."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from penumo_assets.jobs.contract import JobError
from penumo_assets.jobs.segment_train.data import assign_folds, read_channel, read_index, sampling_weights, shrink

ROW = {"file": "a.png", "mask": "a.png", "patient_id": "p1", "source": "x"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A channel with one pair of 60 x 80 pixels."""
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    gray = np.tile(np.arange(80, dtype=np.uint8), (60, 1))
    cv2.imwrite(str(tmp_path / "images" / "a.png"), gray)
    cv2.imwrite(str(tmp_path / "masks" / "a.png"), (gray > 40).astype(np.uint8) * 255)
    write(tmp_path, ROW)
    return tmp_path


def write(folder: Path, *rows: dict[str, str]) -> None:
    (folder / "index.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def test_a_pair_is_letterboxed_with_its_mask(folder: Path) -> None:
    (pair,), refused = read_channel(folder)
    assert not refused
    assert pair.image.shape == pair.mask.shape == (512, 512)
    assert set(np.unique(pair.mask)) == {0, 255}
    assert pair.box.content == (slice(64, 448), slice(0, 512))
    assert not pair.mask[:64].any()


def test_a_csv_index_reads_like_a_jsonl_index(folder: Path) -> None:
    expected = read_index(folder)
    (folder / "index.jsonl").unlink()
    (folder / "index.csv").write_text("file,mask,patient_id,source,note\na.png,a.png,p1,x,hello\n", encoding="utf-8")
    assert read_index(folder) == expected


def test_a_missing_index_says_what_it_must_name(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"no index\.csv or index\.jsonl; it must name file, mask, patient_id, source"):
        read_index(tmp_path)


def test_an_empty_index_is_refused(folder: Path) -> None:
    write(folder)
    with pytest.raises(JobError, match="names no pairs"):
        read_index(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"patient_id": ""}, "row 1 of the index lacks patient_id"),
        ({"mask": "b.png"}, r"the mask of a\.png: named by the index but not in masks/"),
        ({"file": "../masks/a.png"}, "must name files inside images/"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(folder: Path, change: dict[str, str], message: str) -> None:
    write(folder, ROW | change)
    with pytest.raises(JobError, match=message):
        read_channel(folder)


def test_a_mask_of_another_size_is_refused(folder: Path) -> None:
    cv2.imwrite(str(folder / "masks" / "a.png"), np.eye(60, 79, dtype=np.uint8) * 255)
    with pytest.raises(JobError, match=r"a\.png: the image is \(60, 80\) but its mask is \(60, 79\)"):
        read_channel(folder)


def test_a_file_that_is_no_image_is_refused(folder: Path) -> None:
    (folder / "images" / "a.png").write_bytes(b"not a png")
    with pytest.raises(JobError, match=r"a\.png: cannot be read as an image"):
        read_channel(folder)


def test_one_bad_pair_leaves_the_others(folder: Path) -> None:
    write(folder, ROW, ROW | {"file": "gone.png"})
    pairs, refused = read_channel(folder)
    assert [pair.file for pair in pairs] == ["a.png"]
    assert [(refusal.file, refusal.source) for refusal in refused] == [("gone.png", "x")]
    assert "gone.png: named by the index but not in images/" in refused[0].reason


def test_a_patient_stands_in_one_fold_and_sources_are_dealt_evenly() -> None:
    patients = [f"k{i // 2}" for i in range(60)] + [f"c{i}" for i in range(11)]
    sources = ["kermany"] * 60 + ["cohen"] * 11
    homes: dict[str, set[int]] = {}
    for patient, fold in zip(patients, assign_folds(patients, sources, 5), strict=True):
        homes.setdefault(patient, set()).add(fold)
    assert all(len(home) == 1 for home in homes.values())
    for letter, counts in (("k", [6, 6, 6, 6, 6]), ("c", [3, 2, 2, 2, 2])):
        members = [fold for patient, home in homes.items() if patient[0] == letter for fold in home]
        assert [members.count(fold) for fold in range(5)] == counts


def test_a_patient_of_two_sources_stays_in_one_fold() -> None:
    first, _, again = assign_folds(["b", "a", "b"], ["x", "x", "y"], 2)
    assert first == again


def test_folds_do_not_depend_on_the_order_of_the_rows() -> None:
    patients, sources = [f"p{i}" for i in range(20)], ["x"] * 20
    forward = dict(zip(patients, assign_folds(patients, sources, 4), strict=True))
    backward = dict(zip(patients[::-1], assign_folds(patients[::-1], sources, 4), strict=True))
    assert forward == backward


def test_a_source_with_fewer_patients_than_folds_is_refused() -> None:
    with pytest.raises(JobError, match="source small has 2 patients: too few for 5 folds"):
        assign_folds(["a", "b"], ["small", "small"], 5)


@pytest.mark.parametrize(("power", "share"), [(1.0, 0.1), (0.5, 0.25), (0.0, 0.5)])
def test_power_sets_how_much_a_small_source_is_favoured(power: float, share: float) -> None:
    weights = sampling_weights(["large"] * 90 + ["small"] * 10, power)
    assert weights.sum() == pytest.approx(1)
    assert weights[90:].sum() == pytest.approx(share)


def test_the_cache_keeps_pairs_in_order(folder: Path) -> None:
    images, masks = shrink(read_channel(folder)[0] * 2, 128)
    assert images.shape == masks.shape == (2, 128, 128)
    assert masks[0, 64, 127] == 255
    assert masks[0, 64, 0] == 0
