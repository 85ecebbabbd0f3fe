"""Processing job: NPZ tensors of all cohorts -> one training set, split by patient and packed into shards.

Inputs ``npz/<cohort>/<file>.npz``, ``items/<cohort>/<any name>.jsonl`` and ``config/config.json``; optionally
``previous/`` (an earlier training set, whose unchanged images are copied, not unpacked again).
Output ``dataset/`` in the layout that ``jobs/shards.py`` describes.
"""

import argparse
import hashlib
import json
import logging
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from penumo_assets.configs.base import ConfigError
from penumo_assets.configs.train import DatasetConfig
from penumo_assets.imaging.boxes import Box, in_tensor
from penumo_assets.imaging.letterbox import Letterbox
from penumo_assets.imaging.pack import NpzError, load_npz
from penumo_assets.jobs import contract
from penumo_assets.jobs.contract import JobError, read_json_lines
from penumo_assets.jobs.items import FilmItem
from penumo_assets.jobs.pack.duplicates import duplicates_across_patients, perceptual_hash
from penumo_assets.jobs.pack.shard_writer import ShardWriter
from penumo_assets.jobs.pack.splits import assign_splits, recorded_salt, too_small
from penumo_assets.jobs.shards import (
    BOXES,
    DATASET_NAME,
    IMAGE_SHAPE,
    SPLITS,
    DatasetFile,
    Split,
    SplitCounts,
)
from penumo_assets.metrics.preparation import FILM_BORDER, preparation_quantities

MAX_NAMED = 50
MISSING = "the file is missing"

logger = logging.getLogger(__name__)


class Item(FilmItem):
    """A line of a cohort's items: a labelled image; ``boxes`` in pixels of the film, ``crop_box`` of its letterbox."""

    split_key: str | None = None
    cohort: str
    label: str
    declared_split: str | None = None
    view: str | None = None
    sex: str | None = None
    age: float | None = None
    boxes: tuple[Box, ...] = ()
    crop_box: tuple[int, int, int, int] | None = None
    film_border: tuple[float, float, float] = (math.nan, math.nan, math.nan)

    @property
    def boxes_in_tensor(self) -> list[Box]:
        """The boxes as `imaging.boxes.in_tensor` gives them."""
        if not (self.boxes and self.crop_box and self.source_height and self.source_width):
            return []
        return in_tensor(self.boxes, Letterbox.fit(self.source_height, self.source_width), self.crop_box)


@dataclass(frozen=True)
class Unpacked:
    """An item with its pixels, (224, 224, 4) uint8, or the reason why there are none."""

    item: Item
    image: np.ndarray | None
    reason: str = ""
    reused: bool = False


class PreviousSet:
    """Images of an earlier training set, found by file name and checksum."""

    def __init__(self, folder: Path) -> None:
        self.given = folder.is_dir()
        self._splits: dict[str, Split] = {}
        self._places: dict[tuple[str, str], tuple[str, int]] = {}
        for name in SPLITS if (folder / DATASET_NAME).is_file() else ():
            try:
                split = Split(folder / name)
            except JobError as error:
                logger.warning("the previous training set is not used: %s", error)
                continue
            self._splits[name] = split
            for row, (file, digest) in enumerate(zip(split.index["file"], split.index["sha256"], strict=True)):
                if digest:
                    self._places[file, digest] = (name, row)

    def find(self, item: Item) -> np.ndarray | None:
        place = self._places.get((item.file, item.sha256 or ""))
        if place is None:
            return None
        return self._splits[place[0]].gather(np.array([place[1]]))[0]


def read_items(folder: Path) -> list[Item]:
    """The items of all cohorts, in the order (cohort, file).

    Raises
    ------
    JobError
        If there are none, a line is not valid, or a file is named twice.
    """
    items = [item for path in sorted(folder.rglob("*.jsonl")) for item in read_json_lines(path, Item)]
    if not items:
        raise JobError("the input 'items' names no image: no cohort has labelled, accepted images yet")
    items.sort(key=lambda item: (item.cohort, item.file))
    for before, item in pairwise(items):
        if before.file == item.file:
            raise JobError(f"the items name {item.file} twice")
    return items


def unpack(items: list[Item], folder: Path, previous: PreviousSet, threads: int) -> Iterator[Unpacked]:
    """Items with their pixels, in order; a few at a time, so memory stays flat."""

    def load(item: Item) -> Unpacked:
        path = folder / item.file
        if not path.resolve().is_relative_to(folder.resolve()):
            return Unpacked(item, None, "the name leads outside the folder")
        image = previous.find(item)
        if image is not None:
            return Unpacked(item, image, reused=True)
        try:
            return Unpacked(item, load_npz(path))
        except NpzError as error:
            return Unpacked(item, None, str(error))
        except FileNotFoundError:
            return Unpacked(item, None, MISSING)

    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(items), 64):
            yield from pool.map(load, items[start : start + 64])


