"""What the preparation of a tensor tells about its class, with the lungs blanked, for several ways of cropping.

    python benchmarks/preparation_shortcuts.py DATA

DATA holds `pneumonia/{cohort}/labels.csv` (file, patient_id, label). For every cohort a table: ROC-AUC [95 % interval]
of each quantity by itself, in the better of its two directions, and of all of them in a logistic regression (five folds
by patient); and what each way adds to the border's ROC-AUC before any filter. A cohort without ten patients on either
side has no intervals.
"""

import argparse
import csv
from collections import defaultdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from penumo_assets.configs.prepare import EnhanceConfig, PrepareConfig
from penumo_assets.imaging.decode import decode_image
from penumo_assets.imaging.enhance import enhance
from penumo_assets.imaging.film import look_at
from penumo_assets.imaging.formats.decoded import eight_bit
from penumo_assets.imaging.letterbox import Letterbox
from penumo_assets.imaging.lung_mask import find_lungs
from penumo_assets.imaging.pack import pack_tensor
from penumo_assets.imaging.segment import LungSegmenter
from penumo_assets.metrics.preparation import (
    BARS,
    BORDER,
    OUTLINE,
    QUANTITIES,
    preparation_quantities,
)
from penumo_assets.metrics.records import Estimate
from penumo_assets.metrics.revealed import added, revealed, revealed_together

OFF = {"enabled": False}
NOT_ENHANCED = "the same, not enhanced"
WAYS: dict[str, dict[str, Any]] = {
    "square, black bars": {"keep_aspect": True},
    "squashed (default)": {},
    NOT_ENHANCED: {"clahe": OFF, "gaussian_blur": OFF, "min_max": OFF},
    "stretched from darkest to brightest": {"min_max": {"low_percentile": 0, "high_percentile": 100}},
    "squashed, no margin": {"crop_margin": 0},
    "widened by film to a square": {"max_squash": 1},
    "whole film": {"crop_to_lungs": False},
    "squashed, outside blanked": {"apply_mask": True},
}
MADE = (*BARS, *OUTLINE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    for table in sorted((parser.parse_args().data / "pneumonia").glob("*/labels.csv")):
        found, positive, patients = measured(table)
        print(f"\n### {table.parent.name}: {len(positive)} films, {positive.sum()} with pneumonia\n")
        print(f"| | {' | '.join(found)} |\n|---|{'---|' * len(found)}")
        alone = {way: revealed(values, positive, patients) for way, values in found.items()}
        for quantity in QUANTITIES:
            print(f"| {quantity.replace('_', ' ')} | {' | '.join(cell(alone[way][quantity]) for way in found)} |")
        for title, names in (("bars and outline together", MADE), ("all together", QUANTITIES)):
            cells = []
            for values in found.values():
                columns = np.column_stack([values[name] for name in names])
                columns = columns[:, np.isfinite(columns).any(axis=0)]
                cells.append(cell(revealed_together(columns, positive, patients)))
            print(f"| **{title}** | {' | '.join(cells)} |", flush=True)
        for quantity in BORDER:
            film = found[NOT_ENHANCED][quantity]
            more = [added(values[quantity], film, positive, patients) for values in found.values()]
            print(f"| added to the film's {quantity.replace('_', ' ')} | {' | '.join(map(cell, more))} |", flush=True)


def measured(table: Path) -> tuple[dict[str, dict[str, np.ndarray]], np.ndarray, np.ndarray]:
    """The quantities of each way, which films are positive, and whose they are."""
    config, segmenter = PrepareConfig.defaults(), LungSegmenter(threads=1)
    found: dict[str, list[dict[str, float]]] = defaultdict(list)
    positive, patients = [], []
    with table.open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            pixels = eight_bit(decode_image((table.parent / row["file"]).read_bytes(), config.decode).pixels)
            box = Letterbox.fit(*pixels.shape)
            square = box.apply(pixels)
            lungs = find_lungs(look_at([square], segmenter, True)[0], box.content, config.segment)
            if lungs.problems:
                continue
            positive.append(row["label"] == "pneumonia")
            patients.append(row["patient_id"])
            for way, changes in WAYS.items():
                made = enhance(square, lungs.mask, box.content, EnhanceConfig.parse(changes))
                found[way].append(preparation_quantities(pack_tensor(made.image, made.mask)))
    columns = {way: {name: np.array([row[name] for row in rows]) for name in QUANTITIES} for way, rows in found.items()}
    return columns, np.array(positive), np.array(patients)


def cell(estimate: Estimate) -> str:
    if estimate.value is None:
        return "-"
    return f"{estimate.value:.3f}" + (f" [{estimate.low:.3f}, {estimate.high:.3f}]" if estimate.low is not None else "")


if __name__ == "__main__":
    cv2.setNumThreads(1)
    main()
