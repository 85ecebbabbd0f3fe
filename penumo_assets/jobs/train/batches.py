"""Batches of a split, in an order that depends only on the seed and the epoch, read ahead by threads."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from penumo_assets.jobs.shards import IMAGE_SHAPE, Split

DROP_LAST_FROM = 16


@dataclass(frozen=True)
class Batch:
    """This process's part of one global batch.

    ``images`` is (n, 224, 224, 4) uint8, ``targets`` (n,) int64, both on the CPU (pinned where asked);
    ``position`` counts the epoch's batches; ``first`` is where this part begins in the global batch,
    ``everyone`` all of that batch's targets.
    """

    position: int
    images: torch.Tensor
    targets: torch.Tensor
    first: int
    everyone: torch.Tensor


def epoch_batches(images: int, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Index positions of each global batch of an epoch: a permutation fixed by (seed, epoch).

    With at least 16 batches the incomplete last one is left out (other images each epoch);
    with fewer, all images are shared out over batches that differ by at most one image, because
    leaving out up to half an epoch would waste a small cohort.
    """
    order = np.random.default_rng([seed, epoch]).permutation(images)
    whole = images // batch_size
    if whole >= DROP_LAST_FROM:
        return np.split(order[: whole * batch_size], whole)
    return np.array_split(order, max(1, -(-images // batch_size)))


def own_part(rows: np.ndarray, rank: int, world_size: int) -> tuple[int, np.ndarray]:
    """The consecutive part of a global batch that process ``rank`` works on, and where it starts."""
    bounds = np.linspace(0, len(rows), world_size + 1).round().astype(int)
    return int(bounds[rank]), rows[bounds[rank] : bounds[rank + 1]]


class Loader:
    """Reads batches of ``split`` in threads, at most two per thread ahead.

    Memory is used again, because fresh pages cost more than the pixels: a batch's images are valid until the
    next batch is asked for. Pinned memory is not used again here, since a copy to the GPU may still read it;
    torch's own allocator does that when the copy has ended.
    """

    def __init__(self, split: Split, rank: int = 0, world_size: int = 1, workers: int = 2, pin: bool = False) -> None:
        self.split, self.rank, self.world_size = split, rank, world_size
        self.workers, self.pin = workers, pin
        self._free: deque[torch.Tensor] = deque()

    def __call__(self, batches: list[np.ndarray], start: int = 0) -> Iterator[Batch]:
        """The epoch's ``batches`` from position ``start`` on."""
        for batch in self._read_ahead(batches, start) if self.workers else self._read_now(batches, start):
            yield batch
            if not self.pin:
                self._free.append(batch.images)

    def _read_now(self, batches: list[np.ndarray], start: int) -> Iterator[Batch]:
        for position in range(start, len(batches)):
            yield self._read(position, batches[position])

    def _read_ahead(self, batches: list[np.ndarray], start: int) -> Iterator[Batch]:
        with ThreadPoolExecutor(self.workers, thread_name_prefix="loader") as pool:
            ahead: deque[Future[Batch]] = deque()
            try:
                for position in range(start, len(batches)):
                    ahead.append(pool.submit(self._read, position, batches[position]))
                    if len(ahead) > 2 * self.workers:
                        yield ahead.popleft().result()
                while ahead:
                    yield ahead.popleft().result()
            finally:
                for future in ahead:
                    future.cancel()

    def _read(self, position: int, rows: np.ndarray) -> Batch:
        first, own = own_part(rows, self.rank, self.world_size)
        images = self._memory(len(own))
        self.split.gather(own, out=images.numpy())
        targets = torch.from_numpy(self.split.targets)
        return Batch(position, images, targets[own], first, targets[rows])

    def _memory(self, images: int) -> torch.Tensor:
        try:
            used = self._free.popleft()
        except IndexError:
            used = torch.empty(0)
        if len(used) == images:
            return used
        return torch.empty((images, *IMAGE_SHAPE), dtype=torch.uint8, pin_memory=self.pin)
