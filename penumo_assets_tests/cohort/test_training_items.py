"""A training set is planned from the manifests that have changed since the one before, and from no other."""

from pathlib import Path

import pytest

from penumo_assets.assets.dataset import pack_spec, trainable
from penumo_assets.cohort import training_items
from penumo_assets.cohort.publish import Manifest, dump_manifest, manifest_key, open_manifest
from penumo_assets.cohort.training_items import ITEMS, ItemsRecord, cohort_items, fresh_files
from penumo_assets.configs.train import DatasetConfig
from penumo_assets.jobs.manifest import ManifestRow, StageOutput
from penumo_assets.records import TrainingSetRecord
from penumo_assets.resources.storage.object_store import ObjectStore
from penumo_assets.resources.storage.root import Storage

COHORTS = ("east", "north", "west")


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    store = Storage(root=str(tmp_path)).store
    for cohort in COHORTS:
        write(store, cohort, 4)
    return store


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The cohorts whose manifests are read from now on."""
    names: list[str] = []

    def noting(store: ObjectStore, cohort: str) -> Manifest:
        names.append(cohort)
        return open_manifest(store, cohort)

    monkeypatch.setattr(training_items, "open_manifest", noting)
    return names


def write(store: ObjectStore, cohort: str, films: int) -> None:
    rows = [
        ManifestRow(
            image_id=f"{number}",
            source=f"{number}.png",
            source_etag="",
            source_bytes=1,
            label=("normal", "pneumonia")[number % 2],
            patient_id=f"{cohort}-{number}",
            stages={"npz": StageOutput(key=f"npz/{cohort}/{number}.npz", sha256=f"{number}", fingerprint="f")},
        )
        for number in range(films)
    ]
    store.write(manifest_key(cohort), dump_manifest(Manifest(cohort).head, rows))


def made_of(store: ObjectStore, *unusable: str) -> ItemsRecord:
    return ItemsRecord(cohorts=cohort_items(store, COHORTS, {}, {}), unusable=unusable)


def fresh(store: ObjectStore, before: ItemsRecord) -> list[str]:
    return list(fresh_files(store, cohort_items(store, COHORTS, {}, before.cohorts), before))


def test_only_the_manifest_that_changed_is_read_and_only_its_new_film_packed(
    store: ObjectStore, opened: list[str]
) -> None:
    before = made_of(store)
    assert opened == [*COHORTS]
    opened.clear()
    assert fresh(store, before) == []
    assert opened == []
    write(store, "north", 5)
    assert fresh(store, before) == ["north/4.npz"]
    assert opened == ["north"]


def test_a_first_set_packs_every_film_and_names_every_cohorts_items(store: ObjectStore) -> None:
    found = trainable(store, COHORTS, DatasetConfig.defaults())
    spec = pack_spec(store, found, DatasetConfig.defaults())
    assert found.films == 12
    assert len(spec.inputs["npz"].names) == 12
    assert [name.split("/")[0] for name in spec.inputs["items"].names] == [*COHORTS]


def test_a_set_after_it_takes_what_is_unchanged_from_it(store: ObjectStore) -> None:
    before, settings = made_of(store), DatasetConfig.defaults()
    previous = TrainingSetRecord(prefix="training_set/d", names=("train/shard",), digest="d")
    found = trainable(store, COHORTS, settings, before)
    spec = pack_spec(store, found, settings, previous, before)
    assert "npz" not in spec.inputs
    assert spec.inputs["previous"] == previous.files


def test_a_tensor_that_could_not_be_used_is_tried_again(store: ObjectStore) -> None:
    before = made_of(store, "east/1.npz")
    assert fresh(store, before) == ["east/1.npz"]
    write(store, "east", 5)
    assert fresh(store, before) == ["east/1.npz", "east/4.npz"]


def test_items_that_are_lost_or_were_read_by_another_map_are_made_again(store: ObjectStore, opened: list[str]) -> None:
    before = made_of(store)
    opened.clear()
    store.delete([f"{ITEMS}/{before.cohorts['west'].name}"])
    cohort_items(store, COHORTS, {}, before.cohorts)
    assert opened == ["west"]
    assert store.exists(f"{ITEMS}/{before.cohorts['west'].name}")
    found = cohort_items(store, COHORTS, {"pneumonia": "sick"}, before.cohorts)
    assert found["east"].labels == {"normal": 2, "sick": 2}


def test_items_that_no_set_is_made_of_any_more_are_named(store: ObjectStore) -> None:
    before = made_of(store)
    write(store, "west", 6)
    after = cohort_items(store, COHORTS, {}, before.cohorts)
    assert before.superseded_by(after) == [f"{ITEMS}/{before.cohorts['west'].name}"]


def test_a_set_of_an_earlier_version_is_made_of_nothing_known(store: ObjectStore) -> None:
    record = TrainingSetRecord(prefix="training_set/old", names=(), digest="d", cohorts=COHORTS)
    assert ItemsRecord.of(store, record) == ItemsRecord() == ItemsRecord.of(store, None)
