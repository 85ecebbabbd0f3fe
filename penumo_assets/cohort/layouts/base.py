"""What a layout is: from a data set's own folder and tables to the rows of our labels.csv."""

import gzip
import posixpath
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property

from penumo_assets.cohort.errors import LandingError
from penumo_assets.cohort.names import composed
from penumo_assets.cohort.table import read_table
from penumo_assets.imaging.view import view_code

NORMAL, PNEUMONIA = "normal", "pneumonia"
TRAIN_VAL, TRAIN, VALIDATION, TEST = "train_val", "train", "validation", "test"
NO_FILE = "its file is not in the folder"
LATERAL = "lateral view"
NO_ROW = "no row of the table names it"
_MAX_ROWS = 10_000_000


class Uncertain(StrEnum):
    """What an uncertain finding counts as, where a table knows such (CheXpert's policies)."""

    zeros = "u-zeros"
    ones = "u-ones"
    ignore = "u-ignore"


@dataclass(frozen=True)
class Film:
    """One row of the labels.csv to be: texts as the data set has them, ``label`` ours or empty.

    ``file`` is the film's path below the folder, empty where there is none; ``finding`` is in the set's own words;
    ``split`` one of labels.csv's; ``left_out`` says why the film is not landed.
    """

    file: str
    patient_id: str = ""
    label: str = ""
    finding: str = ""
    view: str = ""
    sex: str = ""
    age: str = ""
    split: str = ""
    extra: Mapping[str, str] = field(default_factory=dict)
    left_out: str = ""


@dataclass(frozen=True)
class Options:
    """What the person who lands decides. ``columns`` and ``labels`` are theirs by ours, and ours by theirs."""

    uncertain: Uncertain = Uncertain.ignore
    patient: str = ""
    table: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)


class Folder:
    """A data set's files by their paths below its folder, and what reads one of them."""

    def __init__(self, names: Iterable[str], read: Callable[[str], bytes]) -> None:
        self.names = {composed(name): name for name in names}
        self.read = read

    @cached_property
    def _by_base(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for name in self.names:
            found.setdefault(posixpath.basename(name), []).append(name)
        return found

    def find(self, *bases: str) -> str:
        """The path of the first of the file names that the folder holds, at any depth, also gzipped; else empty."""
        for base in bases:
            for each in (base, f"{base}.gz"):
                if found := self._by_base.get(each):
                    return min(found, key=lambda name: (name.count("/"), name))
        return ""

    def need(self, *bases: str) -> str:
        """As `find`.

        Raises
        ------
        LandingError
            If there is none.
        """
        if found := self.find(*bases):
            return found
        raise LandingError(
            f"the folder holds no {' or '.join(bases)}: give the data set's own folder, or another --layout"
        )

    def bytes_of(self, name: str) -> bytes:
        data = self.read(self.names[name])
        return gzip.decompress(data) if name.endswith(".gz") else data

    def table(self, name: str, *columns: str) -> Iterator[dict[str, str]]:
        """The rows of a table by its columns, in lower case with ``_`` for spaces.

        Raises
        ------
        LandingError
            If it is no table, or lacks one of the ``columns``.
        """
        return read_table(self.bytes_of(name), name, columns, _MAX_ROWS).records()

    def lines(self, name: str) -> list[str]:
        return [line.strip() for line in self.bytes_of(name).decode("utf-8-sig").splitlines() if line.strip()]

    def image(self, base: str) -> str:
        """The path of the only image of this file name, wherever it lies; empty if there is none, or several."""
        found = self._by_base.get(composed(base), [])
        return self.names[found[0]] if len(found) == 1 else ""

    def path(self, written: str, table: str) -> str:
        """The path of a file that a table names by a path of its own, which may begin above the folder; else empty."""
        parts, beside = composed(written).strip("/").split("/"), posixpath.dirname(table)
        for start in range(len(parts)):
            rest = "/".join(parts[start:])
            for each in (rest, posixpath.join(beside, rest)):
                if each in self.names:
                    return self.names[each]
        return ""


@dataclass(frozen=True)
class Layout:
    """A data set's shape: how its films are found, and which of its labels are ours.

    Attributes
    ----------
    name, title : what ``--layout`` takes, and the data set.
    labels : for a person: its labels to ours; any other leaves a film without a label.
    read : the films of a folder. No film's file appears twice.
    patients : what stands for a patient.
    official : what ``--official-split`` takes over, empty where the set has no division of its own.
    """

    name: str
    title: str
    labels: Mapping[str, str]
    read: Callable[[Folder, Options], Iterable[Film]]
    patients: str
    official: str = ""


def frontal(view: str) -> str:
    """Why a film is left out for its view; empty if it need not be."""
    return LATERAL if view_code(view) == "LATERAL" else ""
