"""The listing sensor on a folder, and on a bucket that does not always answer."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from dagster import DagsterInstance, SensorResult, build_sensor_context

from penumo_assets.cohort.retire import bring_back, retire
from penumo_assets.cohort.watch.arrivals import LANDING, START
from penumo_assets.resources.storage.object_store import ObjectStore
from penumo_assets.resources.storage.root import Storage
from penumo_assets.sensors import listing
from penumo_assets.sensors.launches import SETTLE_VARIABLE
from penumo_assets.sensors.listing import landing_listing
from penumo_assets_tests.resources.s3_server import S3Server, running_s3


class Landing:
    """A store, and the sensor's ticks on it one after the other."""

    def __init__(self, storage: Storage, instance: DagsterInstance) -> None:
        self.storage = storage
        self.instance = instance
        self.cursor: str | None = None

    @property
    def store(self) -> ObjectStore:
        return self.storage.store

    def land(self, *names: str, data: bytes = b"x") -> None:
        for name in names:
            self.store.write(f"{LANDING}/{name}", data)

    def tick(self) -> SensorResult:
        context = build_sensor_context(instance=self.instance, cursor=self.cursor, resources={"storage": self.storage})
        result = landing_listing(context)
        assert isinstance(result, SensorResult)
        self.cursor = result.cursor
        return result

    def runs(self) -> list[str]:
        return [str(request.partition_key) for request in self.tick().run_requests or []]


@pytest.fixture
def landing(tmp_path: Path) -> Iterator[Landing]:
    with DagsterInstance.ephemeral() as instance:
        yield Landing(Storage(root=str(tmp_path)), instance)


def reason(result: SensorResult) -> str:
    assert result.skip_reason is not None
    assert not result.run_requests
    return result.skip_reason.skip_message or ""


def test_a_complete_cohort_becomes_a_partition_an_event_and_one_run(landing: Landing) -> None:
    landing.land("ward-7/images/a.png", "ward-7/images/b.png")
    assert "1 still changing" in reason(landing.tick())
    landing.land("ward-7/_COMPLETE", data=b"")
    result = landing.tick()
    (request,) = result.run_requests or []
    (added,) = result.dynamic_partitions_requests or []
    (event,) = result.asset_events
    assert request.partition_key == event.partition == "ward-7"
    assert list(added.partition_keys) == ["ward-7"]
    assert event.metadata["images"].value == 2
    assert landing.runs() == []


def test_late_files_start_one_more_run_when_they_have_settled(
    landing: Landing, monkeypatch: pytest.MonkeyPatch
) -> None:
    landing.land("ward-7/images/a.png", "ward-7/_COMPLETE")
    first = landing.tick()
    landing.land("ward-7/images/b.png")
    assert landing.runs() == []
    landing.land("ward-7/labels.csv")
    assert landing.runs() == []
    monkeypatch.setenv(SETTLE_VARIABLE, "0")
    second = landing.tick()
    keys = [request.run_key for result in (first, second) for request in result.run_requests or []]
    assert len(set(keys)) == len(keys) == 2
    assert landing.runs() == []


def test_a_folder_that_is_no_cohort_name_is_reported_and_left_alone(landing: Landing) -> None:
    landing.land("ward 7/_COMPLETE", "Müller/a.png", "a.png")
    text = reason(landing.tick())
    assert "3 names that are no cohort's" in text
    assert not re.search(r"ward 7|ller|a\.png", text)


def test_a_large_landing_is_listed_over_several_ticks(landing: Landing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "TICK_SECONDS", -1.0)
    for cohort in ("a", "b", "c"):
        landing.land(*(f"{cohort}/{number:03d}.png" for number in range(200)), f"{cohort}/_COMPLETE")
    ticks = [landing.runs()]
    listing._reached.position = START  # as in a process that was started anew: it lists one cohort a second time
    ticks += [landing.runs() for _ in range(6)]
    assert [len(cohorts) for cohorts in ticks[:3]] == [1, 1, 1]
    assert sorted(cohort for cohorts in ticks for cohort in cohorts) == ["a", "b", "c"]


def test_a_store_that_does_not_answer_leaves_the_cursor(landing: Landing, monkeypatch: pytest.MonkeyPatch) -> None:
    landing.land("ward-7/a.png")
    landing.tick()
    before = landing.cursor
    folder = Path(landing.storage.root) / "landing" / "ward-7"
    monkeypatch.setattr("os.scandir", lambda path: (_ for _ in ()).throw(OSError(116, "Stale file handle")))
    assert "landing cannot be listed: landing: Stale file handle" in reason(landing.tick())
    assert landing.cursor == before
    monkeypatch.undo()
    (folder / "_COMPLETE").touch()
    assert landing.runs() == ["ward-7"]


def test_a_retired_cohort_is_left_alone_until_it_is_back(landing: Landing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SETTLE_VARIABLE, "0")
    landing.land("ward-7/a.png", "ward-8/a.png")
    landing.instance.add_dynamic_partitions("cohort", ["ward-7"])
    retire(landing.store, landing.instance, "ward-7", "no consent")
    assert landing.runs() == ["ward-8"]
    landing.land("ward-7/b.png")
    assert landing.runs() == []
    bring_back(landing.store, landing.instance, "ward-7")
    assert landing.runs() == ["ward-7"]


def test_a_cursor_that_cannot_be_read_begins_anew(landing: Landing) -> None:
    landing.land("ward-7/a.png", "ward-7/_COMPLETE")
    landing.cursor = "{broken"
    assert landing.runs() == ["ward-7"]


@pytest.mark.parametrize("text", ["soon", "-1", "nan", "inf"])
def test_a_wait_that_is_no_number_is_refused_by_its_name(
    landing: Landing, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv(SETTLE_VARIABLE, text)
    with pytest.raises(ValueError, match=SETTLE_VARIABLE):
        landing.tick()


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with running_s3() as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_ENDPOINT_URL", server.endpoint)
        yield server


@pytest.fixture
def bucket(s3: S3Server) -> Iterator[Landing]:
    s3.start_over("films", "us-east-1")
    with DagsterInstance.ephemeral() as instance:
        yield Landing(Storage(root="s3://films/penumo"), instance)


def test_a_bucket_that_does_not_answer_leaves_the_cursor(bucket: Landing, s3: S3Server) -> None:
    bucket.land("ward-7/a.png", "ward-7/_COMPLETE")
    s3.fail("GET", "InternalError", times=2)
    assert "landing cannot be listed" in reason(bucket.tick())
    assert bucket.cursor is None
    s3.fail("GET", "SlowDown", times=1)
    assert bucket.runs() == ["ward-7"]


def test_odd_keys_of_a_bucket_are_listed_in_pieces(
    bucket: Landing, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    import boto3

    odd = ["a b.png", "Röntgen-🫁.png", "../up.png", "x//y.png", "k" * (1024 - 22), "folder/"]
    client = boto3.client("s3")
    s3.put("films", *(f"penumo/landing/ward-7/n{number:03d}.png" for number in range(300)))
    for name in [*odd, "_COMPLETE"]:
        client.put_object(Bucket="films", Key=f"penumo/landing/ward-7/{name}", Body=b"")
    client.put_object(Bucket="films", Key="penumo/landing/", Body=b"")
    monkeypatch.setattr(listing, "TICK_SECONDS", -1.0)
    results = [bucket.tick() for _ in range(3)]
    (request,) = [request for result in results for request in result.run_requests or []]
    assert request.partition_key == "ward-7"
    (event,) = [event for result in results for event in result.asset_events]
    assert event.metadata["images"].value == 305
