"""X-rays with lung masks, as a training job's channels hold them: read, split by patient, sampled.

A channel is a folder with ``images/``, ``masks/`` and ``index.csv`` or ``index.jsonl``, whose rows
name ``file`` (below ``images/``), ``mask`` (below ``masks/``; in jsonl also a list, of a mask for each lung),
``patient_id`` and ``source``. Images and masks may instead lie in channels of their own.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import pandas as pd

from penumo_assets.configs.prepare import DecodeConfig
from penumo_assets.imaging.decode import decode_image
from penumo_assets.imaging.errors import ImageRejected
from penumo_assets.imaging.formats.decoded import eight_bit
from penumo_assets.imaging.formats.files import read_plain_file
from penumo_assets.imaging.letterbox import Letterbox
from penumo_assets.imaging.truth import read_mask, unite
from penumo_assets.jobs.contract import JobError

COLUMNS = ("file", "mask", "patient_id", "source")
SIZE = 512
_CONFIG = DecodeConfig.parse({"min_side": 1, "reduce_to": None, "keep_colour": False})
T = TypeVar("T")


@dataclass(frozen=True)
class Pair:
    """A letterboxed X-ray and its lung mask, with where both come from.

    ``image`` and ``mask`` are (512, 512) uint8, the mask {0, 255}; ``box`` says where the content lies.
    """

    file: str
    patient_id: str
    source: str
    image: np.ndarray
    mask: np.ndarray
    box: Letterbox


class PairRefused(ValueError):
    """An image and mask that cannot train; the message names the image's file and what is wrong."""


@dataclass(frozen=True)
class Refusal:
    """A row of the index that was left out, and why."""

    file: str
    source: str
    reason: str


def read_channel(
    folder: Path, images: Path | None = None, masks: Path | None = None
) -> tuple[list[Pair], list[Refusal]]:
    """Read every pair of a channel, in the order of its index.

    Parameters
    ----------
    folder : Path
        Holds the index.
    images, masks : Path, optional
        Where its rows' files lie; by default ``images/`` and ``masks/`` below ``folder``.

    Returns
    -------
    tuple
        The pairs, and the rows that were left out because a file is missing, unreadable or outside its folder, or
        an image and its mask differ in size.

    Raises
    ------
    JobError
        If the index is missing, empty or incomplete, or none of its rows can be used.
    """
    rows = read_index(folder)
    images, masks = images or folder / "images", masks or folder / "masks"

    def read(row: dict[str, Any]) -> Pair | Refusal:
        try:
            return read_pair(images, masks, row)
        except PairRefused as refusal:
            return Refusal(row["file"], row["source"], str(refusal))

    with ThreadPoolExecutor(max_workers=4) as pool:
        results = list(pool.map(read, rows))
    refused = [result for result in results if isinstance(result, Refusal)]
    if len(refused) == len(rows):
        raise JobError(f"none of the {len(rows)} pairs can be used; the first: {refused[0].reason}")
    return [result for result in results if isinstance(result, Pair)], refused


def read_index(folder: Path) -> list[dict[str, Any]]:
    """The rows of ``index.csv`` or ``index.jsonl``; see `read_channel` for what is refused."""
    csv, jsonl = folder / "index.csv", folder / "index.jsonl"
    if csv.exists():
        table = pd.read_csv(csv, dtype=str, keep_default_na=False)
        rows = table.to_dict("records")
    elif jsonl.exists():
        rows = [json.loads(line) for line in jsonl.read_text(encoding="utf-8").splitlines() if line.strip()]
    else:
        raise JobError(f"{folder}: no index.csv or index.jsonl; it must name {', '.join(COLUMNS)} for each pair")
    for number, row in enumerate(rows, start=1):
        absent = [name for name in COLUMNS if not row.get(name)]
        if absent:
            raise JobError(f"{folder}: row {number} of the index lacks {', '.join(absent)}")
    if not rows:
        raise JobError(f"{folder}: the index names no pairs, so there is nothing to train on")
    return [{**{name: str(row[name]) for name in COLUMNS}, "mask": _listed(row["mask"])} for row in rows]


