"""Decide, from what landed and what the manifest remembers, which image needs which stage. Computes nothing."""

import hashlib
import hmac
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from penumo_assets.cohort.errors import LandingError
from penumo_assets.cohort.labels import BOXES_UNUSABLE, Label
from penumo_assets.cohort.landing import LandedFile, Landing
from penumo_assets.cohort.truths import FILM_NOTES
from penumo_assets.configs.prepare import PrepareConfig
from penumo_assets.imaging.boxes import lie_within
from penumo_assets.imaging.formats.files import not_a_file, too_large
from penumo_assets.jobs.identity import AGE_DIFFERS, PLACEHOLDER_ID, SEX_DIFFERS, TABLE_ZEROS, contradictions
from penumo_assets.jobs.manifest import STAGES, ManifestRow, fingerprint
from penumo_assets.jobs.prepare.work import WorkItem
from penumo_assets.resources.storage.object_store import UNSAFE_NAME, is_key

LANDING = "landing"
_SECOND_FILM = "duplicate_patient_id"  # for which earlier versions rejected a patient's second film
UNPAIRED = "unpaired_mask"
MISSING_FILE = "missing_file"
# Notes that are made anew whenever a cohort is planned, from its labels.csv and the names of its masks.
TABLE_NOTES = frozenset({PLACEHOLDER_ID, TABLE_ZEROS, SEX_DIFFERS, AGE_DIFFERS, BOXES_UNUSABLE, *FILM_NOTES})


@dataclass(frozen=True)
class PreparePlan:
    """What a materialization has to do.

    Attributes
    ----------
    items : images with something to compute.
    rows : rows that are final without computing anything (unchanged, or rejected before decoding).
    removed : sources that were in the manifest and have gone.
    """

    items: tuple[WorkItem, ...]
    rows: tuple[ManifestRow, ...]
    removed: tuple[str, ...]


@dataclass(frozen=True)
class PlanSettings:
    """What, beside the landed files, decides what must be computed; key and fingerprint as `jobs.prepare.work` makes
    them."""

    config: PrepareConfig
    segmenter_digest: str
    key_id: str = field(repr=False)
    stages: tuple[str, ...]
    key_fingerprint: str = ""


