"""What a worker process of the job runs.

Apart from ``__main__``, because a worker finds its functions by their module, and that module has another name there.
"""

import ctypes
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from penumo_assets.configs.prepare import PrepareConfig
from penumo_assets.jobs.manifest import ManifestRow
from penumo_assets.jobs.prepare.work import WorkItem

if TYPE_CHECKING:
    from penumo_assets.jobs.prepare.stages import Preparer

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
Done = tuple[ManifestRow, dict[str, float]]
_preparer: "Preparer | None" = None


def start(environment: dict[str, str], config: PrepareConfig, weights: Path | None, threads: int) -> None:
    """Once per process: its environment, its log and its network."""
    # Half a second that the process which only hands out the work does not need.
    from penumo_assets.jobs.prepare.stages import Preparer

    global _preparer
    os.environ.clear()
    os.environ.update(environment)
    _keep_freed_memory()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stdout)
    _preparer = Preparer(config, weights, threads)


def _keep_freed_memory() -> None:
    """Let the C library reuse the memory of one image for the next instead of giving it back in between.

    Getting it back page by page took 5 ms of the 27 that a 2000x2000 JPEG takes. Other C libraries than glibc
    lack the call.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 64 << 20)
        mallopt(_M_TRIM_THRESHOLD, 128 << 20)


def prepare(items: list[WorkItem]) -> list[Done]:
    """Take a batch through the planned stages."""
    assert _preparer is not None
    return _preparer.prepare(items)
