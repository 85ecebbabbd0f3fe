import pytest

from penumo_assets.jobs.identity import doubts, label_counts, why_untrainable
from penumo_assets.jobs.manifest import ManifestRow, StageOutput

TENSOR = {"npz": StageOutput(key="npz/c/a.npz", sha256="0", fingerprint="f")}


def row(**values: object) -> ManifestRow:
    return ManifestRow.model_validate({"image_id": "a", "source": "a", "source_etag": "", "source_bytes": 1, **values})


def test_a_cohort_without_labels_is_said_to_be_one() -> None:
    assert label_counts([row(), row()]) == {"labelled": 0, "unlabelled": 2, "classes": "none: no film has a label"}


def test_labels_are_counted_by_class_among_what_was_not_rejected() -> None:
    rows = [
        row(label="pneumonia"),
        row(label="normal"),
        row(label="normal"),
        row(),
        row(label="normal", status="rejected"),
    ]
    assert label_counts(rows) == {"labelled": 3, "unlabelled": 1, "classes": "normal: 2, pneumonia: 1"}


def test_doubts_are_counted_among_labelled_films() -> None:
    rows = [
        row(label="normal", notes=["sex:differs"]),
        row(notes=["sex:differs"]),
        row(label="normal", notes=["depth:12"]),
    ]
    assert [(item["note"], item["films"]) for item in doubts(rows)] == [("sex:differs", 1)]


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ([], "not been prepared"),
        ([row()], "none of its films has a label"),
        ([row(label="normal", status="rejected")], "all its labelled films were rejected"),
        ([row(label="normal")], "npz_tensors has not been materialized"),
        ([row(label="normal", stages=TENSOR, notes=["patient_id:none"])], "has a patient id"),
    ],
)
def test_a_cohort_that_cannot_train_says_why(rows: list[ManifestRow], why: str) -> None:
    assert why in why_untrainable(rows)
    assert not why_untrainable([*rows, row(label="normal", stages=TENSOR)])