def image_id_of(source: str) -> str:
    """A readable id that is unique within the cohort and does not depend on the other files."""
    stem = re.sub(r"[^A-Za-z0-9._-]+", "_", source.rsplit("/", 1)[-1].rsplit(".", 1)[0]).strip("._-")[:80]
    stem = re.sub(r"\.{2,}", ".", stem)
    # Every examination's first image may be called IM0001: the digest alone must tell them apart.
    suffix = hashlib.sha256(source.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return f"{stem}-{suffix}" if stem else suffix


def plan_cohort(landing: Landing, previous: Iterable[ManifestRow], settings: PlanSettings) -> PreparePlan:
    """Compare a cohort's landing with its manifest.

    Raises
    ------
    LandingError
        If what was prepared must be computed again from image files that were archived since. They are not rejected:
        that would take away what there is.
    """
    before = {row.source: row for row in previous}
    listed = {file.source for file in landing.files}
    items, rows = [], []
    ids: dict[str, str] = {}
    withdrawn = 0
    for file in landing.files:
        label = landing.labels.get(file.source)
        row = _draft(file, landing, before.get(file.source), settings.config.decode.max_file_bytes)
        if ids.setdefault(row.image_id, file.source) != file.source:
            row.stages = {}
            row.reject(LANDING, "unsafe_name", UNSAFE_NAME)
        if row.stage == LANDING:
            rows.append(row)
            continue
        if row.code == _SECOND_FILM:
            row.status, row.stage, row.code, row.reason, row.attempted = "accepted", None, None, None, {}
        truths = landing.truths.get(file.source, ())
        item = _plan_image(row, label, file, truths, settings)
        archived = [truth for truth in truths if truth.archived]
        if archived and "masks" in item.compute:
            rows += [_archived(_bare(truth.source)) for truth in archived]
            item = _plan_image(row, label, file, (), settings)
        if file.archived and "raw" in item.compute:
            withdrawn += bool(row.stages) and before[file.source].source_etag == file.etag
            rows.append(_archived(row))
        elif item.compute:
            items.append(item)
        else:
            rows.append(row)
    if withdrawn:
        raise LandingError(
            f"{withdrawn} images of cohort {landing.cohort!r} must be computed again, because settings changed, and "
            "are in a storage archive: restore them, or materialize with the settings that they were prepared with"
        )
    rows += [_unpaired(mask, reason) for mask, reason in landing.unpaired]
    rows += [_absent(label) for source, label in sorted(landing.labels.items()) if source not in listed]
    gone = before.keys() - listed - {row.source for row in rows}
    return PreparePlan(tuple(items), tuple(rows), tuple(sorted(gone)))


def are_phantoms(landing: Landing) -> bool:
    """Whether labels.csv says of all its landed images that a program drew them; rows that cannot be used say nothing.

    Raises
    ------
    LandingError
        If it says so of some.
    """
    drawn = {
        landing.labels[file.source].extra.get("phantom") == "true"
        for file in landing.files
        if file.source in landing.labels and not landing.labels[file.source].problem
    }
    if len(drawn) > 1:
        raise LandingError(
            f"cohort {landing.cohort!r} mixes phantoms and films: land each as a cohort of its own, or mend the column "
            "phantom of labels.csv"
        )
    return drawn == {True}


def npz_names(row: ManifestRow, config: PrepareConfig) -> Iterator[str]:
    """File names for a film's tensor, the best one first: by the template; with the image id, where another film has
    that one; with a number, where a patient's id is made to look like such a name."""
    name = config.npz.filename.format(patient_id=row.patient_id, image_id=row.image_id)
    yield f"{name}.npz"
    yield f"{name}_{row.image_id}.npz"
    yield from (f"{name}_{row.image_id}_{number}.npz" for number in count(2))


def apply_landing(row: ManifestRow, landing: Landing) -> None:
    """Take over what labels.csv says; where it is silent, what the header says. Never touches the patient id."""
    label, mask_note = landing.labels.get(row.source), landing.mask_notes.get(row.source)
    label = label or Label(source=row.source)
    row.label, row.extra = label.label, dict(label.extra)
    row.view = label.view or row.tags.get("view")
    row.sex = label.sex or row.tags.get("sex")
    row.age = label.age if label.age is not None else row.tags.get("age")
    row.split = label.split
    row.notes = [note for note in row.notes if note not in TABLE_NOTES]
    row.notes += [*label.notes, *contradictions(row), *([mask_note] if mask_note else [])]
    row.boxes = list(label.boxes)
    if row.height and row.width and not lie_within(row.boxes, row.height, row.width):
        # Drawn on the film at another size, for one.
        row.boxes = []
        row.notes.append(BOXES_UNUSABLE)


def _bare(source: str) -> ManifestRow:
    return ManifestRow(image_id=image_id_of(source), source=source, source_etag="", source_bytes=0)


def _draft(file: LandedFile, landing: Landing, before: ManifestRow | None, max_bytes: int) -> ManifestRow:
    row = before.model_copy(deep=True) if before and before.stage != LANDING else _bare(file.source)
    row.source_etag, row.source_bytes = file.etag, file.size
    apply_landing(row, landing)
    problem = _problem_of(file, landing.labels.get(file.source), max_bytes)
    if problem:
        row.stages = {}
        row.reject(LANDING, *problem)
    return row


def _problem_of(file: LandedFile, label: Label | None, max_bytes: int) -> tuple[str, str] | None:
    """Code and reason for which a file is rejected as it lies, before anybody reads it."""
    if not is_key(file.landed_name):
        return "unsafe_name", UNSAFE_NAME
    if file.is_folder:
        return "unsafe_name", "its name is the folder of other files too: land it again under another one"
    if file.is_twin:
        return "ambiguous_name", "another file's name looks the same in other characters: keep one of the two"
    if not file.plain or file.size > max_bytes:
        rejection = too_large(max_bytes) if file.plain else not_a_file()
        return rejection.code, rejection.reason
    return label.problem if label else None


def _archived(row: ManifestRow) -> ManifestRow:
    row.stages = {}
    row.reject(LANDING, "archived", "it is in a storage archive: restore it there")
    return row


def _unpaired(mask: LandedFile, reason: str) -> ManifestRow:
    row = _bare(mask.source)
    row.source_etag, row.source_bytes = mask.etag, mask.size
    row.reject(LANDING, UNPAIRED, f"it lies among the masks, and {reason}")
    return row


def _absent(label: Label) -> ManifestRow:
    row = _bare(label.source)
    row.reject(LANDING, MISSING_FILE, "labels.csv names this file, but it has not landed")
    return row


def _redacted_id(patient_id: str, key_id: str) -> str:
    """A patient id of labels.csv as a stored fingerprint may hold it: nobody without the key can test guesses."""
    if not key_id:
        return patient_id
    return hmac.new(key_id.encode(), patient_id.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()


def _identity(label: Label | None, settings: PlanSettings) -> dict[str, str | None]:
    """What, beside the file, decides whose a film is, and whether its view is wanted."""
    patient_id = label.patient_id if label else None
    return {
        "patient_id": _redacted_id(patient_id, settings.key_id) if patient_id else None,
        "view": label.view if label else None,
        # Of every file: what it holds shows only when it is decoded, and a DICOM film may be called .png.
        "key": settings.key_id or None,
    }


def _plan_image(
    row: ManifestRow, label: Label | None, file: LandedFile, truths: tuple[LandedFile, ...], settings: PlanSettings
) -> WorkItem:
    config = settings.config
    stage_settings: dict[str, dict[str, Any]] = {
        "raw": {"decode": config.decode.model_dump(mode="json")},
        "masks": {
            "segment": config.segment.model_dump(mode="json"),
            "weights": settings.segmenter_digest,
            "truths": [truth.etag for truth in truths],
        },
        "preprocessed": config.enhance.model_dump(mode="json"),
        "npz": {},
    }
    # Whose a film is shows when it is decoded; no pixel depends on it, so the later stages do not either.
    told_by = fingerprint("raw", _identity(label, settings), file.etag)
    compute: list[str] = []
    fingerprints: dict[str, str] = {}
    upstream: str | None = file.etag
    for stage in STAGES:
        if upstream is None:
            break
        expected = fingerprint(stage, stage_settings[stage], upstream)
        stored = row.stages.get(stage)
        rejected_here = row.status == "rejected" and row.stage == stage
        again = stage == "raw" and row.told_by != told_by
        if rejected_here and (stage not in settings.stages or (row.attempted.get(stage) == expected and not again)):
            break
        if stage in settings.stages and (stored is None or stored.fingerprint != expected or again):
            compute.append(stage)
            fingerprints[stage] = expected
            upstream = expected
        else:
            upstream = stored.fingerprint if stored else None
    if "raw" in compute:
        row.told_by = told_by
    return WorkItem(
        row=row,
        compute=compute,
        fingerprints=fingerprints,
        label_patient_id=label.patient_id if label else None,
        landed=file.landed_name,
        truths=tuple(truth.landed_name for truth in truths),
    )
