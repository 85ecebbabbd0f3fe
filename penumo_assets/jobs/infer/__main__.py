"""Processing job: a model and a cohort's NPZ tensors -> one row of predictions per image.

Inputs ``model/model.tar.gz``, ``npz/<file>.npz`` and ``index/items.jsonl``; for drift, where they are there,
``training/train/index.parquet`` (what the model was trained on) and ``reference/predictions.parquet`` (its
predictions of images it was not trained on). Output ``predictions/``: predictions.parquet, the same table as
predictions.csv, and, with ``--overlay``, a Grad-CAM picture per image in overlays/.
"""

import argparse
import logging
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from pydantic import Field

from penumo_assets.imaging.pack import NpzError, load_npz
from penumo_assets.jobs import contract
from penumo_assets.jobs.contract import JobError
from penumo_assets.jobs.csv_cells import plain_cell
from penumo_assets.jobs.infer.measure import measured
from penumo_assets.jobs.infer.pictures import overlay, png_bytes
from penumo_assets.jobs.infer.predictor import Classifier, class_columns
from penumo_assets.jobs.items import FilmItem
from penumo_assets.metrics.drift import drift_rows, image_statistics
from penumo_assets.metrics.selective import NOT_DECIDED
from penumo_assets.models.archive import extract_model_archive
from penumo_assets.models.errors import ModelError

MODEL_ARCHIVE = "model.tar.gz"
PREDICTIONS_NAME = "predictions.parquet"
CSV_NAME = "predictions.csv"
OVERLAYS = "overlays"
MAX_NAMED = 50

logger = logging.getLogger(__name__)


class Item(FilmItem):
    """A line of ``items.jsonl``: one image, labelled or not."""

    label: str | None = None
    quality_flags: list[str] = Field(default_factory=list)


def prediction_frame(items: list[Item], logits: np.ndarray, classifier: Classifier, model_version: str) -> pd.DataFrame:
    """One row per image, in the order of ``items``; ``predictions.parquet`` is this table.

    ``probability_<class>`` and ``calibrated_probability_<class>`` (missing where the model was never calibrated) per
    class; the decision, with the threshold on the positive class's probability and the same cut on its calibrated
    one (both missing with several classes); version and architecture; quality flags, joined by ``;``.
    """
    answers, rule = classifier.answers(logits), classifier.rule
    frame = pd.DataFrame([item.model_dump(include={"image_id", "patient_id", "file", "label"}) for item in items])
    frame = frame.assign(**class_columns(classifier.classes, answers.probabilities, answers.calibrated))
    frame["decision"] = answers.decision
    frame["threshold"] = rule.threshold
    frame["calibrated_threshold"] = rule.calibrated_threshold
    frame["model_version"] = model_version
    frame["architecture"] = classifier.metadata["architecture"]
    frame["quality_flags"] = [";".join(item.quality_flags) for item in items]
    text = ["image_id", "patient_id", "file", "label", "decision", "model_version", "architecture", "quality_flags"]
    numbers = ["threshold", "calibrated_threshold"]
    return frame.astype({**dict.fromkeys(text, "string"), **dict.fromkeys(numbers, "float64")})


def read_items(path: Path) -> list[Item]:
    """The images to classify; raises JobError if the list is missing, broken or empty."""
    items = contract.read_json_lines(path, Item)
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
) -> list[str]:
    """Write the pictures of the ``limit`` images whose positive class (the last) is likeliest; their names."""
    probabilities = classifier.answers(logits).probabilities
    order = np.argsort(-probabilities[:, -1], kind="stable")[:limit]
    names = []
    for position in order.tolist():
        image = load_npz(folder / items[position].file)
        picture = overlay(classifier, image, probabilities[position])
        names.append(f"{Path(items[position].file).stem}.png")
        contract.write_atomic(output / names[-1], png_bytes(picture))
    return names


def load_model(folder: Path, scratch: Path, device: str) -> Classifier:
    """The classifier in the input ``model``: an archive, or its unpacked files."""
    archive = folder / MODEL_ARCHIVE
    try:
        return Classifier.load(extract_model_archive(archive, scratch) if archive.is_file() else folder, device)
    except ModelError as error:
        raise JobError(f"the model cannot be used: {error}") from error


