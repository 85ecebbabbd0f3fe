"""A failed run is told where somebody listens, in words that give away no patient and no address."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import boto3
import pytest
from dagster import (
    DagsterInstance,
    Failure,
    SkipReason,
    StaticPartitionsDefinition,
    asset,
    build_run_status_sensor_context,
    materialize,
)
from moto import mock_aws

from penumo_assets.resources import alerts
from penumo_assets.resources.alerts import AlertError
from penumo_assets.sensors.alerts import TOPIC_VARIABLE, UI_VARIABLE, WEBHOOK_VARIABLE, run_failure

SECRET_PATH = "/services/T0/B0/not-for-logs"


class Webhook:
    """Listens on loopback; ``refusals`` posts are answered with an error first."""

    def __init__(self) -> None:
        self.posts: list[dict[str, Any]] = []
        self.refusals = 0
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if hook.refusals:
                    hook.refusals -= 1
                    self.send_error(503)
                else:
                    hook.posts.append(json.loads(body))
                    self.send_response(200)
                    self.end_headers()

            def log_message(self, *_: object) -> None:
                """Keep the tests' output quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}{SECRET_PATH}"


@pytest.fixture
def webhook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Webhook]:
    hook = Webhook()
    monkeypatch.setattr(alerts, "_WAIT_SECONDS", 0.01)
    monkeypatch.setenv(WEBHOOK_VARIABLE, hook.url)
    monkeypatch.setenv(UI_VARIABLE, "https://dagster.example/")
    monkeypatch.delenv(TOPIC_VARIABLE, raising=False)
    yield hook
    hook.server.shutdown()
    hook.server.server_close()


@asset(partitions_def=StaticPartitionsDefinition(["ward-7"]))
def raw_images() -> None:
    raise Failure("Doe^Jane.dcm is broken")


def alert_of_a_failed_run() -> SkipReason | None:
    with DagsterInstance.ephemeral() as instance:
        result = materialize(
            [raw_images], selection=[raw_images], partition_key="ward-7", instance=instance, raise_on_error=False
        )
        context = build_run_status_sensor_context(
            sensor_name="run_failure",
            dagster_instance=instance,
            dagster_run=result.dagster_run,
            dagster_event=result.get_run_failure_event(),
        ).for_run_failure()
        return run_failure(context)  # type: ignore[return-value]


def test_the_webhook_hears_which_run_failed_and_not_why(webhook: Webhook) -> None:
    alert_of_a_failed_run()
    (post,) = webhook.posts
    assert (post["assets"], post["partition"]) == (["raw_images"], "ward-7")
    assert post["url"] == f"https://dagster.example/runs/{post['run_id']}"
    assert "raw_images [ward-7]" in post["text"]
    assert "Doe" not in json.dumps(post)


def test_a_webhook_that_is_busy_is_asked_again(webhook: Webhook) -> None:
    webhook.refusals = 2
    alert_of_a_failed_run()
    assert len(webhook.posts) == 1


def test_a_webhook_that_refuses_fails_the_tick_without_its_address(webhook: Webhook) -> None:
    webhook.refusals = 3
    with pytest.raises(AlertError, match=r"PENUMO_ALERT_WEBHOOK_URL did not take the alert \(503\)") as refused:
        alert_of_a_failed_run()
    assert "127.0.0.1" not in str(refused.value)
    assert "not-for-logs" not in str(refused.value)


@pytest.mark.parametrize("address", ["file:///etc/passwd", "ftp://host/x", "somewhere"])
def test_only_web_addresses_are_taken(webhook: Webhook, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv(WEBHOOK_VARIABLE, address)
    with pytest.raises(AlertError, match="no http"):
        alert_of_a_failed_run()


def test_a_topic_hears_the_same(webhook: Webhook, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv(WEBHOOK_VARIABLE)
    with mock_aws():
        topic = boto3.client("sns").create_topic(Name="alerts")["TopicArn"]
        url = boto3.client("sqs").create_queue(QueueName="alerts")["QueueUrl"]
        arn = boto3.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"][
            "QueueArn"
        ]
        boto3.client("sns").subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
        monkeypatch.setenv(TOPIC_VARIABLE, topic)
        alert_of_a_failed_run()
        (message,) = boto3.client("sqs").receive_message(QueueUrl=url)["Messages"]
        assert json.loads(json.loads(message["Body"])["Message"])["partition"] == "ward-7"
        monkeypatch.setenv(TOPIC_VARIABLE, topic + "-gone")
        with pytest.raises(AlertError, match="PENUMO_ALERT_SNS_TOPIC_ARN"):
            alert_of_a_failed_run()


def test_with_nobody_to_tell_it_says_so(webhook: Webhook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(WEBHOOK_VARIABLE)
    skipped = alert_of_a_failed_run()
    assert isinstance(skipped, SkipReason)
    assert WEBHOOK_VARIABLE in (skipped.skip_message or "")
