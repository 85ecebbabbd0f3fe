"""What labels.csv says of each film: who it is of, and what it shows, as coded facts.

A row with a problem stays, with the problem, so that its image is rejected by name.
"""

import re
import string
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from penumo_assets.cohort.errors import LandingError
from penumo_assets.cohort.names import NO_NAME, as_key, source_name
from penumo_assets.cohort.table import MAX_ROWS, read_table
from penumo_assets.configs.prepare import LabelsConfig
from penumo_assets.imaging.boxes import Box, parse_boxes
from penumo_assets.imaging.person import age_as_written, is_missing, same_but_zeros, sex_code
from penumo_assets.imaging.view import view_code
from penumo_assets.jobs.identity import PLACEHOLDER_ID, TABLE_ZEROS

REQUIRED = ("file", "patient_id", "label")
COLUMNS = (*REQUIRED, "view", "sex", "age", "split")
BOXES = "boxes"
BOXES_UNUSABLE = "boxes:unusable"  # no boxes, or not on this film: none of them counts
SPLITS = {"train": "train", "train_val": "train_val", "validation": "validation", "val": "validation", "test": "test"}
_BLANK = string.whitespace + "\u00a0\u2007\u202f\u200b\u2060\ufeff"
_MAX_TEXT = 256
_MAX_KEY_TEXT = 1024
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Label:
    """One row of labels.csv: coded facts, and in ``extra`` the columns that the settings keep.

    Age in whole years, capped at 90; ``split`` where the row names the part of a data set that it belongs to; ``boxes``
    as `imaging.boxes.parse_boxes` reads them, ``notes`` as `ManifestRow` has them; ``problem`` says why the row cannot
    be used. ``name`` is the file's as `LandedFile` has it.
    """

    source: str
    patient_id: str | None = None
    label: str | None = None
    view: str | None = None
    sex: str | None = None
    age: int | None = None
    split: str | None = None
    boxes: tuple[Box, ...] = ()
    extra: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    problem: tuple[str, str] | None = None
    name: str = field(default="", repr=False)


def parse_labels(data: bytes, cohort: str, config: LabelsConfig, key: bytes | None) -> dict[str, Label]:
    """Read labels.csv by source: ``file, patient_id, label``, optionally ``view, sex, age, split, boxes`` and what the
    settings keep.

    Raises
    ------
    LandingError
        If the table is not a text, lacks a column or has one twice, or has too many rows or columns.
    """
    called = f"labels.csv of cohort {cohort!r}"
    table = read_table(data, called, REQUIRED, MAX_ROWS)
    if twice := sorted({name for name in (*COLUMNS, BOXES) if table.columns.count(name) > 1}):
        raise LandingError(f"{called} has more than one column {', '.join(twice)}")
    named = source_name(config, key)
    labels: dict[str, Label] = {}
    said = [table.columns.index(name) for name in REQUIRED]
    for cells in table.rows:
        if len(cells) > max(said) and not any(cells[at].strip(_BLANK) for at in said):
            continue  # a spreadsheet has numbered or filled rows that say nothing
        label = _parse_row(table.columns, cells, config, named)
        if label.source in labels:
            problem = ("duplicate_label", "labels.csv names this file more than once")
            label = Label(source=label.source, problem=problem, name=label.name)
        labels[label.source] = label
    return _with_lost_zeros(_with_hombres(_with_unknown_named(labels, config)))


def _malformed(columns: tuple[str, ...], cells: list[str], texts: dict[str, str]) -> str | None:
    """What is wrong with a row as such."""
    if len(cells) < len(columns) or any(cell.strip() for cell in cells[len(columns) :]):
        return "too many or too few cells"
    if any(_CONTROL.search(text) for text in texts.values()):
        return "control characters"
    if max(len(texts[name]) for name in REQUIRED) > _MAX_KEY_TEXT:
        return "a cell that is too long"
    return None


def _as_text(cell: str) -> str:
    """A cell without blanks around, nor what keeps a number text in a spreadsheet: ``="007"`` or ``'007``."""
    text = cell.strip(_BLANK)
    quoted = re.fullmatch(r"""="(.*)"|'(\d+)""", text)
    return quoted[1] or quoted[2] or "" if quoted else text


