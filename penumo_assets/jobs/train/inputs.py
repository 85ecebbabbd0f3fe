"""What the train job reads, and what it refuses."""

import os
from pathlib import Path

import torch

from penumo_assets.configs.train import NO_WEIGHTS, TrainConfig
from penumo_assets.jobs import contract
from penumo_assets.jobs.contract import JobError
from penumo_assets.jobs.shards import Split
from penumo_assets.models.pretrained import WEIGHTS_SUFFIX, imagenet_weights, read_weights


def open_channel(name: str) -> Split:
    """The split in a channel, refused if a class has no image or the split is empty."""
    folder = contract.channel(name)
    if f"SM_CHANNEL_{name.upper()}" not in os.environ and not folder.is_dir():
        folder = contract.channel("train").parent / name  # as jobs/pack leaves them: the splits side by side
    if not folder.is_dir():
        raise JobError(f"there is no channel {name!r} (SM_CHANNEL_{name.upper()})")
    split = Split(folder)
    counts = {label: int((split.targets == i).sum()) for i, label in enumerate(split.dataset.classes)}
    if len(counts) < 2:
        raise JobError(
            f"the training set has the single class {', '.join(counts) or '-'}: there is nothing to tell apart"
        )
    absent = [label for label, count in counts.items() if count == 0]
    if absent:
        raise JobError(
            f"the {name} split has {len(split)} images but none of class {', '.join(absent)}: "
            "land more labelled patients, or raise that split's fraction"
        )
    return split


def check_splits(train: Split, validation: Split) -> None:
    """Refuse splits of different training sets, shared patients, and too few images to learn from."""
    if train.dataset.digest != validation.dataset.digest:
        raise JobError("the channels train and validation come from different training sets (their digests differ)")
    shared = set(train.index["patient_id"]) & set(validation.index["patient_id"])
    if shared:
        raise JobError(f"{len(shared)} patients stand in both train and validation: pack the training set again")
    for label, count in train.index["label"].value_counts().items():
        if count < 2:
            raise JobError(f"the train split has a single image of class {label}: at least 2 are needed")


def pretrained_weights(config: TrainConfig, architecture: str) -> dict[str, torch.Tensor] | None:
    """The weights to start from: none, ImageNet's, or the one weight file in channel ``pretrained``."""
    if config.pretrained == NO_WEIGHTS:
        return None
    if config.pretrained == "imagenet":
        return imagenet_weights(architecture)
    folder = contract.channel("pretrained")
    place = folder if folder.is_dir() else Path(config.pretrained.removeprefix("file://"))
    files = [place] if place.is_file() else sorted(path for path in place.rglob("*") if path.is_file())
    if len(files) != 1:
        raise JobError(
            f"pretrained={config.pretrained}: expected one weight file ({WEIGHTS_SUFFIX}) in the channel 'pretrained', "
            f"found {len(files)}"
        )
    return read_weights(files[0])