def pack(
    items: list[Item], npz: Path, output: Path, config: DatasetConfig, previous: PreviousSet, threads: int
) -> dict[str, Any]:
    """Write the training set; returns the values for ``result.json``."""
    classes = config.ordered_classes
    if unknown := sorted({item.label for item in items} - set(classes)):
        raise JobError(f"no class: {', '.join(unknown)}; declared are {', '.join(classes)}")
    assigned, unusable = assign_splits(items, config)
    frames, reused = {}, 0
    for name, members in assigned.items():
        writer = ShardWriter(output / name, len(members), config.shard_images)
        for unpacked in unpack(members, npz, previous, threads):
            if unpacked.image is None:
                unusable.append({"file": unpacked.item.file, "reason": unpacked.reason})
                writer.skip()
                continue
            reused += unpacked.reused
            writer.add(unpacked.image, index_row(unpacked.item, unpacked.image, classes))
        frames[name] = writer.close()
        logger.info("%s: %d images", name, len(frames[name]))
    if previous.given and (lost := [entry["file"] for entry in unusable if entry["reason"] == MISSING]):
        raise JobError(
            f"{len(lost)} images are neither among the tensors nor in the previous training set, {lost[0]} for one: "
            "materialize training_set with incremental off"
        )
    dataset = _describe(frames, classes, config, recorded_salt(assigned, config))
    text = dataset.model_dump_json(by_alias=True, indent=2).encode("utf-8")
    for folder in (*(output / name for name in SPLITS), output):
        contract.write_atomic(folder / DATASET_NAME, text)
    return _result_values(dataset, frames, unusable, reused) | {"too_small": too_small(assigned, classes)}


def index_row(item: Item, image: np.ndarray, classes: list[str]) -> dict[str, Any]:
    """What the index of a split says of an image."""
    return {
        **item.model_dump(exclude={"declared_split", "split_key", "boxes", "crop_box", "film_border"}),
        **dict(zip(FILM_BORDER, item.film_border, strict=True)),
        BOXES: json.dumps(item.boxes_in_tensor) if item.boxes_in_tensor else None,
        "target": classes.index(item.label),
        "pixel_sha256": hashlib.sha256(image.tobytes()).hexdigest(),
        "perceptual_hash": perceptual_hash(image[..., :3].mean(axis=2).astype(np.uint8)),
        **preparation_quantities(image),
    }


def _describe(frames: dict[str, pd.DataFrame], classes: list[str], config: DatasetConfig, salt: str) -> DatasetFile:
    digest = hashlib.sha256()
    lines = [
        json.dumps(
            [name, row.pixel_sha256, row.label, row.patient_id, row.image_id, row.cohort]
            + [row.boxes] * isinstance(row.boxes, str)
        )
        for name, frame in frames.items()
        for row in frame.itertuples()
    ]
    digest.update("\n".join([json.dumps(classes), *sorted(lines)]).encode("utf-8"))
    everything = pd.concat(frames.values(), ignore_index=True)
    train_fraction = 1 - config.validation_fraction - config.test_fraction
    return DatasetFile(
        schema="penumo/training-set/1",
        classes=classes,
        positive_class=classes[-1] if len(classes) == 2 else None,
        splits={
            name: SplitCounts(
                images=len(frame),
                patients=frame["patient_id"].nunique(),
                counts={label: int((frame["label"] == label).sum()) for label in classes},
            )
            for name, frame in frames.items()
        },
        image_shape=list(IMAGE_SHAPE),
        salt=salt,
        split=config.split,
        fractions={"train": train_fraction, "validation": config.validation_fraction, "test": config.test_fraction},
        cohorts=sorted(everything["cohort"].unique()),
        digest=digest.hexdigest(),
    )


def _result_values(
    dataset: DatasetFile, frames: dict[str, pd.DataFrame], unusable: list[dict[str, str]], reused: int
) -> dict[str, Any]:
    index = pd.concat([frame.assign(split=name) for name, frame in frames.items()], ignore_index=True)
    patients_per_split = index.groupby("patient_id")["split"].nunique()
    duplicates = duplicates_across_patients(index)
    return {
        "images": len(index),
        "patients": int(index["patient_id"].nunique()),
        "classes": dataset.classes,
        "cohorts": dataset.cohorts,
        "digest": dataset.digest,
        "splits": {name: counts.model_dump() for name, counts in dataset.splits.items()},
        "missing": [
            f"{name}: {label}" for name, s in dataset.splits.items() for label, count in s.counts.items() if count == 0
        ],
        "unusable_count": len(unusable),
        "unusable": unusable[:MAX_NAMED],
        "unusable_files": [entry["file"] for entry in unusable],
        "patients_in_several_splits": int((patients_per_split > 1).sum()),
        "duplicate_count": duplicates.count,
        "duplicates_across_patients": [pair.as_dict() for pair in duplicates.nearest[:MAX_NAMED]],
        "reused": reused,
    }


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=0, help="threads that unpack NPZ files; 0: one per core")
    arguments = parser.parse_args(argv)
    cv2.setNumThreads(1)
    output = contract.processing_output("dataset")
    try:
        text = (contract.processing_input("config") / "config.json").read_text(encoding="utf-8")
        config = DatasetConfig.parse(json.loads(text))
    except (OSError, ValueError, ConfigError) as error:
        raise JobError(f"config.json of the input 'config' cannot be used: {error}") from error
    items = read_items(contract.processing_input("items"))
    previous = PreviousSet(contract.processing_input("previous"))
    threads = arguments.threads or contract.cores()
    values = pack(items, contract.processing_input("npz"), output, config, previous, threads)
    contract.write_result(output, "pack", values)


if __name__ == "__main__":
    contract.run_program(main)
