"""The event sensor on a queue that a bucket writes to: each cohort runs once, whatever is delivered how often."""

import json
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from dagster import DagsterInstance, SensorResult, build_sensor_context
from moto.core import DEFAULT_ACCOUNT_ID
from moto.sqs.models import sqs_backends

from penumo_assets.records import RetiredRecord
from penumo_assets.resources.storage.root import Storage
from penumo_assets.sensors import events, launches, sensors
from penumo_assets.sensors.events import QUEUE_VARIABLE, landing_events
from penumo_assets_tests.resources.s3_server import S3Server, running_s3

PREFIX, REGION = "penumo/landing", "us-east-1"


class Ward:
    """A bucket that notifies a queue, and the sensor's ticks on it."""

    def __init__(self, instance: DagsterInstance, patch: pytest.MonkeyPatch) -> None:
        self.instance = instance
        self.s3: Any = boto3.client("s3")
        self.sqs: Any = boto3.client("sqs")
        self.url = self.sqs.create_queue(QueueName="landing")["QueueUrl"]
        arn = self.sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        told = {"QueueArn": arn, "Events": ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"]}
        self.s3.put_bucket_notification_configuration(
            Bucket="films", NotificationConfiguration={"QueueConfigurations": [told]}
        )
        self.storage = Storage(root="s3://films/penumo")
        self.cursor: str | None = None
        patch.setenv(QUEUE_VARIABLE, self.url)

    def land(self, *names: str) -> None:
        for name in names:
            self.s3.put_object(Bucket="films", Key=f"{PREFIX}/{name}", Body=name.encode())

    def send(self, body: str) -> None:
        self.sqs.send_message(QueueUrl=self.url, MessageBody=body)

    def deliver_again(self) -> None:
        """What was taken and not deleted, as after the visibility time-out."""
        (queue,) = [queue for queue in _queues().values() if queue.name == "landing"]
        for message in queue._messages:
            message.change_visibility(0)

    def left(self) -> int:
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        attributes = self.sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=names)["Attributes"]
        return sum(int(attributes[name]) for name in names)

    def tick(self, *, stored: bool = True) -> SensorResult:
        """One tick; with ``stored=False`` the daemon dies before it has stored the result."""
        context = build_sensor_context(instance=self.instance, cursor=self.cursor, resources={"storage": self.storage})
        result = landing_events(context)
        assert isinstance(result, SensorResult)
        if stored:
            self.cursor = result.cursor
        return result

    def runs(self, **options: bool) -> list[str]:
        return [str(request.partition_key) for request in self.tick(**options).run_requests or []]


def _queues() -> dict[str, Any]:
    return sqs_backends[DEFAULT_ACCOUNT_ID][REGION].queues


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with running_s3() as server:
        yield server


@pytest.fixture
def ward(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ward]:
    server.start_over("films", REGION)
    _queues().clear()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
    monkeypatch.setenv(launches.SETTLE_VARIABLE, "0")
    monkeypatch.setattr(events, "_unconfirmed", events.Unconfirmed())
    monkeypatch.setattr("penumo_assets.resources.event_queue.LONG_POLL_SECONDS", 0)
    with DagsterInstance.ephemeral() as instance:
        yield Ward(instance, monkeypatch)


def message(result: SensorResult) -> str:
    assert result.skip_reason is not None
    return result.skip_reason.skip_message or ""


def test_landed_objects_become_one_run_per_cohort(ward: Ward) -> None:
    ward.land("ward-7/Röntgen a+b.png", "ward-7/b.png", "ward-8/_COMPLETE", "ward-8/a.png", "ward 9/a.png")
    result = ward.tick()
    assert sorted(str(request.partition_key) for request in result.run_requests or []) == ["ward-7", "ward-8"]
    assert {event.partition: event.metadata["images"].value for event in result.asset_events} == {
        "ward-7": 2,
        "ward-8": 1,
    }
    assert ward.runs() == []


def test_messages_are_deleted_once_dagster_has_stored_the_cursor(ward: Ward) -> None:
    ward.land("ward-7/a.png")
    ward.tick()
    before = ward.left()
    ward.tick()
    assert before > 0
    assert ward.left() == 0


def test_a_tick_that_was_never_stored_is_told_again_and_asks_for_the_same_run(ward: Ward) -> None:
    ward.tick()
    ward.land("ward-7/a.png")
    lost = ward.tick(stored=False)
    ward.deliver_again()
    kept = ward.tick()
    assert [request.run_key for request in lost.run_requests or []] == [
        request.run_key for request in kept.run_requests or []
    ]
    ward.deliver_again()
    assert ward.runs() == []


