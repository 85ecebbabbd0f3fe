"""What the service says of a job, and what the runner makes of it; and a log put together from pages and streams."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from penumo_assets.resources.compute.sagemaker.logs import JobLog
from penumo_assets.resources.compute.sagemaker.outcome import Description, console_urls
from penumo_assets.resources.compute.sagemaker.start import END_OF_LOG

START = datetime(2026, 1, 1, tzinfo=UTC)


def processing(status: str, **changes: Any) -> Description:
    answer = {
        "ProcessingJobStatus": status,
        "ProcessingResources": {"ClusterConfig": {"InstanceCount": 2, "InstanceType": "ml.m5.large"}},
        "StoppingCondition": {"MaxRuntimeInSeconds": 60},
    }
    return Description.of_processing(answer | changes)


def training(status: str, **changes: Any) -> Description:
    answer = {"TrainingJobStatus": status, "ResourceConfig": {"InstanceCount": 1, "InstanceType": "ml.g5.xlarge"}}
    return Description.of_training(answer | changes)


@pytest.mark.parametrize(
    ("reason", "cause"),
    [
        ("CapacityError: Unable to provision requested ML compute capacity.", "capacity"),
        ("InternalServerError: We encountered an internal error. Please try again.", "internal"),
        ("ClientError: Data download failed: ThrottlingException", "throttling"),
        ("AlgorithmError: the films are upside down, exit code: 1", "program"),
        ("AlgorithmError: CUDA out of memory. Tried to allocate 20 MiB, exit code: 1", "memory"),
        ("ClientError: Please use an instance type with more memory", "memory"),
        ("ClientError: Data download failed: no such object", "program"),
        ("", "program"),
    ],
)
def test_the_cause_follows_from_the_reason(reason: str, cause: str) -> None:
    assert training("Failed", FailureReason=reason).cause("") == cause


def test_memory_that_only_the_log_tells_of_is_seen() -> None:
    assert processing("Failed", FailureReason="AlgorithmError: , exit code: 137").cause("") == "memory"
    assert processing("Failed", FailureReason="AlgorithmError: , exit code: 1").cause("MemoryError: x") == "memory"


def test_a_program_s_own_words_are_told() -> None:
    said = processing("Failed", FailureReason="AlgorithmError: , exit code: 1", ExitMessage="no such cohort")
    assert said.sentence(said.cause(""), "") == "failed: no such cohort"
    elsewhere = processing("Failed", FailureReason="ClientError: Data download failed", ExitMessage="half done")
    assert elsewhere.sentence("program", "") == "failed: ClientError: Data download failed"
    assert training("Failed").sentence("program", "") == "failed: no reason given"


def test_time_is_counted_over_all_instances() -> None:
    ended = processing("Stopped", ProcessingStartTime=START, ProcessingEndTime=START + timedelta(seconds=61))
    assert (ended.seconds, ended.billable_seconds) == (122, 122)
    assert ended.sentence("stopped", "") == "was stopped: it has run for the longest time it may"
    spot = training("Completed", TrainingTimeInSeconds=100, BillableTimeInSeconds=30)
    assert (spot.seconds, spot.billable_seconds) == (100, 30)
    assert processing("InProgress").seconds is None


def test_a_spot_job_that_never_got_a_machine_says_so() -> None:
    assert "spot capacity" in training("Stopped", SecondaryStatus="MaxWaitTimeExceeded").sentence("stopped", "")


@pytest.mark.parametrize(
    ("region", "host"),
    [
        ("eu-central-1", "https://eu-central-1.console.aws.amazon.com/"),
        ("cn-north-1", "https://cn-north-1.console.amazonaws.cn/"),
        ("us-gov-west-1", "https://us-gov-west-1.console.amazonaws-us-gov.com/"),
    ],
)
def test_links_lead_to_the_console_of_the_partition(region: str, host: str) -> None:
    page, log = console_urls(region, "training", "/aws/sagemaker/TrainingJobs", "penumo-1")
    assert page == f"{host}sagemaker/home?region={region}#/jobs/penumo-1"
    assert log.startswith(host)


class Logs:
    """CloudWatch Logs with events of a test, a page of two at a time."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def put(self, stream: str, timestamp: int, message: str) -> None:
        number = len(self.events)
        event = {"eventId": str(number), "logStreamName": f"job/{stream}", "timestamp": timestamp}
        self.events.append(event | {"message": message})

    def filter_log_events(self, startTime: int, nextToken: str = "0", **_: Any) -> dict[str, Any]:
        found = [event for event in self.events if event["timestamp"] >= startTime]
        start = int(nextToken)
        more = {"nextToken": str(start + 2)} if start + 2 < len(found) else {}
        return {"events": found[start : start + 2]} | more


def test_a_line_that_arrives_late_is_told_and_none_twice() -> None:
    logs, lines = Logs(), []
    log = JobLog(logs, "group", "job", lines.append, hosts=1)
    for number in (1, 2, 4, 5):
        logs.put("algo-1-7", 1_000_000 + number, f"line {number}")
    log.read()
    logs.put("algo-1-7", 1_000_003, "line 3")
    log.read()
    log.read()
    assert lines == ["line 1", "line 2", "line 4", "line 5", "line 3"]


def test_a_log_is_whole_when_every_host_s_newest_stream_is() -> None:
    logs, lines = Logs(), []
    log = JobLog(logs, "group", "job", lines.append, hosts=2)
    logs.put("algo-1-7", 1, "begun")
    logs.put("algo-1-7", 2, f"{END_OF_LOG} 1")
    log.read()
    assert not log.is_whole()  # the other host is silent yet
    logs.put("algo-2-7", 3, f"{END_OF_LOG} 1")
    log.read()
    assert not log.is_whole()  # its end was faster than its line
    logs.put("algo-2-7", 2, "begun too")
    log.read()
    assert log.is_whole()
    logs.put("algo-1-9", 9, "begun again")
    log.read()
    assert not log.is_whole()  # interrupted, and back
    assert lines == ["[algo-1] begun", "[algo-2] begun too", "[algo-1] begun again"]


def test_lines_that_never_arrive_are_missed_aloud() -> None:
    logs, lines = Logs(), []
    log = JobLog(logs, "group", "job", lines.append, hosts=1)
    logs.put("algo-1-7", 1, f"{END_OF_LOG} 3")
    log.drain(0.05)
    assert lines == ["3 lines of the job's log have not arrived; CloudWatch may show them later"]
