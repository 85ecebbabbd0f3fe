"""How often do the report's 95 % intervals hold the truth? Simulated, per metric, size, prevalence and films a patient.

    python benchmarks/coverage.py [--simulations 1000] [--patients 20 50 100 200 300]

Scores are normal, shifted by 1.5 standard deviations where the finding is present; a patient's films share the label
and half of the noise. The truth is that of infinitely many films. ``shown`` is the share of simulations with an
interval: where the report shows none, nothing is counted. ``worst`` lists what covers less than ``FLOOR``.
"""

import argparse
import json
from collections import defaultdict
from multiprocessing import Pool

import numpy as np
from scipy import stats

from penumo_assets.metrics.calibration import softmax
from penumo_assets.metrics.performance import (
    DecisionRule,
    Scored,
    area_estimates,
    calibration_estimates,
    decision_estimates,
)
from penumo_assets.metrics.records import Estimate

PREVALENCES = (0.1, 0.3, 0.5)
FILMS = (1, 3)
SHIFT = 1.5  # AUC 0.856
FLOOR = 0.93
METRICS = (
    *("roc_auc", "pr_auc", "accuracy", "recall", "specificity", "precision", "negative_predictive_value"),
    *("f1", "macro_f1", "matthews_correlation", "balanced_accuracy", "youden_index", "brier"),
)
Cell = tuple[int, float, int, int]


def film_scores(patients: int, prevalence: float, films: int, random: np.random.Generator) -> Scored:
    """Labels and calibrated logits of ``patients`` with ``films`` each."""
    present = np.repeat(random.random(patients) < prevalence, films)
    shared = np.repeat(random.normal(size=patients), films) if films > 1 else 0.0
    own = random.normal(size=patients * films)
    noise = own if films == 1 else np.sqrt(0.5) * (shared + own)
    # The log-odds that are right for two normal distributions one SHIFT apart.
    log_odds = SHIFT * (SHIFT * present + noise) - SHIFT**2 / 2 + np.log(prevalence / (1 - prevalence))
    logits = np.stack([-log_odds / 2, log_odds / 2], axis=1)
    return Scored(present.astype(np.int64), logits, np.repeat(np.arange(patients), films), ["no", "yes"], 1)


def threshold_of(prevalence: float) -> float:
    """The probability at which sensitivity and specificity are equal."""
    return prevalence


def estimates(scored: Scored, threshold: float) -> dict[str, Estimate]:
    rule = DecisionRule(threshold, 1.0, "fixed")
    found = decision_estimates(scored, rule, 0.95) | area_estimates(scored, 0.95)
    return found | calibration_estimates(scored, rule, 0.95)


def truths(prevalence: float) -> dict[str, float]:
    """The metrics of infinitely many films, by integration."""
    z = np.linspace(-12, 14, 400_001)
    positive, negative = stats.norm.sf(z - SHIFT), stats.norm.sf(z)
    precision = prevalence * positive / np.maximum(prevalence * positive + (1 - prevalence) * negative, 1e-300)
    odds = SHIFT * z - SHIFT**2 / 2 + np.log(prevalence / (1 - prevalence))
    p = softmax(np.stack([-odds / 2, odds / 2], axis=1))[:, 1]
    weights = {side: stats.norm.pdf(z - side * SHIFT) for side in (0, 1)}
    brier = np.trapezoid(prevalence * weights[1] * (1 - p) ** 2 + (1 - prevalence) * weights[0] * p**2, z)
    rate = stats.norm.sf(SHIFT / 2 - SHIFT)
    tp, fn, fp, tn = (
        prevalence * rate, prevalence * (1 - rate), (1 - prevalence) * (1 - rate), (1 - prevalence) * rate,
    )  # fmt: skip
    f1, other = 2 * tp / (2 * tp + fp + fn), 2 * tn / (2 * tn + fp + fn)
    return {
        "roc_auc": stats.norm.cdf(SHIFT / np.sqrt(2)), "pr_auc": float(-np.trapezoid(precision, positive)),
        "accuracy": rate, "recall": rate, "specificity": rate, "balanced_accuracy": rate, "youden_index": 2 * rate - 1,
        "precision": tp / (tp + fp), "negative_predictive_value": tn / (tn + fn), "f1": f1,
        "macro_f1": (f1 + other) / 2,
        "matthews_correlation": (tp * tn - fp * fn) / np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)),
        "brier": float(brier),
    }  # fmt: skip


def coverage(cell: Cell) -> dict[str, object]:
    """One row: of each metric the share of shown intervals that hold the truth, and the share that is shown."""
    patients, prevalence, films, simulations = cell
    random = np.random.default_rng([patients, films, round(1000 * prevalence)])
    truth, hits = truths(prevalence), defaultdict(list)
    for _ in range(simulations):
        scored = film_scores(patients, prevalence, films, random)
        for name, found in estimates(scored, threshold_of(prevalence)).items():
            if name in METRICS and found.low is not None and found.high is not None:
                hits[name].append(found.low <= truth[name] <= found.high)
    covered = {name: round(float(np.mean(hits[name])), 3) if hits[name] else None for name in METRICS}
    shown = {name: round(len(hits[name]) / simulations, 2) for name in METRICS}
    return {"patients": patients, "prevalence": prevalence, "films": films, "covered": covered, "shown": shown}


def table(rows: list[dict]) -> str:
    """Markdown: a row per metric, mean (lowest) coverage over prevalences and films, by patients."""
    sizes = sorted({row["patients"] for row in rows})
    lines = ["| metric | " + " | ".join(f"{n} patients" for n in sizes) + " |", "|---" * (len(sizes) + 1) + "|"]
    for name in METRICS:
        cells = []
        for n in sizes:
            found = [r["covered"][name] for r in rows if r["patients"] == n and r["shown"][name] >= 0.05]
            cells.append(f"{np.mean(found):.3f} ({min(found):.2f})" if found else "not shown")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=1000)
    parser.add_argument("--patients", type=int, nargs="+", default=[20, 50, 100, 200, 300])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="every cell, instead of the table")
    options = parser.parse_args()
    cells = [
        (patients, prevalence, films, options.simulations)
        for patients in options.patients
        for prevalence in PREVALENCES
        for films in FILMS
    ]
    with Pool(options.processes) as pool:
        rows = pool.map(coverage, cells, chunksize=1)
    if options.json:
        print(json.dumps(rows, indent=1))
        return
    print(table(rows))
    worst = [
        f"{name} {row['covered'][name]} (n {row['patients']}, prevalence {row['prevalence']}, films {row['films']})"
        for row in rows
        for name in METRICS
        if row["shown"][name] >= 0.05 and row["covered"][name] < FLOOR
    ]
    print(f"\nbelow {FLOOR}: " + ("; ".join(worst) or "none"))


if __name__ == "__main__":
    main()
