"""A cohort costs the same whether it is the tenth or the hundredth, and all cohorts together fit in memory.

Counts, not seconds: the figures are those of ``benchmarks/load.py``.
"""

import gc
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dagster import (
    AssetCheckEvaluation,
    AssetExecutionContext,
    AssetSelection,
    DagsterInstance,
    asset,
    materialize,
)
from dagster._core.storage.tags import PARTITION_NAME_TAG

from penumo_assets.assets import dataset
from penumo_assets.checks import quality
from penumo_assets.checks.quality import intensity_drift, mask_plausibility, reject_rate
from penumo_assets.cohort import training_items
from penumo_assets.cohort.publish import Manifest, dump_manifest, manifest_key, open_manifest, read_manifest
from penumo_assets.jobs.manifest import ManifestRow, StageOutput
from penumo_assets.partitions import cohorts
from penumo_assets.resources.compute.runner import JobRunner
from penumo_assets.resources.compute.spec import JobFailed, JobResult, JobSpec
from penumo_assets.resources.storage.file_store import FileStore
from penumo_assets.resources.storage.object_store import ObjectStore
from penumo_assets.resources.storage.root import Storage
from penumo_assets_tests.backfills.daemon import Daemon, running_daemon
from penumo_assets_tests.backfills.stub_jobs import png

STAGES = ("raw_images", "lung_masks", "preprocessed_images", "npz_tensors")
IMAGES = 12
OPERATIONS = ("list_objects", "folders", "exists", "read", "read_version", "swap", "write", "upload", "copy", "delete")
pytestmark = pytest.mark.trust


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> "Counter[tuple[str, str]]":
    """How often the store was asked for what, by operation and first part of the key."""
    counted: Counter[tuple[str, str]] = Counter()
    for operation in OPERATIONS:
        original = getattr(FileStore, operation)

        def counting(self: FileStore, *args: Any, _operation: str = operation, _original: Any = original, **more: Any):
            key = str(args[0]).split("/")[0] if isinstance(args[0], str) else ""
            counted[_operation, key] += 1
            return _original(self, *args, **more)

        monkeypatch.setattr(FileStore, operation, counting)
    return counted


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    monkeypatch.setenv("PENUMO_ROOT", str(tmp_path))
    monkeypatch.delenv("PENUMO_PROFILE", raising=False)
    with running_daemon("penumo_assets_tests.backfills.stub_jobs", in_this_process=True) as daemon:
        yield daemon


def land(store: ObjectStore, cohort: str, first_seed: int) -> None:
    rows = ["file,patient_id,label"]
    for number in range(IMAGES):
        store.write(f"landing/{cohort}/images/{number:02d}.png", png(first_seed + number))
        rows.append(f"images/{number:02d}.png,P{first_seed + number},{('normal', 'pneumonia')[number % 2]}")
    store.write(f"landing/{cohort}/labels.csv", "\n".join([*rows, ""]).encode())


@pytest.mark.slow
def test_what_a_cohort_asks_of_the_store_does_not_grow_with_the_number_of_cohorts(
    daemon: Daemon, tmp_path: Path, calls: "Counter[tuple[str, str]]"
) -> None:
    """Four cohorts among 28, then four more among 92: the same calls, one for one."""
    store = FileStore(tmp_path)

    def backfill(names: list[str], others: list[str]) -> "Counter[tuple[str, str]]":
        for number, name in enumerate(names):
            land(store, name, 1000 * number)
        for name in others:
            write_manifest(store, name, 5)
        daemon.instance.add_dynamic_partitions(str(cohorts.name), [*names, *others])
        calls.clear()
        assert daemon.finish(daemon.backfill(STAGES, names)) == "COMPLETED_SUCCESS"
        return Counter(calls)

    few = backfill([f"early-{item}" for item in range(4)], [f"more-{item:02d}" for item in range(24)])
    many = backfill([f"late--{item}" for item in range(4)], [f"yet-more-{item:02d}" for item in range(60)])
    assert few["read", "landing"] >= 4 * IMAGES
    assert many == few


