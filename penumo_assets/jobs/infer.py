"""Processing job: a model and a cohort's NPZ tensors -> one row of predictions per image.

Inputs ``model/model.tar.gz``, ``npz/<file>.npz`` and ``index/items.jsonl``; output ``predictions/``:
predictions.parquet and, with ``--overlay``, a Grad-CAM picture per image in overlays/.
"""

import argparse
import logging
import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import nn

from penumo_assets.imaging.pack import NpzError, load_npz
from penumo_assets.jobs import contract
from penumo_assets.jobs.contract import JobError
from penumo_assets.metrics.grad_cam import grad_cam
from penumo_assets.metrics.report.pictures import with_contour, with_heat
from penumo_assets.models.classifier import ModelError, extract_model_archive, load_classifier, normalise

MODEL_ARCHIVE = "model.tar.gz"
PREDICTIONS_NAME = "predictions.parquet"
OVERLAYS = "overlays"
MAX_NAMED = 50

logger = logging.getLogger(__name__)


class Item(BaseModel):
    """A line of ``items.jsonl``: one image, labelled or not."""

    model_config = ConfigDict(extra="forbid")

    file: str
    image_id: str
    patient_id: str
    label: str | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Classifier:
    """A loaded model and what it says about itself."""

    model: nn.Module
    metadata: dict[str, Any]
    device: torch.device

    @classmethod
    def load(cls, folder: Path, device: str = "auto") -> "Classifier":
        """Read a model folder; raises ModelError if it cannot be used."""
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        model, metadata = load_classifier(folder)
        return cls(model.to(device), metadata, torch.device(device))

    def logits(self, images: np.ndarray) -> np.ndarray:
        """(N, 224, 224, 4) uint8 -> (N, classes) float64 logits.

        An image's answer does not depend on its batch, beyond rounding: probabilities agree to 1e-5.
        """
        with torch.inference_mode():
            batch = normalise(torch.from_numpy(images).to(self.device), self.metadata)
            return self.model(batch).double().cpu().numpy()

    def heat(self, images: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Grad-CAM for class ``targets`` of each image: (N, image_size, image_size) float32 in 0..1."""
        batch = normalise(torch.from_numpy(images).to(self.device), self.metadata)
        return grad_cam(self.model, batch, torch.from_numpy(targets).to(self.device)).cpu().numpy()


def probabilities(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Softmax of logits / temperature (Guo et al. 2017, https://arxiv.org/abs/1706.04599)."""
    scaled = logits / temperature
    exponents = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return exponents / exponents.sum(axis=1, keepdims=True)


def decide(values: np.ndarray, metadata: dict[str, Any]) -> list[str]:
    """The class of each row of probabilities: at the model's threshold if it has one, else the likeliest."""
    classes, threshold = metadata["classes"], metadata["threshold"]
    if threshold is not None:
        return [classes[int(value >= threshold)] for value in values[:, 1]]
    return [classes[number] for number in values.argmax(axis=1)]


def prediction_frame(
    items: list[Item], logits: np.ndarray, metadata: dict[str, Any], model_version: str
) -> pd.DataFrame:
    """One row per image, in the order of ``items``; ``predictions.parquet`` is this table.

    ``probability_<class>`` per class, ``calibrated_probability`` of the positive class (of the
    likeliest, with more than two) where the model carries a temperature, the decision and its threshold.
    """
    values = probabilities(logits)
    frame = pd.DataFrame([item.model_dump(include={"image_id", "patient_id", "file", "label"}) for item in items])
    for number, label in enumerate(metadata["classes"]):
        frame[f"probability_{label}"] = values[:, number]
    temperature = metadata.get("temperature")
    if temperature:
        calibrated = probabilities(logits, temperature)
        frame["calibrated_probability"] = calibrated[:, 1] if len(metadata["classes"]) == 2 else calibrated.max(axis=1)
    frame["decision"] = decide(values, metadata)
    frame["threshold"] = metadata["threshold"]
    frame["model_version"] = model_version
    text = ["image_id", "patient_id", "file", "label", "decision", "model_version"]
    return frame.astype({**dict.fromkeys(text, "string"), "threshold": "float64"})


def read_items(path: Path) -> list[Item]:
    """The images to classify; raises JobError if the list is missing, broken or empty."""
    if not path.is_file():
        raise JobError(f"no {path.name} in the input 'index'")
    items = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if line.strip():
            try:
                items.append(Item.model_validate_json(line))
            except ValidationError as error:
                first = error.errors(include_input=False)[0]
                field = ".".join(str(part) for part in first["loc"])
                raise JobError(f"{path.name} line {number}: {field}: {first['msg']}") from error
    if not items:
        raise JobError(f"{path.name} names no image")
    return items


def load_batches(
    items: list[Item], folder: Path, batch_size: int, threads: int
) -> Iterator[tuple[list[Item], np.ndarray, list[dict[str, str]]]]:
    """Batches of items with their pixels (n, 224, 224, 4), and the files that cannot be used."""

    def load(item: Item) -> np.ndarray | str:
        path = folder / item.file
        if not path.resolve().is_relative_to(folder.resolve()):
            return "the name leads outside the folder"
        try:
            return load_npz(path)
        except NpzError as error:
            return str(error)
        except FileNotFoundError:
            return "the file is missing"

    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(items), batch_size):
            chunk = items[start : start + batch_size]
            loaded = list(zip(chunk, pool.map(load, chunk), strict=True))
            usable = [(item, image) for item, image in loaded if isinstance(image, np.ndarray)]
            unusable = [{"file": item.file, "reason": image} for item, image in loaded if isinstance(image, str)]
            if usable:
                yield [item for item, _ in usable], np.stack([image for _, image in usable]), unusable
            else:
                yield [], np.empty((0, 224, 224, 4), np.uint8), unusable


