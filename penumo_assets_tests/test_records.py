"""Records of what is current: those of earlier versions stay readable, and what is no record says so."""

import json
from pathlib import Path

import pytest

from penumo_assets.records import (
    ChampionRecord,
    ModelRecord,
    PredictionsRecord,
    Record,
    ReportRecord,
    SearchRecord,
    SegmenterRecord,
    TrainingSetRecord,
    VersionRecord,
)
from penumo_assets.resources.compute.spec import JobInput
from penumo_assets.resources.storage.file_store import FileStore
from penumo_assets.resources.storage.object_store import StorageError

MODEL = {
    "prefix": "models/resnet34/job-1", "name": "model.tar.gz", "job_name": "job-1", "dataset_digest": "d" * 64,
    "mlflow_run_id": "r1", "values": {"mlflow_model_uri": "models:/m-1", "validation_roc_auc": 0.9, "note": None},
}  # fmt: skip
TRIAL = {"number": 0, "hyperparameters": {"epochs": "3"}, "value": 0.5, "job_name": "job-1", "reason": ""}
VERSION = {
    "version": "7", "architecture": "resnet34", "training_job": "job-1", "dataset_digest": "d" * 64, "phantoms": True,
    "model": MODEL, "serving": {"prefix": "models/versions/7", "name": "model.tar.gz"}, "report": "reports/resnet34/1",
    "rule": {"threshold": 0.4, "temperature": 1.5, "source": "youden on validation"}, "package": None,
    "approval": "PendingManualApproval",
}  # fmt: skip
# As the version before this module wrote them.
EARLIER: dict[str, tuple[type[Record], str, dict]] = {
    "training_set/current.json": (
        TrainingSetRecord, "",
        {"prefix": "training_set/dd", "names": ["train/0.npy"], "digest": "d" * 64, "cohorts": ["a"]},
    ),
    "models/resnet34/current.json": (ModelRecord, "resnet34", MODEL),
    "models/resnet34/search.json": (
        SearchRecord, "resnet34",
        {"objective": "validation_roc_auc", "dataset_digest": "d", "best": TRIAL, "trials": [TRIAL]},
    ),
    "reports/resnet34/current.json": (
        ReportRecord, "resnet34",
        {"prefix": "reports/resnet34/1", "names": ["report.json"], "model": MODEL, "values": {"test_roc_auc": None}},
    ),
    "models/lung_segmenter/current.json": (SegmenterRecord, "", {"prefix": "", "name": "w", "sha256": "s"}),
    "models/versions/7.json": (VersionRecord, "7", VERSION),
    "models/champion.json": (ChampionRecord, "", VERSION | {"previous": "6"}),
    "predictions/a/current.json": (
        PredictionsRecord, "a",
        {"prefix": "predictions/a/1", "names": ["x"], "model_version": "7", "drift": [{"moved": True}]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("key", EARLIER)
def test_a_record_of_an_earlier_version_is_read_and_written_without_loss(key: str, tmp_path: Path) -> None:
    kind, about, values = EARLIER[key]
    store = FileStore(tmp_path)
    store.write_json(key, values)
    record = kind.read(store, about)
    record.write(store, about)
    written = store.read_json(key)
    assert {name: written[name] for name in values} == values


def test_what_is_no_record_is_named_with_the_remedy(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    for content, where in (({"prefix": "x", "names": "no list"}, "names"), ({}, "prefix")):
        store.write("training_set/current.json", json.dumps(content).encode())
        with pytest.raises(StorageError, match=rf"training_set/current\.json cannot be read \({where}: .* again"):
            TrainingSetRecord.read(store)


def test_a_split_is_the_objects_of_its_folder() -> None:
    record = TrainingSetRecord(prefix="training_set/d", names=("train/0.npy", "test/0.npy", "dataset.json"), digest="d")
    assert record.split("train") == JobInput("training_set/d/train", ("0.npy",))
