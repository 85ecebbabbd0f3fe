"""From an id outside to the film that landed, and back: for those who may read landing and hold the key, nobody else.

What is told here can name a patient: it goes to whoever asks, and into no log.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from penumo_assets.cohort.errors import LandingError
from penumo_assets.cohort.landing import read_landing
from penumo_assets.cohort.names import as_key, source_name
from penumo_assets.cohort.publish import Manifest, manifest_tags, open_manifest
from penumo_assets.configs.prepare import PrepareConfig
from penumo_assets.imaging.deidentify import pseudonym
from penumo_assets.jobs.manifest import ManifestRow
from penumo_assets.resources.storage.object_store import ObjectStore

_OURS = ("raw/", "masks/", "preprocessed/")  # objects named by an image id


@dataclass(frozen=True)
class Film:
    """A landed file: its name below the cohort's landing folder, what it is called outside, and why it was rejected,
    if it was. A name that is no longer in landing stands as what it is called outside."""

    cohort: str
    name: str
    source: str
    image_id: str
    patient_id: str
    rejected: str


@dataclass(frozen=True)
class Found:
    """The films that were asked for, the ids that nothing is known by, and the cohorts whose landed names and patient
    ids were not searched, because they were prepared with another key."""

    films: tuple[Film, ...]
    unknown: tuple[str, ...]
    unsearched: tuple[str, ...]


def rejected_files(store: ObjectStore, cohort: str, key: bytes | None) -> list[Film]:
    """The cohort's rejected files in the order of their names.

    Raises
    ------
    LandingError
        If nothing has landed, labels.csv cannot be read, or ``key`` is not the one that the cohort was prepared with.
    """
    manifest = open_manifest(store, cohort)
    return _films(store, manifest, [row for row in manifest.rows if row.status == "rejected"], key)


def lookup(store: ObjectStore, wanted: Sequence[str], key: bytes | None) -> Found:
    """The films by ids of images or patients, names of tensors, or the names and patient ids that they landed with.

    Raises
    ------
    LandingError
        As `rejected_files`, of a cohort that holds one of the films.
    """
    films: list[Film] = []
    known: set[str] = set()
    unsearched = []
    for cohort in manifest_tags(store):
        manifest = open_manifest(store, cohort, lambda found: _meant(wanted, found, key))
        meant, rows = _meant(wanted, manifest, key), []
        for row in manifest.rows:
            if hits := {each for name in _called(row) if name for each in meant.get(name, ())}:
                known |= hits
                rows.append(row)
        if rows:
            films += _films(store, manifest, rows, key)
        if manifest.other_key:
            unsearched.append(cohort)
    return Found(tuple(films), tuple(each for each in wanted if each not in known), tuple(unsearched))


def _meant(wanted: Sequence[str], manifest: Manifest, key: bytes | None) -> dict[str, list[str]]:
    """By each name that a film of the cohort may have, the ids that mean it."""
    fits = not manifest.other_key
    meant: dict[str, list[str]] = {}
    for each in wanted:
        for name in _names(each, manifest, key if fits else None, fits):
            meant.setdefault(name, []).append(each)
    return meant


def _names(wanted: str, manifest: Manifest, key: bytes | None, fits: bool) -> set[str]:
    """What a film may be called, as `_called` says it, that somebody asks for by this id."""
    stem = wanted.rsplit("/", 1)[-1].rsplit(".", 1)[0]
    if wanted.endswith(".npz") and "/" in wanted and manifest.cohort not in wanted.split("/"):
        return set()
    if wanted.endswith(".npz") or wanted.startswith("predictions/"):
        return {f"{stem}.npz"}
    names = {stem} if wanted.startswith(_OURS) else {wanted}
    if fits:
        labels = PrepareConfig.parse(manifest.head.settings).labels
        inside = as_key(wanted).removeprefix("landing/").removeprefix(f"{manifest.cohort}/")
        names.add(source_name(labels, key)(inside))
    return names | {pseudonym(wanted, key)} if key and wanted else names


def _called(row: ManifestRow) -> tuple[str | None, ...]:
    tensor = row.stages["npz"].key.rsplit("/", 1)[-1] if "npz" in row.stages else None
    return row.image_id, row.patient_id, row.source, tensor


def _films(store: ObjectStore, manifest: Manifest, rows: Sequence[ManifestRow], key: bytes | None) -> list[Film]:
    """The rows with the names that their files landed under."""
    if manifest.other_key:
        raise LandingError(
            f"cohort {manifest.cohort!r} was prepared {manifest.other_key}: set it as it was, for no other tells names"
        )
    config = PrepareConfig.parse(manifest.head.settings)
    landing = read_landing(store, manifest.cohort, config.labels, key)
    names = {label.source: label.name for label in landing.labels.values() if label.name}
    files = [*landing.files, *(mask for truths in landing.truths.values() for mask in truths)]
    files += [mask for mask, _ in landing.unpaired]
    names |= {file.source: file.landed_name for file in files}
    films = [
        Film(
            manifest.cohort,
            names.get(row.source, row.source),
            row.source,
            row.image_id,
            row.patient_id or "",
            f"{row.code}: {row.reason}" if row.status == "rejected" else "",
        )
        for row in rows
    ]
    return sorted(films, key=lambda film: film.name)