def test_a_message_that_is_delivered_again_starts_no_run(ward: Ward) -> None:
    ward.land("ward-7/a.png")
    assert ward.runs() == ["ward-7"]
    ward.deliver_again()
    events._unconfirmed.receipts = ()  # as in a process that was started meanwhile
    assert ward.runs() == []


def test_a_rewritten_and_a_deleted_object_start_a_run_each(ward: Ward) -> None:
    ward.land("ward-7/a.png", "ward-7/b.png")
    found = [ward.runs()]
    ward.s3.put_object(Bucket="films", Key=f"{PREFIX}/ward-7/a.png", Body=b"other")
    found.append(ward.runs())
    ward.s3.delete_object(Bucket="films", Key=f"{PREFIX}/ward-7/b.png")
    ward.send(
        json.dumps({"Records": [{"s3": {"bucket": {"name": "films"}, "object": {"key": f"{PREFIX}/ward-7/b.png"}}}]})
    )
    found.append(ward.runs())
    assert found == [["ward-7"]] * 3


def test_a_cohort_waits_until_it_has_settled(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(launches.SETTLE_VARIABLE, "3600")
    ward.land("ward-7/a.png")
    assert "1 cohorts still changing" in message(ward.tick())
    ward.land("ward-7/_COMPLETE")
    assert ward.runs() == ["ward-7"]


def test_a_poison_message_is_named_by_its_id_deleted_and_stops_nobody(ward: Ward) -> None:
    ward.send("Doe^Jane")
    ward.land("ward-7/a.png")
    assert ward.runs() == ["ward-7"]
    ward.tick()
    assert ward.left() == 0


def test_a_poison_message_is_left_for_the_dead_letter_queue(ward: Ward) -> None:
    dead = ward.sqs.create_queue(QueueName="dead")["QueueUrl"]
    arn = ward.sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    policy = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": 5})
    ward.sqs.set_queue_attributes(QueueUrl=ward.url, Attributes={"RedrivePolicy": policy})
    ward.send("{")
    ward.tick()
    ward.tick()
    assert ward.left() == 1


def test_a_bucket_that_cannot_be_listed_keeps_what_the_events_said(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    from penumo_assets.resources.storage.object_store import StorageError
    from penumo_assets.resources.storage.s3 import S3Store

    def refuse(*_: object) -> Iterator[None]:
        raise StorageError("S3 cannot be reached")
        yield

    ward.land("ward-7/a.png")
    with monkeypatch.context() as patch:
        patch.setattr(S3Store, "list_objects", refuse)
        assert "cannot be listed: S3 cannot be reached" in message(ward.tick())
    assert ward.runs() == ["ward-7"]


def test_a_retired_cohort_is_left_alone(ward: Ward) -> None:
    ward.tick()
    record = RetiredRecord(by="jane", at="2026-01-01", reason="no consent")
    record.write(ward.storage.store, "ward-7")
    ward.land("ward-7/a.png", "ward-8/a.png")
    assert ward.runs() == ["ward-8"]
    ward.storage.store.delete([RetiredRecord.key("ward-7")])
    ward.land("ward-7/b.png")
    assert ward.runs() == ["ward-7"]


def test_a_queue_that_is_not_there_leaves_the_cursor(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    ward.tick()
    before = ward.cursor
    monkeypatch.setenv(QUEUE_VARIABLE, ward.url + "-gone")
    assert "check PENUMO_EVENTS_QUEUE_URL" in message(ward.tick())
    assert ward.cursor == before


def test_a_large_cohort_is_listed_over_several_ticks(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penumo_assets.cohort.watch.arrivals._OBJECTS_PER_LOOK_AT_THE_CLOCK", 4)
    ward.land(*(f"ward-7/{number}.png" for number in range(9)))

    def clock(seconds: float) -> Any:
        answers = iter([False, True] if seconds == events.TICK_SECONDS else [])
        return lambda: next(answers, False)

    monkeypatch.setattr(events, "timer", clock)
    results = [ward.tick() for _ in range(3)]
    assert [len(result.run_requests or []) for result in results] == [0, 0, 1]
    assert results[2].asset_events[0].metadata["images"].value == 9


def test_without_a_queue_there_is_no_such_sensor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(QUEUE_VARIABLE, raising=False)
    assert "landing_events" not in {sensor.name for sensor in sensors()}
    monkeypatch.setenv(QUEUE_VARIABLE, "https://sqs.eu-central-1.amazonaws.com/123456789012/landing")
    assert "landing_events" in {sensor.name for sensor in sensors()}


def test_a_folder_has_no_events(ward: Ward, tmp_path_factory: pytest.TempPathFactory) -> None:
    ward.storage = Storage(root=str(tmp_path_factory.mktemp("root")))
    assert "PENUMO_ROOT=s3://" in message(ward.tick())
