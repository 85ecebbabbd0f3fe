"""Dice of the lung segmenter on patients that trained nothing: the model card's table and pictures.

First train, once per fold and once on everything (minutes to hours, see the model card):

    export SM_CHANNEL_TRAIN=... SM_CHANNEL_EXTERNAL=...
    for k in 0 1 2 3 4; do PENUMO_OPT_ML=runs/fold$k python -m penumo_assets.jobs.segment_train --fold $k; done
    PENUMO_OPT_ML=runs/final python -m penumo_assets.jobs.segment_train --fold -1

then

    python benchmarks/segmentation_folds.py runs --pictures docs/images

The pictures hold outlines and numbers only, no pixel of any X-ray.
"""

import argparse
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[1]))
matplotlib.use("Agg")

import matplotlib.pyplot as plt

from penumo_assets.imaging.lung_mask import clean_mask
from penumo_assets.imaging.segment import LungSegmenter
from penumo_assets.jobs import contract
from penumo_assets.jobs.segment_train.data import Pair, assign_folds, read_channel
from penumo_assets.jobs.segment_train.score import score, summarise

FOLDS = 5
SHOWN = ("as_is", "inverted", "half_contrast")


def gather(runs: Path, pairs: list[Pair], external: list[Pair]) -> pd.DataFrame:
    """Score each fold's weights on what that fold held out, and on the external pairs; cached beside the weights."""
    homes = assign_folds([p.patient_id for p in pairs], [p.source for p in pairs], FOLDS)
    tables = []
    for fold in range(FOLDS):
        weights = runs / f"fold{fold}" / "model" / "lung_unet.safetensors"
        held_out = [pair for pair, home in zip(pairs, homes, strict=True) if home == fold]
        tables.append(scored(weights, {"held_out": held_out, "external": external}).assign(fold=fold))
    return pd.concat(tables, ignore_index=True)


def scored(weights: Path, groups: dict[str, list[Pair]]) -> pd.DataFrame:
    segmenter = LungSegmenter(weights)
    cache = weights.parent / f"scores-{segmenter.digest[:12]}.csv"
    if not cache.exists():
        rows = [{"group": g, **row} for g, pairs in groups.items() for row in score(segmenter, pairs, SHOWN)]
        pd.DataFrame(rows).to_csv(cache, index=False)
    return pd.read_csv(cache, dtype={"patient_id": str})


def per_image(scores: pd.DataFrame) -> pd.DataFrame:
    """One row per image and variant: an external image, which every fold has scored, gets its mean over the folds."""
    held_out = scores[scores.group == "held_out"]
    if held_out.duplicated(["file", "variant"]).any():
        raise SystemExit("an image is held out by two folds: the runs do not belong together")
    keys = ["group", "source", "patient_id", "file", "variant"]
    return scores.groupby(keys, as_index=False)[["dice", "iou"]].mean()


def print_table(rows: pd.DataFrame) -> None:
    columns = "source | image | images | patients | Dice [95 % interval] | IoU [95 % interval] | worst tenth | 10th p."
    print(f"| {columns} |")
    print("|---|---|---|---|---|---|---|---|")
    for name, s in summarise(rows.to_dict("records")).items():
        source, variant = name.split("/")
        dice, iou = (f"{s[k]:.3f} [{s[k + '_interval'][0]:.3f}, {s[k + '_interval'][1]:.3f}]" for k in ("dice", "iou"))
        tail = f"{s['worst_tenth']:.3f} | {s['p10']:.3f}"
        print(f"| {source} | {variant} | {s['images']} | {s['patients']} | {dice} | {iou} | {tail} |")


def draw_distribution(rows: pd.DataFrame, path: Path) -> None:
    """Every image's Dice as a point, by source and variant."""
    sources, variants = sorted(rows.source.unique()), SHOWN
    figure, axes = plt.subplots(1, len(sources), figsize=(3.6 * len(sources), 3.6), sharey=True, layout="constrained")
    rng = np.random.default_rng(0)
    for axis, source in zip(np.atleast_1d(axes), sources, strict=True):
        for place, variant in enumerate(variants):
            dice = rows[(rows.source == source) & (rows.variant == variant)].dice.to_numpy()
            axis.plot(place + rng.uniform(-0.25, 0.25, len(dice)), dice, ".", ms=3, alpha=0.5, color="tab:blue")
            axis.plot([place - 0.3, place + 0.3], [dice.mean()] * 2, color="black")
        axis.set_xticks(range(len(variants)), [v.replace("_", "\n") for v in variants])
        axis.set_title(f"{source} (n={rows[rows.source == source].file.nunique()})", fontsize=10)
        axis.axhline(0.95, lw=0.7, ls="--", color="gray")
    np.atleast_1d(axes)[0].set_ylabel("Dice, held-out patients")
    figure.savefig(path, dpi=110)


def draw_worst(scores: pd.DataFrame, runs: Path, pairs: dict[str, Pair], path: Path, count: int = 8) -> None:
    """The lowest Dice values as outlines: annotated against found."""
    chosen = scores[scores.variant == "as_is"].sort_values("dice").drop_duplicates("file").head(count)
    figure, axes = plt.subplots(2, count // 2, figsize=(2.2 * count / 2, 4.9), layout="constrained")
    for axis, row in zip(axes.flat, chosen.itertuples(), strict=True):
        pair = pairs[row.file]
        segmenter = LungSegmenter(runs / f"fold{row.fold}" / "model" / "lung_unet.safetensors")
        found = clean_mask(segmenter.predict(pair.image[None])[0], pair.box.content)
        axis.contour(pair.mask > 0, [0.5], colors="tab:green", linewidths=1.5)
        axis.contour(found > 0, [0.5], colors="tab:red", linewidths=1.0)
        rows_, columns = pair.box.content
        axis.set(xlim=(columns.start, columns.stop), ylim=(rows_.stop, rows_.start), xticks=[], yticks=[])
        axis.set_aspect("equal")
        axis.set_title(f"{row.source}, Dice {row.dice:.2f}", fontsize=8)
    figure.suptitle("Lowest Dice on held-out patients: annotation green, prediction red", fontsize=10)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, help="folder that holds fold0, fold1 ...")
    parser.add_argument("--pictures", type=Path, help="write lung_unet_dice.png and lung_unet_worst.png here")
    arguments = parser.parse_args()
    pairs, external = (read_channel(contract.channel(name))[0] for name in ("train", "external"))
    scores = gather(arguments.runs, pairs, external)
    rows = per_image(scores)
    print_table(rows)
    final = arguments.runs / "final" / "model" / "lung_unet.safetensors"
    if final.exists():
        print("\nThe model trained on every open image, on the external images:\n")
        print_table(scored(final, {"external": external}))
    if arguments.pictures:
        arguments.pictures.mkdir(parents=True, exist_ok=True)
        draw_distribution(rows, arguments.pictures / "lung_unet_dice.png")
        by_file = {pair.file: pair for pair in [*pairs, *external]}
        draw_worst(scores, arguments.runs, by_file, arguments.pictures / "lung_unet_worst.png")


if __name__ == "__main__":
    main()
