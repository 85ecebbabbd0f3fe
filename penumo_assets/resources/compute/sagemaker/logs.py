"""A job's log from CloudWatch, as it grows: every line once, those that arrive late included."""

import time
from collections import deque
from collections.abc import Callable
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from penumo_assets.resources.compute.sagemaker.start import END_OF_LOG

TAIL_LINES = 30
OVERLAP_MS = 5 * 60 * 1000
QUIET_SECONDS = 0.5
_REFUSED = ("AccessDeniedException", "UnrecognizedClientException", "InvalidParameterException")


class JobLog:
    """Reads all streams of one job with FilterLogEvents.

    GetLogEvents goes on from a token, behind which an event with an earlier timestamp may still arrive; and it
    gives events no id. So every reading starts some minutes before the newest event, and event ids tell what
    has been seen. ``sagemaker_start.py`` ends a host's log with the number of its lines, which tells when it is whole.
    """

    def __init__(self, client: Any, group: str, job_name: str, emit: Callable[[str], None], hosts: int) -> None:
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._client = client
        self._group = group
        self._job_name = job_name
        self._emit = emit
        self._hosts = hosts
        self._seen: dict[str, int] = {}
        self._newest = 0
        self._lines: dict[str, int] = {}
        self._expected: dict[str, int] = {}
        self._warned = False
        self._refused = False

    def read(self) -> int:
        """Pass on what is new, in order of time; how many lines that was."""
        try:
            fresh = sorted(self._fetch(), key=lambda event: event["timestamp"])
        except ClientError as error:
            # The group appears with the first job, the stream with the first line.
            code = error.response["Error"]["Code"]
            self._refused = code in _REFUSED
            if code != "ResourceNotFoundException":
                self._warn(code)
            return 0
        except BotoCoreError as error:
            self._warn(type(error).__name__)
            return 0
        for event in fresh:
            self._take(event)
        horizon = self._newest - OVERLAP_MS
        self._seen = {event_id: stamp for event_id, stamp in self._seen.items() if stamp >= horizon}
        return len(fresh)

    def drain(self, patience_seconds: float) -> None:
        """After the job's end: read until every host's log is whole, or nothing new came for a while."""
        deadline = time.monotonic() + patience_seconds
        while True:
            if self.read():
                deadline = time.monotonic() + patience_seconds
            if self.is_whole() or self._refused or time.monotonic() >= deadline:
                break
            time.sleep(min(QUIET_SECONDS, patience_seconds))
        lacking = sum(max(0, self._expected[stream] - self._lines.get(stream, 0)) for stream in self._expected)
        if lacking:
            self._emit(f"{lacking} lines of the job's log have not arrived; CloudWatch may show them later")

    def is_whole(self) -> bool:
        """Whether every host's newest log has come to its end, with as many lines as that end names.

        A host that was interrupted and came back has several, ``{host}-{time of its start}``.
        """
        newest = {stream.rpartition("-")[0]: stream for stream in sorted(self._lines | self._expected)}
        return len(newest) >= self._hosts and all(
            stream in self._expected and self._lines.get(stream, 0) >= self._expected[stream]
            for stream in newest.values()
        )

    def _fetch(self) -> list[dict[str, Any]]:
        request = {
            "logGroupName": self._group,
            "logStreamNamePrefix": f"{self._job_name}/",
            "startTime": max(0, self._newest - OVERLAP_MS),
        }
        fresh: dict[str, dict[str, Any]] = {}
        while True:
            page = self._client.filter_log_events(**request)
            fresh |= {event["eventId"]: event for event in page["events"] if event["eventId"] not in self._seen}
            if not page.get("nextToken"):
                return list(fresh.values())
            request["nextToken"] = page["nextToken"]

    def _take(self, event: dict[str, Any]) -> None:
        self._seen[event["eventId"]] = event["timestamp"]
        self._newest = max(self._newest, event["timestamp"])
        stream, text = event["logStreamName"], event["message"].rstrip("\r\n")
        if text.startswith(END_OF_LOG):
            self._expected[stream] = int(text.removeprefix(END_OF_LOG))
        elif text.strip():
            self._lines[stream] = self._lines.get(stream, 0) + 1
            host = stream.rpartition("/")[2].rpartition("-")[0]
            line = text if self._hosts == 1 else f"[{host}] {text}"
            self.tail.append(line)
            self._emit(line)

    def _warn(self, what: str) -> None:
        """A log that cannot be read does not stop the job; saying so once is enough."""
        if not self._warned:
            self._emit(f"the job's log cannot be read from CloudWatch ({what}); the job goes on")
            self._warned = True
