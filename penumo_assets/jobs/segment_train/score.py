"""Measure a lung segmenter against masks: Dice and IoU per image, per source and per disturbance."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from penumo_assets.imaging.lung_mask import clean_mask
from penumo_assets.imaging.segment import LungSegmenter
from penumo_assets.jobs.segment_train.data import Pair
from penumo_assets.metrics.intervals import PatientBootstrap
from penumo_assets.metrics.segmentation import overlap

ROW_FIELDS = ("file", "patient_id", "source", "variant", "dice", "iou")


def _inside(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Pair], np.ndarray]:
    """Change the content of a pair's image and leave its padding 0, as a changed file would be letterboxed."""

    def apply(pair: Pair) -> np.ndarray:
        image = pair.image.copy()
        content = image[pair.box.content].astype(np.float32)
        image[pair.box.content] = np.round(change(content)).astype(np.uint8)
        return image

    return apply


VARIANTS: dict[str, Callable[[Pair], np.ndarray]] = {
    "as_is": lambda pair: pair.image,
    "inverted": _inside(lambda gray: 255 - gray),
    "half_contrast": _inside(lambda gray: 64 + gray / 2),
    "half_bright": _inside(lambda gray: gray / 2),
}


def score(segmenter: LungSegmenter, pairs: Sequence[Pair], variants: Sequence[str] = ("as_is",)) -> list[dict]:
    """One row of `ROW_FIELDS` for each pair and variant.

    The mask is what the pipeline would store (`clean_mask` at 0.5) and is compared in letterbox
    coordinates. Two empty masks agree fully (1.0).
    """
    rows = []
    for variant in variants:
        for pair in pairs:
            probability = segmenter.predict(VARIANTS[variant](pair)[None])[0]
            found, truth = clean_mask(probability, pair.box.content) > 0, pair.mask > 0
            agreement = overlap(truth, found)
            dice, iou = (1.0, 1.0) if np.isnan(agreement.dice) else (agreement.dice, agreement.iou)
            values = (pair.file, pair.patient_id, pair.source, variant, dice, iou)
            rows.append(dict(zip(ROW_FIELDS, values, strict=True)))
    return rows


def summarise(rows: Sequence[dict], resamples: int = 1000, seed: int = 0) -> dict[str, dict[str, Any]]:
    """Per ``source/variant``: images, patients, mean Dice and IoU, 95 % intervals, worst tenth.

    The interval is a percentile bootstrap over patients (Efron 1979): a patient's images come or stay
    away together. The worst tenth is the mean over the lowest 10 % of the images, at least one;
    ``p10`` is the 10th percentile.
    """
    groups: dict[str, list[dict]] = {}
    for row in rows:
        groups.setdefault(f"{row['source']}/{row['variant']}", []).append(row)
    return {name: _summary(group, resamples, seed) for name, group in sorted(groups.items())}


def _summary(rows: list[dict], resamples: int, seed: int) -> dict[str, Any]:
    dice, iou = (np.array([row[name] for row in rows]) for name in ("dice", "iou"))
    patients = PatientBootstrap(np.array([row["patient_id"] for row in rows]), resamples, seed)
    return {
        "images": len(rows),
        "patients": patients.patients,
        "dice": float(dice.mean()),
        "dice_interval": interval_of_mean(dice, patients),
        "iou": float(iou.mean()),
        "iou_interval": interval_of_mean(iou, patients),
        "worst_tenth": float(np.sort(dice)[: max(1, round(len(dice) / 10))].mean()),
        "p10": float(np.quantile(dice, 0.1)),
        "minimum": float(dice.min()),
    }


def interval_of_mean(values: np.ndarray, patients: PatientBootstrap) -> list[float]:
    """95 % percentile interval of the mean of ``values`` (n,), by resampling the patients of the n images."""
    means = patients.sums(values) / patients.sums(np.ones(len(values)))
    return [float(v) for v in np.quantile(means, [0.025, 0.975])]
