"""New objects in landing, told by the bucket: S3 event notifications through SQS, for buckets too large to list.

A message is deleted one tick after it was taken, when Dagster has stored the cursor that knows its cohort. Whatever
breaks off before that is delivered again, and what is delivered again starts no second run.
"""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from urllib.parse import urlparse

from dagster import DefaultSensorStatus, SensorEvaluationContext, SensorResult, SkipReason, sensor

from penumo_assets.cohort.retire import retired_cohorts
from penumo_assets.cohort.watch import inbox as events
from penumo_assets.cohort.watch.arrivals import LANDING, START, Arrival, Position, look
from penumo_assets.cohort.watch.sweep import Launch, UnreadableCursor
from penumo_assets.resources.event_queue import EventQueue, Message, QueueError
from penumo_assets.resources.storage.object_store import ObjectStore, StorageError
from penumo_assets.resources.storage.root import Storage
from penumo_assets.sensors.launches import (
    MAX_LAUNCHES,
    PREPARED,
    TICK_SECONDS,
    is_prepared,
    launched,
    refusal,
    settle_seconds,
    timer,
)

QUEUE_VARIABLE = "PENUMO_EVENTS_QUEUE_URL"
MAX_MESSAGES = 10_000
_RECEIVING_SECONDS = 10.0


@dataclass
class Unconfirmed:
    """Messages of the last tick of this process, and the cursor that Dagster stores if that tick counted.

    ``position`` is where that tick left a listing: a key, which may be a patient's name, so the cursor has it not.
    """

    cursor: str = ""
    receipts: Sequence[str] = ()
    position: Position = START


_unconfirmed = Unconfirmed()


@sensor(
    name="landing_events",
    asset_selection=PREPARED,
    minimum_interval_seconds=15,
    default_status=DefaultSensorStatus.STOPPED,
    description="Takes the bucket's event notifications from the queue in PENUMO_EVENTS_QUEUE_URL. A cohort without "
    "an event for PENUMO_SETTLE_SECONDS (60), or that got the marker _COMPLETE, becomes a partition and is prepared. "
    "Instead of landing_listing, for buckets too large to list; what had landed before the notifications were "
    "switched on is found by landing_listing alone.",
)
def landing_events(context: SensorEvaluationContext, storage: Storage) -> SensorResult:
    """One look into the queue, and at the cohorts that have come to rest."""
    out_of_time, now = timer(TICK_SECONDS), time.time()
    settle = settle_seconds()
    root = urlparse(storage.root)
    if root.scheme != "s3":
        return SensorResult(skip_reason=SkipReason("event notifications need PENUMO_ROOT=s3://…"))
    inbox = _inbox(context, now)
    try:
        queue = EventQueue(os.environ[QUEUE_VARIABLE])
        _confirm(context, queue)
        messages = queue.receive(MAX_MESSAGES, timer(_RECEIVING_SECONDS))
        touches, refused, receipts = _read(context, queue, messages, root.netloc, root.path.strip("/"))
    except QueueError as error:
        return SensorResult(skip_reason=SkipReason(str(error)), cursor=context.cursor)
    store, inbox, known = (
        storage.failing_fast(),
        events.note(inbox, touches, now),
        partial(is_prepared, context.instance),
    )
    inbox, launches, problem = _look(store, inbox, now, settle, out_of_time, known)
    cursor = events.dump_inbox(replace(inbox, tick=inbox.tick + 1))
    _unconfirmed.cursor, _unconfirmed.receipts, _unconfirmed.position = cursor, receipts, inbox.position
    if launches:
        if problem:
            context.log.warning(problem)
        return launched(launches, cursor)
    words = [f"{len(messages)} messages, {len(inbox.pending)} cohorts still changing, none newly settled"]
    words += [text for text in (problem, refusal(refused)) if text]
    return SensorResult(skip_reason=SkipReason("; ".join(words)), cursor=cursor)


def _inbox(context: SensorEvaluationContext, now: float) -> events.Inbox:
    try:
        return events.load_inbox(context.cursor, now, _unconfirmed.position)
    except UnreadableCursor as error:
        context.log.warning(f"{error}: it begins anew; cohorts that were waiting are found by landing_listing")
        return events.Inbox(int(now))


def _confirm(context: SensorEvaluationContext, queue: EventQueue) -> None:
    """Delete the messages of the tick before, if Dagster has stored its cursor; else they are delivered again."""
    if _unconfirmed.receipts and context.cursor == _unconfirmed.cursor:
        receipts, _unconfirmed.receipts = _unconfirmed.receipts, ()
        left = queue.delete(receipts)
        if left:
            context.log.warning(f"{left} messages could not be deleted and will be delivered again")


def _read(
    context: SensorEvaluationContext, queue: EventQueue, messages: Sequence[Message], bucket: str, prefix: str
) -> tuple[list[events.Touch], list[str], list[str]]:
    """What the messages touch, names that are no cohort's, and the receipts of messages that are done with.

    A message that cannot be read will not be readable later. Where the queue has a dead-letter queue it is left to go
    there, for somebody to look at; else it would come back every few minutes for days, and is deleted.
    """
    touches, refused, receipts, unreadable = [], [], [], []
    for message in messages:
        try:
            found = [events.touch_of(event, bucket, prefix) for event in events.parse_message(message.body)]
        except events.UnreadableMessage as error:
            context.log.warning(f"message {message.message_id} is left out: {error}")
            unreadable.append(message.receipt)
            continue
        touches += [touch for touch in found if isinstance(touch, events.Touch)]
        refused += [name for name in found if isinstance(name, str)]
        receipts.append(message.receipt)
    if unreadable and not queue.has_dead_letter_queue():
        receipts += unreadable
    refused = sorted(set(refused))
    if refused:
        context.log.warning(refusal(refused))
    return touches, refused, receipts


def _look(
    store: ObjectStore,
    inbox: events.Inbox,
    now: float,
    settle: float,
    out_of_time: Callable[[], bool],
    known: Callable[[Arrival], bool],
) -> tuple[events.Inbox, list[Launch], str]:
    """List the cohorts that have come to rest, as many as the time allows; what is left waits for the next tick."""
    launches: list[Launch] = []
    due = events.due(inbox, now, settle)
    try:
        retired = retired_cohorts(store) if due else set()
    except StorageError as error:
        return inbox, launches, f"retired/ cannot be listed: {error}"
    for cohort in due:
        if out_of_time() or len(launches) == MAX_LAUNCHES:
            break
        if cohort in retired:
            inbox, _ = events.settle(inbox, Arrival(cohort), known)
            continue
        begun = inbox.position if inbox.position.part and inbox.position.part.cohort == cohort else START
        try:
            seen = look(store.list_objects(f"{LANDING}/{cohort}", begun.after), begun, out_of_time)
        except StorageError as error:
            return inbox, launches, f"landing/{cohort} cannot be listed: {error}"
        if seen.position:
            return replace(inbox, position=seen.position), launches, ""
        arrival = seen.arrivals[0] if seen.arrivals else Arrival(cohort)
        inbox, run = events.settle(inbox, arrival, known)
        launches += [run] if run else []
    return inbox, launches, ""
