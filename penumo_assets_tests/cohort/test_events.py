"""Event notifications: what they say, and that a cohort runs once however often it is told."""

import json
from urllib.parse import quote_plus

import pytest

from penumo_assets.cohort.watch.arrivals import Arrival, Position
from penumo_assets.cohort.watch.inbox import (
    Inbox,
    ObjectEvent,
    Touch,
    UnreadableMessage,
    due,
    dump_inbox,
    load_inbox,
    note,
    parse_message,
    settle,
    touch_of,
)
from penumo_assets.cohort.watch.sweep import UnreadableCursor

A, B = "a" * 64, "b" * 64


def s3_message(*keys: str, bucket: str = "films") -> str:
    records = [{"s3": {"bucket": {"name": bucket}, "object": {"key": quote_plus(key, safe="/")}}} for key in keys]
    return json.dumps({"Records": records})


def test_messages_of_s3_sns_and_eventbridge_say_the_same() -> None:
    key = "penumo/landing/ward-7/Röntgen 1+2.dcm"
    direct = s3_message(key)
    wrapped = json.dumps({"Type": "Notification", "Message": direct})
    bus = json.dumps({"detail-type": "Object Created", "detail": {"bucket": {"name": "films"}, "object": {"key": key}}})
    assert parse_message(direct) == parse_message(wrapped) == parse_message(bus) == [ObjectEvent("films", key)]


def test_the_test_event_of_a_new_notification_says_nothing() -> None:
    assert parse_message('{"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "films"}') == []


@pytest.mark.parametrize(
    "body",
    ["", "{", "null", "[]", "7", '"x"', "{}", '{"Records": 7}', '{"Records": [{"s3": {}}]}', '{"detail": {}}',
     '{"Records": [{"s3": {"bucket": {"name": 1}, "object": {"key": 2}}}]}', '{"Type": "Notification", "Message": 3}',
     "[" * 100_000],
)  # fmt: skip
def test_a_message_that_is_no_notification_is_refused_without_repeating_it(body: str) -> None:
    with pytest.raises(UnreadableMessage) as refused:
        parse_message(body)
    assert "no event notification" in str(refused.value)


@pytest.mark.parametrize(
    ("key", "touch"),
    [
        ("penumo/landing/ward-7/images/a.dcm", Touch("ward-7", False)),
        ("penumo/landing/ward-7/_COMPLETE", Touch("ward-7", True)),
        ("penumo/landing/ward-7/images/_COMPLETE", Touch("ward-7", False)),
        ("penumo/landing/ward-7/", None),
        ("penumo/landing/ward-7/.a.tmp", None),
        ("penumo/landing/ward 7/a.dcm", "ward 7"),
        ("penumo/landing/../a.dcm", ".."),
        ("penumo/landing/" + "x" * 200 + "/a", "x" * 200),
        ("penumo/landing/stray.dcm", None),
        ("penumo/raw/ward-7/a.png", None),
        ("landing/ward-7/a.dcm", None),
    ],
)
def test_only_what_lies_in_a_folder_of_landing_touches_a_cohort(key: str, touch: Touch | str | None) -> None:
    assert touch_of(ObjectEvent("films", key), "films", "penumo") == touch
    assert touch_of(ObjectEvent("another", key), "films", "penumo") is None


def test_a_cohort_is_due_when_no_event_has_come_for_a_while() -> None:
    inbox = note(Inbox(1), [Touch("c", False)], 0)
    assert due(inbox, 59, 60) == []
    inbox = note(inbox, [Touch("c", False)], 59)
    assert due(inbox, 118, 60) == []
    assert due(inbox, 119, 60) == ["c"]


def unknown(arrival: Arrival) -> bool:
    """Nobody has prepared it."""
    return False


def test_the_marker_saves_the_first_run_the_wait_whenever_it_is_delivered() -> None:
    inbox = note(Inbox(1), [Touch("c", True), Touch("c", False)], 0)
    assert due(inbox, 0, 60) == ["c"]
    inbox, launch = settle(inbox, Arrival("c", A, 2, True), unknown)
    assert launch is not None
    assert due(note(inbox, [Touch("c", True)], 1), 2, 60) == []


def test_an_event_that_is_delivered_again_starts_no_second_run() -> None:
    inbox, launch = settle(note(Inbox(1), [Touch("c", False)], 0), Arrival("c", A, 2), unknown)
    assert launch is not None
    inbox, again = settle(note(inbox, [Touch("c", False)], 100), Arrival("c", A, 2), unknown)
    assert again is None
    assert (inbox.pending, due(inbox, 1e9, 60)) == ({}, [])


def test_a_deleted_object_and_its_return_are_two_more_runs() -> None:
    inbox, keys = Inbox(1), []
    for tick, digest in enumerate((A, B, A)):
        inbox = note(Inbox(tick, inbox.pending, inbox.launched), [Touch("c", False)], tick * 100)
        inbox, launch = settle(inbox, Arrival("c", digest, 2), unknown)
        assert launch is not None
        keys.append(launch.run_key)
    assert len(set(keys)) == 3


def test_a_cohort_that_was_prepared_before_the_sensor_met_it_runs_when_it_changes() -> None:
    inbox, launch = settle(note(Inbox(1), [Touch("c", False)], 0), Arrival("c", A, 2), lambda arrival: True)
    assert (launch, inbox.pending) == (None, {})
    _, launch = settle(note(inbox, [Touch("c", False)], 100), Arrival("c", B, 2), lambda arrival: True)
    assert launch is not None


def test_an_emptied_cohort_runs_when_it_is_filled_again() -> None:
    inbox, _ = settle(note(Inbox(1), [Touch("c", False)], 0), Arrival("c", A, 2), unknown)
    inbox, launch = settle(note(inbox, [Touch("c", False)], 1), Arrival("c"), unknown)
    assert launch is None
    _, launch = settle(note(inbox, [Touch("c", False)], 2), Arrival("c", A, 2), unknown)
    assert launch is not None


def test_a_half_listed_cohort_goes_first_and_begins_again_when_it_changes() -> None:
    inbox = note(Inbox(1), [Touch("a", False), Touch("z", False)], 0)
    half = Inbox(2, inbox.pending, {}, Position("landing/z/5", Arrival("z", A, 5)))
    assert due(half, 60, 60) == ["z", "a"]
    assert note(half, [Touch("a", False)], 61).position == half.position
    assert note(half, [Touch("z", False)], 61).position == Position()


def test_the_cursor_survives_as_json() -> None:
    inbox = Inbox(9, {}, {"b": "d1"}, Position("landing/c/5", Arrival("c", A, 5, True)))
    inbox = note(inbox, [Touch("a", True)], 12.5)
    assert load_inbox(dump_inbox(inbox), 0.0, inbox.position) == inbox
    assert "landing/c/5" not in dump_inbox(inbox)
    assert load_inbox(dump_inbox(inbox), 0.0).position == Position("landing/c")
    with pytest.raises(UnreadableCursor):
        load_inbox('{"format": 0}', 0.0)
