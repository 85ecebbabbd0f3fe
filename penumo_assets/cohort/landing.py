"""What has landed for a cohort: image files, ground-truth masks, and what labels.csv says of them."""

import csv
import io
import re
from dataclasses import dataclass, field

from penumo_assets.resources.storage import ObjectInfo, ObjectStore, is_key, printable

LABELS_FILE = "labels.csv"
COMPLETE_MARKER = "_COMPLETE"
MASKS_FOLDER = "masks/"
MAX_LABELS_BYTES = 64 * 2**20
MAX_ROWS = 1_000_000
MAX_COLUMNS = 256
_KNOWN_COLUMNS = ("file", "patient_id", "label", "finding", "view", "sex", "age")
_MAX_TEXT = 256
_MAX_KEY_TEXT = 1024
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


class LandingError(ValueError):
    """A cohort that cannot be read as landed; the message names the cohort and the remedy."""


@dataclass(frozen=True)
class LandedFile:
    """One landed object; ``source`` is its key below the cohort's folder, escaped where it cannot be written down."""

    source: str
    etag: str
    size: int
    plain: bool = True


@dataclass(frozen=True, slots=True)
class Label:
    """One row of labels.csv. Age in whole years, capped at 90; ``problem`` says why the row cannot be used."""

    source: str
    patient_id: str | None = None
    label: str | None = None
    finding: str | None = None
    view: str | None = None
    sex: str | None = None
    age: int | None = None
    extra: dict[str, str] = field(default_factory=dict)
    problem: tuple[str, str] | None = None


@dataclass(frozen=True)
class Landing:
    """A cohort as it lies in the landing folder."""

    cohort: str
    files: tuple[LandedFile, ...]
    truths: dict[str, LandedFile]
    labels: dict[str, Label]


def read_landing(store: ObjectStore, cohort: str, allowed_labels: tuple[str, ...]) -> Landing:
    """List a cohort's landing folder and read its labels.csv.

    ``truths`` maps the stem of an image's file name to its ground-truth mask.

    Raises
    ------
    LandingError
        If nothing has landed, or labels.csv is not the table the data contract describes.
    """
    prefix = f"landing/{cohort}"
    files, truths, labels = [], {}, {}
    for info in store.list_objects(prefix):
        source = printable(info.key[len(prefix) + 1 :])
        landed = LandedFile(source, info.etag, info.size, info.plain)
        if source == LABELS_FILE:
            labels = parse_labels(_read_labels(store, info, cohort), cohort, allowed_labels)
        elif source.startswith(MASKS_FOLDER) and is_key(source) and info.plain:
            truths[_stem(source)] = landed
        elif source != COMPLETE_MARKER and not is_hidden(source):
            files.append(landed)
    if not files:
        raise LandingError(f"cohort {cohort!r} has no files under {prefix}/: land some with `penumo land`")
    return Landing(cohort, tuple(files), truths, labels)


def _read_labels(store: ObjectStore, info: ObjectInfo, cohort: str) -> bytes:
    if not info.plain:
        raise LandingError(f"labels.csv of cohort {cohort!r} is no plain file: land the table itself")
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


def truth_of(landing: Landing, source: str) -> LandedFile | None:
    """The ground-truth mask of an image, if one has landed."""
    return landing.truths.get(_stem(source))


def parse_labels(data: bytes, cohort: str, allowed_labels: tuple[str, ...]) -> dict[str, Label]:
    """Read labels.csv: ``file, patient_id, label``, optionally ``finding, view, sex, age``; other columns are kept.

    A row with a problem stays, with the problem, so that its image is rejected by name.

    Raises
    ------
    LandingError
        If the table is not UTF-8, lacks a column or has one twice, or has too many rows or columns.
    """
    try:
        lines = io.TextIOWrapper(io.BytesIO(data), encoding="utf-8-sig", newline="")
        reader = csv.DictReader(lines, strict=True)
        _check_columns(list(reader.fieldnames or ()), cohort)
        labels: dict[str, Label] = {}
        for count, values in enumerate(reader, start=1):
            if count > MAX_ROWS:
                raise LandingError(f"labels.csv of cohort {cohort!r} has more than {MAX_ROWS} rows: split the cohort")
            label = _parse_row(values, allowed_labels)
            if label.source in labels:
                problem = ("duplicate_label", "labels.csv names this file more than once")
                label = Label(source=label.source, problem=problem)
            labels[label.source] = label
    except (UnicodeDecodeError, csv.Error) as error:
        raise LandingError(f"labels.csv of cohort {cohort!r} is not a UTF-8 CSV table: {error}") from error
    return labels


def _check_columns(columns: list[str], cohort: str) -> None:
    if missing := [name for name in ("file", "patient_id", "label") if name not in columns]:
        raise LandingError(f"labels.csv of cohort {cohort!r} lacks the column(s) {', '.join(missing)}")
    if len(columns) > MAX_COLUMNS:
        raise LandingError(f"labels.csv of cohort {cohort!r} has {len(columns)} columns; {MAX_COLUMNS} are read")
    if twice := sorted({name for name in _KNOWN_COLUMNS if columns.count(name) > 1}):
        raise LandingError(f"labels.csv of cohort {cohort!r} has more than one column {', '.join(twice)}")


def _parse_row(values: dict[str | None, str | list[str] | None], allowed_labels: tuple[str, ...]) -> Label:
    texts = {name: value.strip() for name, value in values.items() if name and isinstance(value, str)}
    source = printable(texts.get("file", "").removeprefix("./")[:_MAX_KEY_TEXT])
    if None in values or None in values.values():
        return Label(source=source, problem=("malformed_label", "its row in labels.csv has too many or too few cells"))
    if any(_CONTROL.search(text) for text in texts.values()):
        return Label(source=source, problem=("malformed_label", "its row in labels.csv has control characters"))
    if max(len(texts[name]) for name in ("file", "patient_id", "label")) > _MAX_KEY_TEXT:
        return Label(source=source, problem=("malformed_label", "its row in labels.csv has a cell that is too long"))
    label = texts["label"].lower() or None
    problem = None
    if label and allowed_labels and label not in allowed_labels:
        known = ", ".join(allowed_labels)
        problem = ("unknown_label", f"labels.csv gives a label that is none of: {known} (see labels.allowed)")
    return Label(
        source=source,
        patient_id=texts["patient_id"] or None,
        label=label,
        finding=texts.get("finding", "")[:_MAX_TEXT] or None,
        view=texts.get("view", "").upper()[:16] or None,
        sex=texts.get("sex", "").upper()[:1] or None,
        age=_age(texts.get("age", "")),
        extra={name: text[:_MAX_TEXT] for name, text in texts.items() if name not in _KNOWN_COLUMNS and text},
        problem=problem,
    )


def _age(text: str) -> int | None:
    match = re.fullmatch(r"(\d{1,3})(\.\d*)?", text)
    return min(int(match[1]), 90) if match else None


def _stem(source: str) -> str:
    return source.rsplit("/", 1)[-1].rsplit(".", 1)[0]
