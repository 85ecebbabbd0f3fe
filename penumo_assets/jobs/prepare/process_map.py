"""Map a function over batches in worker processes: at most a few batches in flight, and a crash costs one item.

Processes rather than threads, because several image decoders (JPEG 2000, JPEG-LS, PNG) hold Python's lock.
"""

import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice
from typing import Any, Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Workers(Generic[T, R]):
    """How to work.

    Attributes
    ----------
    function : maps a batch to one result per item; a module's function, so that a process can find it.
    start, arguments : called once in every worker before its first batch.
    crashed : the result for an item that took its worker down twice, the second time alone.
    count : number of processes.
    preload : modules that are imported once, before the workers are forked.
    """

    function: Callable[[list[T]], list[R]]
    start: Callable[..., None]
    arguments: tuple[Any, ...]
    crashed: Callable[[T], R]
    count: int
    preload: tuple[str, ...] = ()

    def pool(self, count: int) -> ProcessPoolExecutor:
        # A server that has imported everything and runs no threads forks a worker in milliseconds, and the
        # workers share its memory. Forking this process instead is unsafe once it has threads.
        methods = multiprocessing.get_all_start_methods()
        context: Any = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
        if context.get_start_method() == "forkserver":
            context.set_forkserver_preload(list(self.preload))
        return ProcessPoolExecutor(count, mp_context=context, initializer=self.start, initargs=self.arguments)


def map_batches(workers: Workers[T, R], batches: Iterable[list[T]]) -> Iterator[R]:
    """Results in the order in which batches end. Two batches per worker are in flight: memory stays flat.

    With one worker the work is done here. An exception of ``function`` ends the map.
    """
    if workers.count == 1:
        workers.start(*workers.arguments)
        for batch in batches:
            yield from workers.function(batch)
        return
    remaining = iter(batches)
    suspects: list[T] = []
    while True:
        yield from _until_a_crash(workers, remaining, suspects)
        if not suspects:
            return
        for item in suspects:
            yield _alone(workers, item)
        suspects.clear()


def _until_a_crash(workers: Workers[T, R], batches: Iterator[list[T]], suspects: list[T]) -> Iterator[R]:
    """Work until the batches end, or a worker dies: what was in flight then becomes ``suspects``."""
    pool = workers.pool(workers.count)
    pending: dict[Future[list[R]], list[T]] = {}
    try:
        while not suspects:
            for batch in islice(batches, 2 * workers.count - len(pending)):
                pending[_submitted(pool, workers.function, batch)] = batch
            if not pending:
                return
            for future in wait(pending, return_when=FIRST_COMPLETED).done:
                try:
                    results = future.result()
                except BrokenProcessPool:
                    break
                del pending[future]
                yield from results
            else:
                continue
            suspects += [item for batch in pending.values() for item in batch]
    finally:
        pool.shutdown(cancel_futures=True)


def _submitted(pool: ProcessPoolExecutor, function: Callable[[list[T]], list[R]], batch: list[T]) -> Future[list[R]]:
    """The batch's future; one that has failed if a worker died before the batch was taken."""
    try:
        return pool.submit(function, batch)
    except BrokenProcessPool as error:
        future: Future[list[R]] = Future()
        future.set_exception(error)
        return future


def _alone(workers: Workers[T, R], item: T) -> R:
    with workers.pool(1) as pool:
        try:
            return pool.submit(workers.function, [item]).result()[0]
        except BrokenProcessPool:
            return workers.crashed(item)
