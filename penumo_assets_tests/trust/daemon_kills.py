"""Kills where Dagster's daemon runs things: the run's worker, the daemon, both with the job. Nobody launches again.

The daemon is the shipped one, on the shipped instance settings but for how often it looks after runs. A worker that
dies is noticed by its code server, and its run is launched again by the daemon; a daemon that dies is started again,
as a container's restart policy would.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import psutil
import yaml
from dagster import DagsterInstance

import penumo_assets
import penumo_assets.configs
from penumo_assets.partitions import cohorts
from penumo_assets_tests.trust.installation import Installation
from penumo_assets_tests.trust.outcome import Outcome
from penumo_assets_tests.trust.stages import COHORT, IMAGING, STAGES
from penumo_assets_tests.trust.state import content, differences, listed, named
from penumo_assets_tests.trust.witness import read_notes, watching

CHECKOUT = Path(penumo_assets.__file__).parent.parent
COMMANDS = Path(sys.executable).parent
_LAUNCH = """mutation($params: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $params) {
  ... on LaunchBackfillSuccess { backfillId } } }"""
VICTIMS = ("run worker", "daemon", "worker and job")
MOST_SECONDS = 420.0


class DaemonTrials:
    """An installation with a landed cohort, and what its preparation comes to when the daemon runs it undisturbed."""

    def __init__(self, installation: Installation) -> None:
        self.here, self.home = installation, installation.folder / "dagster"
        os.environ["DAGSTER_HOME"] = str(self.home)
        installation.undisturbed(STAGES[0].arrange)
        installation.save("landed")
        self._begin()
        assert self._trial(Outcome("daemon", "none"), None)
        self.expected = content(installation.store, installation.database)

    def kills(self, count: int, seed: int) -> Iterator[Outcome]:
        chance = random.Random(seed)
        for number in range(count):
            outcome = Outcome("daemon", VICTIMS[number % len(VICTIMS)], chance.uniform(0, 6))
            self._begin()
            with watching(self.here.store, self.here.database, self.here.notes / "witness.json"):
                outcome.lost = not self._trial(outcome, outcome.fault)
            outcome.looks, outcome.corrupted = read_notes(self.here.notes / "witness.json")
            found = content(self.here.store, self.here.database)
            outcome.corrupted += differences(found, self.expected)[:10]
            outcome.left_over += [f"process: {kind}" for kind in self.here.end_jobs()]
            outcome.left_over += sorted(listed(self.here.store) - named(self.here.store))
            outcome.left_over += [f"scratch: {name}" for name in self.here.scratch()]
            yield outcome

    def _begin(self) -> None:
        """The cohort has landed, and the instance knows nothing."""
        self.here.restore("landed")
        shutil.rmtree(self.home, ignore_errors=True)
        self.home.mkdir()
        (self.home / "dagster.yaml").write_text(_settings())

    def _trial(self, outcome: Outcome, victim: str | None) -> bool:
        """Backfill the cohort by the daemon, kill the victim on the way; whether a run succeeded in time."""
        end = time.monotonic() + MOST_SECONDS
        with DagsterInstance.get() as instance:
            instance.add_dynamic_partitions(str(cohorts.name), [COHORT])
            with self._daemon() as daemon:
                self._backfill()
                while victim and not self._workers():
                    time.sleep(0.2)
                time.sleep(outcome.moment)
                self._kill(victim, daemon)
                with self._daemon() if victim == "daemon" else nullcontext():
                    while time.monotonic() < end:
                        runs = instance.get_runs()
                        outcome.launches = len(runs)
                        if any(run.is_success for run in runs):
                            return True
                        time.sleep(0.5)
        return False

    def _kill(self, victim: str | None, daemon: subprocess.Popen) -> None:
        if victim == "daemon":
            daemon.kill()
            return
        chosen = self._workers() if victim else []
        if victim == "worker and job":
            chosen += [process for kind in self.here.jobs().values() for process in kind]
        for process in chosen:
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def _workers(self) -> list[psutil.Process]:
        """The processes that execute runs of this instance: the code server starts one for each."""
        found = []
        for process in psutil.process_iter(["cmdline"]):
            with suppress(psutil.Error):
                words = " ".join(process.info["cmdline"] or [])
                if "spawn_main" in words and process.environ().get("DAGSTER_HOME") == str(self.home):
                    found.append(process)
        return found

    @contextmanager
    def _daemon(self) -> Iterator[subprocess.Popen]:
        """The daemon with its code server, in a session of their own; both end with the block."""
        with (self.here.notes / "daemon.log").open("ab") as log:
            command = [str(COMMANDS / "dagster-daemon"), "run", "-w", "workspace.yaml"]
            daemon = subprocess.Popen(
                command, cwd=CHECKOUT, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        try:
            yield daemon
        finally:
            with suppress(ProcessLookupError):  # where it was the victim, and its code server has ended after it
                os.killpg(daemon.pid, signal.SIGKILL)
            daemon.wait()

    def _backfill(self) -> None:
        """The UI's request. A backfill of the command line has ended when its runs begin: Dagster retries none."""
        assets = [{"path": [name]} for name in IMAGING]
        variables = json.dumps({"params": {"assetSelection": assets, "partitionNames": [COHORT]}})
        command = [str(COMMANDS / "dagster-graphql"), "-w", "workspace.yaml", "-t", _LAUNCH, "-v", variables]
        done = subprocess.run(command, cwd=CHECKOUT, check=True, capture_output=True, text=True)
        assert "backfillId" in done.stdout, done.stdout


def _settings() -> str:
    shipped = Path(penumo_assets.configs.__file__).parent / "dagster_embedded.yaml"
    settings = yaml.safe_load(shipped.read_text(encoding="utf-8"))
    settings["run_monitoring"]["poll_interval_seconds"] = 2
    return yaml.safe_dump(settings)
