"""Which cohorts a check is about, and their manifests."""

from collections.abc import Iterator

from dagster import AssetCheckExecutionContext

from penumo_assets.cohort.publish import read_manifest
from penumo_assets.jobs.manifest import ManifestRow
from penumo_assets.partitions import cohorts
from penumo_assets.resources.storage.object_store import ObjectStore


def all_cohorts(context: AssetCheckExecutionContext) -> list[str]:
    return sorted(context.instance.get_dynamic_partitions(str(cohorts.name)))


def cohorts_in_question(context: AssetCheckExecutionContext) -> list[str]:
    """The run's cohort; every cohort when a check is run by itself."""
    return [context.partition_key] if context.has_partition_key else all_cohorts(context)


def manifests_in_question(context: AssetCheckExecutionContext, store: ObjectStore) -> Iterator[list[ManifestRow]]:
    """The manifest of each cohort in question, one at a time: those of all cohorts together may not fit in memory."""
    return (read_manifest(store, cohort) for cohort in cohorts_in_question(context))


def scope(context: AssetCheckExecutionContext) -> str:
    """Which cohort an evaluation is about: Dagster does not keep the partition with it."""
    return f"cohort {context.partition_key}" if context.has_partition_key else "all cohorts"
