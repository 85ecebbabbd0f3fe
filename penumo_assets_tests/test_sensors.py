from pathlib import Path

from dagster import DagsterInstance, SensorResult, build_sensor_context

from penumo_assets.resources.storage import Storage
from penumo_assets.sensors import landing_listing


def tick(instance: DagsterInstance, storage: Storage, cursor: str | None) -> SensorResult:
    context = build_sensor_context(instance=instance, cursor=cursor, resources={"storage": storage})
    result = landing_listing(context)
    assert isinstance(result, SensorResult)
    return result


def test_a_complete_cohort_becomes_a_partition_and_one_run(tmp_path: Path) -> None:
    storage = Storage(root=str(tmp_path))
    storage.store.write("landing/ward-7/images/a.png", b"x")
    with DagsterInstance.ephemeral() as instance:
        waiting = tick(instance, storage, None)
        assert waiting.run_requests == []
        assert waiting.skip_reason is not None
        storage.store.write("landing/ward-7/_COMPLETE", b"")
        ready = tick(instance, storage, waiting.cursor)
        (request,) = ready.run_requests or []
        assert request.partition_key == "ward-7"
        (added,) = ready.dynamic_partitions_requests or []
        assert list(added.partition_keys) == ["ward-7"]
        assert [event.partition for event in ready.asset_events] == ["ward-7"]
        assert tick(instance, storage, ready.cursor).run_requests == []


def test_a_late_file_starts_one_more_run(tmp_path: Path) -> None:
    storage = Storage(root=str(tmp_path))
    storage.store.write("landing/ward-7/images/a.png", b"x")
    storage.store.write("landing/ward-7/_COMPLETE", b"")
    with DagsterInstance.ephemeral() as instance:
        first = tick(instance, storage, None)
        storage.store.write("landing/ward-7/images/b.png", b"y")
        second = tick(instance, storage, first.cursor)
        keys = [request.run_key for result in (first, second) for request in result.run_requests or []]
        assert len(set(keys)) == 2


def test_a_folder_that_is_no_cohort_name_is_left_alone(tmp_path: Path) -> None:
    storage = Storage(root=str(tmp_path))
    storage.store.write("landing/ward 7/_COMPLETE", b"")
    with DagsterInstance.ephemeral() as instance:
        result = tick(instance, storage, None)
        assert result.run_requests == []
