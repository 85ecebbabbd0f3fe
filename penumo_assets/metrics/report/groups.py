"""The parts of a report that look at groups of images: subgroups, cohorts, ground-truth masks, worst errors."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from penumo_assets.metrics import classification
from penumo_assets.metrics.auc import Part, mean_auc
from penumo_assets.metrics.jackknife import PatientJackknife
from penumo_assets.metrics.performance import (
    DecisionRule,
    Scored,
    area_estimates,
    class_parts,
    decision_estimates,
    expected_calibration_error,
    ranking_scores,
)
from penumo_assets.metrics.proportions import proportion
from penumo_assets.metrics.records import Estimate, Settings
from penumo_assets.metrics.report.context import DiceRow
from penumo_assets.metrics.report.inputs import Evaluation, Explained
from penumo_assets.metrics.report.measured import CohortOverlaps, Explanation, Failure, InBoxes, Segmentation, Subgroup
from penumo_assets.metrics.subgroups import group_order, subgroup_labels

AREAS = ("roc_auc", "pr_auc")
MIN_PER_CLASS = 5  # patients of each class; with fewer a subgroup's AUC says too little to print
SUBGROUP_ERROR = 0.05  # reports in which a good model may fall below a subgroup floor by chance


def subgroup_rows(evaluation: Evaluation, rule: DecisionRule) -> tuple[Subgroup, ...]:
    """Performance on test by cohort, sex, age band and view."""
    index, test, settings = evaluation.index["test"], evaluation.scored["test"], evaluation.settings
    groups = [
        (attribute, name, test.subset((names == name).to_numpy()))
        for attribute, names in subgroup_labels(index).items()
        for name in sorted(names.unique(), key=group_order)
    ]
    judged = sum(_few(part) is None for _, _, part in groups)
    # Two-sided level whose upper end alone, over all groups together, is wrong in one report of twenty.
    level = 1 - 2 * SUBGROUP_ERROR / max(judged, 1)
    return tuple(_group(attribute, name, part, rule, settings, level) for attribute, name, part in groups)


def _few(part: Scored) -> str | None:
    """Why the group's ranking says too little to print."""
    patients = [len(np.unique(part.patients[part.labels == i])) for i in range(len(part.classes))]
    few = part.classes[int(np.argmin(patients))]
    return f"fewer than {MIN_PER_CLASS} patients of class {few}" if min(patients) < MIN_PER_CLASS else None


def _group(attribute: str, name: str, part: Scored, rule: DecisionRule, settings: Settings, level: float) -> Subgroup:
    found = decision_estimates(part, rule, settings.confidence)
    metrics = {name: found[name] for name in ("recall", "specificity", "balanced_accuracy")}
    metrics["ece"] = expected_calibration_error(part, rule)
    why = _few(part)
    metrics |= dict.fromkeys(AREAS, Estimate.undefined(why)) if why else area_estimates(part, settings.confidence)
    return Subgroup(
        attribute=attribute,
        group=name,
        images=len(part.labels),
        patients=len(np.unique(part.patients)),
        counts={name: int((part.labels == i).sum()) for i, name in enumerate(part.classes)},
        metrics=metrics,
        roc_auc_upper=None if why else mean_auc(class_parts(part), level).high,
    )


def within_cohorts_auc(evaluation: Evaluation) -> Estimate:
    """AUC among pairs of the same cohort only: what is left when cohorts cannot be told apart.

    The mean of the cohorts' AUCs weighted by their images with the finding (covariate-adjusted AUC, Janes & Pepe
    2009, doi:10.1093/biomet/asp002). If it is far below the pooled AUC, the model gains from recognising where an
    image comes from. Of several classes, the mean of each against the rest.
    """
    test, cohorts = evaluation.scored["test"], evaluation.index["test"]["cohort"].to_numpy(str)
    insides = [test.subset(cohorts == cohort) for cohort in np.unique(cohorts)]
    targets = range(len(test.classes)) if test.positive is None else [test.positive]
    parts: list[Part] = []
    for target in targets:
        both = [inside.of_class(target) for inside in insides if len(np.unique(inside.labels == target)) == 2]
        if not both:
            return Estimate.undefined(f"no cohort holds images with and without {test.classes[target]}")
        cases = sum(int(inside.present.sum()) for inside in both)
        parts += [
            Part(inside.present == 1, ranking_scores(inside), inside.patients, float(inside.present.sum()) / cases)
            for inside in both
        ]
    return mean_auc(parts, evaluation.settings.confidence)


