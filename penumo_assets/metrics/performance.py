"""All metrics of one set of scored images, each with its interval; whole sets, subgroups and shortcuts alike."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy import special

from penumo_assets.metrics import calibration, classification
from penumo_assets.metrics.auc import MIN_PATIENTS, Part, mean_auc
from penumo_assets.metrics.calibration import AS_IT_IS, Calibration
from penumo_assets.metrics.jackknife import SHARE, PatientJackknife
from penumo_assets.metrics.proportions import mean_proportion, proportion
from penumo_assets.metrics.ranking import Ranking
from penumo_assets.metrics.records import Estimate, Settings
from penumo_assets.metrics.scores import check_labels_and_scores
from penumo_assets.metrics.selective import confidence

TOP_K = (2, 3, 5)
ENDS = {"matthews_correlation": (-1.0, 1.0)}  # of metrics that are no shares
RATES = ("recall", "specificity", "precision", "negative_predictive_value", "f1")


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

    def of_class(self, target: int) -> "Scored":
        """The same images with another class as the one that is looked for."""
        return replace(self, positive=target)

    def against_rest(self, target: int) -> "Scored":
        """The same images as two classes, without ``target`` and with it; probabilities stay what they are."""
        others = special.logsumexp(np.delete(self.logits, target, axis=1), axis=1)
        logits = np.stack([others, self.logits[:, target]], axis=1)
        name = self.classes[target]
        return Scored((self.labels == target).astype(np.int64), logits, self.patients, [f"not {name}", name], 1)

    def subset(self, rows: np.ndarray) -> "Scored":
        return Scored(self.labels[rows], self.logits[rows], self.patients[rows], self.classes, self.positive)


@dataclass(frozen=True)
class DecisionRule:
    """How probabilities become decisions; ``threshold`` None means the most probable class.

    ``temperature`` and ``offsets`` calibrate the probabilities (see ``calibration.Calibration``); without a temperature
    they cannot be. The threshold is on the uncalibrated probability of the positive class, the last of two;
    ``calibrated_threshold`` makes the same decisions on the calibrated one. An image whose ``selective.confidence`` is
    below ``undecided_below`` is not decided.
    """

    threshold: float | None
    temperature: float | None
    source: str
    offsets: tuple[float, ...] = ()
    undecided_below: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "offsets", tuple(self.offsets))

    @property
    def calibration(self) -> Calibration | None:
        return None if not self.temperature else Calibration(self.temperature, self.offsets)

    def decides(self, probabilities: np.ndarray, positive: int | None) -> np.ndarray:
        """(n,) bool: which images get an answer."""
        if self.undecided_below is None:
            return np.ones(len(probabilities), dtype=bool)
        return confidence(probabilities, self.threshold, positive) >= self.undecided_below

    @property
    def calibrated_threshold(self) -> float | None:
        if self.threshold is None or self.calibration is None or not 0 < self.threshold < 1:
            return self.threshold
        log_odds = np.log([1 - self.threshold, self.threshold])[None]
        return float(calibration.softmax(log_odds, self.calibration)[0, 1])


def performance(scored: Scored, rule: DecisionRule, settings: Settings) -> dict[str, Estimate]:
    """Every metric of these images by name.

    Threshold metrics follow ``classification.decision_metrics``; then ``roc_auc`` and ``pr_auc``
    (means over the classes, one against the rest, unless there is a positive class), ``ece`` and
    ``brier`` of the calibrated probabilities and ``ece_uncalibrated`` and ``brier_uncalibrated``
    of the others, and ``top_k`` for more than two classes. Undefined ones say why.
    """
    found = decision_estimates(scored, rule, settings.confidence)
    found |= area_estimates(scored, settings.confidence)
    found |= calibration_estimates(scored, rule, settings.confidence)
    return found


def decision_estimates(scored: Scored, rule: DecisionRule, confidence: float) -> dict[str, Estimate]:
    """Metrics of the decisions: accuracy, sensitivity and the like, and top-k.

    Proportions have Wilson's interval, balanced accuracy and Youden's index Agresti and Caffo's, F1 Wilson's of the
    share of hits among what is positive or called so; the rest the jackknife's.
    """
    count = len(scored.classes)
    decision = classification.decide(scored.probabilities, rule.threshold, scored.positive)
    matrix = classification.confusion_matrix(scored.labels, decision, count)
    cells = np.eye(count * count)[scored.labels * count + decision]
    jackknife = PatientJackknife(scored.patients, confidence)
    found = {}
    for name, metric in classification.decision_metrics(count, scored.positive).items():
        why = classification.why_undefined(name, matrix, scored.classes)
        if not np.isfinite(metric(matrix)):
            found[name] = Estimate.undefined(why)
        elif interval := _interval(name, scored, decision, confidence):
            found[name] = interval
        else:
            found[name] = jackknife.of_sums(cells, _of_matrices(metric, count), why, ENDS.get(name, SHARE))
    for k in (k for k in TOP_K if k < count):
        hits = classification.top_k_hits(scored.labels, scored.probabilities, k)
        found[f"top_{k}_accuracy"] = proportion(hits, scored.patients, "no labelled images", confidence)
    return found


def _of_matrices(metric: classification.Metric, count: int) -> classification.Metric:
    return lambda sums: metric(sums.reshape(*sums.shape[:-1], count, count))


def _interval(name: str, scored: Scored, decision: np.ndarray, confidence: float) -> Estimate | None:
    """The metric's own interval; None if only the jackknife has one."""
    hits, positive = decision == scored.labels, scored.positive
    if name in ("balanced_accuracy", "youden_index"):
        sides = [scored.labels == i for i in range(len(scored.classes))]
        mean = mean_proportion([(hits[side], scored.patients[side]) for side in sides], "no image", confidence)
        return mean if name == "balanced_accuracy" else _stretched(mean, lambda share: 2 * share - 1)
    if name in ("accuracy", "micro_f1"):
        return proportion(hits, scored.patients, "no image", confidence)
    if positive is None or name not in RATES:
        return None
    return _rate(name, scored.labels == positive, decision == positive, scored.patients, confidence)