def row(cohort: str, number: int) -> ManifestRow:
    output = StageOutput(key=f"npz/{cohort}/P{number}.npz", sha256="0" * 64, fingerprint="f")
    return ManifestRow(
        image_id=f"{number}",
        source=f"images/{number}.png",
        source_etag="e",
        source_bytes=1,
        patient_id=f"P{number}",
        label=("normal", "pneumonia")[number % 2],
        mean_intensity=100.0 + number,
        stages={"npz": output, "masks": output},
        **({"status": "rejected", "stage": "raw", "code": "empty", "reason": "it is"} if number == 0 else {}),  # type: ignore[arg-type]
    )


def write_manifest(store: ObjectStore, cohort: str, images: int) -> None:
    rows = [row(cohort, number) for number in range(images)]
    store.write(manifest_key(cohort), dump_manifest(Manifest(cohort).head, rows))


class Reads:
    """Stands in for `read_manifest`: which manifests were read, and how many rows were alive when one was."""

    def __init__(self) -> None:
        self.cohorts: Counter[str] = Counter()
        self.most_alive = 0

    def __call__(self, store: ObjectStore, cohort: str) -> list[ManifestRow]:
        self.note(cohort)
        return read_manifest(store, cohort)

    def note(self, cohort: str) -> None:
        self.cohorts[cohort] += 1
        self.most_alive = max(self.most_alive, sum(type(item) is ManifestRow for item in gc.get_objects()))


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    reads = Reads()
    monkeypatch.setattr(quality, "read_manifest", reads)
    return reads


@pytest.fixture
def wards(tmp_path: Path) -> Iterator[DagsterInstance]:
    """Ten cohorts of fifty rows, one of them rejected."""
    names = [f"ward-{number:02d}" for number in range(10)]
    for name in names:
        write_manifest(FileStore(tmp_path), name, 50)
    with DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions(str(cohorts.name), names)
        yield instance


def judge(check: Any, instance: DagsterInstance, root: Path) -> AssetCheckEvaluation:
    """What a check says of the first cohort."""
    (key,) = check.check_keys

    @asset(name=key.asset_key.to_user_string(), partitions_def=cohorts)
    def stand_in() -> None: ...

    result = materialize(
        [stand_in, check],
        selection=AssetSelection.checks(check),
        instance=instance,
        tags={PARTITION_NAME_TAG: "ward-00"},
        resources={"storage": Storage(root=str(root))},
    )
    (evaluation,) = result.get_asset_check_evaluations()
    return evaluation


@pytest.mark.parametrize(("check", "counted"), [(reject_rate, "files"), (mask_plausibility, "masks")])
def test_a_check_of_a_cohort_reads_no_other_ones_manifest(
    check: Any, counted: str, wards: DagsterInstance, tmp_path: Path, reads: Reads
) -> None:
    assert judge(check, wards, tmp_path).metadata[counted].value == 50
    assert reads.cohorts == {"ward-00": 1}


def test_brightness_is_compared_from_one_look_at_each_manifest(
    wards: DagsterInstance, tmp_path: Path, reads: Reads
) -> None:
    assert judge(intensity_drift, wards, tmp_path).passed
    assert len(reads.cohorts) == 10
    assert set(reads.cohorts.values()) == {1}
    assert reads.most_alive <= 2 * 50


class NoJobs(JobRunner):
    """Ends where a job would begin."""

    def run(self, context: AssetExecutionContext, spec: JobSpec) -> JobResult:
        given = spec.inputs["items"]
        lines = b"".join(self.storage.store.read(f"{given.prefix}/{name}") for name in given.names).splitlines()
        raise JobFailed(f"{len(lines)} items were to be packed")

    def discard(self, job_name: str) -> None: ...


def test_the_training_set_holds_one_manifest_at_a_time(
    wards: DagsterInstance, tmp_path: Path, reads: Reads, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(store: ObjectStore, cohort: str) -> Manifest:
        reads.note(cohort)
        return open_manifest(store, cohort)

    monkeypatch.setattr(training_items, "open_manifest", opened)
    storage = Storage(root=str(tmp_path))
    with pytest.raises(Exception, match="500 items were to be packed"):
        materialize(
            [dataset.training_set], instance=wards, resources={"storage": storage, "jobs": NoJobs(storage=storage)}
        )
    assert len(reads.cohorts) == 10
    assert reads.most_alive <= 3 * 50
