"""Sensors switched on as in the UI, through Dagster's daemon: a folder that is dropped fills up to its tensors."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from dagster import AssetKey

from penumo_assets.cli.demo import SWITCHED_ON
from penumo_assets.cli.runs import Runs
from penumo_assets.cohort.land import land_folder
from penumo_assets.cohort.publish import read_manifest
from penumo_assets.cohort.retire import bring_back, retire
from penumo_assets.cohort.settings import check_settings
from penumo_assets.definitions import build_definitions
from penumo_assets.partitions import cohorts
from penumo_assets.resources.storage.object_store import ObjectStore
from penumo_assets.resources.storage.root import open_store
from penumo_assets_tests.backfills.daemon import Daemon, running_daemon
from penumo_assets_tests.backfills.stub_jobs import png, stub_definitions

Installation = tuple[Daemon, ObjectStore]


@pytest.fixture
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    root = str(tmp_path_factory.mktemp("root"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PENUMO_ROOT", root)
        patch.setenv("PENUMO_SETTLE_SECONDS", "0")
        patch.delenv("PENUMO_PROFILE", raising=False)
        with running_daemon("penumo_assets_tests.backfills.stub_jobs", in_this_process=True) as daemon:
            yield daemon, open_store(root)


def runs(daemon: Daemon) -> list[tuple[str, str]]:
    """Partition and status of every run, the oldest first."""
    found = reversed(list(daemon.instance.get_runs()))
    return [(run.tags["dagster/partition"], run.status.value) for run in found]


def test_a_dropped_folder_becomes_tensors_and_late_files_are_added(here: Installation) -> None:
    daemon, store = here
    daemon.switch_on("landing_listing", "cohorts_to_tensors")
    store.write("landing/ward-7/a.png", png(1))
    store.write("landing/ward 8/a.png", png(1))
    daemon.tick_sensors()
    assert daemon.instance.get_dynamic_partitions(str(cohorts.name)) == ["ward-7"]
    assert runs(daemon) == [("ward-7", "SUCCESS")]
    assert len(read_manifest(store, "ward-7")) == 1
    daemon.tick_sensors()
    assert len(runs(daemon)) == 1
    store.write("landing/ward-7/b.png", png(2))
    store.write("landing/ward-7/labels.csv", b"file,patient_id,label\na.png,P1,normal\nb.png,P2,pneumonia\n")
    daemon.tick_sensors()
    daemon.tick_sensors()
    assert runs(daemon) == [("ward-7", "SUCCESS")] * 2
    assert sorted(str(row.label) for row in read_manifest(store, "ward-7")) == ["normal", "pneumonia"]
    event = daemon.instance.get_latest_materialization_event(AssetKey("npz_tensors"))
    assert event is not None
    assert event.asset_materialization is not None
    assert event.asset_materialization.metadata["dagster/row_count"].value == 2


def test_what_the_demo_switches_on_prepares_a_new_folder(here: Installation) -> None:
    daemon, store = here
    demo = Runs(daemon.instance, build_definitions())
    for name in SWITCHED_ON:
        demo.switch_on(name)
    states = daemon.instance.all_instigator_state()
    assert {state.name for state in states if state.is_running} == {"landing_listing", "cohorts_to_tensors"}
    store.write("landing/ward-7/a.png", png(1))
    daemon.tick_sensors()
    assert runs(daemon) == [("ward-7", "SUCCESS")]


def test_a_cohort_prepared_by_hand_runs_for_late_files_only_and_by_its_own_settings(
    here: Installation, tmp_path: Path
) -> None:
    daemon, store = here
    settings = check_settings(store, "ward-7", b"npz: {filename: 'x-{patient_id}'}", "mine.yaml")
    (tmp_path / "a.png").write_bytes(png(1))
    land_folder(store, daemon.instance, "ward-7", tmp_path, settings=settings)
    job = stub_definitions().resolve_job_def("prepare")
    assert job.execute_in_process(instance=daemon.instance, partition_key="ward-7").success
    (first,) = read_manifest(store, "ward-7")
    daemon.switch_on("landing_listing")
    daemon.tick_sensors()
    assert len(runs(daemon)) == 1
    store.write("landing/ward-7/b.png", png(2))
    daemon.tick_sensors()
    daemon.tick_sensors()
    assert runs(daemon) == [("ward-7", "SUCCESS")] * 2
    rows = read_manifest(store, "ward-7")
    assert first in rows
    (late,) = [row for row in rows if row != first]
    assert late.stages["npz"].key.rsplit("/", 1)[-1] == f"x-{late.patient_id}.npz"
    event = daemon.instance.get_latest_materialization_event(AssetKey("npz_tensors"))
    assert event is not None
    assert event.asset_materialization is not None
    assert event.asset_materialization.metadata["computed"].value == 1


def test_a_retired_cohort_is_left_alone_by_every_switch_until_it_is_back(here: Installation) -> None:
    daemon, store = here
    daemon.switch_on("landing_listing", "cohorts_to_tensors")
    for cohort in ("ward-7", "ward-8"):
        store.write(f"landing/{cohort}/a.png", png(1))
    daemon.tick_sensors()
    assert sorted(runs(daemon)) == [("ward-7", "SUCCESS"), ("ward-8", "SUCCESS")]
    retire(store, daemon.instance, "ward-7", "no consent")
    store.write("landing/ward-7/b.png", png(2))
    store.write("landing/ward-8/b.png", png(2))
    daemon.tick_sensors()
    daemon.tick_sensors()
    assert sorted(runs(daemon)) == [("ward-7", "SUCCESS"), *[("ward-8", "SUCCESS")] * 2]
    assert daemon.instance.get_dynamic_partitions(str(cohorts.name)) == ["ward-8"]
    bring_back(store, daemon.instance, "ward-7")
    daemon.tick_sensors()
    assert len(read_manifest(store, "ward-7")) == 2


def test_a_malformed_table_fails_its_cohort_by_name_and_a_mended_one_runs(here: Installation) -> None:
    daemon, store = here
    daemon.switch_on("landing_listing")
    store.write("landing/ward-7/a.png", png(1))
    store.write("landing/ward-7/labels.csv", b"\xff\xfe not a table")
    daemon.tick_sensors()
    daemon.tick_sensors()
    assert runs(daemon) == [("ward-7", "FAILURE")], "once: it would fail again"
    store.write("landing/ward-7/labels.csv", b"file,patient_id,label\na.png,P1,normal\n")
    daemon.tick_sensors()
    assert runs(daemon) == [("ward-7", "FAILURE"), ("ward-7", "SUCCESS")]


def test_the_automation_alone_prepares_a_cohort_that_was_landed_by_hand(here: Installation) -> None:
    from dagster import AssetMaterialization

    daemon, store = here
    daemon.switch_on("cohorts_to_tensors")
    daemon.tick_sensors()
    store.write("landing/ward-7/a.png", png(1))
    daemon.instance.add_dynamic_partitions(str(cohorts.name), ["ward-7"])
    daemon.instance.report_runless_asset_event(AssetMaterialization("landing", partition="ward-7"))
    daemon.tick_sensors()
    daemon.tick_sensors()
    assert runs(daemon) == [("ward-7", "SUCCESS")]
    assert store.exists("manifests/ward-7.jsonl")
