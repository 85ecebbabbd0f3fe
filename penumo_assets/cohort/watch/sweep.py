"""Decide which cohorts have settled and must run, and what a sensor remembers from one tick to the next.

Pure: what was seen goes in, runs to launch and the next cursor come out. A cursor holds a digest per cohort and never
a thing per object, nor any object's name.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from penumo_assets.cohort.watch.arrivals import START, Arrival, Look, Position, bookmark, past, resumed, vanished

CURSOR_FORMAT = 2
_DIGEST = 16  # hexadecimal digits that a cursor keeps of a digest


class UnreadableCursor(ValueError):
    """A cursor of another version, or one that somebody edited: the sensor starts over, which repeats no work."""


@dataclass(frozen=True)
class Launch:
    """One run to ask for. ``run_key`` is the same if the same tick is evaluated again, and else never repeats."""

    cohort: str
    digest: str
    images: int
    run_key: str


@dataclass(frozen=True)
class Seen:
    """What the last look remembered: the digest, since when it has not changed, and the digest that last ran."""

    digest: str
    since: float
    launched: str = ""


@dataclass(frozen=True)
class Sweep:
    """The listing sensor's cursor: how many ticks there were, where the listing stands, and what each cohort was."""

    tick: int
    position: Position = START
    seen: Mapping[str, Seen] = field(default_factory=dict)


@dataclass(frozen=True)
class SweepPlan:
    """Runs to launch now, the next cursor, and how many cohorts are still being written or hold no image yet."""

    launches: tuple[Launch, ...]
    sweep: Sweep
    settling: int
    without_images: int


def launch(arrival: Arrival, tick: int) -> Launch:
    """The run for a cohort as it is now.

    The tick is part of the key because a digest can come back: an object deleted and landed again is a new change.
    """
    digest = arrival.digest[:_DIGEST]
    return Launch(arrival.cohort, digest, arrival.images, f"{arrival.cohort}:{digest}:{tick}")


def observe(arrival: Arrival, before: Seen | None, now: float) -> Seen:
    """What to remember of a cohort. ``since`` starts again with every change, and if the clock was set back."""
    digest = arrival.digest[:_DIGEST]
    if before is None:
        return Seen(digest, now)
    return replace(before, digest=digest, since=min(before.since, now) if before.digest == digest else now)


def is_due(arrival: Arrival, seen: Seen, now: float, settle_seconds: float) -> bool:
    """Whether a cohort must run: it has an image, differs from what ran last, and nobody is still writing it.

    The marker ``_COMPLETE`` saves the first run the wait. Nobody announces the end of a late delivery, so later runs
    always wait: else each of its files would start one.
    """
    if not arrival.images or seen.launched == seen.digest:
        return False
    return (arrival.complete and not seen.launched) or now - seen.since >= settle_seconds


def plan_sweep(
    sweep: Sweep,
    look: Look,
    now: float,
    settle_seconds: float,
    max_launches: int,
    is_prepared: Callable[[Arrival], bool],
) -> SweepPlan:
    """What follows from one piece of the listing.

    A cohort that the sensor meets for the first time does not run if ``is_prepared`` says that somebody else has seen
    to it. At most ``max_launches`` cohorts are launched: the listing goes on after the last of them at the next tick.
    Cohorts whose landing folder has gone are forgotten.
    """
    seen, launches = dict(sweep.seen), []
    settling = without_images = 0
    for number, arrival in enumerate(look.arrivals, 1):
        item = observe(arrival, seen.get(arrival.cohort), now)
        if is_due(arrival, item, now, settle_seconds):
            if item.launched or not is_prepared(arrival):
                launches.append(launch(arrival, sweep.tick))
            item = replace(item, launched=item.digest)
        seen[arrival.cohort] = item
        settling += item.launched != item.digest and arrival.images > 0
        without_images += not arrival.images
        if len(launches) == max_launches and (number < len(look.arrivals) or look.position):
            look = replace(look, arrivals=look.arrivals[:number], position=past(arrival.cohort))
            break
    for cohort in vanished(sweep.seen, sweep.position, look):
        del seen[cohort]
    following = Sweep(sweep.tick + 1, look.position or START, seen)
    return SweepPlan(tuple(launches), following, settling, without_images)


def dump_sweep(sweep: Sweep) -> str:
    """The cursor as JSON: a cohort that has run and rests is only its digest."""
    seen = {
        cohort: item.digest if item.digest == item.launched else [item.digest, round(item.since, 1), item.launched]
        for cohort, item in sorted(sweep.seen.items())
    }
    values = {"format": CURSOR_FORMAT, "tick": sweep.tick, "position": bookmark(sweep.position), "cohorts": seen}
    return json.dumps(values, separators=(",", ":"))


def load_sweep(cursor: str | None, now: float, remembered: Position = START) -> Sweep:
    """The cursor of the tick before; without one, a sweep that begins. ``remembered`` is that tick's position.

    Ticks are counted from the time of the first one, so that a run key cannot come back after a cursor was reset.

    Raises
    ------
    UnreadableCursor
        If it is not a cursor of this version.
    """
    if not cursor:
        return Sweep(int(now))
    with open_cursor(cursor, remembered) as (values, position):
        seen = {
            cohort: Seen(item, 0.0, item) if isinstance(item, str) else Seen(*item)
            for cohort, item in values["cohorts"].items()
        }
        return Sweep(int(values["tick"]), position, seen)


@contextmanager
def open_cursor(cursor: str, remembered: Position) -> Iterator[tuple[dict[str, Any], Position]]:
    """The values of a sensor's cursor, and where its listing stands; ``remembered`` is that tick's position.

    Raises
    ------
    UnreadableCursor
        If it is not a cursor of this version, also where that shows only while its values are read.
    """
    try:
        values = json.loads(cursor)
        if values["format"] != CURSOR_FORMAT:
            raise ValueError(f"format {values['format']}")
        yield values, resumed(values["position"], remembered)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnreadableCursor(f"the cursor cannot be read ({type(error).__name__})") from error
