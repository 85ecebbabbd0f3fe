"""What bars and the place of the lungs tell of real films' classes: nothing by default, much with a square crop."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest

from penumo_assets.configs.prepare import EnhanceConfig, PrepareConfig
from penumo_assets.imaging.decode import decode_image
from penumo_assets.imaging.enhance import enhance
from penumo_assets.imaging.film import look_at
from penumo_assets.imaging.letterbox import Letterbox
from penumo_assets.imaging.lung_mask import find_lungs
from penumo_assets.imaging.pack import pack_tensor
from penumo_assets.imaging.segment import LungSegmenter
from penumo_assets.metrics.preparation import BARS, OUTLINE, preparation_quantities
from penumo_assets.metrics.revealed import revealed


@pytest.mark.real
def test_bars_and_outline_tell_nothing_of_kermanys_classes() -> None:
    root = os.environ.get("PENUMO_REAL_DATA")
    if not root:
        pytest.skip("PENUMO_REAL_DATA is not set")
    folder, config, segmenter = Path(root) / "pneumonia" / "kermany", PrepareConfig.defaults(), LungSegmenter(threads=1)
    rows = list(csv.DictReader((folder / "labels.csv").read_text(encoding="utf-8").splitlines()))
    chosen = [row for label in ("normal", "pneumonia") for row in [r for r in rows if r["label"] == label][::4]]
    ways = {"square": EnhanceConfig.parse({"keep_aspect": True}), "default": EnhanceConfig.defaults()}
    found: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    for row in chosen:
        pixels = decode_image((folder / row["file"]).read_bytes(), config.decode).pixels
        box = Letterbox.fit(*pixels.shape[:2])
        square = box.apply(pixels)
        mask = find_lungs(look_at([square], segmenter, True)[0], box.content, config.segment).mask
        for way, steps in ways.items():
            made = enhance(square, mask, box.content, steps)
            found[way].append(preparation_quantities(pack_tensor(made.image, made.mask)))
    positive, patients = (
        np.array([row["label"] == "pneumonia" for row in chosen]),
        np.array([row["patient_id"] for row in chosen]),
    )
    aucs = {
        way: revealed({name: np.array([each[name] for each in made]) for name in (*BARS, *OUTLINE)}, positive, patients)
        for way, made in found.items()
    }
    assert aucs["square"]["bar_height"].low > 0.7
    assert all(0.5 <= estimate.value < 0.6 for estimate in aucs["default"].values()), aucs["default"]
