"""Small made-up evaluations: images without pixels, with logits that are right about as often as asked."""

from typing import Any

import numpy as np
import pandas as pd

from penumo_assets.metrics.performance import Scored
from penumo_assets.metrics.records import Settings
from penumo_assets.metrics.report.context import Context
from penumo_assets.metrics.report.inputs import SPLITS, Evaluation

BINARY = ["normal", "pneumonia"]


def index(split: str, n: int, classes: list[str], random: np.random.Generator) -> pd.DataFrame:
    targets = random.integers(0, len(classes), n)
    return pd.DataFrame(
        {
            "image_id": [f"{split}-{i}" for i in range(n)],
            "patient_id": [f"{split}-p{i}" for i in random.integers(0, max(1, int(0.7 * n)), n)] if n else [],
            "cohort": random.choice(["alpha", "beta"], n),
            "label": np.array(classes, dtype=object)[targets],
            "target": targets,
            "view": "PA",
            "sex": random.choice(["F", "M"], n),
            "age": random.uniform(1, 90, n),
            "source_width": random.integers(900, 1300, n),
            "source_height": random.integers(900, 1300, n),
            "source_bytes": random.integers(20_000, 80_000, n),
            "mean_intensity": random.normal(120, 20, n) + 15 * (targets == len(classes) - 1),
        }
    )


def logits(targets: np.ndarray, classes: int, random: np.random.Generator, strength: float = 2.0) -> np.ndarray:
    return random.normal(size=(len(targets), classes)) + strength * np.eye(classes)[targets]


def scored(n: int = 80, classes: list[str] | None = None, seed: int = 0) -> Scored:
    classes = classes or BINARY
    random = np.random.default_rng(seed)
    frame = index("test", n, classes, random)
    targets = frame["target"].to_numpy(np.int64)
    positive = 1 if len(classes) == 2 else None
    return Scored(targets, logits(targets, len(classes), random), frame["patient_id"].to_numpy(str), classes, positive)


def evaluation(
    n: int = 90, classes: list[str] | None = None, context: dict[str, Any] | None = None, seed: int = 0
) -> Evaluation:
    classes = classes or BINARY
    random = np.random.default_rng(seed)
    frames = {split: index(split, n, classes, random) for split in SPLITS}
    return Evaluation(
        index=frames,
        logits={
            split: logits(frames[split]["target"].to_numpy(np.int64), len(classes), random)
            for split in ("validation", "test")
        },
        classes=classes,
        positive=1 if len(classes) == 2 else None,
        model={
            "schema": "penumo/model/1",
            "architecture": "resnet34",
            "classes": classes,
            "input_channels": 4,
            "image_size": 224,
            "threshold": None,
            "dataset_digest": "0" * 64,
            "hyperparameters": {"pretrained": "none"},
        },
        dataset={"digest": "0" * 64, "salt": "penumo-1"},
        context=Context.parse(context or {}),
        settings=Settings(resamples=60),
    )
