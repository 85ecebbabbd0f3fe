"""Listing landing in pieces: what a cohort's digest tells, and that pieces of any size see what one look sees."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penumo_assets.cohort.watch.arrivals import START, Arrival, Look, Position, look, past, vanished
from penumo_assets.resources.storage.file_store import FileStore
from penumo_assets.resources.storage.object_store import ObjectInfo, ObjectStore


def never() -> bool:
    return False


def after(objects: int) -> Callable[[], bool]:
    """Out of time when the clock is looked at for the n-th time; `look` does so every 256 objects."""
    left = iter(range(objects // 256))
    return lambda: next(left, None) is None


def listed(*keys: str, etag: str = "e") -> list[ObjectInfo]:
    return [ObjectInfo(key, 1, etag) for key in sorted(keys)]


def whole(store: ObjectStore) -> dict[str, Arrival]:
    seen = look(store.list_objects("landing"), START, never)
    assert seen.position is None
    return {arrival.cohort: arrival for arrival in seen.arrivals}


def test_a_rewritten_an_added_and_a_deleted_object_change_the_digest(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    store.write("landing/c/a.png", b"one")
    store.write("landing/d/a.png", b"one")
    digests = [whole(store)["c"].digest]
    store.write("landing/c/a.png", b"other")
    digests.append(whole(store)["c"].digest)
    store.write("landing/c/b.png", b"new")
    digests.append(whole(store)["c"].digest)
    store.delete(["landing/c/a.png"])
    digests.append(whole(store)["c"].digest)
    assert len(set(digests)) == 4
    assert whole(store)["c"].digest == digests[-1]


def test_labels_masks_and_markers_are_no_images() -> None:
    objects = listed("landing/c/_COMPLETE", "landing/c/labels.csv", "landing/c/masks/a.png", "landing/c/images/a.png")
    (arrival,) = look(objects, START, never).arrivals
    assert (arrival.images, arrival.complete) == (1, True)


def test_a_marker_and_a_file_on_its_way_leave_the_digest_alone() -> None:
    (plain,) = look(listed("landing/c/a.png"), START, never).arrivals
    (more,) = look(listed("landing/c/a.png", "landing/c/_COMPLETE", "landing/c/.a.png.tmp"), START, never).arrivals
    assert plain.digest == more.digest


def test_a_key_and_its_tag_cannot_trade_characters() -> None:
    (first,) = look([ObjectInfo("landing/c/ab", 1, "c")], START, never).arrivals
    (second,) = look([ObjectInfo("landing/c/a", 1, "bc")], START, never).arrivals
    assert first.digest != second.digest


@pytest.mark.parametrize(
    "source",
    [
        "images/a b.png",
        "images/Röntgen-胸部-🫁.png",
        "../a.png",
        "x/../../a.png",
        "//a.png",
        "a\nb.png",
        "x" * (1024 - len("landing/c/")),
        "images_$folder$",
        "\udcff.png",
    ],
)
def test_an_odd_key_counts_as_a_file_of_its_cohort(source: str) -> None:
    seen = look([ObjectInfo(f"landing/c/{source}", 0, "e")], START, never)
    assert [(arrival.cohort, arrival.images) for arrival in seen.arrivals] == [("c", 1)]
    assert seen.refused == ()


def test_what_is_no_cohort_is_named_once_and_the_others_are_seen() -> None:
    keys = ("landing//a.png", "landing/../a.png", "landing/ward 7/a", "landing/ward 7/b", "landing/stray.png")
    seen = look(listed(*keys, "landing/ward-7/a.png", "landing/Ü/x"), START, never)
    assert [arrival.cohort for arrival in seen.arrivals] == ["ward-7"]
    assert seen.refused == ("..", "", "stray.png", "ward 7", "Ü")


@given(
    sizes=st.lists(st.integers(1, 700), min_size=1, max_size=5),
    piece=st.integers(256, 900),
)
def test_pieces_of_any_size_see_what_one_look_sees(sizes: list[int], piece: int) -> None:
    names = [f"c{number}" + ".-"[number % 2] for number in range(len(sizes))]
    keys = [f"landing/{name}/{item:04d}" for name, size in zip(names, sizes, strict=True) for item in range(size)]
    objects = listed(*keys)
    position: Position | None = START
    arrivals: list[Arrival] = []
    while position is not None:
        left = [info for info in objects if info.key > position.after]
        seen = look(left, position, after(piece))
        arrivals += seen.arrivals
        position = seen.position
    assert tuple(arrivals) == look(objects, START, never).arrivals


def test_a_store_lists_on_after_any_key(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    for name in ("a-b/x", "a/x", "a/y/z", "a0/x", "b/x"):
        store.write(f"landing/{name}", b"")
    keys = [info.key for info in store.list_objects("landing")]
    assert keys == sorted(keys)
    for number, key in enumerate(keys):
        assert [info.key for info in store.list_objects("landing", key)] == keys[number + 1 :]
    assert [info.key for info in store.list_objects("landing", past("a").after)] == ["landing/a0/x", "landing/b/x"]


def test_only_cohorts_that_a_piece_has_passed_can_have_vanished() -> None:
    known = ["a", "a-b", "b", "c", "d"]
    everything = Look((Arrival("b"),), None, ())
    assert vanished(known, START, everything) == {"a", "a-b", "c", "d"}
    assert vanished(known, past("b"), Look((), None, ())) == {"c", "d"}
    middle = Look((), Position("landing/c/x", Arrival("c")), ())
    assert vanished(known, past("a"), middle) == {"b"}
    assert vanished(known, Position("landing/c/x", Arrival("c")), Look((Arrival("c"),), None, ())) == {"d"}
