"""What a first training takes: minutes, and the ROC-AUC on validation that they buy.

    python benchmarks/first_training.py ROOT                                  # the default recipe, and the preset quick
    python benchmarks/first_training.py ROOT --recipe "--preset quick" --seeds 0 1 2

ROOT holds prepared cohorts (`npz_tensors`). Patients are split as `training_set` splits them by default. Each recipe
is trained as the job trains it, in one process with one thread: its processor time hardly depends on what else runs.
Where there is a GPU, minutes are by the clock.
*best* is the epoch whose weights are kept. ROC-AUC with its 95 % interval (DeLong, by patient) on the validation split,
which chose that epoch, and on the test split, which chose nothing. *within* is the mean over the cohorts that can have
an interval: telling cohorts apart is worth nothing.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import psutil
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.ablation import auc, judged, part
from benchmarks.ablation_training import Program, pack, predictions, training
from penumo_assets.models.classifier import load_classifier

EPOCH = re.compile(r"\bepoch=(\d+);")
DEFAULT = "the defaults"
ON_GPU = torch.cuda.is_available()
RECIPES = (DEFAULT, "--preset quick")
COLUMNS = (
    "recipe",
    "seed",
    "epochs",
    "minutes",
    "best epoch",
    "minutes to it",
    "validation",
    "within",
    "test",
    "within",
)


def minutes_by_epoch(program: Program) -> list[float]:
    """Minutes at the end of each epoch, and of the whole job: of processor time, with a GPU by the clock.

    Raises
    ------
    SystemExit
        If the job failed, with its last lines.
    """
    lines, taken, started = [], [], time.monotonic()
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(program.command, env=program.environment, **options) as job:
        process = psutil.Process(job.pid)
        for line in job.stdout:
            lines.append(line)
            if EPOCH.search(line):
                taken.append((time.monotonic() - started) / 60 if ON_GPU else processor_minutes(process))
                print(f"{taken[-1]:.2f} min {line.strip()}", file=sys.stderr, flush=True)
    if job.returncode:
        raise SystemExit("".join(lines[-20:]))
    return taken


def processor_minutes(process: psutil.Process) -> float:
    times = process.cpu_times()
    return (times.user + times.system) / 60


def row(dataset: Path, recipe: str, seed: int, threads: int, folder: Path) -> list[str]:
    """The cells of one training."""
    options = [] if recipe == DEFAULT else recipe.split()
    program = training(dataset, [*options, "--seed", str(seed), "--threads", str(threads)], folder)
    taken = minutes_by_epoch(program)
    model = folder / "model"
    tables = [predictions(dataset, model, split) for split in ("validation", "test")]
    best = load_classifier(model)[1]["metrics"]["best_epoch"]
    cells = [recipe, seed, len(taken), f"{taken[-1]:.1f}", best, f"{taken[best - 1]:.1f}"]
    return [str(cell) for cell in [*cells, *(text for table in tables for text in aucs(table))]]


def aucs(table: pd.DataFrame) -> tuple[str, str]:
    return auc([part(table, "score")]), auc([part(rows, "score") for rows in judged(table)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", help="storage root with prepared cohorts")
    parser.add_argument("--recipe", action="append", help=f"options of a training (default: {' and '.join(RECIPES)})")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="seeds of each recipe (default: 0)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: %(default)s)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        dataset = pack(arguments.root, {}, folder / "set")
        print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}", flush=True)
        for recipe in arguments.recipe or RECIPES:
            for seed in arguments.seeds:
                room = Path(tempfile.mkdtemp(dir=folder))
                print(f"| {' | '.join(row(dataset, recipe, seed, arguments.threads, room))} |", flush=True)


if __name__ == "__main__":
    main()
