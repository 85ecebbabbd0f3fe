"""When a cohort runs, and that it runs once: from what was listed and what the cursor remembers."""

from dataclasses import replace

import pytest

from penumo_assets.cohort.watch.arrivals import START, Arrival, Look, Position, past
from penumo_assets.cohort.watch.sweep import Sweep, SweepPlan, UnreadableCursor, dump_sweep, load_sweep, plan_sweep

A, B, C = ("a" * 64, "b" * 64, "c" * 64)


def tick(
    sweep: Sweep,
    now: float,
    *arrivals: Arrival,
    position: Position | None = None,
    most: int = 100,
    prepared: bool = False,
) -> SweepPlan:
    """One tick; the cursor goes through its text, as between two ticks of the daemon."""
    plan = plan_sweep(sweep, Look(arrivals, position, ()), now, 60, most, lambda arrival: prepared)
    return replace(plan, sweep=load_sweep(dump_sweep(plan.sweep), now, plan.sweep.position))


def ran(plan: SweepPlan) -> list[str]:
    return [launch.cohort for launch in plan.launches]


def test_a_cohort_runs_once_after_it_has_settled() -> None:
    plan = tick(Sweep(0), 100, Arrival("c", A, 3))
    assert (ran(plan), plan.settling) == ([], 1)
    plan = tick(plan.sweep, 159, Arrival("c", A, 3))
    assert ran(plan) == []
    plan = tick(plan.sweep, 160, Arrival("c", A, 3))
    assert (ran(plan), plan.settling) == (["c"], 0)
    plan = tick(plan.sweep, 900, Arrival("c", A, 3))
    assert ran(plan) == []


def test_a_cohort_that_was_prepared_before_the_sensor_met_it_runs_when_it_changes() -> None:
    plan = tick(Sweep(0), 0, Arrival("c", A, 3, True), prepared=True)
    assert (ran(plan), plan.settling) == ([], 0)
    plan = tick(plan.sweep, 100, Arrival("c", B, 4, True), prepared=True)
    assert (ran(plan), plan.settling) == ([], 1)
    assert ran(tick(plan.sweep, 160, Arrival("c", B, 4, True), prepared=True)) == ["c"]


def test_a_change_starts_the_wait_again() -> None:
    plan = tick(Sweep(0), 0, Arrival("c", A, 3))
    for now in (59, 100, 118):
        plan = tick(plan.sweep, now, Arrival("c", B, 4))
        assert ran(plan) == []
    assert ran(tick(plan.sweep, 119, Arrival("c", B, 4))) == ["c"]


def test_a_complete_cohort_does_not_wait_but_what_comes_later_does() -> None:
    plan = tick(Sweep(0), 0, Arrival("c", A, 3, True))
    assert ran(plan) == ["c"]
    plan = tick(plan.sweep, 30, Arrival("c", B, 4, True))
    assert ran(plan) == []
    assert ran(tick(plan.sweep, 90, Arrival("c", B, 4, True))) == ["c"]


def test_a_clock_that_was_set_back_delays_by_one_wait() -> None:
    plan = tick(Sweep(0), 10_000, Arrival("c", A, 3))
    plan = tick(plan.sweep, 100, Arrival("c", A, 3))
    assert ran(plan) == []
    assert ran(tick(plan.sweep, 160, Arrival("c", A, 3))) == ["c"]


def test_a_state_that_comes_back_runs_again_under_another_key() -> None:
    plan = tick(Sweep(0), 0, Arrival("c", A, 3, True))
    keys = [plan.launches[0].run_key]
    for now, digest in ((100, B), (200, B), (300, A), (400, A)):
        plan = tick(plan.sweep, now, Arrival("c", digest, 3, True))
        keys += [launch.run_key for launch in plan.launches]
    assert len(set(keys)) == len(keys) == 3


def test_a_tick_that_is_evaluated_again_asks_for_the_same_runs() -> None:
    sweep = tick(Sweep(7), 0, Arrival("c", A, 3)).sweep
    first, again = (tick(sweep, now, Arrival("c", A, 3)) for now in (60, 95))
    assert first.launches == again.launches != ()