def write_overlays(
    classifier: Classifier, items: list[Item], logits: np.ndarray, folder: Path, output: Path, limit: int
) -> int:
    """Write the pictures of the ``limit`` images whose positive class (the last) is likeliest; how many."""
    order = np.argsort(-probabilities(logits)[:, -1], kind="stable")[:limit]
    output.mkdir(parents=True, exist_ok=True)
    for position in order.tolist():
        image = load_npz(folder / items[position].file)
        target = np.array([logits.shape[1] - 1 if logits.shape[1] == 2 else logits[position].argmax()])
        heat = classifier.heat(image[None], target)[0]
        picture = overlay(image, heat)
        path = output / f"{Path(items[position].file).stem}.png"
        cv2.imwrite(str(path), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    return len(order)


def overlay(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """(224, 224, 4) uint8 and a map (S, S) of 0..1 -> (224, 448, 3) RGB: lung contour left, heat right."""
    return np.hstack([with_contour(image), with_heat(image, heat)])


def load_model(folder: Path, scratch: Path, device: str) -> Classifier:
    """The classifier in the input ``model``: an archive, or its unpacked files."""
    archive = folder / MODEL_ARCHIVE
    try:
        return Classifier.load(extract_model_archive(archive, scratch) if archive.is_file() else folder, device)
    except ModelError as error:
        raise JobError(f"the model cannot be used: {error}") from error


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=64, help="images per forward pass")
    parser.add_argument("--model-version", default="", help="recorded with every prediction")
    parser.add_argument("--overlay", action="store_true", help="write Grad-CAM pictures")
    parser.add_argument("--overlay-limit", type=int, default=200, help="most pictures: the likeliest positives")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"), help="where to compute")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0: one per core")
    arguments = parser.parse_args(argv)
    threads = arguments.threads or os.cpu_count() or 1
    torch.set_num_threads(threads)
    npz, output = contract.processing_input("npz"), contract.processing_output("predictions")
    items = read_items(contract.processing_input("index") / "items.jsonl")
    with tempfile.TemporaryDirectory() as scratch:
        classifier = load_model(contract.processing_input("model"), Path(scratch), arguments.device)
    usable, parts, unusable = [], [], []
    for chunk, images, broken in load_batches(items, npz, arguments.batch_size, threads):
        unusable.extend(broken)
        if chunk:
            usable.extend(chunk)
            parts.append(classifier.logits(images))
    if not usable:
        raise JobError(f"none of the {len(items)} tensor files can be used, for example: {unusable[0]['reason']}")
    logits = np.concatenate(parts)
    if not np.isfinite(logits).all():
        raise JobError("the model answers NaN: its weights are broken; train it again")
    frame = prediction_frame(usable, logits, classifier.metadata, arguments.model_version)
    frame.to_parquet(output / PREDICTIONS_NAME, index=False)
    overlays = 0
    if arguments.overlay:
        overlays = write_overlays(classifier, usable, logits, npz, output / OVERLAYS, arguments.overlay_limit)
    contract.write_result(output, "infer", summary(frame, classifier.metadata, unusable, overlays))


def summary(
    frame: pd.DataFrame, metadata: dict[str, Any], unusable: list[dict[str, str]], overlays: int
) -> dict[str, Any]:
    """What the asset shows: how many images, how many of each decision, the mean probability of each class."""
    decisions = frame["decision"].value_counts()
    return {
        "images": len(frame),
        "labelled": int(frame["label"].notna().sum()),
        "architecture": metadata["architecture"],
        "threshold": metadata["threshold"],
        "decisions": {label: int(decisions.get(label, 0)) for label in metadata["classes"]},
        "mean_probability": {label: float(frame[f"probability_{label}"].mean()) for label in metadata["classes"]},
        "unusable_count": len(unusable),
        "unusable": unusable[:MAX_NAMED],
        "overlays": overlays,
    }


if __name__ == "__main__":
    contract.run_program(main)
