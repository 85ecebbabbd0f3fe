"""Two runs on one cohort, readers while it is published, two promotions at once: never a mixture, never a gap."""

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

import pytest
from dagster import AssetExecutionContext, AssetKey, Failure

from penumo_assets.assets import prepare as prepare_module
from penumo_assets.cohort.publish import Manifest, keys_of, open_manifest, read_manifest, read_settings
from penumo_assets.configs.prepare import PrepareConfig
from penumo_assets.promotion import disagreement, read_champion, rollback
from penumo_assets.records import ChampionRecord
from penumo_assets.resources.compute.runner import JobRunner
from penumo_assets.resources.compute.spec import JobResult, JobSpec
from penumo_assets.resources.storage.file_store import FileStore
from penumo_assets.resources.storage.object_store import ObjectMissing, ObjectStore
from penumo_assets.resources.storage.root import Storage
from penumo_assets.resources.tracking import CHAMPION
from penumo_assets_tests.backfills.daemon import running_daemon
from penumo_assets_tests.backfills.stub_jobs import StubJobRunner, png
from penumo_assets_tests.house import House, failure_of, open_house
from penumo_assets_tests.registry import (
    add_report,
    alias,
    run_check,
    set_training_set,
)

pytestmark = [pytest.mark.trust, pytest.mark.slow]
STAGES = ("raw_images", "lung_masks", "preprocessed_images", "npz_tensors")
BY_IMAGE = {"npz": {"filename": "{image_id}"}}


@dataclass
class Interruptions:
    """What happens once, as soon as the next job has ended and before anybody has read its outputs."""

    waiting: list[Callable[[], None]] = field(default_factory=list)


INTERRUPTIONS = Interruptions()


class InterruptedJobRunner(StubJobRunner):
    """Stub jobs, between whose end and publication something else can happen."""

    def run(self, context: AssetExecutionContext, spec: JobSpec) -> JobResult:
        result = super().run(context, spec)
        if INTERRUPTIONS.waiting:
            INTERRUPTIONS.waiting.pop()()
        return result


@pytest.fixture
def ward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    """A cohort of three pictures, and stub jobs. Claims are lost: publishing alone keeps runs apart."""
    monkeypatch.setattr(prepare_module, "claimed", lambda *_: nullcontext())
    with open_house(tmp_path, processes=True) as house:
        storage: Storage = house.resources["storage"]
        house.resources["jobs"] = InterruptedJobRunner(storage=storage)
        for number in range(3):
            house.store.write(f"landing/ward/{number}.png", png(number))
        house.instance.add_dynamic_partitions("cohort", ["ward"])
        yield house
        INTERRUPTIONS.waiting.clear()


def prepare(house: House, config: dict | None = None) -> None:
    house.materialize(*STAGES, partition="ward", config={"prepare_cohort": config or {}})


def consistent(store: ObjectStore, manifest: Manifest) -> bool:
    """Whether every object that the manifest names is there, with the content it names."""
    outputs = [output for row in manifest.rows for output in row.stages.values()]
    return all(hashlib.sha256(store.read(output.key)).hexdigest() == output.sha256 for output in outputs)


def objects(store: ObjectStore) -> set[str]:
    return {info.key for stage in ("raw", "masks", "preprocessed", "npz") for info in store.list_objects(stage)}


def assert_whole(house: House) -> None:
    """The manifest, what it names, and nothing else."""
    manifest = open_manifest(house.store, "ward")
    assert len(manifest.rows) == 3
    assert consistent(house.store, manifest)
    assert objects(house.store) == keys_of(manifest.rows)
    assert list(house.store.list_objects("jobs")) == []


def test_of_two_runs_with_different_settings_the_last_one_wins_whole(ward: House) -> None:
    INTERRUPTIONS.waiting.append(lambda: prepare(ward, BY_IMAGE | {"enhance": {"apply_mask": True}}))
    prepare(ward, {"enhance": {"crop_margin": 0.2}})
    assert INTERRUPTIONS.waiting == []
    assert_whole(ward)
    settings = PrepareConfig.parse(read_settings(ward.store, "ward"))
    assert (settings.enhance.crop_margin, settings.enhance.apply_mask) == (0.2, False)
    assert settings.npz == PrepareConfig().npz
    names = {row.stages["npz"].key.rsplit("/", 1)[-1] for row in read_manifest(ward.store, "ward")}
    assert names == {f"{row.patient_id}.npz" for row in read_manifest(ward.store, "ward")}


def test_a_run_whose_job_another_run_has_finished_and_tidied_away_takes_over_what_it_left(ward: House) -> None:
    INTERRUPTIONS.waiting.append(lambda: prepare(ward))
    prepare(ward)
    assert_whole(ward)
    events = ward.instance.fetch_materializations(AssetKey("npz_tensors"), limit=2).records
    computed = [event.asset_materialization.metadata["computed"].value for event in events]  # type: ignore[union-attr]
    assert sorted(computed) == [0, 3]


