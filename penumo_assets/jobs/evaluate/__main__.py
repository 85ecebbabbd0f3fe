"""Processing job: a model and a packed training set -> report.json, report.html, predictions.parquet.

Inputs ``model/model.tar.gz`` and ``dataset/`` (the layout of ``jobs/shards.py``); optionally
``context/context.json`` (what only the orchestrator knows), ``reference/predictions.parquet``
(another model's, for a paired comparison), and ``npz/`` with ``index/items.jsonl`` (jobs/pack's): the tensors of an
external cohort, which take the place of the test split. Output ``report/``. Everything that is chosen (threshold,
calibration) is chosen on validation; test is only measured.
"""

import argparse
import json
import logging
import tempfile
import time
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from penumo_assets.jobs import contract
from penumo_assets.jobs.contract import JobError
from penumo_assets.jobs.evaluate.explain import draw_failures, explain
from penumo_assets.jobs.evaluate.external import read_external
from penumo_assets.jobs.evaluate.inputs import (
    PREDICTIONS_NAME,
    check_agreement,
    load_model,
    read_context,
    read_reference,
)
from penumo_assets.jobs.infer.predictor import class_columns, decisions, score_images
from penumo_assets.jobs.shards import Split, TrainingSet
from penumo_assets.metrics.calibration import softmax
from penumo_assets.metrics.performance import DecisionRule
from penumo_assets.metrics.records import Settings
from penumo_assets.metrics.report.assemble import build_report, headline
from penumo_assets.metrics.report.content import SCHEMA, InvalidReport, Report, read_report
from penumo_assets.metrics.report.html import render_html
from penumo_assets.metrics.report.inputs import Evaluation
from penumo_assets.metrics.scores import ScoreError
from penumo_assets.models.device import compute_device

SCORED_SPLITS = ("validation", "test")
REPORT_NAME = "report.json"
PAGE_NAME = "report.html"

logger = logging.getLogger(__name__)


def main(argv: list[str] | None = None) -> None:
    """The program; see the module's docstring."""
    options = _options(argv)
    if options.validate is not None:
        print(validate_file(options.validate))
        return
    if options.threads:
        torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as scratch:
        model, metadata = load_model(contract.processing_input("model"), Path(scratch))
        evaluate(model, metadata, options)


def evaluate(model: torch.nn.Module, metadata: dict[str, Any], options: argparse.Namespace) -> None:
    """Score, measure and write; ``result.json`` last.

    Raises
    ------
    JobError
        If model and data disagree, an input is not valid, or the model's output cannot be evaluated.
    """
    data = TrainingSet(contract.processing_input("dataset"))
    check_agreement(metadata, data)
    splits, npz = dict(data.splits), contract.processing_input("npz")
    if external := read_external(contract.processing_input("index"), npz, data.dataset):
        splits["test"] = external
    context = read_context(contract.processing_input("context"))
    reference = read_reference(contract.processing_input("reference"))
    started = time.perf_counter()
    logits = {name: score(model, metadata, splits[name], options.batch_size) for name in SCORED_SPLITS}
    scored = time.perf_counter()
    evaluation = Evaluation(
        index={name: split.index for name, split in splits.items()},
        logits=logits,
        classes=data.dataset.classes,
        positive=_positive(data),
        model=metadata,
        dataset=data.dataset.model_dump(by_alias=True),
        context=context,
        settings=Settings(resamples=options.bootstrap, seed=options.seed),
        reference=reference,
        coverage=options.coverage,
        explained=explain(model, metadata, splits["test"], _positive(data), options.batch_size),
    )
    try:
        report = build_report(evaluation)
    except (ScoreError, ValueError) as error:
        raise JobError(str(error)) from error
    gallery = draw_failures(model, metadata, splits["test"], report.failures)
    page = render_html(report, evaluation.context, gallery)
    values = headline(report) | {
        "architecture": metadata["architecture"],
        "seconds_scoring": round(scored - started, 3),
        "seconds_reporting": round(time.perf_counter() - scored, 3),
    }
    write_outputs(contract.processing_output("report"), report, page, predictions(evaluation, report), values)