def _parse_row(columns: tuple[str, ...], cells: list[str], config: LabelsConfig, named: Callable[[str], str]) -> Label:
    texts = {name: _as_text(cell) for name, cell in zip(columns, cells, strict=False) if name}
    name = as_key(texts.get("file", ""))[:_MAX_KEY_TEXT]
    source = named(name) if name else NO_NAME
    if malformed := _malformed(columns, cells, texts):
        problem = ("malformed_label", f"its row in labels.csv has {malformed}")
        return Label(source=source, problem=problem, name=name)
    label = config.class_of(texts["label"]) if texts["label"] else None
    if texts["label"] and label is None:
        return Label(source=source, label=texts["label"].lower(), problem=("unknown_label", ""), name=name)
    by_column = {column: texts.get("_".join(column.casefold().split()), "") for column in config.keep_columns}
    kept = {column: text[:_MAX_TEXT] for column, text in by_column.items() if text}
    patient_id, sex = texts["patient_id"], texts.get("sex", "")
    missing = is_missing(patient_id)
    notes: tuple[str, ...] = (PLACEHOLDER_ID,) if missing and patient_id else ()
    boxes: tuple[Box, ...] = ()
    try:
        boxes = parse_boxes(texts.get(BOXES, ""))
    except ValueError:
        notes += (BOXES_UNUSABLE,)
    return Label(
        source=source,
        patient_id=None if missing else patient_id,
        label=label,
        view=view_code(texts.get("view", "")),
        sex="H" if sex.upper() == "H" else sex_code(sex),
        age=age_as_written(texts.get("age", "")),
        split=SPLITS.get(texts.get("split", "").casefold()),
        extra=kept | ({"phantom": "true"} if texts.get("phantom") == "true" else {}),
        boxes=boxes,
        notes=notes,
        name=name,
    )


def _with_unknown_named(labels: dict[str, Label], config: LabelsConfig) -> dict[str, Label]:
    """Say which label is unknown, where several files have it: what stands at one alone may be a patient's name."""
    counts = Counter(label.label for label in labels.values() if label.problem == ("unknown_label", ""))
    known = f"none of: {', '.join(config.classes)} (see labels.classes and labels.map)"
    return {
        source: replace(
            label,
            label=None,
            problem=("unknown_label", f"labels.csv gives {_quoted(label.label, counts)} that is {known}"),
        )
        if label.problem == ("unknown_label", "")
        else label
        for source, label in labels.items()
    }


def _quoted(label: str | None, counts: Counter[str | None]) -> str:
    is_a_word = label is not None and re.fullmatch(r"[a-z][a-z _/-]{0,30}", label)
    return f"the label {label!r}, of {counts[label]} files," if is_a_word and counts[label] > 2 else "a label"


def _with_hombres(labels: dict[str, Label]) -> dict[str, Label]:
    """Read the letter H: a man in Spanish, where M is a woman (mujer) unless the table has an F, and in French."""
    said = {label.sex for label in labels.values()}
    if "H" not in said:
        return labels
    codes = {"H": "M"} if "F" in said else {"H": "M", "M": "F"}
    return {source: replace(label, sex=codes.get(label.sex or "", label.sex)) for source, label in labels.items()}


def _with_lost_zeros(labels: dict[str, Label]) -> dict[str, Label]:
    """Note where two ids of the table differ in nothing but leading zeros: they may be one patient."""
    ids = {label.patient_id for label in labels.values() if label.patient_id}
    suspects = _differing_in_zeros(ids)
    if not suspects:
        return labels
    return {
        source: replace(label, notes=(*label.notes, TABLE_ZEROS)) if label.patient_id in suspects else label
        for source, label in labels.items()
    }


def _differing_in_zeros(ids: Iterable[str]) -> set[str]:
    groups: dict[str, list[str]] = {}
    for each in ids:
        groups.setdefault(each.lstrip("0").removesuffix(".0").casefold(), []).append(each)
    return {each for group in groups.values() for each in group if any(same_but_zeros(each, other) for other in group)}
