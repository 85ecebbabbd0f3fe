"""The parts of a report that look at groups of images: subgroups, shortcut baselines, overlap, worst errors."""

from typing import Any

import numpy as np
import pandas as pd

from penumo_assets.metrics import classification
from penumo_assets.metrics.delong import compare_aucs
from penumo_assets.metrics.estimates import Estimate
from penumo_assets.metrics.intervals import PatientBootstrap, widen_degenerate_auc
from penumo_assets.metrics.performance import (
    DecisionRule,
    Scored,
    Settings,
    area_estimates,
    calibration_estimates,
    decision_estimates,
    ranking_scores,
)
from penumo_assets.metrics.ranking import Ranking
from penumo_assets.metrics.report.inputs import Evaluation
from penumo_assets.metrics.report.results import comparison_dict, estimates
from penumo_assets.metrics.segmentation import mean_overlap
from penumo_assets.metrics.shortcuts import Shortcut, shortcut_features, shortcut_scores, shortcuts
from penumo_assets.metrics.subgroups import UNKNOWN, subgroup_labels

MIN_PER_CLASS = 5  # patients of each class below which a subgroup's AUC says too little to print
ALL_COHORTS = "all cohorts"


def subgroup_rows(evaluation: Evaluation, rule: DecisionRule) -> list[dict[str, Any]]:
    """Performance on test by cohort, sex, age band and view."""
    index, test = evaluation.index["test"], evaluation.scored["test"]
    rows = []
    for attribute, names in subgroup_labels(index).items():
        for name in sorted(names.unique(), key=lambda value: (value == UNKNOWN, _numeric_first(value))):
            part = test.subset((names == name).to_numpy())
            rows.append({"attribute": attribute, "group": name, **_group(part, rule, evaluation.settings)})
    return rows


def _group(part: Scored, rule: DecisionRule, settings: Settings) -> dict[str, Any]:
    bootstrap = PatientBootstrap(part.patients, settings.resamples, settings.seed, settings.confidence)
    found = decision_estimates(part, rule, bootstrap)
    metrics = {name: found[name] for name in ("recall", "specificity", "balanced_accuracy")}
    metrics |= area_estimates(part, bootstrap)
    metrics["ece"] = calibration_estimates(part, rule, bootstrap)["ece"]
    patients = [len(np.unique(part.patients[part.labels == i])) for i in range(len(part.classes))]
    if min(patients) < MIN_PER_CLASS and metrics["roc_auc"].value is not None:
        few = part.classes[int(np.argmin(patients))]
        why = f"fewer than {MIN_PER_CLASS} patients of class {few}"
        metrics["roc_auc"] = metrics["pr_auc"] = Estimate.undefined(why)
    return {
        "images": len(part.labels),
        "patients": bootstrap.patients,
        "counts": {name: int((part.labels == i).sum()) for i, name in enumerate(part.classes)},
        "metrics": estimates(metrics),
    }


def within_cohorts_auc(evaluation: Evaluation) -> dict[str, Any]:
    """AUC among pairs of the same cohort only: what is left when cohorts cannot be told apart.

    The mean of the cohorts' AUCs weighted by their pairs of a positive and a negative image
    (covariate-adjusted AUC, Janes & Pepe 2009, doi:10.1093/biomet/asp002). If it is far below the
    pooled AUC, the model gains from recognising where an image comes from.
    """
    test, settings = evaluation.scored["test"], evaluation.settings
    if test.positive is None:
        return Estimate.undefined("defined for two classes with a positive one").as_dict()
    bootstrap = PatientBootstrap(test.patients, settings.resamples, settings.seed, settings.confidence)
    cohorts = evaluation.index["test"]["cohort"].to_numpy(str)
    points, replicates, pairs = [], [], []
    for cohort in np.unique(cohorts):
        rows = np.flatnonzero(cohorts == cohort)
        present = test.present[rows]
        if len(np.unique(present)) < 2:
            continue
        ranking = Ranking.of(present, ranking_scores(test)[rows])
        points.append(ranking.areas(np.ones(len(rows), np.int64))[0])
        replicates.append(bootstrap.areas(ranking, rows)[0])
        pairs.append(float(present.sum() * (1 - present).sum()))
    if not points:
        return Estimate.undefined("no cohort holds both classes").as_dict()
    weights = np.array(pairs) / np.sum(pairs)
    value = float(weights @ points)
    return bootstrap.estimate(value, weights @ np.array(replicates)).as_dict()


