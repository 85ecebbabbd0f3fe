"""A cohort's labelled tensors in the place of the test split: external validation."""

from pathlib import Path

import numpy as np
import pandas as pd

from penumo_assets.imaging.pack import NpzError, load_npz
from penumo_assets.jobs.contract import JobError
from penumo_assets.jobs.pack.__main__ import Item, index_row, read_items
from penumo_assets.jobs.shards import IMAGE_SHAPE, DatasetFile, Split

NUMBERS = ("age", "source_width", "source_height", "source_bytes", "mean_intensity")


class ExternalSplit(Split):
    """The tensors below ``folder`` that ``items`` names, read when they are asked for; see `Split`."""

    def __init__(self, items: list[Item], folder: Path, dataset: DatasetFile) -> None:
        """Look at every tensor once.

        Raises
        ------
        JobError
            If the model was trained on their cohort, a label is no class of it, or a tensor cannot be used.
        """
        if known := sorted({item.cohort for item in items} & set(dataset.cohorts)):
            raise JobError(f"{', '.join(known)} is part of the training set, so it is not external")
        if unknown := sorted({item.label for item in items} - set(dataset.classes)):
            raise JobError(f"no class: {', '.join(unknown)}; the model knows {', '.join(dataset.classes)}")
        self.name, self.dataset, self._folder = "test", dataset, folder
        self.index = pd.DataFrame([index_row(item, self._read(item.file), dataset.classes) for item in items])
        self.index = self.index.astype(dict.fromkeys(NUMBERS, np.float64))
        self.targets = self.index["target"].to_numpy(np.int64)

    def gather(self, rows: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """See `Split.gather`."""
        if out is None:
            out = np.empty((len(rows), *IMAGE_SHAPE), np.uint8)
        for place, file in enumerate(self.index["file"].iloc[rows]):
            out[place] = self._read(file)
        return out

    def _read(self, file: str) -> np.ndarray:
        path = self._folder / file
        if not path.resolve().is_relative_to(self._folder.resolve()):
            raise JobError(f"{file}: the name leads outside the folder")
        try:
            return load_npz(path)
        except (NpzError, FileNotFoundError) as error:
            raise JobError(f"{file} cannot be used: {error}") from error


def read_external(index: Path, npz: Path, dataset: DatasetFile) -> ExternalSplit | None:
    """The cohort that ``index/items.jsonl`` names, or nothing if there is no such file."""
    return ExternalSplit(read_items(index), npz, dataset) if (index / "items.jsonl").is_file() else None
