"""Merge what a prepare job made into the manifest, and publish the objects it names.

The order makes every moment consistent: first the new objects, then the manifest that names them, then
the objects nobody names any more are removed.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from penumo_assets.cohort.landing import Landing
from penumo_assets.cohort.plan import DUPLICATE, Plan, apply_label, npz_name
from penumo_assets.configs.prepare import PrepareConfig
from penumo_assets.jobs.manifest import STAGES, ManifestRow, dump_rows, load_rows
from penumo_assets.resources.storage import ObjectMissing, ObjectStore

_SETTINGS_OF_STAGE = {"raw": "decode", "masks": "segment", "preprocessed": "enhance", "npz": "npz"}


@dataclass(frozen=True)
class Publication:
    """What publishing a cohort has to do: objects to copy (source key, target key), rows, keys to remove."""

    rows: tuple[ManifestRow, ...]
    copies: tuple[tuple[str, str], ...]
    stale: tuple[str, ...]


def manifest_key(cohort: str) -> str:
    return f"manifests/{cohort}.jsonl"


def read_manifest(store: ObjectStore, cohort: str) -> list[ManifestRow]:
    """The cohort's manifest; empty if it has none yet."""
    try:
        return load_rows(store.read(manifest_key(cohort)))
    except ObjectMissing:
        return []


def settings_key(cohort: str) -> str:
    return f"manifests/{cohort}.settings.json"


def write_settings(store: ObjectStore, cohort: str, config: PrepareConfig, stages: Sequence[str]) -> None:
    """Record what the stages that just ran were set to; the others keep what they had."""
    settings = config.model_dump(mode="json")
    parts = {_SETTINGS_OF_STAGE[stage]: settings[_SETTINGS_OF_STAGE[stage]] for stage in stages}
    store.write_json(settings_key(cohort), read_settings(store, cohort) | {"labels": settings["labels"]} | parts)


def read_settings(store: ObjectStore, cohort: str) -> dict[str, Any]:
    """How a cohort was prepared, as `PrepareConfig` parses it; empty, which means the defaults, before it was."""
    try:
        return store.read_json(settings_key(cohort))
    except ObjectMissing:
        return {}


def plan_publication(
    landing: Landing,
    plan: Plan,
    computed: Iterable[ManifestRow],
    previous: Iterable[ManifestRow],
    config: PrepareConfig,
    job_outputs: str,
) -> Publication:
    """Give every output its final key, refuse name collisions, and find what must be copied and removed.

    ``computed`` rows hold keys relative to ``job_outputs``; an image that already holds a tensor name keeps it
    against newcomers.
    """
    fresh = {item.row.image_id: set(item.compute) for item in plan.items}
    rows = sorted([*plan.rows, *computed], key=lambda row: row.source)
    for row in rows:
        if row.status == "accepted" or row.stage != "landing":
            apply_label(row, landing.labels.get(row.source))
    old_keys = {output.key for row in previous for output in row.stages.values()}
    holders: dict[str, ManifestRow] = {}
    copies: list[tuple[str, str]] = []
    for row in sorted(rows, key=lambda row: "npz" not in row.stages or "npz" in fresh.get(row.image_id, ())):
        for stage in STAGES:
            if stage not in row.stages:
                continue
            name = npz_name(row, config) if stage == "npz" else f"{row.image_id}.png"
            assert name is not None
            if stage == "npz" and holders.setdefault(name, row) is not row:
                _refuse_duplicate(row, holders[name], name)
                continue
            output = row.stages[stage]
            source = output.key
            if stage in fresh.get(row.image_id, ()):
                source = f"{job_outputs}/{output.key}"
            output.key = f"{stage}/{landing.cohort}/{name}"
            if source != output.key:
                copies.append((source, output.key))
    new_keys = {output.key for row in rows for output in row.stages.values()}
    return Publication(tuple(rows), tuple(copies), tuple(sorted(old_keys - new_keys)))


def publish(store: ObjectStore, cohort: str, publication: Publication) -> None:
    """Carry out a publication; safe to repeat."""
    store.copy_all(publication.copies)
    store.write(manifest_key(cohort), dump_rows(publication.rows))
    store.delete(publication.stale)


def _refuse_duplicate(row: ManifestRow, holder: ManifestRow, name: str) -> None:
    output = row.stages.pop("npz")
    reason = (
        f"{name} already holds image {holder.image_id} of the same patient: name {{image_id}} in npz.filename "
        "to keep several images of a patient"
    )
    row.reject("npz", DUPLICATE, reason, output.fingerprint)
