"""How fast is the evaluation? The patient bootstrap against a loop over scikit-learn, and a whole report.

    python benchmarks/evaluation.py [--images 25000] [--resamples 2000] [--report-images 5000]

Both bootstraps compute the same 11 metrics on the same resamples of patients, and are checked to
agree. The loop is timed on a few resamples and scaled up; its time per resample does not vary.
"""

import argparse
import json
import time

import numpy as np
import pandas as pd
from sklearn import metrics as sk

from penumo_assets.metrics import classification
from penumo_assets.metrics.intervals import PatientBootstrap
from penumo_assets.metrics.ranking import Ranking
from penumo_assets.metrics.report.assemble import build_report
from penumo_assets.metrics.report.html import render_html
from penumo_assets.metrics.report.inputs import SPLITS, Evaluation

THRESHOLD = 0.5
NAMES = ("accuracy", "balanced_accuracy", "recall", "precision", "f1", "macro_f1", "micro_f1", "matthews_correlation")
Sample = tuple[np.ndarray, np.ndarray, np.ndarray]


def sample(images: int, seed: int = 0) -> Sample:
    """Labels, probabilities and patients: two thirds as many patients as images, 30 % positive."""
    random = np.random.default_rng(seed)
    labels = (random.random(images) < 0.3).astype(np.int64)
    scores = 1 / (1 + np.exp(-(random.normal(size=images) * 1.5 + 2.5 * labels - 1.2)))
    return labels, scores, random.integers(0, images * 2 // 3, images)


def vectorised(data: Sample, resamples: int) -> tuple[PatientBootstrap, np.ndarray]:
    """Replicates (resamples, 11) by this package."""
    labels, scores, patients = data
    bootstrap = PatientBootstrap(patients, resamples)
    called = (scores >= THRESHOLD).astype(np.int64)
    matrices = bootstrap.sums(np.eye(4)[labels * 2 + called]).reshape(-1, 2, 2)
    rates = classification.decision_metrics(2, 1)
    auc, precision = bootstrap.areas(Ranking.of(labels, scores))
    brier = bootstrap.sums(np.column_stack([(scores - labels) ** 2, np.ones(len(labels))]))
    columns = [rates[name](matrices) for name in NAMES]
    return bootstrap, np.column_stack([*columns, auc, precision, brier[:, 0] / brier[:, 1]])


def scikit_learn_loop(data: Sample, bootstrap: PatientBootstrap, resamples: int) -> np.ndarray:
    """The same replicates, a resample at a time, with scikit-learn's functions on the rows written out."""
    labels, scores, _ = data
    order = np.argsort(bootstrap.codes, kind="stable")
    bounds = np.searchsorted(bootstrap.codes[order], np.arange(bootstrap.patients + 1))
    rows_of = [order[bounds[i] : bounds[i + 1]] for i in range(bootstrap.patients)]
    found = []
    for weights in bootstrap.weights[:resamples]:
        drawn = np.repeat(np.arange(bootstrap.patients), weights)
        rows = np.concatenate([rows_of[i] for i in drawn])
        truth, score = labels[rows], scores[rows]
        called = (score >= THRESHOLD).astype(np.int64)
        found.append([
            sk.accuracy_score(truth, called), sk.balanced_accuracy_score(truth, called),
            sk.recall_score(truth, called), sk.precision_score(truth, called), sk.f1_score(truth, called),
            sk.f1_score(truth, called, average="macro"), sk.f1_score(truth, called, average="micro"),
            sk.matthews_corrcoef(truth, called), sk.roc_auc_score(truth, score),
            sk.average_precision_score(truth, score), sk.brier_score_loss(truth, score),
        ])  # fmt: skip
    return np.array(found)


def areas_only_ratio(data: Sample, bootstrap: PatientBootstrap, tried: int) -> float:
    """The harder comparison: only the two areas, and scikit-learn is given the rows for nothing."""
    labels, scores, _ = data
    rows = [np.repeat(np.arange(len(labels)), bootstrap.weights[j][bootstrap.codes]) for j in range(tried)]
    started = time.perf_counter()
    for part in rows:
        sk.roc_auc_score(labels[part], scores[part])
        sk.average_precision_score(labels[part], scores[part])
    loop = (time.perf_counter() - started) / tried
    started = time.perf_counter()
    bootstrap.areas(Ranking.of(labels, scores))
    return loop / ((time.perf_counter() - started) / bootstrap.resamples)


def synthetic_evaluation(images: int) -> Evaluation:
    """Three splits of made-up images with everything a report looks at."""
    index, logits = {}, {}
    for number, split in enumerate(SPLITS):
        labels, scores, patients = sample(images, number)
        random = np.random.default_rng(number)
        index[split] = pd.DataFrame(
            {
                "image_id": [f"{split}-{i}" for i in range(images)],
                "patient_id": [f"{split}-{i}" for i in patients],
                "cohort": random.choice(["a", "b", "c"], images),
                "label": np.array(["normal", "pneumonia"])[labels],
                "target": labels,
                "view": random.choice(["AP", "PA"], images),
                "sex": random.choice(["F", "M"], images),
                "age": random.uniform(0, 95, images),
                "source_width": random.integers(900, 1400, images),
                "source_height": random.integers(900, 1400, images),
                "source_bytes": random.integers(20_000, 90_000, images),
                "mean_intensity": random.normal(120, 20, images),
            }
        )
        half = np.log(scores / (1 - scores)) / 2
        logits[split] = np.stack([-half, half], axis=1)
    model = {"architecture": "none", "classes": ["normal", "pneumonia"], "input_channels": 4, "image_size": 224}
    return Evaluation(index, logits, ["normal", "pneumonia"], 1, model, {"digest": None, "salt": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=25_000)
    parser.add_argument("--resamples", type=int, default=2000)
    parser.add_argument("--loop-resamples", type=int, default=10, help="how many the scikit-learn loop is timed on")
    parser.add_argument("--report-images", type=int, default=5000)
    options = parser.parse_args()
    data = sample(options.images)
    vectorised(data, 20)
    started = time.perf_counter()
    bootstrap, replicates = vectorised(data, options.resamples)
    ours = time.perf_counter() - started
    started = time.perf_counter()
    loop = scikit_learn_loop(data, bootstrap, options.loop_resamples)
    theirs = (time.perf_counter() - started) / options.loop_resamples * options.resamples
    np.testing.assert_allclose(loop, replicates[: options.loop_resamples], atol=1e-9)
    areas = areas_only_ratio(data, bootstrap, options.loop_resamples)
    evaluation = synthetic_evaluation(options.report_images)
    started = time.perf_counter()
    page = render_html(build_report(evaluation))
    report = time.perf_counter() - started
    result = {
        "images": options.images,
        "resamples": options.resamples,
        "bootstrap_seconds": round(ours, 2),
        "scikit_learn_loop_seconds": round(theirs, 1),
        "ratio": round(theirs / ours, 1),
        "ratio_areas_only": round(areas, 1),
        "report_images": options.report_images,
        "report_seconds": round(report, 1),
        "report_html_kilobytes": len(page) // 1000,
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