def segmentation_section(rows: Sequence[DiceRow], settings: Settings) -> Segmentation:
    """Mean Dice and IoU over images with ground-truth masks, all and by cohort."""
    if not rows:
        missing = Estimate.undefined("no image has a ground-truth lung mask")
        return Segmentation(images=0, dice=missing, iou=missing, cohorts=())
    table = pd.DataFrame([row.model_dump() for row in rows])

    def means(part: pd.DataFrame) -> dict[str, Estimate]:
        jackknife = PatientJackknife(part["patient_id"].to_numpy(str), settings.confidence)
        why = "no image with a ground-truth mask"
        return {name: jackknife.mean(part[name].to_numpy(np.float64), why) for name in ("dice", "iou")}

    cohorts = tuple(
        CohortOverlaps(cohort=str(name), images=len(part), **means(part))
        for name, part in table.groupby("cohort", sort=True)
    )
    return Segmentation(images=len(table), cohorts=cohorts, **means(table))


def explanation_section(found: Explained | None, settings: Settings) -> Explanation | None:
    """How much of Grad-CAM lies within the lungs, and within readers' boxes, over images with a map that is not empty
    and, for boxes, with one."""
    if found is None:
        return None

    def means(region: Mapping[str, np.ndarray]) -> dict[str, Any]:
        known = np.isfinite(region["energy"])
        patients, why = found.patients[known], "no map is other than empty"
        return {
            "images": int(known.sum()),
            "energy": PatientJackknife(patients, settings.confidence).mean(region["energy"][known], why),
            "pointing": proportion(region["pointing"][known] == 1, patients, why, settings.confidence),
            "even": float(region["even"][known].mean()) if known.any() else None,
        }

    lungs, boxes = means(found.lungs), means(found.boxes)
    return Explanation(
        looked_at=len(found.patients),
        grid=found.grid,
        lungs=lungs.pop("even"),
        boxes=InBoxes(**boxes) if boxes["images"] else None,
        **lungs,
    )


def failure_rows(evaluation: Evaluation, rule: DecisionRule, limit: int = 12) -> tuple[Failure, ...]:
    """The most confident wrong decisions on test, kinds of error taken in turn.

    ``row`` is the position in the test index; ``confidence`` the probability of the wrong class.
    """
    test, index = evaluation.scored["test"], evaluation.index["test"]
    if not len(test.labels):
        return ()
    decision = classification.decide(test.probabilities, rule.threshold, test.positive)
    wrong = np.flatnonzero(decision != test.labels)
    confidence = test.probabilities[wrong, decision[wrong]]
    table = pd.DataFrame(
        {"row": wrong, "truth": test.labels[wrong], "called": decision[wrong], "confidence": confidence}
    )
    table = table.sort_values(["confidence", "row"], ascending=[False, True])
    table["turn"] = table.groupby("truth").cumcount()
    table = table.sort_values(["turn", "confidence"], ascending=[True, False]).head(limit)
    return tuple(
        Failure(
            row=int(item.row),
            image_id=str(index["image_id"].iloc[int(item.row)]),
            cohort=str(index["cohort"].iloc[int(item.row)]),
            truth=test.classes[int(item.truth)],
            called=test.classes[int(item.called)],
            confidence=float(item.confidence),
        )
        for item in table.itertuples()
    )
