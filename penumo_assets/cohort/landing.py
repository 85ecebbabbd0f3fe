"""What has landed for a cohort: image files, ground-truth masks, and what labels.csv says of them.

Here is the door: a landed name, which often holds a patient's, and free text go no further. What reads a `Landing`
knows a file by its ``source``; the job that decodes it is told its ``name``.
"""

import csv
import io
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from penumo_assets.configs.prepare import FileNames, LabelsConfig
from penumo_assets.imaging.deidentify import file_pseudonym
from penumo_assets.imaging.view import view_code
from penumo_assets.resources.storage.object_store import ObjectInfo, ObjectStore, is_key, printable

LABELS_FILE = "labels.csv"
COMPLETE_MARKER = "_COMPLETE"
MASKS_FOLDER = "masks/"
NO_NAME = "(no file name)"
MAX_LABELS_BYTES = 64 * 2**20
MAX_ROWS = 1_000_000
MAX_COLUMNS = 256
_COLUMNS = ("file", "patient_id", "label", "view", "sex", "age")
_MAX_TEXT = 256
_MAX_KEY_TEXT = 1024
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


class LandingError(ValueError):
    """A cohort that cannot be read as landed; the message names the cohort and the remedy."""


@dataclass(frozen=True)
class LandedFile:
    """One landed object.

    ``source`` is what it is called outside landing. ``name`` is its key below the cohort's folder, where that differs:
    for the prepare job's inputs, and never for a message. ``plain`` and ``archived`` are as `ObjectInfo` has them.
    ``is_folder``: other objects lie below its key, as a bucket permits and no disk.
    """

    source: str
    etag: str
    size: int
    name: str = field(default="", repr=False)
    plain: bool = True
    archived: bool = False
    is_folder: bool = False

    @property
    def landed_name(self) -> str:
        return self.name or self.source


@dataclass(frozen=True, slots=True)
class Label:
    """One row of labels.csv: coded facts, and in ``extra`` the columns that the settings keep.

    Age in whole years, capped at 90; ``problem`` says why the row cannot be used. ``name`` is the file's as
    `LandedFile` has it.
    """

    source: str
    patient_id: str | None = None
    label: str | None = None
    view: str | None = None
    sex: str | None = None
    age: int | None = None
    extra: dict[str, str] = field(default_factory=dict)
    problem: tuple[str, str] | None = None
    name: str = field(default="", repr=False)


@dataclass(frozen=True)
class Landing:
    """A cohort as it lies in the landing folder. ``truths`` maps an image's source to its ground-truth mask."""

    cohort: str
    files: tuple[LandedFile, ...]
    truths: dict[str, LandedFile]
    labels: dict[str, Label]


def read_landing(store: ObjectStore, cohort: str, config: LabelsConfig, key: bytes | None) -> Landing:
    """List a cohort's landing folder and read its labels.csv; ``key`` pseudonymises the names, where they are.

    Raises
    ------
    LandingError
        If nothing has landed, or labels.csv is not the table the data contract describes.
    """
    prefix = f"landing/{cohort}"
    told = _telling(config, key)
    files, masks, labels = [], {}, {}
    listed = {info.key[len(prefix) + 1 :]: info for info in store.list_objects(prefix)}
    folders = _folders(name for name in listed if is_key(name))
    for name, info in listed.items():
        landed = LandedFile(told(name), info.etag, info.size, name, info.plain, info.archived, name in folders)
        if name == LABELS_FILE:
            labels = parse_labels(_read_labels(store, info, cohort), cohort, config, key)
        elif name.startswith(MASKS_FOLDER) and is_key(name) and info.plain and not landed.is_folder:
            masks[_stem(name)] = landed
        elif name != COMPLETE_MARKER and not is_hidden(name):
            files.append(landed)
    if not files:
        raise LandingError(f"cohort {cohort!r} has no files under {prefix}/: land some with `penumo land`")
    truths = {file.source: masks[_stem(file.name)] for file in files if _stem(file.name) in masks}
    return Landing(cohort, tuple(files), truths, labels)


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
    if info.size > MAX_LABELS_BYTES:
        raise LandingError(
            f"labels.csv of cohort {cohort!r} has {info.size} bytes; {MAX_LABELS_BYTES} are read: split the cohort"
        )
    return store.read(info.key, MAX_LABELS_BYTES)


