"""What each choice is worth: classifiers trained with one thing changed, on patients that trained nothing.

    python benchmarks/ablation.py as-shipped=/data/root another-preparation=/data/other-root

Each root holds prepared cohorts (`npz_tensors`). Patients are split anew for every salt (``ablation-0``, ``ablation-1``
and so on, stated here before anything was run; a quarter for test, a fifth for validation); the test predictions of all
splits are averaged per image, so that every image of the table was predicted only by models that had not seen its
patient. ROC-AUC per cohort with a 95 % interval (DeLong, by patient), beside what one number of the file tells:
aspect ratio, mean intensity and size of the file, each the better of its two directions, which flatters it. *within* is
their mean over the cohorts that can have an interval, weighted by images with the finding: telling cohorts apart is
worth nothing. The last column is what a choice is worth: *within* minus the first variant's, paired by patient.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.ablation_training import ALL_ALIKE, Size, Start, fewer_pixels, lungs_drawn, pack, predictions, train
from penumo_assets.metrics.auc import MIN_PATIENTS, Part, mean_auc
from penumo_assets.metrics.delong import auc_influence
from penumo_assets.metrics.ranking import roc_auc

SHORTCUTS = ("aspect_ratio", "mean_intensity", "source_bytes")


class Choice(NamedTuple):
    """One thing changed: the hyperparameters that do it, and what makes the weights that it starts from."""

    options: tuple[str, ...] = ()
    start: Start | None = None
    epochs: Callable[[int], int] = int


RECIPE = {
    "without the mask channel": Choice(("--input-channels", "3")),
    "without augmentation": Choice(("--augment-probability", "0")),
    "without erasing": Choice(("--augment-erasing", "0")),
    "with left-right flips": Choice(("--augment-horizontal-flip", "0.5")),
    "without class weights": Choice(("--class-weighting", "none")),
    "without label smoothing": Choice(("--label-smoothing", "0")),
    "with mixup": Choice(("--mixup", "0.2")),
    "without the weights' moving average": Choice(("--ema-decay", "0")),
    "with a constant learning rate": Choice(("--scheduler", "constant")),
    "half of the epochs at 64 pixels first": Choice(ALL_ALIKE, fewer_pixels, lambda epochs: epochs // 2),
    "from a network that draws the lungs": Choice(ALL_ALIKE, lungs_drawn),
    "the same, a tenth of the rate below the last layer": Choice((), lungs_drawn),
    "the same, three epochs frozen": Choice((*ALL_ALIKE, "--freeze-epochs", "3"), lungs_drawn),
    "another seed": Choice(("--seed", "1")),  # what chance alone is worth
    "without erasing, another seed": Choice(("--augment-erasing", "0", "--seed", "1")),  # the one gain, once more
}


class Bench:
    """The splits of every root, packed once, and the weights that trainings start from, made once."""

    def __init__(self, folder: Path, kept: Path, splits: int, size: Size) -> None:
        self.folder, self.kept, self.splits, self.size = folder, kept, splits, size
        self.dataset = cache(self._dataset)
        self.weights = cache(self._weights)

    def measured(self, root: str, name: str = "") -> pd.DataFrame:
        """A row per image that any split tests, with the mean of its scores."""
        tables = [self._predicted(root, name, number) for number in range(self.splits)]
        keys = ["cohort", "image_id", "patient_id", "target", *SHORTCUTS]
        return with_shortcuts(pd.concat(tables)).groupby(keys, as_index=False)["score"].mean()

    def _predicted(self, root: str, name: str, number: int) -> pd.DataFrame:
        known = f"{Path(root).absolute()} {name} {number} {self.size.resolution} {self.size.epochs}"
        file = self.kept / f"{sha256(known.encode()).hexdigest()[:16]}.parquet"
        if not file.exists():
            choice, dataset = RECIPE.get(name, Choice()), self.dataset(root, number)
            weights = choice.start and self.weights(root, number, choice.start)
            options = [*self.size.options(epochs=choice.epochs(self.size.epochs)), *choice.options]
            with tempfile.TemporaryDirectory(dir=self.folder) as folder:
                table = predictions(dataset, train(dataset, options, Path(folder), weights))
            table.to_parquet(file)
        return pd.read_parquet(file)

    def _dataset(self, root: str, number: int) -> Path:
        shares = {"validation_fraction": 0.2, "test_fraction": 0.25}
        return pack(root, {"salt": f"ablation-{number}", **shares}, self._room())

    def _weights(self, root: str, number: int, start: Start) -> Path:
        return start(self.dataset(root, number), self.size, self._room() / "start")

    def _room(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self.folder))


def with_shortcuts(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(aspect_ratio=table.source_width / table.source_height)


def part(table: pd.DataFrame, column: str) -> Part:
    """One cohort's ranking by a column, a shortcut's in the better of its directions."""
    scores, positive = table[column].to_numpy(float), table.target.to_numpy() == 1
    if column != "score" and roc_auc(positive.astype(np.int64), scores) < 0.5:
        scores = -scores
    return Part(positive, scores, table.patient_id.to_numpy(), float(positive.sum()))


def auc(parts: list[Part]) -> str:
    """``0.900 [0.850, 0.940]``, or a dash where a class is missing."""
    if not parts or not all(min(p.sides) for p in parts):
        return "-"
    found = mean_auc(parts)
    interval = "" if found.low is None else f" [{found.low:.3f}, {found.high:.3f}]"
    return f"{found.value:.3f}{interval}"


def judged(table: pd.DataFrame) -> list[pd.DataFrame]:
    """The cohorts that can have an interval."""
    cohorts = [rows for _, rows in table.groupby("cohort")]
    return [rows for rows in cohorts if min(part(rows, "score").sides) >= MIN_PATIENTS]


def worth(table: pd.DataFrame, baseline: pd.DataFrame) -> str:
    """``+0.010 [-0.020, 0.040]`` against the baseline on the images of both; a dash where patients are too few."""
    both = baseline.merge(table, on=["cohort", "image_id", "patient_id", "target"], suffixes=("_before", ""))
    difference, variance, cohorts = 0.0, 0.0, judged(both)
    for rows in cohorts:
        share = rows.target.sum() / sum(other.target.sum() for other in cohorts)
        scores = np.stack([rows.score_before, rows.score])
        aucs, influence = auc_influence(rows.target.to_numpy() == 1, scores, rows.patient_id.to_numpy())
        difference += share * float(aucs[1] - aucs[0])
        variance += share**2 * float(((influence[1] - influence[0]) ** 2).sum())
    half = stats.norm.ppf(0.975) * variance**0.5
    return f"{difference:+.3f} [{difference - half:.3f}, {difference + half:.3f}]" if cohorts else "-"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("roots", nargs="+", metavar="NAME=ROOT", help="prepared cohorts; the first is the baseline")
    parser.add_argument("--splits", type=int, default=3, help="how often the patients are split (default: %(default)s)")
    parser.add_argument("--resolution", type=int, default=128, help="side in pixels (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=20, help="epochs (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0: all (default: %(default)s)")
    parser.add_argument("--only", action="append", choices=RECIPE, help="this choice, may be repeated; else all")
    parser.add_argument("--keep", type=Path, help="folder of what was predicted, from which a stopped run goes on")
    arguments = parser.parse_args()
    roots = dict(item.split("=", 1) for item in arguments.roots)
    with tempfile.TemporaryDirectory() as folder:
        size = Size(arguments.resolution, arguments.epochs, arguments.threads)
        kept = arguments.keep or Path(folder)
        kept.mkdir(parents=True, exist_ok=True)
        print_table(Bench(Path(folder), kept, arguments.splits, size), roots, arguments.only or list(RECIPE))


def print_table(bench: Bench, roots: dict[str, str], choices: list[str]) -> None:
    first, root = next(iter(roots.items()))
    baseline = bench.measured(root)
    cohorts = sorted(baseline.cohort.unique())
    print(f"| variant | {' | '.join(cohorts)} | within | worth |\n|---|{'---|' * (len(cohorts) + 2)}")
    for shortcut in SHORTCUTS:
        print_row(f"{shortcut.replace('_', ' ')} alone", baseline, shortcut, "")
    print_row(first, baseline, "score", "")
    for name, other in list(roots.items())[1:]:
        table = bench.measured(other)
        print_row(name, table, "score", worth(table, baseline))
    for name in choices:
        table = bench.measured(root, name)
        print_row(name, table, "score", worth(table, baseline))


def print_row(name: str, table: pd.DataFrame, column: str, difference: str) -> None:
    cells = [auc([part(rows, column)]) for _, rows in table.groupby("cohort")]
    within = auc([part(rows, column) for rows in judged(table)])
    print(f"| {name} | {' | '.join(cells)} | {within} | {difference} |", flush=True)


if __name__ == "__main__":
    main()
