"""Manifest and objects agree: every object that a manifest names exists and holds what was recorded, and no other."""

import hashlib
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from dagster import AssetCheckExecutionContext, AssetCheckResult, AssetCheckSeverity, Config
from pydantic import Field

from penumo_assets.assets.pages import table
from penumo_assets.checks.partitioned import partition_of, partitioned_check
from penumo_assets.cohort.publish import open_manifest
from penumo_assets.jobs.manifest import STAGE_TABLE, ManifestRow
from penumo_assets.partitions import cohorts
from penumo_assets.resources.storage.object_store import ObjectMissing, ObjectStore
from penumo_assets.resources.storage.root import Storage

LEFT_OVER = "no manifest names it"


class SampleConfig(Config):
    """How much is read."""

    sample: int = Field(default=20, ge=0, description="Objects, drawn at random, whose bytes are read and compared.")


class TensorSampleConfig(Config):
    """How much is read."""

    sample: int = Field(default=50, ge=0, description="Tensors, drawn at random, that are read, compared and loaded.")


@dataclass(frozen=True)
class Inventory:
    """The objects of one stage of one cohort: how many the manifest names, their bytes, and the offenders."""

    objects: int
    size: int
    offenders: list[dict[str, str]]


def take_inventory(
    store: ObjectStore, cohort: str, stage: str, sample: int, problem_of: Callable[[bytes], str | None]
) -> Inventory:
    """Every object that is missing, different or left over.

    ``sample`` of those that exist, drawn at random, are read: their bytes must have the recorded SHA-256, and
    ``problem_of`` must find nothing in them. If the cohort is published meanwhile, the new manifest is looked at.
    """
    while True:
        manifest = open_manifest(store, cohort)
        found = _compare(store, cohort, stage, manifest.rows, sample, problem_of)
        if not found.offenders or open_manifest(store, cohort).version == manifest.version:
            return found


def _compare(
    store: ObjectStore,
    cohort: str,
    stage: str,
    rows: Iterable[ManifestRow],
    sample: int,
    problem_of: Callable[[bytes], str | None],
) -> Inventory:
    named = {row.stages[stage].key: row.stages[stage].sha256 for row in rows if stage in row.stages}
    present = {info.key: info.size for info in store.list_objects(f"{stage}/{cohort}")}
    offenders = [{"file": key, "problem": "missing"} for key in sorted(named.keys() - present.keys())]
    existing = sorted(named.keys() & present.keys())
    for key in random.sample(existing, min(sample, len(existing))):
        problem = _problem(store, key, named[key], problem_of)
        offenders += [{"file": key, "problem": problem}] if problem else []
    offenders += [{"file": key, "problem": LEFT_OVER} for key in sorted(present.keys() - named.keys())]
    return Inventory(len(named), sum(present[key] for key in existing), offenders)


def _problem(store: ObjectStore, key: str, sha256: str, problem_of: Callable[[bytes], str | None]) -> str | None:
    try:
        data = store.read(key)
    except ObjectMissing:
        return "missing"
    if hashlib.sha256(data).hexdigest() != sha256:
        return "its bytes are not those that the manifest recorded"
    return problem_of(data)


def _result(
    context: AssetCheckExecutionContext,
    store: ObjectStore,
    stage: str,
    sample: int,
    problem_of: Callable[[bytes], str | None],
) -> AssetCheckResult:
    """A failure if something is missing or different; a warning if something is only left over."""
    found = take_inventory(store, partition_of(context), stage, sample, problem_of)
    harmless = all(item["problem"] == LEFT_OVER for item in found.offenders)
    return AssetCheckResult(
        passed=not found.offenders,
        severity=AssetCheckSeverity.WARN if harmless else AssetCheckSeverity.ERROR,
        metadata={
            "objects": found.objects,
            "megabytes": round(found.size / 1e6, 3),
            "offending": len(found.offenders),
            "offenders": table(found.offenders, ("file", "problem")),
        },
    )


def _agreement(stage: str) -> Any:
    @partitioned_check(
        cohorts,
        asset=STAGE_TABLE[stage].asset,
        name="manifest_agrees",
        description=f"Every object that the manifest names under `{stage}/` exists, and a random sample holds the "
        "recorded bytes. Error: an object is missing or different. Warning: one is there that no manifest names.",
    )
    def manifest_agrees(
        context: AssetCheckExecutionContext, config: SampleConfig, storage: Storage
    ) -> AssetCheckResult:
        return _result(context, storage.store, stage, config.sample, lambda data: None)

    return manifest_agrees


MANIFEST_CHECKS = [_agreement(stage) for stage in ("raw", "masks", "preprocessed")]


@partitioned_check(
    cohorts,
    asset="npz_tensors",
    blocking=True,
    description="Every tensor that the manifest names exists; a random sample holds the recorded bytes and loads as "
    "(224, 224, 4) uint8. Error: stops the run. Warning: a tensor is there that no manifest names.",
)
def npz_contract(context: AssetCheckExecutionContext, config: TensorSampleConfig, storage: Storage) -> AssetCheckResult:
    return _result(context, storage.store, "npz", config.sample, _npz_problem)


def _npz_problem(data: bytes) -> str | None:
    from penumo_assets.imaging.pack import NpzError, load_npz  # OpenCV: loading the definitions needs none

    try:
        load_npz(data)
    except NpzError as error:
        return str(error)
    return None
