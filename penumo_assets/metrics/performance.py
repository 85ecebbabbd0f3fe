"""All metrics of one set of scored images, each with its interval; whole sets, subgroups and shortcuts alike."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from penumo_assets.metrics import calibration, classification
from penumo_assets.metrics.intervals import PatientBootstrap, widen_degenerate_auc, widen_degenerate_proportion
from penumo_assets.metrics.ranking import Ranking
from penumo_assets.metrics.records import Estimate, Settings
from penumo_assets.metrics.scores import check_labels_and_scores

TOP_K = (2, 3, 5)
PROPORTIONS = ("accuracy", "recall", "specificity", "precision", "negative_predictive_value")


@dataclass(frozen=True)
class Scored:
    """Labelled images with their logits.

    labels : (n,) int, positions in ``classes``.
    logits : (n, C) float64, finite.
    patients : (n,) patient identifiers.
    classes : C names in the order of the logits.
    positive : position of the positive class of two, or None.
    """

    labels: np.ndarray
    logits: np.ndarray
    patients: np.ndarray
    classes: Sequence[str]
    positive: int | None

    def __post_init__(self) -> None:
        check_labels_and_scores(self.labels, self.logits)

    @cached_property
    def probabilities(self) -> np.ndarray:
        """(n, C) softmax of the logits, uncalibrated."""
        return calibration.softmax(self.logits)

    @property
    def present(self) -> np.ndarray:
        """(n,) 1 where the label is the positive class."""
        return (self.labels == self.positive).astype(np.int64)

    def subset(self, rows: np.ndarray) -> "Scored":
        return Scored(self.labels[rows], self.logits[rows], self.patients[rows], self.classes, self.positive)


@dataclass(frozen=True)
class DecisionRule:
    """How probabilities become decisions; ``threshold`` None means the most probable class.

    ``temperature`` divides the logits for the calibrated probabilities. The threshold is on the
    uncalibrated probability; ``calibrated_threshold`` makes the same decisions on the calibrated one.
    """

    threshold: float | None
    temperature: float | None
    source: str

    @property
    def calibrated_threshold(self) -> float | None:
        if self.threshold is None or self.temperature is None or not 0 < self.threshold < 1:
            return self.threshold
        log_odds = np.log(self.threshold / (1 - self.threshold))
        return float(1 / (1 + np.exp(-log_odds / self.temperature)))


def performance(scored: Scored, rule: DecisionRule, settings: Settings) -> dict[str, Estimate]:
    """Every metric of these images by name.

    Threshold metrics follow ``classification.decision_metrics``; then ``roc_auc`` and ``pr_auc``
    (means over the classes, one against the rest, unless there is a positive class), ``ece`` and
    ``brier`` of the calibrated probabilities and ``ece_uncalibrated`` and ``brier_uncalibrated``
    of the others, and ``top_k`` for more than two classes. Undefined ones say why.
    """
    bootstrap = PatientBootstrap.of(scored.patients, settings)
    found = decision_estimates(scored, rule, bootstrap)
    found |= area_estimates(scored, bootstrap)
    found |= calibration_estimates(scored, rule, bootstrap)
    return found


def decision_estimates(scored: Scored, rule: DecisionRule, bootstrap: PatientBootstrap) -> dict[str, Estimate]:
    """Metrics of the decisions: accuracy, sensitivity and the like, and top-k."""
    count = len(scored.classes)
    decision = classification.decide(scored.probabilities, rule.threshold, scored.positive)
    matrix = classification.confusion_matrix(scored.labels, decision, count)
    cells = np.eye(count * count)[scored.labels * count + decision]
    matrices = bootstrap.sums(cells).reshape(-1, count, count)
    found = {}
    for name, metric in classification.decision_metrics(count, scored.positive).items():
        why = classification.why_undefined(name, matrix, scored.classes)
        estimate = bootstrap.estimate(float(metric(matrix)), metric(matrices), why)
        if name in PROPORTIONS:
            rows = _denominator(name, scored, decision)
            estimate = widen_degenerate_proportion(
                estimate, len(np.unique(scored.patients[rows])), bootstrap.confidence
            )
        found[name] = estimate
    for k in (k for k in TOP_K if k < count):
        hits = classification.top_k_hits(scored.labels, scored.probabilities, k)
        found[f"top_{k}_accuracy"] = _mean(hits.astype(np.float64), bootstrap)
    return found


def area_estimates(scored: Scored, bootstrap: PatientBootstrap) -> dict[str, Estimate]:
    """``roc_auc`` and ``pr_auc``; means over the classes, one against the rest, without a positive class."""
    targets = range(len(scored.classes)) if scored.positive is None else [scored.positive]
    absent = [name for i, name in enumerate(scored.classes) if not (scored.labels == i).any()]
    if absent:
        why = "no labelled images" if not len(scored.labels) else f"no image of class {', '.join(absent)}"
        return {"roc_auc": Estimate.undefined(why), "pr_auc": Estimate.undefined(why)}
    points, replicates = [], []
    for target in targets:
        ranking = Ranking.of((scored.labels == target).astype(np.int64), _score(scored, target))
        points.append(ranking.areas(np.ones(len(scored.labels), np.int64)))
        replicates.append(bootstrap.areas(ranking))
    point, replicate = np.mean(points, axis=0), np.mean(replicates, axis=0)
    roc = bootstrap.estimate(point[0], replicate[0])
    if scored.positive is not None:
        with_finding = len(np.unique(scored.patients[scored.present == 1]))
        without = len(np.unique(scored.patients[scored.present == 0]))
        roc = widen_degenerate_auc(roc, with_finding, without, bootstrap.confidence)
    return {"roc_auc": roc, "pr_auc": bootstrap.estimate(point[1], replicate[1])}


def calibration_estimates(scored: Scored, rule: DecisionRule, bootstrap: PatientBootstrap) -> dict[str, Estimate]:
    """ECE and Brier score, of the calibrated and of the uncalibrated probabilities."""
    found: dict[str, Estimate] = {}
    for suffix, temperature in (("", rule.temperature), ("_uncalibrated", 1.0)):
        ece, brier = _calibration(scored, temperature, bootstrap)
        found |= {f"ece{suffix}": ece, f"brier{suffix}": brier}
    return found


def expected_calibration_error(scored: Scored, rule: DecisionRule, bootstrap: PatientBootstrap) -> Estimate:
    """ECE of the calibrated probabilities alone."""
    return _calibration(scored, rule.temperature, bootstrap)[0]


def _calibration(scored: Scored, temperature: float | None, bootstrap: PatientBootstrap) -> tuple[Estimate, Estimate]:
    """ECE and Brier score of the probabilities at ``temperature``."""
    if not len(scored.labels):
        return (Estimate.undefined("no labelled images"),) * 2
    if temperature is None:
        return (Estimate.undefined("no temperature: the validation images do not hold two classes"),) * 2
    probabilities = calibration.softmax(scored.logits, temperature)
    outcome, predicted = calibration.calibrated_event(scored.labels, probabilities, scored.positive)
    sums = calibration.bin_sums(outcome, predicted)
    value = float(calibration.ece_from_sums(sums.sum(0)))
    brier = calibration.brier_per_image(scored.labels, probabilities, scored.positive)
    return bootstrap.estimate(value, calibration.ece_from_sums(bootstrap.sums(sums))), _mean(brier, bootstrap)


def per_class(scored: Scored, rule: DecisionRule, settings: Settings) -> dict[str, dict[str, Estimate]]:
    """Precision, recall, specificity, F1, ROC-AUC and PR-AUC of each class against the rest."""
    bootstrap = PatientBootstrap.of(scored.patients, settings)
    count = len(scored.classes)
    decision = classification.decide(scored.probabilities, rule.threshold, scored.positive)
    matrix = classification.confusion_matrix(scored.labels, decision, count)
    matrices = bootstrap.sums(np.eye(count * count)[scored.labels * count + decision]).reshape(-1, count, count)
    rates: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "precision": classification.precision_per_class,
        "recall": classification.recall_per_class,
        "specificity": classification.specificity_per_class,
        "f1": classification.f1_per_class,
    }
    found: dict[str, dict[str, Estimate]] = {}
    for i, name in enumerate(scored.classes):
        found[name] = {}
        for metric, function in rates.items():
            why = f"no image is {name}" if matrix[i].sum() == 0 else f"no image was called {name}, or all are"
            found[name][metric] = bootstrap.estimate(float(function(matrix)[i]), function(matrices)[:, i], why)
        truth = (scored.labels == i).astype(np.int64)
        ranking = Ranking.of(truth, _score(scored, i))
        points = ranking.areas(np.ones(len(truth), np.int64))
        for metric, point, replicate in zip(("roc_auc", "pr_auc"), points, bootstrap.areas(ranking), strict=True):
            found[name][metric] = bootstrap.estimate(point, replicate, f"all images or none are {name}")
    return found


def ranking_scores(scored: Scored) -> np.ndarray:
    """(n,) score of the positive class of two: the log-odds, which never saturate as probabilities do."""
    if scored.positive is None:
        raise ValueError("without a positive class there is no single ranking")
    return _score(scored, scored.positive)


def _score(scored: Scored, target: int) -> np.ndarray:
    if len(scored.classes) == 2:
        return scored.logits[:, target] - scored.logits[:, 1 - target]
    return scored.probabilities[:, target]


def _mean(values: np.ndarray, bootstrap: PatientBootstrap) -> Estimate:
    if not len(values):
        return Estimate.undefined("no labelled images")
    sums = bootstrap.sums(np.column_stack([values, np.ones(len(values))]))
    return bootstrap.estimate(float(values.mean()), sums[:, 0] / sums[:, 1])


def _denominator(name: str, scored: Scored, decision: np.ndarray) -> np.ndarray:
    """The rows a proportion is a share of (for several classes: all)."""
    everything = np.ones(len(scored.labels), dtype=bool)
    if scored.positive is None:
        return everything
    return {
        "recall": scored.labels == scored.positive,
        "specificity": scored.labels != scored.positive,
        "precision": decision == scored.positive,
        "negative_predictive_value": decision != scored.positive,
    }.get(name, everything)