def _listed(masks: str | list[str]) -> list[str]:
    return [masks] if isinstance(masks, str) else masks


def read_pair(images: Path, masks: Path, row: dict[str, Any]) -> Pair:
    """One row's image and mask, letterboxed.

    Raises
    ------
    PairRefused
        See `read_channel` for what is refused.
    """
    image = _read(images, row["file"], row["file"], _gray)
    called = f"the mask of {row['file']}"
    try:
        mask = unite([_read(masks, name, called, read_mask) for name in row["mask"]])
    except ImageRejected as rejection:
        raise PairRefused(f"{called}: {rejection.reason}") from None
    if image.shape != mask.shape:
        raise PairRefused(f"{row['file']}: the image is {image.shape} but its mask is {mask.shape}")
    box = Letterbox.fit(*image.shape)
    return Pair(
        file=row["file"],
        patient_id=row["patient_id"],
        source=row["source"],
        image=box.apply(image),
        mask=box.apply(mask.astype(np.uint8) * 255, nearest=True),
        box=box,
    )


def _gray(data: bytes) -> np.ndarray:
    return eight_bit(decode_image(data, _CONFIG).pixels)


def _read(folder: Path, name: str, called: str, decode: Callable[[bytes], T]) -> T:
    # Masks come from landing, and a name that landed may be a patient's: no message repeats it.
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise PairRefused(f"{called}: the index must name files inside {folder.name}/")
    if not path.is_file():
        raise PairRefused(f"{called}: named by the index but not in {folder.name}/")
    try:
        return decode(read_plain_file(path, _CONFIG.max_file_bytes))
    except ImageRejected as rejection:
        raise PairRefused(f"{called}: cannot be read as an image: {rejection.reason}") from None


def assign_folds(patients: Sequence[str], sources: Sequence[str], folds: int, seed: int = 0) -> list[int]:
    """A fold 0..folds-1 for each row: all of a patient's rows share it, each source is dealt evenly.

    Within a source (a patient's first), patients are ordered by a hash of their id and dealt in turn, so the
    folds do not depend on the order of the rows and no source gathers in one of them.

    Raises
    ------
    JobError
        If a source has fewer patients than folds, since a fold would then hold none of it.
    """
    home: dict[str, str] = {}
    for patient, source in sorted(zip(patients, sources, strict=True)):
        home.setdefault(patient, source)
    fold_of: dict[str, int] = {}
    for source in sorted(set(home.values())):
        members = sorted((p for p in home if home[p] == source), key=lambda p: _hash(f"{seed}/{p}"))
        if len(members) < folds:
            raise JobError(f"source {source} has {len(members)} patients: too few for {folds} folds")
        fold_of.update({patient: index % folds for index, patient in enumerate(members)})
    return [fold_of[patient] for patient in patients]


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def sampling_weights(sources: Sequence[str], power: float) -> np.ndarray:
    """Probability of drawing each row: a source of n rows gets a share proportional to ``n ** power``.

    1 draws rows alike, 0 draws sources alike; between the two, a small hospital is seen more often than
    its share without being learnt by heart.
    """
    _, inverse, counts = np.unique(np.asarray(sources), return_inverse=True, return_counts=True)
    share = counts.astype(np.float64) ** power
    weights = (share / counts)[inverse]
    return weights / weights.sum()


def shrink(pairs: Sequence[Pair], side: int) -> tuple[np.ndarray, np.ndarray]:
    """Images and masks reduced to (N, side, side) uint8 by area averaging, the cache a stage trains from."""
    images = np.stack([cv2.resize(p.image, (side, side), interpolation=cv2.INTER_AREA) for p in pairs])
    masks = np.stack([cv2.resize(p.mask, (side, side), interpolation=cv2.INTER_AREA) for p in pairs])
    return images, masks
