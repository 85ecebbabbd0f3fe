"""Fifty cohorts in one backfill, two of them poisoned, through Dagster's daemon and the requests of its UI."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from dagster import DagsterEventType, DagsterRun, DagsterRunStatus

from penumo_assets.cohort.publish import read_manifest
from penumo_assets.partitions import cohorts
from penumo_assets.resources.storage.object_store import ObjectStore
from penumo_assets.resources.storage.root import open_store
from penumo_assets_tests.backfills.daemon import Daemon, running_daemon
from penumo_assets_tests.backfills.stub_jobs import png

STAGES = ("raw_images", "lung_masks", "preprocessed_images", "npz_tensors")
COHORTS = [f"ward-{number:02d}" for number in range(50)]
MALFORMED, HOPELESS, DOUBTFUL = "ward-13", "ward-37", "ward-21"
pytestmark = pytest.mark.slow


@dataclass
class Backfill:
    """The installation after the backfill of all cohorts."""

    daemon: Daemon
    store: ObjectStore
    backfill: str
    status: str

    def by_cohort(self, backfill: str) -> dict[str, DagsterRun]:
        return {run.tags["dagster/partition"]: run for run in self.daemon.runs(backfill)}


def land(store: ObjectStore, cohort: str, number: int) -> None:
    store.write(f"landing/{cohort}/images/a.png", b"text" if cohort == HOPELESS else png(number))
    if cohort == DOUBTFUL:
        store.write(f"landing/{cohort}/images/b.png", b"text")
    columns = "file;patient" if cohort == MALFORMED else "file,patient_id,label"
    store.write(f"landing/{cohort}/labels.csv", f"{columns}\nimages/a.png,p{number},normal\n".encode())


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backfill]:
    root = str(tmp_path_factory.mktemp("root"))
    store = open_store(root)
    for number, cohort in enumerate(COHORTS):
        land(store, cohort, number)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PENUMO_ROOT", root)
        patch.delenv("PENUMO_PROFILE", raising=False)
        with running_daemon("penumo_assets_tests.backfills.stub_jobs", in_this_process=True) as daemon:
            daemon.instance.add_dynamic_partitions(str(cohorts.name), COHORTS)
            backfill = daemon.backfill(STAGES, COHORTS)
            yield Backfill(daemon, store, backfill, daemon.finish(backfill))


def why(done: Backfill, run: DagsterRun) -> str:
    records = done.daemon.instance.get_records_for_run(run.run_id, of_type=DagsterEventType.STEP_FAILURE).records
    (event,) = [record.event_log_entry.dagster_event for record in records]
    assert event is not None
    return str(event.step_failure_data.user_failure_data.description)  # type: ignore[union-attr]


def test_every_cohort_has_a_run_of_its_own_and_48_succeed(done: Backfill) -> None:
    runs = done.by_cohort(done.backfill)
    assert sorted(runs) == COHORTS
    assert len(done.daemon.runs(done.backfill)) == 50
    succeeded = {cohort for cohort, run in runs.items() if run.status is DagsterRunStatus.SUCCESS}
    assert succeeded == set(COHORTS) - {MALFORMED, HOPELESS}
    assert all(len(read_manifest(done.store, cohort)) == 1 + (cohort == DOUBTFUL) for cohort in succeeded)


def test_the_two_poisoned_cohorts_say_why(done: Backfill) -> None:
    runs = done.by_cohort(done.backfill)
    assert done.status == "COMPLETED_FAILED"
    assert f"labels.csv of cohort {MALFORMED!r} lacks the column(s) patient_id, label" in why(done, runs[MALFORMED])
    assert f"cohort {HOPELESS!r} has no usable image: 1 rejected (not_an_image: 1)" in why(done, runs[HOPELESS])


def verdicts(done: Backfill, check: str) -> dict[str, list[str]]:
    """What the page of a check of `raw_images` shows: its verdict on each cohort."""
    query = """query($check: String!) {assetNodeOrError(assetKey: {path: ["raw_images"]}) {... on AssetNode {
        assetCheckOrError(checkName: $check) {... on AssetCheck {partitionStatuses {
        ... on AssetCheckDefaultPartitionStatuses {succeededPartitions failedPartitions}}}}}}}"""
    node = done.daemon.ask(query, {"check": check})["assetNodeOrError"]
    return {name: sorted(found) for name, found in node["assetCheckOrError"]["partitionStatuses"].items()}


def test_every_cohort_has_its_verdict_and_none_takes_anothers_place(done: Backfill) -> None:
    judged = set(COHORTS) - {MALFORMED, HOPELESS}
    red = {"succeededPartitions": sorted(judged - {DOUBTFUL}), "failedPartitions": [DOUBTFUL]}
    assert verdicts(done, "reject_rate") == red
    assert verdicts(done, "intensity_drift") == {"succeededPartitions": sorted(judged), "failedPartitions": []}
    again = done.daemon.backfill(STAGES, ["ward-00", "ward-49"])
    assert done.daemon.finish(again) == "COMPLETED_SUCCESS"
    assert verdicts(done, "reject_rate") == red


def test_a_retry_from_failure_runs_the_two_that_failed_and_no_other(done: Backfill) -> None:
    store = done.store
    store.write(f"landing/{MALFORMED}/labels.csv", b"file,patient_id,label\nimages/a.png,p13,normal\n")
    store.write(f"landing/{HOPELESS}/images/a.png", png(37))
    again = done.daemon.retry_failed(done.backfill)
    assert done.daemon.finish(again) == "COMPLETED_SUCCESS"
    runs = done.by_cohort(again)
    assert {cohort: run.status for cohort, run in runs.items()} == dict.fromkeys(
        (MALFORMED, HOPELESS), DagsterRunStatus.SUCCESS
    )


def test_the_queue_takes_one_run_of_a_cohort_at_a_time_and_the_pool_limits_jobs(done: Backfill) -> None:
    instance = done.daemon.instance
    settings = instance.get_concurrency_config()
    assert settings.run_queue_config is not None
    assert {"key": "dagster/partition", "value": {"applyLimitPerUniqueValue": True}, "limit": 1} in list(
        settings.run_queue_config.tag_concurrency_limits or ()
    )
    pools = instance.event_log_storage.get_concurrency_info("sagemaker_processing")
    assert pools.slot_count == 1
