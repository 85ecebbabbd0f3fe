from pathlib import Path

from penumo_assets.cohort.arrivals import Arrival, dump_seen, load_seen, look, settled
from penumo_assets.resources.storage import FileStore


def test_a_cohort_runs_once_after_it_has_settled() -> None:
    arrivals = {"c": Arrival("d1", 3, complete=False)}
    ready, seen = settled(arrivals, {}, now=100.0, settle_seconds=60)
    assert ready == []
    ready, seen = settled(arrivals, seen, now=159.0, settle_seconds=60)
    assert ready == []
    ready, seen = settled(arrivals, seen, now=160.0, settle_seconds=60)
    assert ready == ["c"]
    ready, seen = settled(arrivals, seen, now=900.0, settle_seconds=60)
    assert ready == []


def test_a_late_file_starts_the_clock_again() -> None:
    _, seen = settled({"c": Arrival("d1", 3, complete=False)}, {}, now=0.0, settle_seconds=60)
    ready, seen = settled({"c": Arrival("d2", 4, complete=False)}, seen, now=59.0, settle_seconds=60)
    assert ready == []
    ready, seen = settled({"c": Arrival("d2", 4, complete=False)}, seen, now=100.0, settle_seconds=60)
    assert ready == []
    ready, _ = settled({"c": Arrival("d2", 4, complete=False)}, seen, now=119.0, settle_seconds=60)
    assert ready == ["c"]


def test_a_complete_cohort_does_not_wait() -> None:
    ready, seen = settled({"c": Arrival("d1", 3, complete=True)}, {}, now=0.0, settle_seconds=60)
    assert ready == ["c"]
    ready, _ = settled({"c": Arrival("d2", 4, complete=True)}, seen, now=1.0, settle_seconds=60)
    assert ready == ["c"]


def test_a_cohort_that_has_gone_is_forgotten() -> None:
    _, seen = settled({"c": Arrival("d1", 3, complete=True)}, {}, now=0.0, settle_seconds=60)
    _, seen = settled({}, seen, now=1.0, settle_seconds=60)
    assert seen == {}


def test_the_cursor_survives_as_json() -> None:
    _, seen = settled({"c": Arrival("d1", 3, complete=True)}, {}, now=0.0, settle_seconds=60)
    assert load_seen(dump_seen(seen)) == seen
    assert load_seen(None) == {}


def test_a_rewritten_key_changes_the_digest(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    store.write("landing/c/a.png", b"one")
    before = look(store)["c"]
    store.write("landing/c/a.png", b"other")
    store.write("landing/d/_COMPLETE", b"")
    after = look(store)
    assert before.digest != after["c"].digest
    assert not after["c"].complete
    assert after["d"].complete
