"""What each choice is worth: classifiers trained with one thing changed, on patients that trained nothing.

    python benchmarks/ablation.py as-shipped=/data/root another-preparation=/data/other-root

Each root holds prepared cohorts (`npz_tensors`). Patients are split anew for every salt (``ablation-0``, ``ablation-1``
and so on, stated here before anything was run; a quarter for test, a fifth for validation); the test predictions of all
splits are averaged per image, so that every image of the table was predicted only by models that had not seen its
patient. ROC-AUC per cohort with a 95 % interval (DeLong, by patient), beside what one number of the file tells:
aspect ratio, mean intensity and size of the file, each the better of its two directions, which flatters it. The last
column is what a choice is worth: the ROC-AUC over all cohorts minus the first variant's, paired by patient (DeLong).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from penumo_assets.cohort.publish import read_manifest
from penumo_assets.cohort.training_items import pack_item
from penumo_assets.jobs.shards import Split
from penumo_assets.metrics.auc import Part, mean_auc
from penumo_assets.metrics.paired import compare_paired
from penumo_assets.metrics.ranking import roc_auc
from penumo_assets.models.classifier import load_classifier
from penumo_assets.models.inputs import normalise
from penumo_assets.resources.storage.root import open_store

PACKAGE = str(Path(__file__).parents[1])
SHORTCUTS = ("aspect_ratio", "mean_intensity", "source_bytes")
RECIPE = {  # one thing changed, and the hyperparameters that do it
    "without the mask channel": ("--input-channels", "3"),
    "without augmentation": ("--augment-probability", "0"),
    "without erasing": ("--augment-erasing", "0"),
    "with left-right flips": ("--augment-horizontal-flip", "0.5"),
    "without class weights": ("--class-weighting", "none"),
    "without label smoothing": ("--label-smoothing", "0"),
    "with mixup": ("--mixup", "0.2"),
    "without the weights' moving average": ("--ema-decay", "0"),
    "with a constant learning rate": ("--scheduler", "constant"),
    "another seed": ("--seed", "1"),  # what chance alone is worth
}


def prepared(root: str) -> list[dict]:
    """Items of every labelled tensor under a storage root."""
    store = open_store(root)
    cohorts = [Path(info.key).stem for info in store.list_objects("manifests") if info.key.endswith(".jsonl")]
    rows = [(cohort, row) for cohort in cohorts for row in read_manifest(store, cohort)]
    return [pack_item(cohort, row, {}) for cohort, row in rows if row.label and "npz" in row.stages]


def run(program: str, opt_ml: Path, arguments: list[str], **environment: str) -> None:
    """One job program in a folder of its own."""
    inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    done = subprocess.run(
        [sys.executable, "-m", f"penumo_assets.jobs.{program}", *arguments],
        env=inherited
        | {"PENUMO_OPT_ML": str(opt_ml), "PYTHONPATH": PACKAGE, "OMP_WAIT_POLICY": "PASSIVE"}
        | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{program} failed: {done.stdout[-2000:]}{done.stderr[-2000:]}")


def pack(root: str, salt: str, folder: Path) -> Path:
    """The training set of one split of the patients."""
    given = folder / "processing" / "input"
    for name in ("items", "config"):
        (given / name).mkdir(parents=True)
    (given / "npz").symlink_to(Path(root).absolute() / "npz")
    (given / "items" / "all.jsonl").write_text("".join(json.dumps(item) + "\n" for item in prepared(root)))
    fractions = {"validation_fraction": 0.2, "test_fraction": 0.25}
    (given / "config" / "config.json").write_text(json.dumps({"salt": salt, **fractions}))
    run("pack", folder, [])
    return folder / "processing" / "output" / "dataset"


def predictions(dataset: Path, options: list[str], folder: Path) -> pd.DataFrame:
    """Train on one split and predict its test patients."""
    channels = {f"SM_CHANNEL_{name.upper()}": str(dataset / name) for name in ("train", "validation")}
    run("train", folder, options, **channels)
    model, metadata = load_classifier(folder / "model")
    test = Split(dataset / "test")
    parts = np.array_split(np.arange(len(test)), max(1, len(test) // 32))
    with torch.inference_mode():
        logits = [model(normalise(torch.from_numpy(test.gather(part)), metadata)).double() for part in parts]
    return test.index.assign(score=torch.cat(logits).softmax(1)[:, 1].numpy())


def with_shortcuts(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(aspect_ratio=table.source_width / table.source_height)


def auc(table: pd.DataFrame, column: str) -> str:
    """``0.900 [0.850, 0.940]``, or a dash where a class is missing."""
    if table.target.nunique() < 2:
        return "-"
    scores, positive = table[column].to_numpy(float), table.target.to_numpy() == 1
    if column != "score" and roc_auc(positive.astype(np.int64), scores) < 0.5:
        scores = -scores
    found = mean_auc([Part(positive, scores, table.patient_id.to_numpy())])
    interval = "" if found.low is None else f" [{found.low:.3f}, {found.high:.3f}]"
    return f"{found.value:.3f}{interval}"


def measured(root: str, options: list[str], splits: int) -> pd.DataFrame:
    """A row per image that any split tests, with the mean of its scores."""
    tables = []
    for number in range(splits):
        with tempfile.TemporaryDirectory() as folder:
            dataset = pack(root, f"ablation-{number}", Path(folder) / "pack")
            tables.append(predictions(dataset, options, Path(folder) / "train"))
    keys = ["cohort", "image_id", "patient_id", "target", *SHORTCUTS]
    return with_shortcuts(pd.concat(tables)).groupby(keys, as_index=False)["score"].mean()


def worth(table: pd.DataFrame, baseline: pd.DataFrame) -> str:
    """``+0.010 [-0.020, 0.040]`` against the baseline on the images of both; a dash where patients are too few."""
    both = baseline.merge(table, on=["cohort", "image_id", "patient_id", "target"], suffixes=("_before", "_after"))
    labels, patients = both.target.to_numpy(), both.patient_id.to_numpy()
    found = compare_paired(labels, both.score_before.to_numpy(), both.score_after.to_numpy(), patients)
    return "-" if found is None else f"{found.difference:+.3f} [{found.low:.3f}, {found.high:.3f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("roots", nargs="+", metavar="NAME=ROOT", help="prepared cohorts; the first is the baseline")
    parser.add_argument("--splits", type=int, default=3, help="how often the patients are split (default: %(default)s)")
    parser.add_argument("--resolution", default="128", help="side in pixels (default: %(default)s)")
    parser.add_argument("--epochs", default="20", help="epochs (default: %(default)s)")
    parser.add_argument("--threads", default="0", help="CPU threads of a training; 0: all (default: %(default)s)")
    parser.add_argument("--only", action="append", choices=RECIPE, help="this choice, may be repeated; else all")
    arguments = parser.parse_args()
    roots = dict(item.split("=", 1) for item in arguments.roots)
    options = ["--resolution", arguments.resolution, "--epochs", arguments.epochs, "--threads", arguments.threads]
    first, root = next(iter(roots.items()))
    baseline = measured(root, options, arguments.splits)
    cohorts = sorted(baseline.cohort.unique())
    print(f"| variant | {' | '.join(cohorts)} | all | worth |\n|---|{'---|' * (len(cohorts) + 2)}")
    for shortcut in SHORTCUTS:
        print_row(f"{shortcut.replace('_', ' ')} alone", baseline, shortcut, "")
    print_row(first, baseline, "score", "")
    for name, other in list(roots.items())[1:]:
        table = measured(other, options, arguments.splits)
        print_row(name, table, "score", worth(table, baseline))
    for name in arguments.only or RECIPE:
        table = measured(root, [*options, *RECIPE[name]], arguments.splits)
        print_row(name, table, "score", worth(table, baseline))


def print_row(name: str, table: pd.DataFrame, column: str, difference: str) -> None:
    cells = [auc(table[table.cohort == cohort], column) for cohort in sorted(table.cohort.unique())]
    print(f"| {name} | {' | '.join(cells)} | {auc(table, column)} | {difference} |", flush=True)


if __name__ == "__main__":
    main()
