"""Write one split of a packed training set: shards one memory-mapped file at a time, then the index."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from penumo_assets.jobs.shards import BOXES, IMAGE_SHAPE, INDEX_COLUMNS, INDEX_NAME, shard_name
from penumo_assets.metrics.preparation import FILM_BORDER, QUANTITIES

_TEXT_COLUMNS = ("image_id", "patient_id", "cohort", "label", "view", "sex", "sha256", "file", "pixel_sha256", BOXES)
_INDEX_TYPES = {
    "shard": "int64",
    "row": "int64",
    "target": "int64",
    "age": "float64",
    "source_width": "float64",
    "source_height": "float64",
    "source_bytes": "float64",
    "mean_intensity": "float64",
    "perceptual_hash": "uint64",
    **dict.fromkeys((*QUANTITIES, *FILM_BORDER), "float64"),
    **dict.fromkeys(_TEXT_COLUMNS, "string"),
}


class ShardWriter:
    """Writes one split's images into shards, one memory-mapped file at a time."""

    def __init__(self, folder: Path, expected: int, shard_images: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._rows: list[dict[str, Any]] = []
        self._left = expected
        self._shard_images = shard_images
        self._shard: np.memmap | None = None
        self._number, self._row = 0, 0

    def add(self, image: np.ndarray, values: dict[str, Any]) -> None:
        if self._shard is None:
            size = min(self._left, self._shard_images)
            path = self.folder / shard_name(self._number)
            self._shard = _open_shard(path, size)
        self._shard[self._row] = image
        self._rows.append({"shard": self._number, "row": self._row, **values})
        self._row += 1
        self._left -= 1
        if self._row == len(self._shard):
            self._finish_shard()

    def skip(self) -> None:
        """One of the expected images will not come."""
        self._left -= 1

    def close(self) -> pd.DataFrame:
        """Cut the last shard to the images that came; write the index and return it."""
        if self._shard is not None and self._row < len(self._shard):
            path = self.folder / shard_name(self._number)
            whole = _open_shard(path.with_suffix(".tmp"), self._row)
            whole[:] = self._shard[: self._row]
            whole.flush()
            os.replace(path.with_suffix(".tmp"), path)
        if self._shard is not None:
            self._finish_shard()
        frame = pd.DataFrame(self._rows, columns=[*INDEX_COLUMNS, *QUANTITIES, *FILM_BORDER, BOXES]).astype(
            _INDEX_TYPES
        )
        frame.to_parquet(self.folder / INDEX_NAME, index=False)
        return frame

    def _finish_shard(self) -> None:
        assert self._shard is not None
        self._shard.flush()
        self._shard = None
        self._number, self._row = self._number + 1, 0


def _open_shard(path: Path, images: int) -> np.memmap:
    """A new shard whose place on the disk is taken: a page without one would end the process without a word.

    Raises
    ------
    OSError
        If the disk is full.
    """
    shard = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(images, *IMAGE_SHAPE))
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return shard