def shortcut_rows(evaluation: Evaluation) -> dict[str, Any]:
    """Each shortcut beside the model, over all cohorts and within each, on the same test images."""
    if evaluation.positive is None:
        return {"rows": [], "reason": "shortcut baselines are defined for two classes with a positive one"}
    index = pd.concat([frame.assign(split=split) for split, frame in evaluation.index.items()], ignore_index=True)
    outcome = (index["target"] == evaluation.positive).to_numpy(np.int64)
    cohorts = sorted(index["cohort"].unique())
    features = shortcut_features(index)
    rows = []
    for cohort in [ALL_COHORTS, *cohorts] if len(cohorts) > 1 else cohorts:
        inside = np.ones(len(index), bool) if cohort == ALL_COHORTS else (index["cohort"] == cohort).to_numpy()
        tried = list(shortcuts())
        if cohort == ALL_COHORTS:
            dummies = pd.get_dummies(index["cohort"], prefix="cohort", dtype=np.float64)
            tried.append(Shortcut("cohort", "Which cohort", tuple(dummies.columns)))
            features = features.join(dummies.set_axis(dummies.columns, axis=1))
        for shortcut in tried:
            row = _shortcut(evaluation, index["split"], features[list(shortcut.columns)], outcome, inside)
            rows.append({"cohort": cohort, "shortcut": shortcut.name, "title": shortcut.title, **row})
    return {"rows": rows, "reason": None}


def _shortcut(
    evaluation: Evaluation, split: pd.Series, features: pd.DataFrame, outcome: np.ndarray, inside: np.ndarray
) -> dict[str, Any]:
    fit, on_test = (split != "test").to_numpy() & inside, (split == "test").to_numpy()
    undefined = {"images": 0, "comparison": None, "verdict": None}
    try:
        scores = shortcut_scores(features, outcome, fit, on_test & inside)
    except ValueError as error:
        why = Estimate.undefined(str(error)).as_dict()
        return {**undefined, "shortcut_auc": why, "model_auc": why}
    test = evaluation.scored["test"].subset(inside[on_test])
    known = np.isfinite(scores)
    test, scores = test.subset(known), scores[known]
    bootstrap = PatientBootstrap(test.patients, evaluation.settings.resamples, evaluation.settings.seed)
    comparison = compare_aucs(test.present, ranking_scores(test), scores, test.patients) if len(scores) else None
    return {
        "images": len(scores),
        "shortcut_auc": _auc(test, scores, bootstrap).as_dict(),
        "model_auc": _auc(test, ranking_scores(test), bootstrap).as_dict(),
        "comparison": comparison_dict(comparison),
        "verdict": _verdict(comparison),
    }


def _auc(test: Scored, scores: np.ndarray, bootstrap: PatientBootstrap) -> Estimate:
    if not len(scores):
        return Estimate.undefined("no test image with this feature")
    ranking = Ranking.of(test.present, scores)
    value = ranking.areas(np.ones(len(scores), np.int64))[0]
    found = bootstrap.estimate(value, bootstrap.areas(ranking)[0], "the test images hold one class only")
    groups = [len(np.unique(test.patients[test.present == side])) for side in (1, 0)]
    return widen_degenerate_auc(found, *groups)


def _verdict(comparison: Any) -> str | None:
    if comparison is None:
        return None
    if comparison.low > 0:
        return "model better"
    return "shortcut better" if comparison.high < 0 else "not distinguishable"


def segmentation_section(rows: list[dict[str, Any]] | None, settings: Settings) -> dict[str, Any]:
    """Mean Dice and IoU over images with ground-truth masks, all and by cohort."""
    if not rows:
        missing = Estimate.undefined("no image has a ground-truth lung mask").as_dict()
        return {"images": 0, "dice": missing, "iou": missing, "cohorts": []}
    table = pd.DataFrame(rows)

    def means(part: pd.DataFrame) -> dict[str, Any]:
        patients = part["patient_id"].to_numpy(str)
        bootstrap = PatientBootstrap(patients, settings.resamples, settings.seed, settings.confidence)
        found = {name: mean_overlap(part[name].to_numpy(np.float64), bootstrap).as_dict() for name in ("dice", "iou")}
        return {"images": len(part), **found}

    cohorts = [{"cohort": str(name), **means(part)} for name, part in table.groupby("cohort", sort=True)]
    return {**means(table), "cohorts": cohorts}


def failure_rows(evaluation: Evaluation, rule: DecisionRule, limit: int = 12) -> list[dict[str, Any]]:
    """The most confident wrong decisions on test, kinds of error taken in turn.

    ``row`` is the position in the test index; ``confidence`` the probability of the wrong class.
    """
    test, index = evaluation.scored["test"], evaluation.index["test"]
    if not len(test.labels):
        return []
    decision = classification.decide(test.probabilities, rule.threshold, test.positive)
    wrong = np.flatnonzero(decision != test.labels)
    confidence = test.probabilities[wrong, decision[wrong]]
    table = pd.DataFrame({"row": wrong, "truth": test.labels[wrong], "called": decision[wrong], "confidence": confidence})
    table = table.sort_values(["confidence", "row"], ascending=[False, True])
    table["turn"] = table.groupby("truth").cumcount()
    table = table.sort_values(["turn", "confidence"], ascending=[True, False]).head(limit)
    return [
        {
            "row": int(item.row),
            "image_id": str(index["image_id"].iloc[int(item.row)]),
            "cohort": str(index["cohort"].iloc[int(item.row)]),
            "truth": test.classes[int(item.truth)],
            "called": test.classes[int(item.called)],
            "confidence": float(item.confidence),
        }
        for item in table.itertuples()
    ]


def _numeric_first(value: str) -> tuple[int, str]:
    digits = value.split("-")[0].rstrip("+")
    return (int(digits) if digits.isdigit() else -1, value)
