"""A running installation, as `make dev` starts it: on a free loopback port over a root of its own."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
CHECKOUT = Path(__file__).parents[2]
# On a busy machine everything takes several times as long; on a quiet one nothing comes near these.
START_SECONDS = 120
WAIT_SECONDS = 180


@dataclass
class Site:
    """Dagster's web server and daemon, and the root they work on."""

    url: str
    root: Path
    log: Path
    environment: Mapping[str, str]
    process: subprocess.Popen[bytes]

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        """The data that GraphQL answers."""
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(f"{self.url}/graphql", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            content = json.load(answer)
        assert "errors" not in content, content["errors"]
        return content["data"]

    def penumo(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "penumo_assets.cli.main", *arguments]
        subprocess.run(command, cwd=CHECKOUT, env=dict(self.environment), check=True, capture_output=True)

    def runs(self) -> list[dict[str, Any]]:
        """Newest first: runId, status, tags by key."""
        query = "{runsOrError{... on Runs{results{runId status tags{key value}}}}}"
        runs = self.ask(query)["runsOrError"]["results"]
        return [run | {"tags": {tag["key"]: tag["value"] for tag in run["tags"]}} for run in runs]

    def filled(self, asset: str) -> list[str]:
        """Partitions of an asset that are materialized."""
        query = """query($key: [String!]!) {assetNodeOrError(assetKey: {path: $key}) {... on AssetNode {
            assetPartitionStatuses {... on DefaultPartitionStatuses {materializedPartitions}}}}}"""
        node = self.ask(query, key=[asset])["assetNodeOrError"]
        return sorted(node["assetPartitionStatuses"]["materializedPartitions"])

    def wait_for_runs(self, cohorts: set[str]) -> list[dict[str, Any]]:
        """The runs of these cohorts, once every one has ended."""

        def ended() -> list[dict[str, Any]] | None:
            runs = [run for run in self.runs() if run["tags"].get("dagster/partition") in cohorts]
            done = all(run["status"] in {"SUCCESS", "FAILURE", "CANCELED"} for run in runs)
            return runs if done and {run["tags"]["dagster/partition"] for run in runs} == cohorts else None

        return wait(ended, f"runs of {', '.join(sorted(cohorts))}")

    def stop(self) -> None:
        """End the whole group: the command, its web server, its daemon and their code servers.

        Not by SIGINT: whatever a shell has started in the background ignores it, and so do all its children.
        """
        for number, patience in ((signal.SIGTERM, 20), (signal.SIGKILL, 5)):
            try:
                os.killpg(self.process.pid, number)
                self.process.wait(patience)
                return
            except ProcessLookupError:
                return
            except subprocess.TimeoutExpired:
                continue


def start(root: Path) -> Site:
    """Start `penumo dev` over ``root`` and wait until it answers."""
    ours = ("PENUMO_", "DAGSTER_", "MLFLOW_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    environment |= {
        "PENUMO_ROOT": str(root),
        "DAGSTER_HOME": str(root / "dagster"),
        "PENUMO_DEID_KEY": "a key for phantoms only",
        "PENUMO_SETTLE_SECONDS": "1",
    }
    root.mkdir(parents=True)
    return start_command(["dev"], root, environment)


def start_command(arguments: Sequence[str], root: Path, environment: Mapping[str, str]) -> Site:
    """Run `penumo` with these arguments, which open Dagster's pages over ``root``, and wait until they answer."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = root / "dev.log"
    command = [sys.executable, "-m", "penumo_assets.cli.main", *arguments, "--port", str(port)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=CHECKOUT, env=dict(environment), stdout=output, stderr=output, start_new_session=True
        )
    site = Site(f"http://127.0.0.1:{port}", root, log, environment, process)
    try:
        wait(lambda: _answers(site), "the web server", START_SECONDS)
    except BaseException:
        site.stop()
        raise
    return site


def wait(found: Callable[[], T | None], what: str, seconds: float = WAIT_SECONDS) -> T:
    """What ``found`` returns as soon as it is not None."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        value = found()
        if value is not None:
            return value
        time.sleep(0.5)
    raise TimeoutError(f"waited {seconds:.0f} s for {what}")


def _answers(site: Site) -> bool | None:
    assert site.process.poll() is None, site.log.read_text()[-2000:]
    try:
        site.ask("{version}")
    except (urllib.error.URLError, ConnectionError):
        return None
    return True
