"""What a bucket's event notifications say: which cohorts were touched, and which of them have come to rest.

Pure. Notifications are delivered at least once and in no order, so an event only says *look at this cohort*: what runs
is decided from the cohort's folder itself, compared with what ran before.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import unquote_plus

from penumo_assets.cohort.names import COMPLETE_MARKER, is_hidden
from penumo_assets.cohort.watch.arrivals import LANDING, START, Arrival, Position, bookmark
from penumo_assets.cohort.watch.sweep import CURSOR_FORMAT, Launch, launch, open_cursor
from penumo_assets.configs.documents import parse_json
from penumo_assets.imaging.deidentify import is_safe_id

_MAX_MESSAGE = 2**20  # a message of SQS is at most this long


class UnreadableMessage(ValueError):
    """A message that is no event notification; the text says what is wrong and repeats nothing of it."""


@dataclass(frozen=True)
class ObjectEvent:
    """An object was created or removed."""

    bucket: str
    key: str


@dataclass(frozen=True)
class Touch:
    """An event below landing: its cohort, and whether it was the marker ``_COMPLETE``."""

    cohort: str
    complete: bool


@dataclass(frozen=True)
class Pending:
    """A cohort with events that have not led to a run: when the last one came, and whether it was called complete."""

    since: float
    complete: bool = False


@dataclass(frozen=True)
class Inbox:
    """The event sensor's cursor.

    ``pending`` holds the cohorts to look at, ``launched`` the digest that each cohort last ran with. ``position`` is
    where the listing of a pending cohort too large for one tick stands.
    """

    tick: int
    pending: Mapping[str, Pending] = field(default_factory=dict)
    launched: Mapping[str, str] = field(default_factory=dict)
    position: Position = START


def parse_message(body: str) -> list[ObjectEvent]:
    """The events of a message: from S3 itself, wrapped by an SNS topic, or from EventBridge.

    Raises
    ------
    UnreadableMessage
        If it is none of these.
    """
    try:
        values = parse_json(body, _MAX_MESSAGE)
        if "Type" in values and "Message" in values:
            values = parse_json(values["Message"], _MAX_MESSAGE)
        if values.get("Event") == "s3:TestEvent":
            return []
        if "detail" in values:
            return [ObjectEvent(_text(values, "detail", "bucket", "name"), _text(values, "detail", "object", "key"))]
        return [
            ObjectEvent(_text(record, "s3", "bucket", "name"), unquote_plus(_text(record, "s3", "object", "key")))
            for record in values["Records"]
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnreadableMessage(f"it is no event notification of S3 ({type(error).__name__})") from error


def touch_of(event: ObjectEvent, bucket: str, prefix: str) -> Touch | str | None:
    """What an event below landing touches; the folder's name if it cannot be a cohort's; None if it is not ours.

    ``bucket`` and ``prefix`` are where the application's objects lie.
    """
    root = f"{prefix}/{LANDING}/" if prefix else f"{LANDING}/"
    if event.bucket != bucket or not event.key.startswith(root):
        return None
    cohort, _, source = event.key[len(root) :].partition("/")
    if not source or is_hidden(source):
        return None  # a folder marker, or a file on its way
    return Touch(cohort, source == COMPLETE_MARKER) if is_safe_id(cohort) else cohort


def note(inbox: Inbox, touches: Iterable[Touch], now: float) -> Inbox:
    """Remember what was touched. The listing of a cohort that changes meanwhile begins again."""
    pending, position = dict(inbox.pending), inbox.position
    for touch in touches:
        before = pending.get(touch.cohort)
        pending[touch.cohort] = Pending(now, touch.complete or (before is not None and before.complete))
        if position.part and position.part.cohort == touch.cohort:
            position = START
    return replace(inbox, pending=pending, position=position)


def due(inbox: Inbox, now: float, settle_seconds: float) -> list[str]:
    """Pending cohorts that have come to rest, the longest waiting first; the one half listed before all."""
    begun = inbox.position.part.cohort if inbox.position.part else None
    rested = [
        cohort
        for cohort, item in inbox.pending.items()
        if not 0 <= now - item.since < settle_seconds or (item.complete and cohort not in inbox.launched)
    ]
    return sorted(rested, key=lambda cohort: (cohort != begun, inbox.pending[cohort].since, cohort))


def settle(inbox: Inbox, arrival: Arrival, is_prepared: Callable[[Arrival], bool]) -> tuple[Inbox, Launch | None]:
    """The run for a cohort that was listed to its end, if what lies there has not run: events come more than once.

    Nor does a cohort run that the sensor meets for the first time and that ``is_prepared`` already.
    """
    pending = {cohort: item for cohort, item in inbox.pending.items() if cohort != arrival.cohort}
    rested = replace(inbox, pending=pending, position=START)
    run = launch(arrival, inbox.tick)
    if not arrival.images:  # whatever lands there next is new
        launched = {cohort: digest for cohort, digest in inbox.launched.items() if cohort != arrival.cohort}
        return replace(rested, launched=launched), None
    if run.digest == inbox.launched.get(arrival.cohort):
        return rested, None
    known = arrival.cohort not in inbox.launched and is_prepared(arrival)
    return replace(rested, launched={**inbox.launched, arrival.cohort: run.digest}), None if known else run


def dump_inbox(inbox: Inbox) -> str:
    """The cursor as JSON."""
    pending = {cohort: [round(item.since, 1), item.complete] for cohort, item in inbox.pending.items()}
    values = {"format": CURSOR_FORMAT, "tick": inbox.tick, "pending": pending, "launched": dict(inbox.launched)}
    return json.dumps(values | {"position": bookmark(inbox.position)}, separators=(",", ":"), sort_keys=True)


def load_inbox(cursor: str | None, now: float, remembered: Position = START) -> Inbox:
    """The cursor of the tick before; without one, an empty inbox. ``remembered`` is that tick's position.

    Raises
    ------
    UnreadableCursor
        If it is not a cursor of this version.
    """
    if not cursor:
        return Inbox(int(now))
    with open_cursor(cursor, remembered) as (values, position):
        pending = {cohort: Pending(*item) for cohort, item in values["pending"].items()}
        return Inbox(int(values["tick"]), pending, dict(values["launched"]), position)


def _text(values: Any, *path: str) -> str:
    for name in path:
        values = values[name]
    if not isinstance(values, str):
        raise TypeError(f"{'.'.join(path)} is no text")
    return values
