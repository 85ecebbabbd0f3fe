"""The packed training set: memory-mapped uint8 shards and an index, split by patient.

::

    dataset.json                 classes, counts, salt, digest (DatasetFile)
    train/  validation/  test/   one folder per split, each whole in itself:
        dataset.json             the same file again
        index.parquet            one row per image: INDEX_COLUMNS, those of `metrics.preparation`, BOXES
        shard-00000.npy ...      (n, 224, 224, 4) uint8

Reading a batch is one copy out of the page cache: nothing is decompressed or decoded.
"""

import hashlib
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from penumo_assets.jobs.contract import JobError

SPLITS = ("train", "validation", "test")
IMAGE_SHAPE = (224, 224, 4)
DATASET_NAME = "dataset.json"
INDEX_NAME = "index.parquet"
INDEX_COLUMNS = (
    "shard",
    "row",
    "image_id",
    "patient_id",
    "cohort",
    "label",
    "target",
    "view",
    "sex",
    "age",
    "source_width",
    "source_height",
    "source_bytes",
    "mean_intensity",
    "sha256",
    "file",
    "pixel_sha256",
    "perceptual_hash",
)
BOXES = "boxes"  # JSON of `imaging.boxes.in_tensor`; nothing where no reader drew one, or before there was the column


class SplitCounts(BaseModel):
    """How much one split holds."""

    model_config = ConfigDict(extra="forbid")

    images: int
    patients: int
    counts: dict[str, int] = Field(description="Images per class; 0 where a class is missing.")


class DatasetFile(BaseModel):
    """``dataset.json``."""

    model_config = ConfigDict(extra="forbid")

    schema_: Literal["penumo/training-set/1"] = Field("penumo/training-set/1", alias="schema")
    classes: list[str] = Field(description="In the order of the targets.")
    positive_class: str | None = Field(description="The last of two classes; null with more.")
    splits: dict[str, SplitCounts]
    image_shape: list[int]
    salt: str = Field(description="The salt, and what else decided the split: equal ones put no patient elsewhere.")
    split: str | None = Field(default=None, description="`configs.train.SplitRule`; null in sets of earlier versions.")
    fractions: dict[str, float]
    cohorts: list[str]
    digest: str = Field(description="SHA-256 over every image's pixels, label, patient and split.")


def unit_of(patient: str, salt: str) -> float:
    """A number in [0, 1) for a patient: the first 53 bits of SHA-256(salt + patient)."""
    digest = hashlib.sha256((salt + patient).encode("utf-8")).digest()
    return float((int.from_bytes(digest[:8], "big") >> 11) / 2**53)


def split_of(patient: str, salt: str, validation_fraction: float, test_fraction: float) -> str:
    """The split of a patient: a pure function, so adding data never moves anyone.

    `unit_of` the patient below ``test_fraction`` is test, the next ``validation_fraction`` validation, the rest train.
    """
    unit = unit_of(patient, salt)
    if unit < test_fraction:
        return "test"
    if unit < test_fraction + validation_fraction:
        return "validation"
    return "train"


def shard_name(number: int) -> str:
    return f"shard-{number:05d}.npy"


def read_dataset_file(folder: Path) -> DatasetFile:
    """``dataset.json`` of ``folder`` or, failing that, of its parent.

    Raises
    ------
    JobError
        If there is none or it is not valid.
    """
    path = next((p / DATASET_NAME for p in (folder, folder.parent) if (p / DATASET_NAME).is_file()), None)
    if path is None:
        raise JobError(f"{folder.name}: no {DATASET_NAME}; this is not a packed training set (run jobs/pack)")
    try:
        return DatasetFile.model_validate_json(path.read_text(encoding="utf-8"))
    except ValidationError as error:
        raise JobError(f"{folder.name}/{DATASET_NAME} is not valid: {error.errors()[0]['msg']}") from error


class Split:
    """One split, memory-mapped.

    Attributes
    ----------
    name : str
        The folder's name.
    dataset : DatasetFile
        The training set that it belongs to.
    index : pandas.DataFrame
        ``INDEX_COLUMNS``, one row per image.
    targets : numpy.ndarray
        (n,) int64, positions in ``dataset.classes``.
    """

    def __init__(self, folder: Path) -> None:
        """Open the split in ``folder``.

        Raises
        ------
        JobError
            If a file is missing, cut short, of another shape, or disagrees with the index.
        """
        self.name = folder.name
        self.dataset = read_dataset_file(folder)
        self.index = _read_index(folder)
        self.targets = self.index["target"].to_numpy(np.int64)
        self._shard = self.index["shard"].to_numpy(np.int64)
        self._row = self.index["row"].to_numpy(np.int64)
        self._shards = [
            _open_shard(folder / shard_name(number), self._row[self._shard == number])
            for number in range(int(self._shard.max()) + 1 if len(self.index) else 0)
        ]
        if len(self.targets) and not 0 <= self.targets.min() <= self.targets.max() < len(self.dataset.classes):
            raise JobError(f"{self.name}/{INDEX_NAME} names a class that {DATASET_NAME} does not have")

    def __len__(self) -> int:
        return len(self.index)

    def gather(self, rows: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Copy the images at index positions ``rows`` into one batch.

        Parameters
        ----------
        rows : (n,) integer array
        out : (n, 224, 224, 4) uint8, optional
            Where to put them; a new array if absent.

        Returns
        -------
        (n, 224, 224, 4) uint8
        """
        if out is None:
            out = np.empty((len(rows), *IMAGE_SHAPE), np.uint8)
        shards, positions = self._shard[rows], self._row[rows]
        for place, (shard, position) in enumerate(zip(shards.tolist(), positions.tolist(), strict=True)):
            out[place] = self._shards[shard][position]
        return out


class TrainingSet:
    """A packed training set in one folder: ``dataset`` and ``splits`` by name."""

    def __init__(self, folder: Path) -> None:
        """Open every split in ``folder``; raises JobError as ``Split`` does."""
        self.dataset = read_dataset_file(folder)
        self.splits = {name: Split(folder / name) for name in SPLITS}


def _read_index(folder: Path) -> pd.DataFrame:
    path = folder / INDEX_NAME
    if not path.is_file():
        raise JobError(f"{folder.name}: no {INDEX_NAME}")
    try:
        index = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise JobError(f"{folder.name}/{INDEX_NAME} cannot be read: {type(error).__name__}") from error
    missing = [name for name in INDEX_COLUMNS if name not in index.columns]
    if missing:
        raise JobError(f"{folder.name}/{INDEX_NAME} lacks the columns {', '.join(missing)}")
    return index


def _open_shard(path: Path, rows: np.ndarray) -> np.ndarray:
    name = f"{path.parent.name}/{path.name}"
    remedy = "pack the training set again"
    if not path.is_file():
        raise JobError(f"{name} is missing; {remedy}")
    try:
        shard = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise JobError(f"{name} is cut short or not an array; {remedy}") from error
    if shard.dtype != np.uint8 or shard.shape[1:] != IMAGE_SHAPE:
        raise JobError(f"{name} holds {shard.shape} {shard.dtype}, expected (n, 224, 224, 4) uint8; {remedy}")
    if not np.array_equal(np.sort(rows), np.arange(len(shard))):
        raise JobError(f"{name} holds {len(shard)} images but the index names {len(rows)}; {remedy}")
    return shard