def test_a_cohort_without_an_image_waits_for_one() -> None:
    plan = tick(Sweep(0), 0, Arrival("c", A, 0, True))
    assert (ran(plan), plan.without_images) == ([], 1)
    assert ran(tick(plan.sweep, 1, Arrival("c", B, 1, True))) == ["c"]


def test_labels_that_come_after_the_images_start_a_run() -> None:
    plan = tick(Sweep(0), 0, Arrival("c", A, 3, True))
    plan = tick(plan.sweep, 10, Arrival("c", B, 3, True))
    assert ran(tick(plan.sweep, 70, Arrival("c", B, 3, True))) == ["c"]


def test_a_cohort_that_has_gone_is_forgotten_and_runs_when_it_comes_back() -> None:
    plan = tick(Sweep(0), 0, Arrival("c", A, 3, True))
    first = plan.launches[0]
    plan = tick(plan.sweep, 1)
    assert plan.sweep.seen == {}
    again = tick(plan.sweep, 2, Arrival("c", A, 3, True)).launches[0]
    assert again.run_key != first.run_key


def test_a_cursor_names_no_landed_file_and_a_new_process_lists_its_cohort_again() -> None:
    reached = Position("landing/b/DOE^JANE.dcm", Arrival("b", B, 9))
    cursor = dump_sweep(tick(Sweep(0), 0, Arrival("a", A, 1), position=reached).sweep)
    assert "DOE" not in cursor
    assert load_sweep(cursor, 1, reached).position == reached
    assert load_sweep(cursor, 1).position == Position("landing/b")
    assert load_sweep(cursor, 1, Position("landing/b/other", reached.part)).position == Position("landing/b")


def test_a_cohort_is_not_forgotten_while_the_listing_has_not_come_to_it() -> None:
    sweep = tick(Sweep(0), 0, Arrival("a", A, 1), Arrival("c", C, 1)).sweep
    plan = tick(sweep, 1, Arrival("a", A, 1), position=Position("landing/b/9", Arrival("b", B, 9)))
    assert set(plan.sweep.seen) == {"a", "c"}
    assert plan.sweep.position == Position("landing/b/9", Arrival("b", B, 9))
    plan = tick(plan.sweep, 2, Arrival("b", B, 12))
    assert set(plan.sweep.seen) == {"a", "b"}
    assert plan.sweep.position == START


def test_more_cohorts_than_a_tick_may_launch_go_on_at_the_next() -> None:
    arrivals = [Arrival(f"c{number}", A, 1, True) for number in range(5)]
    plan = tick(Sweep(0), 0, *arrivals, most=2)
    assert ran(plan) == ["c0", "c1"]
    assert plan.sweep.position == past("c1")
    plan = tick(plan.sweep, 1, *arrivals[2:], most=2)
    assert ran(plan) == ["c2", "c3"]
    plan = tick(plan.sweep, 2, *arrivals[4:], most=2)
    assert ran(plan) == ["c4"]
    assert (plan.sweep.position, len(plan.sweep.seen)) == (START, 5)


def test_a_thousand_cohorts_at_rest_fit_a_small_cursor() -> None:
    arrivals = [Arrival(f"cohort-{number:04d}", f"{number:064x}", 1000, True) for number in range(1000)]
    plan = tick(Sweep(0), 0, *arrivals, most=2000)
    assert len(dump_sweep(plan.sweep)) < 40_000


@pytest.mark.parametrize("cursor", ["{", "[]", "7", '{"format": 2}', '{"format": 1}', '{"ward": {"digest": "x"}}'])
def test_a_cursor_of_another_kind_is_refused(cursor: str) -> None:
    with pytest.raises(UnreadableCursor):
        load_sweep(cursor, 0.0)


def test_ticks_do_not_begin_at_the_same_number_after_a_reset() -> None:
    assert load_sweep(None, 100.0).tick != load_sweep("", 200.0).tick
