from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from dagster import Failure

from penumo_assets.assets.evaluation import STUDY, EvaluationConfig, evaluation_context, statements
from penumo_assets.assets.report_context import cohort_flow
from penumo_assets.jobs.manifest import ManifestRow
from penumo_assets.metrics.report.assemble import build_report
from penumo_assets.metrics.report.content import CohortFlow
from penumo_assets.records import ModelRecord
from penumo_assets.resources.storage.file_store import FileStore
from penumo_assets_tests.metrics.synthetic import evaluation


def test_every_statement_answers_an_item_or_a_line_of_the_report() -> None:
    """The keys are the report's own: with all of them stated, no item waits for the study's owner."""
    report = build_report(evaluation(40, context=dict.fromkeys(STUDY, "stated")))
    assert not [row.topic for row in report.checklist if row.reason and "only its owner" in row.reason]


def test_a_misspelt_statement_is_refused_by_name() -> None:
    assert statements({"aims": "To find pneumonia."}) == {"aims": "To find pneumonia."}
    with pytest.raises(Failure, match="unknown statements aim; known are acquisition, aims"):
        statements({"aim": "To find pneumonia."})


def looks(store: FileStore, job: str, test: str) -> int:
    model = ModelRecord(prefix="models/a", name="model.tar.gz", job_name=job, dataset_digest="d")
    known = evaluation_context(store, EvaluationConfig(), model, [], test)
    assert known["test_digest"] == test
    return known["test_looks"]


def test_each_model_looks_at_a_test_set_once_and_another_test_set_starts_anew(tmp_path: Path) -> None:
    store, (one, other) = FileStore(tmp_path), ("1" * 64, "2" * 64)
    assert [looks(store, job, one) for job in ("x", "y", "x", "z")] == [1, 2, 2, 3]
    assert looks(store, "x", other) == 1


def test_no_look_is_lost_when_several_are_counted_at_once(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda n: looks(store, f"job-{n}", "1" * 64), range(16)))
    assert sorted(found) == list(range(1, 17))


def test_the_flow_counts_films_by_class_and_what_is_no_film_apart() -> None:
    def film(name: str, label: str | None = None, patient: str = "p", **more: Any) -> ManifestRow:
        made = {stage: {"key": "k", "sha256": "s", "fingerprint": "f"} for stage in ("masks", "npz")}
        values = {"image_id": name, "source": name, "source_etag": "e", "source_bytes": 1, "patient_id": patient}
        return ManifestRow.model_validate(values | {"label": label, "stages": made} | more)

    def out(code: str) -> dict[str, Any]:
        return {"stages": {}, "status": "rejected", "stage": "masks", "code": code}

    whole = {"masks": {"key": "k", "sha256": "s", "fingerprint": "f", "facts": {"fallback": "one lung"}}}
    rows = [
        film("a", "normal"),
        film("b", "pneumonia"),
        film("c"),
        film("d", "normal", notes=["patient_id:none"]),
        film("e", "pneumonia", **out("implausible_mask")),
        film("f", "normal", **{"stages": whole}),
        film("mask", **out("unpaired_mask")),
        film("absent", "normal", **out("missing_file")),
    ]
    flow = cohort_flow(rows)
    assert CohortFlow.model_validate(flow).model_dump() == flow
    assert flow == {
        "landed": 6, "accepted": 4, "rejected": {"implausible_mask": 1}, "unlabelled": 1, "without_patient": 1,
        "whole_image_masks": 1, "unpaired_masks": 1, "missing_files": 1,
        "classes": {
            "normal": {"landed": 3, "rejected": 0, "accepted": 2},
            "pneumonia": {"landed": 2, "rejected": 1, "accepted": 1},
        },
    }  # fmt: skip
