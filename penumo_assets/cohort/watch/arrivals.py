"""What lies in landing, cohort by cohort: listed in bounded pieces, each cohort told by one digest, no clocks trusted.

A cohort's digest chains key and entity tag of every object in key order, so it changes with every added, rewritten
or deleted object, whatever the objects' timestamps say, and it can be continued where a piece ended.
"""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from penumo_assets.cohort.names import COMPLETE_MARKER, in_mask_folder, is_hidden, is_labels
from penumo_assets.imaging.deidentify import is_safe_id
from penumo_assets.resources.storage.object_store import ObjectInfo

LANDING = "landing"
_OBJECTS_PER_LOOK_AT_THE_CLOCK = 256


@dataclass(frozen=True)
class Arrival:
    """A cohort's landing folder: digest over its objects, how many are images, whether the sender calls it complete."""

    cohort: str
    digest: str = ""
    images: int = 0
    complete: bool = False


@dataclass(frozen=True)
class Position:
    """Where a listing stands: the last key it has passed, and what it has seen of the cohort it is in the middle of."""

    after: str = ""
    part: Arrival | None = None


START = Position()


@dataclass(frozen=True)
class Look:
    """One piece of a listing.

    Attributes
    ----------
    arrivals : cohorts whose folder was listed to its end, in key order.
    position : where the next piece begins; None when the listing has reached its end.
    refused : names below landing that cannot be a cohort's, and objects that lie in no folder.
    """

    arrivals: tuple[Arrival, ...]
    position: Position | None
    refused: tuple[str, ...]


def look(objects: Iterable[ObjectInfo], begin: Position, out_of_time: Callable[[], bool]) -> Look:
    """Go through ``objects`` of landing, listed after ``begin``, until their end or ``out_of_time()``."""
    arrivals: list[Arrival] = []
    refused: list[str] = []
    chain = _Chain(begin.part) if begin.part else None
    for count, info in enumerate(objects, 1):
        _, cohort, *rest = info.key.split("/", 2)
        if chain and chain.cohort != cohort:
            arrivals.append(chain.arrival())
            chain = None
        if chain is None and rest and is_safe_id(cohort):
            chain = _Chain(Arrival(cohort))
        if chain and rest:
            chain.add(rest[0], info.etag)
        elif cohort not in refused[-1:]:
            refused.append(cohort)
        if count % _OBJECTS_PER_LOOK_AT_THE_CLOCK == 0 and out_of_time():
            return Look(tuple(arrivals), Position(info.key, chain.arrival() if chain else None), tuple(refused))
    if chain:
        arrivals.append(chain.arrival())
    return Look(tuple(arrivals), None, tuple(refused))


def past(cohort: str) -> Position:
    """The position after all of a cohort's objects, also those that land there later."""
    return Position(f"{LANDING}/{cohort}0")  # in the order of keys, 0 comes next after /


def bookmark(position: Position) -> list[str]:
    """What a cursor keeps of a position: a digest, and the cohort it is in the middle of.

    Dagster stores cursors, and the key in a position can be a patient's name.
    """
    mark = hashlib.sha256(position.after.encode("utf-8", "surrogatepass")).hexdigest()[:16] if position.after else ""
    return [mark, position.part.cohort if position.part else ""]


def resumed(mark: list[str], remembered: Position) -> Position:
    """The position of a bookmark: ``remembered`` if it is that one, else the beginning of its cohort, or of all.

    A process that was started anew remembers nothing, and then lists one cohort a second time.
    """
    if mark == bookmark(remembered):
        return remembered
    _, cohort = mark
    return Position(f"{LANDING}/{cohort}") if cohort else START


def vanished(known: Iterable[str], begin: Position, seen: Look) -> set[str]:
    """The cohorts of ``known`` whose folder lies between ``begin`` and the end of the piece, and is not there."""
    there = {arrival.cohort for arrival in seen.arrivals}
    if seen.position and seen.position.part:
        there.add(seen.position.part.cohort)
    end = seen.position.after if seen.position else None
    folders = {name: f"{LANDING}/{name}/" for name in known}
    passed = {name for name, folder in folders.items() if begin.after < folder and (end is None or folder < end)}
    return passed - there


class _Chain:
    """A cohort's digest in the making."""

    def __init__(self, arrival: Arrival) -> None:
        self.cohort = arrival.cohort
        self._start = arrival
        self._digest = bytes.fromhex(arrival.digest)
        self._images = arrival.images
        self._complete = arrival.complete

    def add(self, source: str, etag: str) -> None:
        if source == COMPLETE_MARKER:
            self._complete = True
        elif not is_hidden(source):
            entry = f"{len(source)}:{source}{etag}".encode("utf-8", "surrogatepass")
            self._digest = hashlib.sha256(self._digest + entry).digest()
            self._images += not is_labels(source) and not in_mask_folder(source)

    def arrival(self) -> Arrival:
        return replace(self._start, digest=self._digest.hex(), images=self._images, complete=self._complete)