def score(model: torch.nn.Module, metadata: dict[str, Any], split: Split, batch_size: int) -> np.ndarray:
    """Logits (n, classes) float64 of a split, in the order of its index.

    Raises
    ------
    JobError
        If the model gives another number of logits than it has classes, or NaN.
    """
    device = compute_device()
    model = model.to(device)
    logits = np.empty((len(split), len(metadata["classes"])), np.float64)
    for start in range(0, len(split), batch_size):
        rows = np.arange(start, min(start + batch_size, len(split)))
        logits[rows] = score_images(model, metadata, torch.from_numpy(split.gather(rows)).to(device))
    bad = int((~np.isfinite(logits)).any(axis=1).sum())
    if bad:
        raise JobError(f"{split.name}: {bad} of {len(split)} scores are NaN or infinite; the model cannot be evaluated")
    return logits


def predictions(evaluation: Evaluation, report: Report) -> pd.DataFrame:
    """One row per scored image: ids, label, probabilities (plain and calibrated), decision."""
    stored = report.decision_rule
    rule = DecisionRule(stored.threshold, stored.temperature, stored.source, stored.offsets, stored.undecided_below)
    frames = []
    for split, scored in evaluation.scored.items():
        frame = evaluation.index[split][["image_id", "patient_id", "cohort", "label", "target"]].copy()
        frame.insert(0, "split", split)
        calibrated = softmax(scored.logits, rule.calibration) if rule.calibration else None
        frame = frame.assign(**class_columns(evaluation.classes, scored.probabilities, calibrated))
        frame["decision"] = decisions(scored.probabilities, rule, evaluation.classes, scored.positive)
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def write_outputs(folder: Path, report: Report, page: str, rows: pd.DataFrame, values: dict[str, Any]) -> None:
    """The three files, then result.json."""
    buffer = BytesIO()
    rows.to_parquet(buffer, index=False)
    contract.write_atomic(folder / PREDICTIONS_NAME, buffer.getvalue())
    contract.write_atomic(folder / REPORT_NAME, json.dumps(report.as_json(), indent=1, allow_nan=False).encode("utf-8"))
    contract.write_atomic(folder / PAGE_NAME, page.encode("utf-8"))
    contract.write_result(folder, "evaluate", values)
    auc = values["test_roc_auc"]
    logger.info("report written: test ROC-AUC %s", "undefined" if auc is None else f"{auc:.4f}")


def validate_file(path: Path) -> str:
    """A sentence that says the file follows the schema.

    Raises
    ------
    JobError
        If it cannot be read or does not.
    """
    try:
        text = path.read_text(encoding="utf-8")
        json.loads(text)
    except (OSError, ValueError) as error:
        raise JobError(f"{path.name} cannot be read: {error}") from error
    try:
        read_report(text)
    except InvalidReport as error:
        raise JobError(str(error)) from error
    return f"{path.name} follows the schema {SCHEMA}"


def _positive(data: TrainingSet) -> int | None:
    name = data.dataset.positive_class
    return None if name is None else data.dataset.classes.index(name)


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m penumo_assets.jobs.evaluate", description=__doc__)
    parser.add_argument(
        "--bootstrap", type=int, default=500, help="resamples of patients behind the band of the ROC curve"
    )
    parser.add_argument("--batch-size", type=int, default=64, help="images per forward pass")
    parser.add_argument("--seed", type=int, default=0, help="seed of the bootstrap")
    parser.add_argument("--coverage", type=float, default=1.0, help="share of images that get an answer; 1: all")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads of torch; 0 leaves its default")
    parser.add_argument("--validate", type=Path, metavar="REPORT", help="only check a report.json against the schema")
    options = parser.parse_args(argv)
    if options.bootstrap < 1 or options.batch_size < 1:
        parser.error("--bootstrap and --batch-size must be at least 1")
    if not 0 < options.coverage <= 1:
        parser.error("--coverage must be above 0 and at most 1")
    return options


if __name__ == "__main__":
    contract.run_program(main)
