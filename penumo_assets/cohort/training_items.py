"""What each cohort gives to a training set: its labelled tensors as jobs/pack takes them, kept from set to set.

``training_set/items/{cohort}/{digest}.jsonl`` holds a cohort's items and is never written again;
``items.json`` beside a training set says which object is each cohort's, and of which manifest. So the next set reads
the manifests that have changed since, and no other.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from penumo_assets.cohort.publish import manifest_tags, open_manifest
from penumo_assets.imaging.deidentify import is_pseudonym
from penumo_assets.jobs.contract import json_lines
from penumo_assets.jobs.identity import is_trainable, why_untrainable
from penumo_assets.jobs.items import film_item
from penumo_assets.jobs.manifest import ManifestRow
from penumo_assets.records import Record, TrainingSetRecord
from penumo_assets.resources.storage.object_store import ObjectMissing, ObjectStore

ITEMS = "training_set/items"
FORMAT = "2"  # to be raised when `pack_item` says something else of the same row


class CohortItems(BaseModel):
    """The labelled tensors of a cohort whose patient is known, counted.

    Attributes
    ----------
    made_from : entity tag of the manifest, and how it was read.
    name : the object with the items, below `ITEMS`; empty if there are none, and ``why`` says why.
    labels : films of each label.
    without_key : films without a key of the split.
    no_patient : labelled tensors that are left out for want of a patient id.
    settings, segmenter, key : how the cohort was prepared, as `ManifestHead` has them.
    """

    model_config = ConfigDict(frozen=True)

    made_from: str
    name: str
    labels: dict[str, int]
    without_key: int
    no_patient: int
    phantoms: bool
    why: str
    settings: dict[str, Any]
    segmenter: str | None
    key: str | None

    @property
    def films(self) -> int:
        return sum(self.labels.values())


class ItemsRecord(Record):
    """What a training set was made of, by cohort, and the tensors that could not be used."""

    KEY = "{}/items.json"

    cohorts: Mapping[str, CohortItems] = Field(default_factory=dict)
    unusable: tuple[str, ...] = ()

    @classmethod
    def of(cls, store: ObjectStore, made: TrainingSetRecord | None) -> "ItemsRecord":
        """That of a training set; empty where there is no set, or one that an earlier version made."""
        return (made and cls.find(store, made.prefix)) or cls()

    def superseded_by(self, found: Mapping[str, CohortItems]) -> list[str]:
        """The objects with items of this set's cohorts that the next set is not made of."""
        left = {each.name for each in self.cohorts.values()} - {each.name for each in found.values()}
        return [f"{ITEMS}/{name}" for name in sorted(left) if name]


def cohort_items(
    store: ObjectStore, chosen: Sequence[str], class_of: Mapping[str, str], known: Mapping[str, CohortItems]
) -> dict[str, CohortItems]:
    """The items of each cohort: those that are ``known`` of a manifest as it is now, or made from it.

    One manifest is held at a time: all cohorts' rows may not fit in memory.
    """
    tags, there = manifest_tags(store), {info.key for info in store.list_objects(ITEMS)} if known else set()
    found = {}
    for cohort in chosen:
        made_from = json.dumps([FORMAT, tags.get(cohort), dict(class_of)], sort_keys=True)
        kept = known.get(cohort)
        fits = kept and kept.made_from == made_from and (not kept.name or f"{ITEMS}/{kept.name}" in there)
        found[cohort] = kept if kept and fits else _make(store, cohort, class_of, made_from)
    return found


def _make(store: ObjectStore, cohort: str, class_of: Mapping[str, str], made_from: str) -> CohortItems:
    manifest = open_manifest(store, cohort)
    labelled = [row for row in manifest.rows if row.label and "npz" in row.stages]
    items = [pack_item(cohort, row, class_of) for row in labelled if is_trainable(row)]
    data = json_lines(items)
    name = f"{cohort}/{hashlib.sha256(data).hexdigest()[:16]}.jsonl" if items else ""
    if items:
        store.write(f"{ITEMS}/{name}", data)
    return CohortItems(
        made_from=made_from,
        name=name,
        labels=Counter(item["label"] for item in items),
        without_key=sum(not item["split_key"] for item in items),
        no_patient=len(labelled) - len(items),
        phantoms=manifest.phantoms,
        why="" if items else why_untrainable(manifest.rows),
        settings=manifest.head.settings,
        segmenter=manifest.head.segmenter,
        key=manifest.head.key,
    )


def pack_item(cohort: str, row: ManifestRow, class_of: Mapping[str, str]) -> dict:
    """A labelled tensor as jobs/pack takes it: which file, whose, of what label, and how it landed."""
    facts = row.facts_of("preprocessed")
    more: dict[str, Any] = {"boxes": row.boxes, "crop_box": facts["crop_box"]} if row.boxes else {}
    if "film_border" in facts:  # earlier versions did not measure it
        more["film_border"] = facts["film_border"]
    return (
        film_item(row)
        | more
        | {
            "label": class_of.get(row.label or "", row.label),
            "cohort": cohort,
            "view": row.view,
            "sex": row.sex,
            "age": row.age,
            "declared_split": row.split,
            # What an earlier version prepared has no key of its own; a DICOM patient's pseudonym is the same.
            "split_key": row.split_key or (row.patient_id if is_pseudonym(row.patient_id or "") else None),
        }
    )


def read_items(store: ObjectStore, items: CohortItems) -> bytes:
    """A cohort's items as JSON lines."""
    return store.read(f"{ITEMS}/{items.name}") if items.name else b""


def fresh_files(store: ObjectStore, found: Mapping[str, CohortItems], before: ItemsRecord) -> Iterator[str]:
    """The files of the items ``found`` that a training set made of ``before`` does not hold."""
    unusable = set(before.unusable)
    for cohort, mine in found.items():
        had = before.cohorts.get(cohort)
        if had is not None and had.name == mine.name:
            yield from sorted(file for file in unusable if file.startswith(f"{cohort}/"))
            continue
        held = {tensor for tensor in _tensors(store, had) if tensor[0] not in unusable} if had else set()
        yield from (tensor[0] for tensor in _tensors(store, mine) if tensor not in held)


def _tensors(store: ObjectStore, items: CohortItems) -> list[tuple[str, str]]:
    """File and SHA-256 of each; none where somebody has removed the object."""
    try:
        lines = read_items(store, items).splitlines()
    except ObjectMissing:
        return []
    return [(item["file"], item["sha256"]) for item in map(json.loads, lines)]