def _rate(name: str, present: np.ndarray, called: np.ndarray, patients: np.ndarray, confidence: float) -> Estimate:
    """A metric of one class against the rest: (n,) bool whether it is present and whether it was called."""
    if name == "f1":
        either = present | called
        jaccard = proportion((present & called)[either], patients[either], "no image", confidence)
        return _stretched(jaccard, lambda share: 2 * share / (1 + share))
    denominator, hit = {
        "recall": (present, called),
        "specificity": (~present, ~called),
        "precision": (called, present),
        "negative_predictive_value": (~called, ~present),
    }[name]
    return proportion(hit[denominator], patients[denominator], "no image", confidence)


def _stretched(estimate: Estimate, function: Callable[[float], float]) -> Estimate:
    """The estimate of a rising function of what was estimated."""
    ends = {name: getattr(estimate, name) for name in ("value", "low", "high")}
    return estimate.model_copy(update={name: None if end is None else function(end) for name, end in ends.items()})


def area_estimates(scored: Scored, confidence: float) -> dict[str, Estimate]:
    """``roc_auc`` and ``pr_auc``; means over the classes, one against the rest, without a positive class."""
    absent = [name for i, name in enumerate(scored.classes) if not (scored.labels == i).any()]
    if absent:
        why = "no labelled images" if not len(scored.labels) else f"no image of class {', '.join(absent)}"
        return {"roc_auc": Estimate.undefined(why), "pr_auc": Estimate.undefined(why)}
    parts = class_parts(scored)
    rankings = [Ranking.of(part.present.astype(np.int64), part.scores) for part in parts]
    return {
        "roc_auc": mean_auc(parts, confidence),
        "pr_auc": _average_precision(rankings, parts, confidence),
    }


def class_parts(scored: Scored) -> list[Part]:
    """The rankings whose AUCs are averaged: each class against the rest, or the positive class of two."""
    targets = range(len(scored.classes)) if scored.positive is None else [scored.positive]
    return [Part(scored.labels == target, scores_of(scored, target), scored.patients) for target in targets]


