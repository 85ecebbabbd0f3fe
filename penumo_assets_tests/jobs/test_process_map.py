"""Work handed out to processes, some of which die. Apart from the job's tests: every worker imports this file."""

import os
import signal
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import pytest

from penumo_assets.jobs.contract import JobError
from penumo_assets.jobs.prepare.process_map import Workers, map_batches


def square_all(numbers: list[int]) -> list[int | str]:
    if 7 in numbers:
        os.kill(os.getpid(), signal.SIGKILL)
    if -1 in numbers:
        raise JobError("no")
    return [number * number for number in numbers]


def nothing() -> None:
    pass


def crashed(number: int) -> str:
    return f"{number} crashed"


WORKERS: Workers[int, int | str] = Workers(square_all, nothing, (), crashed, count=2)


def test_an_item_that_kills_its_process_costs_only_itself() -> None:
    batches = [[1, 2], [3, 4], [5, 6], [7, 8], [9, 10], [11, 12]]
    results = list(map_batches(WORKERS, batches))
    expected = [number * number for number in range(1, 13) if number != 7]
    assert sorted(result for result in results if isinstance(result, int)) == expected
    assert [result for result in results if isinstance(result, str)] == ["7 crashed"]


def test_a_batch_that_comes_after_a_worker_died_is_worked_on_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    submit, died = ProcessPoolExecutor.submit, iter([False, True])

    def submit_or_refuse(pool: ProcessPoolExecutor, *work: Any) -> Any:
        if next(died, False):
            raise BrokenProcessPool("a worker died")
        return submit(pool, *work)

    monkeypatch.setattr(ProcessPoolExecutor, "submit", submit_or_refuse)
    assert sorted(map(int, map_batches(WORKERS, [[1], [2], [3]]))) == [1, 4, 9]


def test_an_error_of_the_job_ends_the_map() -> None:
    with pytest.raises(JobError, match="no"):
        list(map_batches(WORKERS, [[1], [-1], [2]]))


def test_no_more_than_two_batches_per_worker_are_taken_ahead() -> None:
    taken = 0

    def batches():
        nonlocal taken
        for number in range(100, 130):
            taken += 1
            yield [number]

    results = map_batches(WORKERS, batches())
    for received in range(1, 31):
        next(results)
        assert taken <= received - 1 + 2 * WORKERS.count + WORKERS.count
