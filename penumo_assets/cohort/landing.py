"""What has landed for a cohort: image files, ground-truth masks, and what labels.csv says of them.

Here is the door: a landed name, which often holds a patient's, and free text go no further. What reads a `Landing`
knows a file by its ``source``; the job that decodes it is told its ``name``.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from penumo_assets.cohort.errors import LandingError
from penumo_assets.cohort.labels import Label, parse_labels
from penumo_assets.cohort.names import COMPLETE_MARKER, composed, is_hidden, is_labels, source_name
from penumo_assets.cohort.table import MAX_BYTES
from penumo_assets.cohort.truths import mask_names, pair_masks
from penumo_assets.configs.prepare import LabelsConfig
from penumo_assets.resources.storage.object_store import ObjectInfo, ObjectStore, is_key


@dataclass(frozen=True)
class LandedFile:
    """One landed object.

    ``source`` is what it is called outside landing. ``name`` is its key below the cohort's folder, where that differs:
    for the prepare job's inputs, and never for a message. ``plain`` and ``archived`` are as `ObjectInfo` has them.
    ``is_folder``: other objects lie below its key, as a bucket permits and no disk. ``is_twin``: another object's name
    looks the same and is written in other characters.
    """

    source: str
    etag: str
    size: int
    name: str = field(default="", repr=False)
    plain: bool = True
    archived: bool = False
    is_folder: bool = False
    is_twin: bool = False

    @property
    def landed_name(self) -> str:
        return self.name or self.source


@dataclass(frozen=True)
class Landing:
    """A cohort as it lies in the landing folder.

    Attributes
    ----------
    files : images, and whatever else is neither a mask nor the table.
    truths : each image's ground-truth mask by its source: one file, or one for each lung.
    labels : the rows of labels.csv by source.
    unpaired : masks that belong to no image for certain, each with the reason.
    mask_notes : by source, a note on an image of a cohort with masks that has none for certain.
    """

    cohort: str
    files: tuple[LandedFile, ...]
    truths: dict[str, tuple[LandedFile, ...]]
    labels: dict[str, Label]
    unpaired: tuple[tuple[LandedFile, str], ...] = ()
    mask_notes: dict[str, str] = field(default_factory=dict)


def read_landing(store: ObjectStore, cohort: str, config: LabelsConfig, key: bytes | None) -> Landing:
    """List a cohort's landing folder and read its labels.csv; ``key`` pseudonymises the names, where they are.

    Raises
    ------
    LandingError
        If nothing has landed, or labels.csv is not the table the data contract describes.
    """
    prefix = f"landing/{cohort}"
    listed = {info.key[len(prefix) + 1 :]: info for info in store.list_objects(prefix)}
    tables = [name for name in listed if is_labels(name)]
    if len(tables) > 1:
        raise LandingError(f"cohort {cohort!r} has {len(tables)} tables of labels, {', '.join(tables)}: keep one")
    labels = parse_labels(_read_labels(store, listed[tables[0]], cohort), cohort, config, key) if tables else {}
    landed = _landed(
        {name: info for name, info in listed.items() if not is_labels(name) and not is_hidden(name)}, config, key
    )
    safe = {name for name, file in landed.items() if is_key(name) and file.plain and not file.is_folder}
    masks = mask_names(safe)
    files = {name: file for name, file in landed.items() if name != COMPLETE_MARKER and name not in masks}
    if not files:
        raise LandingError(f"cohort {cohort!r} has no files under {prefix}/: land some with `penumo land`")
    truths = pair_masks((name for name in files if name in safe), masks)
    return Landing(
        cohort,
        tuple(files.values()),
        {files[film].source: tuple(landed[name] for name in names) for film, names in truths.of_film.items()},
        labels,
        tuple((landed[name], reason) for name, reason in sorted(truths.unpaired.items())),
        {files[film].source: note for film, note in truths.notes.items()},
    )


def _landed(listed: dict[str, ObjectInfo], config: LabelsConfig, key: bytes | None) -> dict[str, LandedFile]:
    """The objects by name, each with its name outside: of two that look the same, neither is taken for the other."""
    named = source_name(config, key)
    folders = _folders(name for name in listed if is_key(name))
    spelled = Counter(composed(name) for name in listed)
    files = {}
    for name, info in listed.items():
        twin = spelled[composed(name)] > 1
        source = named(name) if not twin or name == composed(name) else named(f"{name} ({name!a})")
        files[name] = LandedFile(
            source, info.etag, info.size, name, info.plain, info.archived, name in folders, is_twin=twin
        )
    return files


def _folders(names: Iterable[str]) -> set[str]:
    """Those of the names that begin another one's path."""
    ordered = sorted(names)
    nearest = {name: bisect_left(ordered, f"{name}/") for name in ordered}
    return {name for name, at in nearest.items() if at < len(ordered) and ordered[at].startswith(f"{name}/")}


def _read_labels(store: ObjectStore, info: ObjectInfo, cohort: str) -> bytes:
    if not info.plain:
        raise LandingError(f"labels.csv of cohort {cohort!r} is no plain file: land the table itself")
    if info.archived:
        raise LandingError(f"labels.csv of cohort {cohort!r} is archived: restore it")
    if info.size > MAX_BYTES:
        raise LandingError(
            f"labels.csv of cohort {cohort!r} has {info.size} bytes; {MAX_BYTES} are read: split the cohort"
        )
    return store.read(info.key, MAX_BYTES)