def find_drift(
    frame: pd.DataFrame, arrived: pd.DataFrame, trained_on: pd.DataFrame | None, classes: list[str], limit: float
) -> list[dict[str, Any]]:
    """How far predictions and image statistics are from the model's own data, as far as the inputs tell.

    Predictions are compared with those of the validation and test images: a model is surer of images it was
    trained on. A cohort that the model was trained on is compared with its own training images: it need not look like
    the mixture of all cohorts.
    """
    reference: dict[str, np.ndarray] = {}
    current: dict[str, np.ndarray] = {}
    known = contract.processing_input("reference") / PREDICTIONS_NAME
    if known.is_file():
        held_out = pd.read_parquet(known)
        for column in [f"probability_{label}" for label in (classes[-1:] if len(classes) == 2 else classes)]:
            if column in held_out:
                reference[column], current[column] = held_out[column].to_numpy(), frame[column].to_numpy()
    if trained_on is not None:
        columns = ["source_width", "source_height", "source_bytes", "mean_intensity"]
        own = trained_on[trained_on["cohort"] == arrived["cohort"].iloc[0]]
        for table, statistics in ((trained_on if own.empty else own, reference), (arrived, current)):
            statistics |= image_statistics(*(pd.to_numeric(table[column]).to_numpy() for column in columns))
    return drift_rows(reference, current, limit)


def main(argv: list[str] | None = None) -> None:
    arguments = _options(argv)
    threads = arguments.threads or contract.threads()
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
    frame = prediction_frame(usable, logits, classifier, arguments.model_version)
    frame.to_parquet(output / PREDICTIONS_NAME, index=False)
    frame.map(plain_cell).to_csv(output / CSV_NAME, index=False)
    overlays: list[str] = []
    if arguments.overlay:
        overlays = write_overlays(classifier, usable, logits, npz, output / OVERLAYS, arguments.overlay_limit)
    cohort, known = usable[0].file.partition("/")[0], contract.processing_input("training") / "train" / "index.parquet"
    arrived = pd.DataFrame([item.model_dump() for item in usable]).assign(cohort=cohort)
    trained_on = pd.read_parquet(known) if known.is_file() else None
    values = summary(frame, classifier, unusable) | {
        "overlays": len(overlays),
        "shown": overlays[:6],
        "drift": find_drift(frame, arrived, trained_on, classifier.classes, arguments.max_psi),
        "trained_on_this_cohort": trained_on is not None and cohort in set(trained_on["cohort"]),
        **measured(arrived, logits, classifier.classes, classifier.rule, trained_on),
    }
    contract.write_result(output, "infer", values)


def summary(frame: pd.DataFrame, classifier: Classifier, unusable: list[dict[str, str]]) -> dict[str, Any]:
    """What the asset shows: how many images, of each decision and of each quality flag; mean probabilities."""
    decisions = frame["decision"].value_counts()
    flags = frame["quality_flags"].str.split(";").explode()
    labels = set(frame["label"].dropna())
    answers = [*classifier.classes, *([NOT_DECIDED] if classifier.rule.undecided_below is not None else [])]
    return {
        "images": len(frame),
        "labelled": int(frame["label"].notna().sum()),
        "labels_the_model_does_not_know": sorted(labels - set(classifier.classes)),
        "architecture": classifier.metadata["architecture"],
        "threshold": classifier.rule.threshold,
        "decisions": {label: int(decisions.get(label, 0)) for label in answers},
        "mean_probability": {label: float(frame[f"probability_{label}"].mean()) for label in classifier.classes},
        "quality_flags": {str(name): int(count) for name, count in flags[flags != ""].value_counts().items()},
        "unusable_count": len(unusable),
        "unusable": unusable[:MAX_NAMED],
    }


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=64, help="images per forward pass")
    parser.add_argument("--model-version", default="", help="recorded with every prediction")
    parser.add_argument("--overlay", action="store_true", help="write Grad-CAM pictures")
    parser.add_argument("--overlay-limit", type=int, default=200, help="most pictures: the likeliest positives")
    parser.add_argument("--max-psi", type=float, default=0.25, help="population stability index that counts as drift")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"), help="where to compute")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0: OMP_NUM_THREADS, else one per core")
    return parser.parse_args(argv)


if __name__ == "__main__":
    contract.run_program(main)