def _average_precision(rankings: list[Ranking], parts: list[Part], confidence: float) -> Estimate:
    found = PatientJackknife(parts[0].patients, confidence).average_precision(rankings)
    if found.value is not None and min(min(part.sides) for part in parts) < MIN_PATIENTS:
        return Estimate(
            value=found.value, reason=f"no interval: fewer than {MIN_PATIENTS} patients with or without a class"
        )
    return found


def calibration_estimates(scored: Scored, rule: DecisionRule, confidence: float) -> dict[str, Estimate]:
    """ECE and Brier score, of the calibrated and of the uncalibrated probabilities."""
    found: dict[str, Estimate] = {}
    for suffix, by in (("", rule.calibration), ("_uncalibrated", AS_IT_IS)):
        found[f"ece{suffix}"] = _ece(scored, by)
        found[f"brier{suffix}"] = _brier(scored, by, confidence)
    return found


def expected_calibration_error(scored: Scored, rule: DecisionRule) -> Estimate:
    """ECE of the calibrated probabilities."""
    return _ece(scored, rule.calibration)


def _ece(scored: Scored, by: Calibration | None) -> Estimate:
    """Without an interval: resamples have larger errors than the images themselves, so theirs would exclude it."""
    if why := _why_uncalibrated(scored, by):
        return Estimate.undefined(why)
    probabilities = calibration.softmax(scored.logits, by)
    outcome, predicted = calibration.calibrated_event(scored.labels, probabilities, scored.positive)
    value = float(calibration.ece_from_sums(calibration.bin_sums(outcome, predicted).sum(0)))
    chance = calibration.ece_by_chance(predicted, scored.patients)
    return Estimate(value=value, reason=f"{chance.mean():.3f} by chance alone, up to {np.quantile(chance, 0.95):.3f}")


def _brier(scored: Scored, by: Calibration | None, confidence: float) -> Estimate:
    if why := _why_uncalibrated(scored, by):
        return Estimate.undefined(why)
    probabilities = calibration.softmax(scored.logits, by)
    errors = calibration.brier_per_image(scored.labels, probabilities, scored.positive)
    ends = SHARE if scored.positive is not None else (0.0, 2.0)
    found = PatientJackknife(scored.patients, confidence).mean(errors, "no images", ends)
    if found.low is not None and min(min(part.sides) for part in class_parts(scored)) < MIN_PATIENTS:
        why = f"no interval: fewer than {MIN_PATIENTS} patients with or without a class"
        return Estimate(value=found.value, reason=why)
    return found


def _why_uncalibrated(scored: Scored, by: Calibration | None) -> str | None:
    if not len(scored.labels):
        return "no labelled images"
    return "not calibrated: the validation images do not hold two classes" if by is None else None


def per_class(scored: Scored, rule: DecisionRule, settings: Settings) -> dict[str, dict[str, Estimate]]:
    """Precision, recall, specificity, F1, ROC-AUC and PR-AUC of each class against the rest."""
    decision = classification.decide(scored.probabilities, rule.threshold, scored.positive)
    found: dict[str, dict[str, Estimate]] = {}
    for i, name in enumerate(scored.classes):
        present, called = scored.labels == i, decision == i
        found[name] = {
            metric: _rate(metric, present, called, scored.patients, settings.confidence)
            for metric in ("precision", "recall", "specificity", "f1")
        }
        part = Part(present, scores_of(scored, i), scored.patients)
        if present.all() or not present.any():
            found[name]["roc_auc"] = found[name]["pr_auc"] = Estimate.undefined(f"all images or none are {name}")
            continue
        found[name]["roc_auc"] = mean_auc([part], settings.confidence)
        ranking = Ranking.of(present.astype(np.int64), part.scores)
        found[name]["pr_auc"] = _average_precision([ranking], [part], settings.confidence)
    return found


def ranking_scores(scored: Scored) -> np.ndarray:
    """(n,) score of the positive class of two: the log-odds, which never saturate as probabilities do."""
    if scored.positive is None:
        raise ValueError("without a positive class there is no single ranking")
    return scores_of(scored, scored.positive)


def scores_of(scored: Scored, target: int) -> np.ndarray:
    """(n,) score of a class against the rest: log-odds of two classes, the probability of several."""
    if len(scored.classes) == 2:
        return scored.logits[:, target] - scored.logits[:, 1 - target]
    return scored.probabilities[:, target]
