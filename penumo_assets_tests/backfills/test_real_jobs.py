"""Backfills whose runs are processes and whose jobs are real: two cohorts to the end, one cancelled on its way."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

import penumo_assets
from penumo_assets.cohort.publish import read_manifest
from penumo_assets.partitions import cohorts
from penumo_assets.phantoms import write_cohort
from penumo_assets.resources.storage.object_store import ObjectStore
from penumo_assets.resources.storage.root import open_store
from penumo_assets_tests.backfills.daemon import Daemon, running_daemon

STAGES = ("raw_images", "lung_masks", "preprocessed_images", "npz_tensors")
CHECKOUT = Path(penumo_assets.__file__).parent.parent
pytestmark = pytest.mark.slow


@dataclass
class Installation:
    """Dagster's daemon, the store, and where the jobs' folders are."""

    daemon: Daemon
    store: ObjectStore
    root: Path

    def land(self, cohort: str, patients: int) -> None:
        write_cohort(self.root / "landing" / cohort, cohort, patients=patients, seed=1, dicom=False)
        self.daemon.instance.add_dynamic_partitions(str(cohorts.name), [cohort])

    def jobs(self) -> list[psutil.Process]:
        """The supervisors of the jobs that run."""
        records = (self.root / "scratch").glob("*/process.json")
        found = [json.loads(path.read_text())["pid"] for path in records]
        return [psutil.Process(pid) for pid in found if psutil.pid_exists(pid)]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    root = tmp_path_factory.mktemp("root")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("PENUMO_")]:
            patch.delenv(name)
        patch.setenv("PENUMO_ROOT", str(root))
        with running_daemon("penumo_assets.definitions", in_this_process=False) as daemon:
            yield Installation(daemon, open_store(str(root)), root)


def test_two_cohorts_in_one_backfill_become_tensors(here: Installation) -> None:
    for cohort in ("east", "west"):
        here.land(cohort, patients=2)
    backfill = here.daemon.backfill(STAGES, ["east", "west"])
    assert here.daemon.finish(backfill) == "COMPLETED_SUCCESS"
    for cohort in ("east", "west"):
        tensors = [row for row in read_manifest(here.store, cohort) if "npz" in row.stages]
        assert len(tensors) >= 2
        assert len(list(here.store.list_objects(f"npz/{cohort}"))) == len(tensors)


def test_the_command_line_launches_a_backfill_of_several_cohorts(here: Installation) -> None:
    for cohort in ("north", "south"):
        here.land(cohort, patients=1)
    dagster = Path(sys.executable).with_name("dagster")
    command = [str(dagster), "job", "backfill", "--job", "prepare", "--partitions", "north,south", "--noprompt"]
    subprocess.run([*command, "-w", "workspace.yaml"], cwd=CHECKOUT, check=True, capture_output=True)
    (backfill,) = [item.backfill_id for item in here.daemon.instance.get_backfills() if item.partition_set_origin]
    assert here.daemon.finish(backfill) == "COMPLETED"
    here.daemon.iterate_until(lambda: all(run.is_finished for run in here.daemon.runs(backfill)))
    assert all(run.is_success for run in here.daemon.runs(backfill))
    assert {run.tags["dagster/partition"] for run in here.daemon.runs(backfill)} == {"north", "south"}
    assert all(here.store.exists(f"manifests/{cohort}.jsonl") for cohort in ("north", "south"))


def test_cancelling_a_backfill_stops_its_jobs_and_publishes_nothing(here: Installation) -> None:
    here.land("long", patients=60)
    backfill = here.daemon.backfill(STAGES, ["long"])
    here.daemon.iterate_until(lambda: bool(here.jobs()), seconds=120)
    (supervisor,) = here.jobs()
    supervisor.suspend()  # however fast the machine is, the job is still at work when it is cancelled
    family = [supervisor, *supervisor.children(recursive=True)]
    for process in family[1:]:
        process.suspend()
    here.daemon.cancel(backfill)
    assert here.daemon.finish(backfill) == "CANCELED"
    _, alive = psutil.wait_procs(family, timeout=30)
    assert alive == []
    assert not here.store.exists("manifests/long.jsonl")
