"""What a report says of the way its data came, from the cohorts' manifests."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from penumo_assets.cohort.plan import MISSING_FILE, UNPAIRED
from penumo_assets.cohort.publish import open_manifest
from penumo_assets.jobs.identity import is_trainable
from penumo_assets.jobs.manifest import ManifestRow
from penumo_assets.resources.compute.spec import bundle_digest
from penumo_assets.resources.storage.object_store import ObjectStore


def report_context(store: ObjectStore, names: Sequence[str]) -> dict[str, Any]:
    """What the report says of the way the data came: counts and exclusions per cohort, Dice, versions."""
    flow: dict[str, dict[str, Any]] = {}
    dices, prepared_with, phantoms = [], {}, False
    for cohort in names:
        manifest = open_manifest(store, cohort)
        rows = manifest.rows
        flow[cohort], prepared_with[cohort] = cohort_flow(rows), dict(manifest.head.settings)
        for row in rows:
            facts = row.facts_of("masks")
            if "dice" in facts:
                dices.append(
                    {
                        "cohort": cohort,
                        "patient_id": row.patient_id,
                        "image_id": row.image_id,
                        "dice": facts["dice"],
                        "iou": facts["iou"],
                    }
                )
        phantoms = phantoms or manifest.phantoms
    return {
        "flow": flow,
        "dice": dices,
        "prepared_with": prepared_with,
        "code_version": bundle_digest()[:16],
        "phantoms": phantoms,
    }


def cohort_flow(rows: Sequence[ManifestRow]) -> dict[str, Any]:
    """What became of a cohort's films, as `CohortFlow` has it: what landed beside them is counted apart."""
    codes = Counter(row.code for row in rows)
    films = [row for row in rows if row.code not in (UNPAIRED, MISSING_FILE)]
    usable = [row for row in films if "npz" in row.stages]
    rejected = [row for row in films if row.status == "rejected"]
    return {
        "landed": len(films),
        "accepted": len(usable),
        "rejected": dict(Counter(row.code or "" for row in rejected).most_common()),
        "unlabelled": sum(row.label is None for row in usable),
        "without_patient": sum(row.label is not None and not is_trainable(row) for row in usable),
        "whole_image_masks": sum("fallback" in row.facts_of("masks") for row in films),
        "unpaired_masks": codes[UNPAIRED],
        "missing_files": codes[MISSING_FILE],
        "classes": {
            label: {
                name: sum(row.label == label for row in group)
                for name, group in (("landed", films), ("rejected", rejected), ("accepted", usable))
            }
            for label in sorted({row.label for row in films if row.label})
        },
    }
