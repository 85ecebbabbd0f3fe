"""A slice of benchmarks/faults.py: kills, failing writes and failing calls, each healed by launching again."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import penumo_assets
from penumo_assets.resources.storage.file_store import FileStore
from penumo_assets_tests.trust.calls import Bucket, bucket
from penumo_assets_tests.trust.disk import small_disk
from penumo_assets_tests.trust.folder import walk_writes
from penumo_assets_tests.trust.outcome import Outcome, table
from penumo_assets_tests.trust.witness import Witness

pytestmark = pytest.mark.trust
CHECKOUT = Path(penumo_assets.__file__).parent.parent


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucket]:
    with bucket(tmp_path_factory.mktemp("films")) as here:
        yield here


def assert_healed(outcome: Outcome) -> None:
    assert not outcome.lost
    assert outcome.corrupted == []
    assert outcome.left_over == []
    assert outcome.unclear == []


@pytest.mark.slow
def test_a_cohort_survives_kills_of_the_runner_of_the_program_and_of_all_processes() -> None:
    """In a process of its own: launches are forks, and this one has threads."""
    command = [sys.executable, "benchmarks/faults.py", "--families", "kills", "--kills", "3", "--stages", "prepare"]
    command += ["--victims", "runner", "program", "all"]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    (total,) = [line.split() for line in done.stdout.splitlines() if line.startswith("all  ")]
    injected, _, recovered, lost, corrupted, left_over, _ = total[1:]
    assert (injected, recovered, lost, corrupted, left_over) == ("3", "3", "0", "0", "0"), done.stdout


@pytest.mark.parametrize(
    ("kind", "share"),
    [("InternalError", 0.1), ("stall", 0.1), ("flip", 0.1), ("truncate", 0.45), ("reset", 0.65), ("lost", 0.65)],
)
def test_a_fault_of_a_call_to_s3_costs_nothing(films: Bucket, kind: str, share: float) -> None:
    assert_healed(films.disturb(kind, int(share * films.calls), lasting=False))


@pytest.mark.parametrize("kind", ["AccessDenied", "InternalError"])
def test_where_s3_goes_on_failing_the_run_says_so_and_the_next_one_succeeds(films: Bucket, kind: str) -> None:
    outcome = films.disturb(kind, films.calls // 2, lasting=True)
    assert outcome.launches == 2
    assert_healed(outcome)


def test_a_disk_that_takes_no_more_from_any_write_on_is_named_and_the_next_run_succeeds(tmp_path: Path) -> None:
    outcomes = list(walk_writes(tmp_path, every=12))
    assert {outcome.fault for outcome in outcomes} == {"disk full", "read only", "i/o error"}
    for outcome in outcomes:
        assert_healed(outcome)


def test_a_training_set_that_does_not_fit_on_the_disk_says_so(tmp_path: Path) -> None:
    program = (
        "import sys, numpy as np; from pathlib import Path\n"
        "from penumo_assets.jobs.pack.shard_writer import ShardWriter\n"
        "writer = ShardWriter(Path(sys.argv[1]) / 'train', 50, 50)\n"
        "for _ in range(50): writer.add(np.full((224, 224, 4), 7, np.uint8), {})\n"
    )
    try:
        with small_disk(tmp_path / "disk", size_mib=1) as disk:
            done = subprocess.run(
                [sys.executable, "-c", program, str(disk)], capture_output=True, text=True, check=False
            )
    except PermissionError as error:
        pytest.skip(str(error))
    assert done.returncode == 1, f"the process was killed by signal {-done.returncode}"
    assert "No space left on device" in done.stderr


def test_the_witness_sees_an_object_that_is_not_what_the_manifest_recorded(tmp_path: Path) -> None:
    *_, _outcome = walk_writes(tmp_path, every=1000)
    store = FileStore(tmp_path / "expected")
    witness = Witness(store, tmp_path / "none.db")
    witness.look()
    assert witness.faults == []
    (first, *_) = [info.key for info in store.list_objects("npz")]
    data = store.read(first)
    store.write(first, data[:-1])
    broken = Witness(store, tmp_path / "none.db")
    broken.look()
    assert broken.faults == [f"manifests/ward.jsonl: ValueError: {first} does not hold what the manifest recorded"]
    store.delete([first])
    witness.look()
    assert len(witness.faults) == 1
    assert "ObjectMissing" in witness.faults[0]


def test_the_table_counts_what_was_lost_and_corrupted() -> None:
    outcomes = [
        Outcome("pack", "runner", launches=2),
        Outcome("pack", "runner", lost=True),
        Outcome("train", "all", corrupted=["differs"], left_over=["jobs/x"]),
    ]
    lines = [line.split() for line in table(outcomes).splitlines()]
    assert lines[1:] == [
        ["pack", "runner", "2", "1", "1", "1", "0", "0", "0"],
        ["train", "all", "1", "0", "0", "0", "1", "1", "0"],
        ["all", "3", "1", "1", "1", "1", "1", "0"],
    ]
