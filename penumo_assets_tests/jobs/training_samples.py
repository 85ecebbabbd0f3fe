"""Small labelled tensor files, their items, and packed training sets made of them."""

import hashlib
import json
from pathlib import Path

import numpy as np

from penumo_assets.imaging.npz_writer import npz_bytes
from penumo_assets.jobs.pack import __main__ as pack

CONFIG = {
    "salt": "tests",
    "validation_fraction": 0.25,
    "test_fraction": 0.2,
    "positive_class": "pneumonia",
    "shard_images": 16,
}


def tensor(seed: int, positive: bool) -> np.ndarray:
    """(224, 224, 4) uint8: noise, with a bright patch in the lungs if ``positive``."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(40, 90, (28, 28), dtype=np.uint8)
    image = np.kron(coarse, np.ones((8, 8), np.uint8))
    if positive:
        row, column = rng.integers(40, 140, 2)
        image[row : row + 60, column : column + 60] += 100
    mask = np.zeros((224, 224), np.uint8)
    mask[30:200, 30:200] = 255
    return np.dstack([image, image, image, mask])


def write_inputs(opt_ml: Path, images: int = 48, classes: tuple[str, ...] = ("normal", "pneumonia"), **config) -> list:
    """Lay out a pack job's inputs under ``opt_ml``: one image per patient, classes in turn; returns the items."""
    npz, given = opt_ml / "processing/input/npz", opt_ml / "processing/input/config"
    given.mkdir(parents=True, exist_ok=True)
    items = []
    for number in range(images):
        label, cohort = classes[number % len(classes)], "north" if number < images // 2 else "south"
        data = npz_bytes(tensor(number, label != "normal"))
        path = npz / cohort / f"p{number:03d}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        items.append(
            {
                "file": f"{cohort}/{path.name}",
                "image_id": f"i{number:03d}",
                "patient_id": f"p{number:03d}",
                "cohort": cohort,
                "label": label,
                "view": "PA" if number % 2 else None,
                "sex": None,
                "age": 40.5 if number % 3 else None,
                "source_width": 1000 + number,
                "source_height": 900,
                "source_bytes": 5000,
                "mean_intensity": 70.0,
                "sha256": hashlib.sha256(data).hexdigest(),
            }
        )
    write_items(opt_ml, items)
    (given / "config.json").write_text(json.dumps(CONFIG | {"classes": list(classes)} | config))
    return items


def write_items(opt_ml: Path, items: list[dict]) -> None:
    lines = "".join(json.dumps(item) + "\n" for item in items)
    folder = opt_ml / "processing/input/items"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "all.jsonl").write_text(lines)


def run_pack(opt_ml: Path, monkeypatch) -> dict:
    """Run the pack job in this process; returns the values of its result."""
    monkeypatch.setenv("PENUMO_OPT_ML", str(opt_ml))
    pack.main(["--threads", "1"])
    return json.loads((opt_ml / "processing/output/dataset/result.json").read_text())["values"]


def packed_set(opt_ml: Path, monkeypatch, **inputs) -> Path:
    """A packed training set's folder."""
    write_inputs(opt_ml, **inputs)
    run_pack(opt_ml, monkeypatch)
    return opt_ml / "processing/output/dataset"


def use_channels(monkeypatch, opt_ml: Path, dataset: Path, *splits: str) -> None:
    """Set the environment of a training job as SageMaker would."""
    monkeypatch.setenv("PENUMO_OPT_ML", str(opt_ml))
    for name in splits or ("train", "validation"):
        monkeypatch.setenv(f"SM_CHANNEL_{name.upper()}", str(dataset / name))
    for name in ("MLFLOW_TRACKING_URI", "SM_MODEL_DIR", "SM_OUTPUT_DATA_DIR", "SM_HOSTS", "SM_NUM_GPUS"):
        monkeypatch.delenv(name, raising=False)


def read_result(opt_ml: Path) -> dict:
    """The values of a training job's result."""
    return json.loads((opt_ml / "output/data/result.json").read_text())["values"]