def test_what_a_run_that_died_has_left_is_removed_by_the_next(ward: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """It dies after the manifest is in place, and before the old objects and the job's outputs are removed."""
    prepare(ward)
    swap = FileStore.swap
    with monkeypatch.context() as patch:

        def die(*_: object) -> None:
            raise KeyboardInterrupt

        def swap_and_die(self: FileStore, key: str, data: bytes, version: str | None) -> None:
            swap(self, key, data, version)
            patch.setattr(FileStore, "delete", die)

        patch.setattr(FileStore, "swap", swap_and_die)
        with pytest.raises(KeyboardInterrupt):
            prepare(ward, {"enhance": {"apply_mask": True}})
    assert len(objects(ward.store)) > 12
    assert list(ward.store.list_objects("jobs"))
    prepare(ward, {"enhance": {"apply_mask": True}})
    assert_whole(ward)


def test_a_reader_sees_one_manifest_or_the_next_and_never_a_mixture(ward: House) -> None:
    prepare(ward)
    done, seen = Event(), set()

    def read() -> int:
        looks = 0
        while not done.is_set():
            manifest = open_manifest(ward.store, "ward")
            try:
                assert consistent(ward.store, manifest)
                seen.add(manifest.version)
            except ObjectMissing:
                assert open_manifest(ward.store, "ward").version != manifest.version, "an object is gone"
            looks += 1
        return looks

    with ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(read) for _ in range(2)]
        try:
            for turn in range(6):
                ward.store.write("landing/ward/0.png", png(100 + turn))
                prepare(ward, {"enhance": {"apply_mask": turn % 2 == 0}})
        finally:
            done.set()
        assert all(reader.result() > 6 for reader in readers)
    assert len(seen) >= 3
    assert_whole(ward)


def test_a_training_set_whose_tensors_are_replaced_while_it_is_packed_is_planned_again(
    ward: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = "".join(f"{number}.png,P{number},{('normal', 'pneumonia')[number % 2]}\n" for number in range(3))
    ward.store.write("landing/ward/labels.csv", f"file,patient_id,label\n{labels}".encode())
    prepare(ward)
    tries: list[int] = []

    def read_all(context: AssetExecutionContext, jobs: JobRunner, spec: JobSpec) -> JobResult:
        tries.append(len(spec.inputs["npz"].names))
        if len(tries) == 1:
            for number in range(3):
                ward.store.write(f"landing/ward/{number}.png", png(200 + number))
            prepare(ward)
        for name in spec.inputs["npz"].names:
            ward.store.read(f"npz/{name}")
        raise Failure("every tensor was read")

    monkeypatch.setattr("penumo_assets.assets.dataset.run_job", read_all)
    assert failure_of(ward.materialize("training_set", fails=True)) == "every tensor was read"
    assert tries == [3, 3]
    ward.store.delete([read_manifest(ward.store, "ward")[0].stages["npz"].key])
    result = ward.materialize("training_set", fails=True)  # a fault of the store is not taken for another run's work
    (event,) = [event for event in result.all_events if event.is_step_failure]
    assert event.step_failure_data.error.cause.cls_name == "ObjectMissing"
    assert tries == [3, 3, 3]


def test_overlapping_backfills_leave_every_cohort_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENUMO_ROOT", str(tmp_path))
    monkeypatch.delenv("PENUMO_PROFILE", raising=False)
    store = Storage(root=str(tmp_path)).store
    names = [f"ward-{number}" for number in range(3)]
    for number, name in enumerate(names):
        store.write(f"landing/{name}/a.png", png(number))
    with running_daemon("penumo_assets_tests.backfills.stub_jobs", in_this_process=True) as daemon:
        daemon.instance.add_dynamic_partitions("cohort", names)
        first, second = daemon.backfill(STAGES, names[:2]), daemon.backfill(STAGES, names[1:])
        assert daemon.finish(first) == daemon.finish(second) == "COMPLETED_SUCCESS"
        assert len(daemon.runs(first)) == len(daemon.runs(second)) == 2
    for name in names:
        manifest = open_manifest(store, name)
        assert len(manifest.rows) == 1
        assert consistent(store, manifest)
    assert len(objects(store)) == 4 * len(names)


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[House]:
    """Two evaluated models; ``resnet34`` is the champion, ``resnet50`` was it before."""
    with open_house(tmp_path) as house:
        set_training_set(house)
        for architecture, auc in (("resnet50", 0.8), ("resnet34", 0.9)):
            add_report(house, architecture, job=f"train-{architecture}", validation_auc=auc)
            house.materialize("champion_model")
        yield house


def test_the_champion_is_there_at_every_moment_of_promotions_and_rollbacks(registry: House) -> None:
    done = Event()

    def watch() -> int:
        looks = 0
        while not done.is_set():
            version = alias(registry, CHAMPION)
            assert version is not None
            record = registry.store.read_json(f"models/versions/{version}.json")
            assert registry.store.exists(f"{record['serving']['prefix']}/{record['serving']['name']}")
            champion = registry.store.read_json(ChampionRecord.key())
            assert registry.store.exists(f"{champion['serving']['prefix']}/{champion['serving']['name']}")
            looks += 1
        return looks

    with ThreadPoolExecutor(1) as pool:
        watcher = pool.submit(watch)
        try:
            for _ in range(4):
                rollback(registry.store, *(registry.resources[name] for name in ("tracking", "packages")))
                registry.materialize("champion_model", config={"champion_model": {"allow_withdrawn": True}})
        finally:
            done.set()
        assert watcher.result() > 3


def test_two_promotions_at_once_end_with_alias_and_record_on_one_version(
    registry: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second happens whole between the first one's move of the aliases and of the record."""
    tracking, store = registry.resources["tracking"], registry.store
    before = read_champion(store).version
    point, others = type(tracking).point, [lambda: rollback(store, tracking, registry.resources["packages"])]

    def point_and_be_overtaken(self: object, version: str) -> str | None:
        previous = point(tracking, version)
        if others:
            others.pop()()
        return previous

    monkeypatch.setattr(type(tracking), "point", point_and_be_overtaken)
    registry.materialize("champion_model")
    assert others == []
    assert read_champion(store).version == alias(registry, CHAMPION) == before
    assert disagreement(store, tracking) is None
    assert run_check(registry, "champion_agrees")
