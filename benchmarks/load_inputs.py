"""Inputs of benchmarks/load.py: many cohorts of small radiographs, no two alike, made from a few drawn phantoms."""

from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from pathlib import Path

import cv2
import numpy as np

from penumo_assets.phantoms import draw_phantom

SIDE = 256
DRAWN = 64
REJECTED_OF = 100  # one image in so many is cut short
LABELS = ("normal", "pneumonia")


def land_cohorts(landing: Path, cohorts: list[str], images: int) -> int:
    """Write ``images`` PNG files of 256x256 and labels.csv for each cohort; returns how many cannot be decoded."""
    with ProcessPoolExecutor() as pool:
        return sum(pool.map(partial(_land, landing, images), range(len(cohorts)), cohorts))


def _land(landing: Path, images: int, number: int, cohort: str) -> int:
    folder = landing / cohort / "images"
    folder.mkdir(parents=True)
    rows, broken = ["file,patient_id,label"], 0
    for position in range(images):
        seed = number * images + position
        label = LABELS[seed % 2]
        data = cv2.imencode(".png", vary(_drawn(seed % DRAWN, label), seed), [cv2.IMWRITE_PNG_COMPRESSION, 1])[1]
        if seed % REJECTED_OF == REJECTED_OF - 1:
            data, broken = data[: len(data) // 2], broken + 1
        name = f"film-{position:05d}.png"
        (folder / name).write_bytes(data.tobytes())
        rows.append(f"images/{name},P{seed:07d},{label}")
    (landing / cohort / "labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return broken


@cache
def _drawn(seed: int, label: str) -> np.ndarray:
    cv2.setNumThreads(1)
    return (draw_phantom(seed, height=SIDE, width=SIDE, label=label)[0] >> 4).astype(np.uint8)


def vary(film: np.ndarray, seed: int) -> np.ndarray:
    """The same phantom on another day: turned, shifted, scaled, and exposed unevenly.

    Both pixels and perceptual hash differ for each seed, as they do for different patients.
    """
    rng = np.random.default_rng(seed)
    turn = cv2.getRotationMatrix2D((SIDE / 2, SIDE / 2), rng.uniform(-6, 6), rng.uniform(0.92, 1.08))
    turn[:, 2] += rng.uniform(-10, 10, 2)
    moved = cv2.warpAffine(film, turn, (SIDE, SIDE), borderMode=cv2.BORDER_REPLICATE).astype(np.float32)
    shading = cv2.resize(rng.normal(0, 14, (5, 5)).astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    return np.clip(moved * rng.uniform(0.85, 1.1) + shading, 0, 255).astype(np.uint8)
