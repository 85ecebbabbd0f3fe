"""One patient stands on one side of the split, whatever the format and the version that a cohort was prepared by."""

import json
from pathlib import Path

import pytest
from dagster import Failure

from penumo_assets.assets.dataset import trainable
from penumo_assets.cohort.publish import Manifest, dump_manifest, manifest_key
from penumo_assets.cohort.training_items import read_items
from penumo_assets.configs.train import DatasetConfig
from penumo_assets.jobs.manifest import ManifestRow, StageOutput
from penumo_assets.resources.storage.object_store import ObjectStore
from penumo_assets.resources.storage.root import Storage

PSEUDONYM = "p-0123456789abcdef"


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return Storage(root=str(tmp_path)).store


def write(store: ObjectStore, cohort: str, patient: str, split_key: str | None = None) -> None:
    rows = [
        ManifestRow(
            image_id=label,
            source=f"{label}.png",
            source_etag="",
            source_bytes=1,
            label=label,
            patient_id=patient,
            split_key=split_key,
            stages={"npz": StageOutput(key=f"npz/{cohort}/{label}.npz", sha256="0", fingerprint="f")},
        )
        for label in ("normal", "pneumonia")
    ]
    store.write(manifest_key(cohort), dump_manifest(Manifest(cohort).head, rows))


def keys(store: ObjectStore, *cohorts: str) -> list[str | None]:
    found = trainable(store, cohorts, DatasetConfig.defaults()).items.values()
    return [json.loads(line)["split_key"] for each in found for line in read_items(store, each).splitlines()]


def test_what_an_earlier_version_prepared_of_dicom_goes_with_pictures_of_this_one(store: ObjectStore) -> None:
    write(store, "dicom", PSEUDONYM)
    write(store, "pictures", "HOSP-1", PSEUDONYM)
    assert keys(store, "dicom", "pictures") == [PSEUDONYM] * 4


def test_cohorts_without_any_key_are_split_by_their_ids(store: ObjectStore) -> None:
    write(store, "one", "HOSP-1")
    write(store, "other", "HOSP-1")
    assert keys(store, "one", "other") == [None] * 4


def test_pictures_without_a_key_beside_keyed_films_are_refused_by_name(store: ObjectStore) -> None:
    write(store, "old", "HOSP-1")
    write(store, "new", "HOSP-1", PSEUDONYM)
    with pytest.raises(Failure, match="old and other cohorts may show the same patients"):
        keys(store, "old", "new")
