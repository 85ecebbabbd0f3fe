"""Asset checks: what must hold of an asset before anything is built on it. Blocking ones stop the run."""

import random
from collections import Counter
from typing import Any

from dagster import (
    AssetCheckExecutionContext,
    AssetCheckResult,
    AssetCheckSeverity,
    MetadataValue,
    TableRecord,
    asset_check,
)

from penumo_assets.assets.dataset import current_training_set
from penumo_assets.assets.evaluation import GATES, existing_reports, gate_table
from penumo_assets.assets.previews import reject_counts, reject_table
from penumo_assets.cohort.publish import read_manifest
from penumo_assets.jobs.manifest import ManifestRow
from penumo_assets.metrics.gates import check_gates
from penumo_assets.partitions import cohorts
from penumo_assets.resources.storage import ObjectStore, Storage

MAX_REJECT_RATE = 0.2
MAX_BAD_MASK_RATE = 0.2
NPZ_SAMPLE = 50
MIN_CLASS_SHARE = 0.1


def cohorts_in_question(context: AssetCheckExecutionContext) -> list[str]:
    """The run's cohort; every cohort when a check is run by itself."""
    if context.has_partition_key:
        return [context.partition_key]
    return sorted(context.instance.get_dynamic_partitions(str(cohorts.name)))


def _rows(context: AssetCheckExecutionContext, store: ObjectStore) -> list[ManifestRow]:
    return [row for cohort in cohorts_in_question(context) for row in read_manifest(store, cohort)]


@asset_check(asset="raw_images", description=f"At most {MAX_REJECT_RATE:.0%} of a cohort's files are rejected.")
def reject_rate(context: AssetCheckExecutionContext, storage: Storage) -> AssetCheckResult:
    rows = _rows(context, storage.store)
    rate = sum(row.status == "rejected" for row in rows) / max(1, len(rows))
    return AssetCheckResult(
        passed=rate <= MAX_REJECT_RATE,
        severity=AssetCheckSeverity.WARN,
        metadata={"rate": rate, "by_reason": reject_counts(rows), "rejected_files": reject_table(rows)},
    )


@asset_check(
    asset="lung_masks",
    blocking=True,
    description=f"At most {MAX_BAD_MASK_RATE:.0%} of the masks are implausible: more means the segmenter does not "
    "understand these images.",
)
def mask_plausibility(context: AssetCheckExecutionContext, storage: Storage) -> AssetCheckResult:
    rows = _rows(context, storage.store)
    bad = [row for row in rows if row.code == "implausible_mask"]
    fallen_back = [row for row in rows if "masks" in row.stages and "fallback" in row.stages["masks"].facts]
    judged = len(bad) + sum("masks" in row.stages for row in rows)
    rate = (len(bad) + len(fallen_back)) / max(1, judged)
    return AssetCheckResult(
        passed=rate <= MAX_BAD_MASK_RATE,
        severity=AssetCheckSeverity.ERROR,
        metadata={"rate": rate, "judged": judged, "offenders": reject_table(bad)},
    )


@asset_check(
    asset="npz_tensors",
    blocking=True,
    description=f"Every tensor the manifest names exists; {NPZ_SAMPLE} of them, drawn at random, load as "
    "(224, 224, 4) uint8 and hold the bytes that the manifest recorded.",
)
def npz_contract(context: AssetCheckExecutionContext, storage: Storage) -> AssetCheckResult:
    store = storage.store
    offenders: list[dict[str, str]] = []
    named: dict[str, str] = {}
    present: set[str] = set()
    for cohort in cohorts_in_question(context):
        rows = read_manifest(store, cohort)
        named |= {row.stages["npz"].key: row.stages["npz"].sha256 for row in rows if "npz" in row.stages}
        present |= {info.key for info in store.list_objects(f"npz/{cohort}")}
    offenders += [{"file": key, "problem": "missing"} for key in sorted(named.keys() - present)]
    offenders += [{"file": key, "problem": "not in the manifest"} for key in sorted(present - named.keys())]
    existing = sorted(named.keys() & present)
    for key in random.sample(existing, min(NPZ_SAMPLE, len(existing))):
        problem = _npz_problem(store.read(key), named[key])
        offenders += [{"file": key, "problem": problem}] if problem else []
    return AssetCheckResult(
        passed=not offenders,
        metadata={"tensors": len(named), "offenders": MetadataValue.table([TableRecord(item) for item in offenders])}
        if offenders
        else {"tensors": len(named)},
    )


def _npz_problem(data: bytes, sha256: str) -> str | None:
    import hashlib

    from penumo_assets.imaging.pack import NpzError, load_npz

    if hashlib.sha256(data).hexdigest() != sha256:
        return "its bytes are not those that the manifest recorded"
    try:
        load_npz(data)
    except NpzError as error:
        return str(error)
    return None


@asset_check(
    asset="training_set", blocking=True, description="No patient, and no image, stands in more than one split."
)
def no_leakage(storage: Storage) -> AssetCheckResult:
    index = _indices(storage.store)
    patients = Counter(patient for frame in index.values() for patient in set(frame["patient_id"]))
    images = Counter(digest for frame in index.values() for digest in set(frame["sha256"].dropna()))
    shared = sorted(patient for patient, splits in patients.items() if splits > 1)
    copies = sorted(digest for digest, splits in images.items() if splits > 1)
    return AssetCheckResult(
        passed=not shared and not copies,
        metadata={"patients_in_several_splits": shared[:100], "identical_images_in_several_splits": copies[:100]},
    )


@asset_check(
    asset="training_set",
    description=f"Every split holds every class, and each class at least {MIN_CLASS_SHARE:.0%} of its images.",
)
def class_balance(storage: Storage) -> AssetCheckResult:
    store = storage.store
    dataset = store.read_json(f"{current_training_set(store)['prefix']}/dataset.json")
    shares = {
        f"{name} {label}": split["counts"].get(label, 0) / max(1, split["images"])
        for name, split in dataset["splits"].items()
        for label in dataset["classes"]
    }
    rare = sorted(name for name, share in shares.items() if share < MIN_CLASS_SHARE)
    return AssetCheckResult(
        passed=not rare, severity=AssetCheckSeverity.WARN, metadata={"shares": shares, "too_rare": rare}
    )


@asset_check(
    asset="evaluation_report",
    description="The gates that decide whether a model may become the champion, with their default thresholds.",
)
def quality_gates(storage: Storage) -> AssetCheckResult:
    store = storage.store
    reports = {name: store.read_json(f"{item['prefix']}/report.json") for name, item in existing_reports(store).items()}
    gates = {name: check_gates(report, GATES) for name, report in reports.items()}
    failed = [f"{name}: {item.gate}" for name, results in gates.items() for item in results if not item.passed]
    return AssetCheckResult(
        passed=bool(gates) and not failed,
        severity=AssetCheckSeverity.WARN,
        metadata={"gates": gate_table(gates), "failed": failed},
    )


def _indices(store: ObjectStore) -> dict[str, Any]:
    import io

    import pandas as pd  # loading the definitions does not need it

    dataset = current_training_set(store)
    names = [name for name in dataset["names"] if name.endswith("index.parquet")]
    return {name: pd.read_parquet(io.BytesIO(store.read(f"{dataset['prefix']}/{name}"))) for name in names}


ASSET_CHECKS = [reject_rate, mask_plausibility, npz_contract, no_leakage, class_balance, quality_gates]