def is_hidden(source: str) -> bool:
    """Whether an object is left out as a file on its way or of some file system: a name that begins with a dot.

    ``.`` and ``..`` are no such names: they make a key unsafe, and its file is rejected by name.
    """
    return any(part.startswith(".") and part not in {".", ".."} for part in source.split("/"))


def parse_labels(data: bytes, cohort: str, config: LabelsConfig, key: bytes | None) -> dict[str, Label]:
    """Read labels.csv by source: ``file, patient_id, label``, optionally ``view, sex, age`` and what the settings keep.

    A row with a problem stays, with the problem, so that its image is rejected by name.

    Raises
    ------
    LandingError
        If the table is not UTF-8, lacks a column or has one twice, or has too many rows or columns.
    """
    told = _telling(config, key)
    try:
        lines = io.TextIOWrapper(io.BytesIO(data), encoding="utf-8-sig", newline="")
        reader = csv.DictReader(lines, strict=True)
        _check_columns(list(reader.fieldnames or ()), cohort)
        labels: dict[str, Label] = {}
        for count, values in enumerate(reader, start=1):
            if count > MAX_ROWS:
                raise LandingError(f"labels.csv of cohort {cohort!r} has more than {MAX_ROWS} rows: split the cohort")
            label = _parse_row(values, config, told)
            if label.source in labels:
                problem = ("duplicate_label", "labels.csv names this file more than once")
                label = Label(source=label.source, problem=problem, name=label.name)
            labels[label.source] = label
    except (UnicodeDecodeError, csv.Error) as error:
        raise LandingError(f"labels.csv of cohort {cohort!r} is not a UTF-8 CSV table: {error}") from error
    return labels


def _telling(config: LabelsConfig, key: bytes | None) -> Callable[[str], str]:
    """What turns a landed name into the one it has outside."""
    if config.file_names is FileNames.keep:
        return printable
    return lambda name: file_pseudonym(name, key)


def _check_columns(columns: list[str], cohort: str) -> None:
    if missing := [name for name in ("file", "patient_id", "label") if name not in columns]:
        raise LandingError(f"labels.csv of cohort {cohort!r} lacks the column(s) {', '.join(missing)}")
    if len(columns) > MAX_COLUMNS:
        raise LandingError(f"labels.csv of cohort {cohort!r} has {len(columns)} columns; {MAX_COLUMNS} are read")
    if twice := sorted({name for name in _COLUMNS if columns.count(name) > 1}):
        raise LandingError(f"labels.csv of cohort {cohort!r} has more than one column {', '.join(twice)}")


def _malformed(values: Mapping[str | None, object], texts: Mapping[str, str]) -> str | None:
    """What is wrong with a row as such."""
    if None in values or None in values.values():
        return "too many or too few cells"
    if any(_CONTROL.search(text) for text in texts.values()):
        return "control characters"
    if max(len(texts[name]) for name in ("file", "patient_id", "label")) > _MAX_KEY_TEXT:
        return "a cell that is too long"
    return None


def _parse_row(
    values: dict[str | None, str | list[str] | None], config: LabelsConfig, told: Callable[[str], str]
) -> Label:
    texts = {name: value.strip() for name, value in values.items() if name and isinstance(value, str)}
    name = texts.get("file", "").removeprefix("./")[:_MAX_KEY_TEXT]
    source = told(name) if name else NO_NAME
    if malformed := _malformed(values, texts):
        return Label(source=source, problem=("malformed_label", f"its row in labels.csv has {malformed}"), name=name)
    label = texts["label"].lower() or None
    if label and config.allowed and label not in config.allowed:
        known = ", ".join(config.allowed)
        problem = ("unknown_label", f"labels.csv gives a label that is none of: {known} (see labels.allowed)")
        return Label(source=source, problem=problem, name=name)
    kept = {column: texts[column][:_MAX_TEXT] for column in config.keep_columns if texts.get(column)}
    sex = texts.get("sex", "").upper()[:1]
    return Label(
        source=source,
        patient_id=texts["patient_id"] or None,
        label=label,
        view=view_code(texts.get("view", "")),
        sex=sex if sex in ("M", "F", "O") else None,
        age=_age(texts.get("age", "")),
        extra=kept | ({"phantom": "true"} if texts.get("phantom") == "true" else {}),
        name=name,
    )


def _age(text: str) -> int | None:
    match = re.fullmatch(r"(\d{1,3})(\.\d*)?", text)
    return min(int(match[1]), 90) if match else None


def _stem(name: str) -> str:
    return name.rsplit("/", 1)[-1].rsplit(".", 1)[0]
