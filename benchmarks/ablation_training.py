"""One training of an ablation: the patients' split, the weights that it starts from, and its test predictions."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from penumo_assets.cohort.publish import manifest_tags, read_manifest
from penumo_assets.cohort.training_items import pack_item
from penumo_assets.configs.train import AugmentConfig, TrainConfig
from penumo_assets.jobs.optimisation import rate_factor
from penumo_assets.jobs.shards import Split
from penumo_assets.jobs.train.augment import augment, draw
from penumo_assets.jobs.train.batches import epoch_batches
from penumo_assets.models.archive import WEIGHTS_NAME
from penumo_assets.models.classifier import build_classifier, load_classifier
from penumo_assets.models.inputs import default_normalisation, normalise, standardise, to_unit_images
from penumo_assets.resources.storage.root import open_store

PACKAGE = str(Path(__file__).parents[1])
FIRST_RESOLUTION = 64  # of a training that begins with fewer pixels
ALL_ALIKE = ("--backbone-lr-factor", "1")


@dataclass(frozen=True)
class Size:
    """How large every training of the table is."""

    resolution: int
    epochs: int
    threads: int

    def options(self, resolution: int | None = None, epochs: int | None = None) -> list[str]:
        values = {
            "--resolution": resolution or self.resolution,
            "--epochs": epochs or self.epochs,
            "--threads": self.threads,
        }
        return [text for name, value in values.items() for text in (name, str(value))]


@dataclass(frozen=True)
class Program:
    """A job program as it is started: its command, and all of its environment."""

    command: list[str]
    environment: dict[str, str]

    @classmethod
    def of(cls, name: str, opt_ml: Path, arguments: list[str], **environment: str) -> "Program":
        """The job ``name`` in a folder of its own."""
        inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        given = {"PENUMO_OPT_ML": str(opt_ml), "PYTHONPATH": PACKAGE, "OMP_WAIT_POLICY": "PASSIVE"}
        command = [sys.executable, "-m", f"penumo_assets.jobs.{name}", *arguments]
        return cls(command, inherited | given | environment)

    def run(self) -> None:
        done = subprocess.run(self.command, env=self.environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{self.command[2]} failed: {done.stdout[-2000:]}{done.stderr[-2000:]}")


def pack(root: str, config: dict[str, object], folder: Path) -> Path:
    """The training set of all labelled tensors under a storage root, split as ``config`` says (`DatasetConfig`)."""
    store = open_store(root)
    cohorts = list(manifest_tags(store))
    rows = [(cohort, row) for cohort in cohorts for row in read_manifest(store, cohort)]
    items = [pack_item(cohort, row, {}) for cohort, row in rows if row.label and "npz" in row.stages]
    given = folder / "processing" / "input"
    for name in ("items", "config"):
        (given / name).mkdir(parents=True)
    (given / "npz").symlink_to(Path(root).absolute() / "npz")
    (given / "items" / "all.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    (given / "config" / "config.json").write_text(json.dumps(config))
    Program.of("pack", folder, []).run()
    return folder / "processing" / "output" / "dataset"


def training(dataset: Path, options: list[str], folder: Path, weights: Path | None = None) -> Program:
    """A training on one split, from ``weights`` if given; it leaves its model in ``folder / "model"``."""
    channels = {f"SM_CHANNEL_{name.upper()}": str(dataset / name) for name in ("train", "validation")}
    start = ["--pretrained", str(weights)] if weights else []
    return Program.of("train", folder, [*options, *start], **channels)


def train(dataset: Path, options: list[str], folder: Path, weights: Path | None = None) -> Path:
    """Train on one split, from ``weights`` if given; the model's folder."""
    training(dataset, options, folder, weights).run()
    return folder / "model"


def predictions(dataset: Path, model_folder: Path, split: str = "test") -> pd.DataFrame:
    """The index of a split's images, with ``score``."""
    model, metadata = load_classifier(model_folder)
    images = Split(dataset / split)
    parts = np.array_split(np.arange(len(images)), max(1, len(images) // 32))
    with torch.inference_mode():
        logits = [model(normalise(torch.from_numpy(images.gather(part)), metadata)).double() for part in parts]
    return images.index.assign(score=torch.cat(logits).softmax(1)[:, 1].numpy())


Start = Callable[[Path, Size, Path], Path]


def fewer_pixels(dataset: Path, size: Size, folder: Path) -> Path:
    """The weights after half of the epochs at 64 pixels."""
    options = size.options(FIRST_RESOLUTION, size.epochs - size.epochs // 2)
    return train(dataset, options, folder) / WEIGHTS_NAME


def lungs_drawn(dataset: Path, size: Size, folder: Path) -> Path:
    """The weights of a ResNet34 that has learnt to draw the lungs of the training images, as their masks have them."""
    torch.manual_seed(0)
    torch.set_num_threads(size.threads or torch.get_num_threads())
    split, config = Split(dataset / "train"), TrainConfig.defaults()
    model = LungsDrawn(build_classifier("resnet34", 2, 3)).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    batches = [rows for epoch in range(size.epochs) for rows in epoch_batches(len(split), config.batch_size, 0, epoch)]
    generator = torch.Generator().manual_seed(0)
    for step, rows in enumerate(batches):
        factor = rate_factor(step, len(batches) // 10, len(batches), config.scheduler)
        optimizer.param_groups[0]["lr"] = config.learning_rate * factor
        images = to_unit_images(torch.from_numpy(split.gather(rows)), 4, size.resolution)
        images = augment(images, draw(len(rows), generator), AugmentConfig.defaults())
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(standardise(images[:, :3].clone(), default_normalisation(3)))
        target = functional.avg_pool2d(images[:, 3:], 4)
        optimizer.zero_grad(set_to_none=True)
        functional.binary_cross_entropy_with_logits(logits.float(), target).backward()
        optimizer.step()
    folder.mkdir(parents=True)
    learnt = {name: tensor.contiguous() for name, tensor in model.network.state_dict().items() if name[:3] != "fc."}
    save_file(learnt, folder / WEIGHTS_NAME)
    return folder / WEIGHTS_NAME


class LungsDrawn(nn.Module):
    """A ResNet's four stages, each with a logit of the lungs, added up at a quarter of the input's side."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.heads = nn.ModuleList(nn.Conv2d(channels, 1, 1) for channels in (64, 128, 256, 512))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        net = self.network
        features = net.maxpool(net.relu(net.bn1(net.conv1(images))))
        side, drawn = features.shape[-2:], torch.zeros(())
        for stage, head in zip((net.layer1, net.layer2, net.layer3, net.layer4), self.heads, strict=True):
            features = stage(features)
            drawn = drawn + functional.interpolate(head(features), size=side, mode="bilinear", align_corners=False)
        return drawn
