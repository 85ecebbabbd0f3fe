from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from dagster import Failure

from penumo_assets.assets.evaluation import STUDY, count_look, statements
from penumo_assets.metrics.report.assemble import build_report
from penumo_assets.records import ModelRecord, TrainingSetRecord
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


def model(job: str) -> ModelRecord:
    return ModelRecord(prefix="models/a", name="model.tar.gz", job_name=job, dataset_digest="d")


def test_each_model_looks_at_a_test_set_once_and_another_test_set_starts_anew(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    sets = [TrainingSetRecord(prefix=name, names=(), digest=name) for name in ("a", "same_test_images", "other")]
    for record, data in zip(sets, (b"1", b"1", b"2"), strict=True):
        store.write(f"{record.prefix}/test/index.parquet", data)
    looks = [
        count_look(store, sets[i], model(job))["test_looks"] for i, job in ((0, "x"), (0, "y"), (0, "x"), (1, "z"))
    ]
    assert looks == [1, 2, 2, 3]
    assert count_look(store, sets[2], model("x"))["test_looks"] == 1
    assert (
        count_look(store, sets[0], model("x"))["test_digest"] != count_look(store, sets[2], model("x"))["test_digest"]
    )


def test_no_look_is_lost_when_several_are_counted_at_once(tmp_path: Path) -> None:
    store, record = FileStore(tmp_path), TrainingSetRecord(prefix="a", names=(), digest="a")
    store.write("a/test/index.parquet", b"1")
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda n: count_look(store, record, model(f"job-{n}"))["test_looks"], range(16)))
    assert sorted(found) == list(range(1, 17))
