"""What benchmarks/load.py looks at meanwhile: each process's memory, and the requests that an asset's page makes."""

import json
import statistics
import time
import urllib.request
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from playwright.sync_api import Page, Request

CONNECTIONS = 6  # of a browser to one server
REST_SECONDS, PATIENCE_SECONDS = 1.5, 90.0
# The first that a command line holds names the process.
KINDS = {
    "penumo_assets.jobs": "jobs",
    "supervisor.py": "jobs",
    "dagster-webserver": "web server",
    "dagster_webserver": "web server",
    "dagster-daemon": "daemon",
    "dagster._daemon": "daemon",
    "grpc": "code servers",
}


@dataclass
class Usage:
    """The processes below one, by kind: resident MiB at each moment that there was one, and CPU seconds in all."""

    root: psutil.Process
    samples: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    _kinds: dict[psutil.Process, str] = field(default_factory=dict)
    _spent: dict[psutil.Process, float] = field(default_factory=dict)

    def sample(self) -> None:
        sums: dict[str, float] = defaultdict(float)
        for process in self.root.children(recursive=True):
            try:
                sums[self._kind(process)] += process.memory_info().rss / 2**20
                self._spent[process] = sum(process.cpu_times()[:2])
            except psutil.NoSuchProcess:
                continue  # it ended since it was listed
        for kind, value in sums.items():
            self.samples[kind].append(value)

    def _kind(self, process: psutil.Process) -> str:
        if process not in self._kinds:
            line = " ".join(process.cmdline())
            found = next((kind for word, kind in KINDS.items() if word in line), "")
            parents = [self._kinds.get(parent) for parent in process.parents()]
            # Job workers and runs are forked or spawned without a name: what they descend from names them.
            self._kinds[process] = found or ("jobs" if "jobs" in parents else "runs")
        return self._kinds[process]

    def report(self) -> list[str]:
        lines = []
        for kind, values in sorted(self.samples.items()):
            third = max(1, len(values) // 3)
            first, last = statistics.median(values[:third]), statistics.median(values[-third:])
            figures = f"start {values[0]:6.0f}  end {values[-1]:6.0f}  max {max(values):6.0f} MiB"
            spent = sum(seconds for process, seconds in self._spent.items() if self._kinds[process] == kind)
            lines.append(f"  {kind:<13} {figures}  last third / first third {last / first:.2f}  CPU {spent:6.0f} s")
        return lines


@dataclass(frozen=True)
class Answer:
    """How long one request of a page took."""

    operation: str
    seconds: float
    size: int


class AssetPage:
    """The GraphQL requests of an asset's page, as a browser made them, sent again as a browser sends them."""

    def __init__(self, url: str, bodies: Sequence[bytes]) -> None:
        self.url = f"{url}/graphql"
        self.bodies = bodies
        self.seconds: list[float] = []
        self.answers: dict[str, list[Answer]] = defaultdict(list)

    def open(self) -> None:
        started = time.monotonic()
        with ThreadPoolExecutor(CONNECTIONS) as connections:
            for answer in connections.map(self._ask, self.bodies):
                self.answers[answer.operation].append(answer)
        self.seconds.append(time.monotonic() - started)

    def _ask(self, body: bytes) -> Answer:
        started = time.monotonic()
        request = urllib.request.Request(self.url, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=2 * PATIENCE_SECONDS) as answer:
            content = answer.read()
        return Answer(json.loads(body)["operationName"], time.monotonic() - started, len(content))

    def report(self) -> str:
        ordered = sorted(self.seconds)
        p50, p95 = (ordered[int(share * (len(ordered) - 1))] for share in (0.5, 0.95))
        slowest = max(self.answers.values(), key=_middle)
        name, size = slowest[0].operation, slowest[-1].size / 1024
        return (
            f"opened {len(ordered)} times ({len(self.bodies)} requests): p50 {p50:.2f}  p95 {p95:.2f}  "
            f"max {ordered[-1]:.2f} s; slowest {name}, median {_middle(slowest):.2f} s, {size:.0f} KiB"
        )


def _middle(answers: Sequence[Answer]) -> float:
    return statistics.median(answer.seconds for answer in answers)


def visit(page: "Page", path: str) -> tuple[list[bytes], float]:
    """Open a page in the browser: the requests it made before it came to rest, and the seconds to the last answer."""
    asked: dict[bytes, None] = {}
    waiting: set[Request] = set()
    answered: list[float] = []

    def sent(request: "Request") -> None:
        if "/graphql" in request.url and request.post_data_buffer:
            asked[request.post_data_buffer] = None
            waiting.add(request)

    def ended(request: "Request") -> None:
        if request in waiting:
            waiting.discard(request)
            answered.append(time.monotonic())

    listeners = {"request": sent, "requestfinished": ended, "requestfailed": ended}
    for event, listener in listeners.items():
        page.on(event, listener)  # type: ignore[call-overload]
    started = time.monotonic()
    page.goto(path)
    while not answered or waiting or time.monotonic() - answered[-1] < REST_SECONDS:
        assert time.monotonic() - started < PATIENCE_SECONDS, f"{path} does not come to rest"
        page.wait_for_timeout(100)
    for event, listener in listeners.items():
        page.remove_listener(event, listener)
    return list(asked), answered[-1] - started
