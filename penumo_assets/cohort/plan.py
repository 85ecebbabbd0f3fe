"""Decide, from what landed and what the manifest remembers, which image needs which stage. Computes nothing."""

import hashlib
import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from penumo_assets.cohort.landing import Label, LandedFile, Landing, LandingError
from penumo_assets.configs.prepare import PrepareConfig
from penumo_assets.imaging.formats.files import not_a_file, too_large
from penumo_assets.jobs.manifest import STAGES, ManifestRow, fingerprint
from penumo_assets.jobs.prepare.work import WorkItem
from penumo_assets.resources.storage.object_store import UNSAFE_NAME, is_key

LANDING = "landing"
DUPLICATE = "duplicate_patient_id"


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
    """What, beside the landed files, decides what must be computed; ``key_id`` as `jobs.work.key_id` makes it."""

    config: PrepareConfig
    segmenter_digest: str
    key_id: str = field(repr=False)
    stages: tuple[str, ...]


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
    holders = [row for source, row in before.items() if source in listed and "npz" in row.stages]
    taken = {npz_place(row, settings.config) for row in holders}
    items, rows = [], []
    ids: dict[str, str] = {}
    withdrawn = 0
    for file in landing.files:
        label = landing.labels.get(file.source)
        row = _draft(file, label, before.get(file.source), settings.config.decode.max_file_bytes)
        if ids.setdefault(row.image_id, file.source) != file.source:
            row.stages = {}
            row.reject(LANDING, "unsafe_name", UNSAFE_NAME)
        if row.stage == LANDING:
            rows.append(row)
            continue
        if row.code == DUPLICATE and npz_place(row, settings.config) not in taken:
            row.status, row.stage, row.code, row.reason, row.attempted = "accepted", None, None, None, {}
        truth = landing.truths.get(file.source)
        item = _plan_image(row, label, file, truth, settings)
        if truth and truth.archived and "masks" in item.compute:
            rows.append(_archived(_draft(truth, None, None, settings.config.decode.max_file_bytes)))
            item = _plan_image(row, label, file, None, settings)
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
    rows += [_absent(label) for source, label in sorted(landing.labels.items()) if source not in listed]
    gone = before.keys() - listed - {row.source for row in rows}
    return PreparePlan(tuple(items), tuple(rows), tuple(sorted(gone)))


def npz_name(row: ManifestRow, config: PrepareConfig) -> str | None:
    """The tensor's file name by the template, or None while the patient is unknown."""
    if row.patient_id is None:
        return None
    return config.npz.filename.format(patient_id=row.patient_id, image_id=row.image_id) + ".npz"


def npz_place(row: ManifestRow, config: PrepareConfig) -> str | None:
    """What two tensors must not share: `npz_name` on a disk that does not tell upper from lower case."""
    name = npz_name(row, config)
    return None if name is None else name.casefold()


def apply_label(row: ManifestRow, label: Label | None) -> None:
    """Take over what labels.csv says; where it is silent, what the header says. Never touches the patient id."""
    label = label or Label(source=row.source)
    row.label, row.extra = label.label, dict(label.extra)
    row.view = label.view or row.tags.get("view")
    row.sex = label.sex or row.tags.get("sex")
    row.age = label.age if label.age is not None else row.tags.get("age")


def _draft(file: LandedFile, label: Label | None, before: ManifestRow | None, max_bytes: int) -> ManifestRow:
    row = (
        before.model_copy(deep=True)
        if before and before.stage != LANDING
        else ManifestRow(image_id=image_id_of(file.source), source=file.source, source_etag="", source_bytes=0)
    )
    row.source_etag, row.source_bytes = file.etag, file.size
    apply_label(row, label)
    problem = _problem_of(file, label, max_bytes)
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
    if not file.plain or file.size > max_bytes:
        rejection = too_large(max_bytes) if file.plain else not_a_file()
        return rejection.code, rejection.reason
    return label.problem if label else None


def _archived(row: ManifestRow) -> ManifestRow:
    row.stages = {}
    row.reject(LANDING, "archived", "it is in a storage archive: restore it there")
    return row


def _absent(label: Label) -> ManifestRow:
    row = ManifestRow(image_id=image_id_of(label.source), source=label.source, source_etag="", source_bytes=0)
    row.reject(LANDING, "missing_file", "labels.csv names this file, but it has not landed")
    return row


def _redacted_id(patient_id: str, key_id: str) -> str:
    """A patient id of labels.csv as a stored fingerprint may hold it: nobody without the key can test guesses."""
    if not key_id:
        return patient_id
    return hmac.new(key_id.encode(), patient_id.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()


def _plan_image(
    row: ManifestRow, label: Label | None, file: LandedFile, truth: LandedFile | None, settings: PlanSettings
) -> WorkItem:
    config = settings.config
    stage_settings = {
        "raw": {
            "decode": config.decode.model_dump(mode="json"),
            "patient_id": _redacted_id(label.patient_id, settings.key_id) if label and label.patient_id else None,
            "view": label.view if label else None,
            # Of every file: what it holds shows only when it is decoded, and a DICOM film may be called .png.
            "key": settings.key_id or None,
        },
        "masks": {
            "segment": config.segment.model_dump(mode="json"),
            "weights": settings.segmenter_digest,
            "truth": truth.etag if truth else None,
        },
        "preprocessed": config.enhance.model_dump(mode="json"),
        "npz": {},
    }
    compute: list[str] = []
    fingerprints: dict[str, str] = {}
    upstream: str | None = file.etag
    for stage in STAGES:
        if upstream is None:
            break
        expected = fingerprint(stage, stage_settings[stage], upstream)
        stored = row.stages.get(stage)
        rejected_here = row.status == "rejected" and row.stage == stage
        if rejected_here and (stage not in settings.stages or row.attempted.get(stage) == expected):
            break
        if stage in settings.stages and (stored is None or stored.fingerprint != expected):
            compute.append(stage)
            fingerprints[stage] = expected
            upstream = expected
        else:
            upstream = stored.fingerprint if stored else None
    return WorkItem(
        row=row,
        compute=compute,
        fingerprints=fingerprints,
        label_patient_id=label.patient_id if label else None,
        landed=file.landed_name,
        truth=truth.landed_name if truth else None,
    )
