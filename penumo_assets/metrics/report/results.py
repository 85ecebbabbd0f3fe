"""The numbers of a report: decision rule, performance, curves, operating points, calibration, comparison."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd

from penumo_assets.metrics import calibration, classification, operating_points, selective
from penumo_assets.metrics.decision_curve import decision_curve
from penumo_assets.metrics.delong import compare_aucs, delong
from penumo_assets.metrics.intervals import PatientBootstrap
from penumo_assets.metrics.performance import DecisionRule, Scored, decision_estimates, ranking_scores
from penumo_assets.metrics.proportions import proportion
from penumo_assets.metrics.ranking import Ranking
from penumo_assets.metrics.records import AucVariance, Settings
from penumo_assets.metrics.report.content import ReportedRule
from penumo_assets.metrics.report.inputs import Evaluation
from penumo_assets.metrics.report.measured import (
    Calibration,
    CalibrationByChance,
    Confusion,
    Curves,
    Estimates,
    ModelComparison,
    NetBenefit,
    OneAgainstRest,
    OperatingPoint,
    PrCurve,
    Reliability,
    RocCurve,
    Selective,
)

SENSITIVITIES = (0.90, 0.95)
POINT_METRICS = ("recall", "specificity", "precision", "negative_predictive_value", "f1")
CURVE_POINTS = 400
ROC_GRID = np.linspace(0, 1, 51)
DECISION_THRESHOLDS = np.round(np.arange(0.01, 1.0, 0.01), 2)


def choose_rule(validation: Scored, stored_threshold: float | None, coverage: float = 1.0) -> DecisionRule:
    """Threshold by Youden's index, temperature and offsets by likelihood, all on validation.

    Without both classes in validation the model's own threshold is used, and without one 0.5;
    ``source`` says which. Below a ``coverage`` of 1 the least sure images get no answer.
    """
    threshold, source = _choose_threshold(validation, stored_threshold)
    by = calibration.fit_calibration(validation.labels, validation.logits)
    sureness = selective.confidence(validation.probabilities, threshold, validation.positive)
    cut = selective.cut_for_coverage(sureness, coverage)
    return DecisionRule(threshold, by.temperature if by else None, source, by.offsets if by else (), cut)


def _choose_threshold(validation: Scored, stored_threshold: float | None) -> tuple[float | None, str]:
    if validation.positive is None:
        return None, "the most probable class"
    scores = validation.probabilities[:, validation.positive]
    threshold = operating_points.youden_threshold(validation.present, scores)
    if threshold is not None:
        return threshold, "Youden's index on validation"
    if stored_threshold is not None:
        return float(stored_threshold), "the model's own: validation lacks a class"
    return 0.5, "0.5: validation lacks a class and the model names none"


def reported_rule(rule: DecisionRule) -> ReportedRule:
    """The rule with its threshold on the calibrated probability beside the one on the plain one."""
    return ReportedRule(
        threshold=rule.threshold,
        temperature=rule.temperature,
        offsets=rule.offsets,
        source=rule.source,
        calibrated_threshold=rule.calibrated_threshold,
        undecided_below=rule.undecided_below,
    )


def confusion(scored: Scored, rule: DecisionRule) -> Confusion:
    """Counts with rows the truth and columns the decision."""
    decision = classification.decide(scored.probabilities, rule.threshold, scored.positive)
    matrix = classification.confusion_matrix(scored.labels, decision, len(scored.classes))
    return Confusion(labels=tuple(scored.classes), counts=tuple(map(tuple, matrix.tolist())))


def curves(scored: Scored, settings: Settings) -> Curves:
    """ROC and precision-recall curve, at most ``CURVE_POINTS`` points each; None with the reason if undefined.

    The ROC curve has a pointwise bootstrap band: ``low`` and ``high`` over the false positive rates ``grid``.
    """
    from sklearn.metrics import precision_recall_curve, roc_curve

    why = _why_no_curve(scored)
    if why:
        return Curves(roc=None, pr=None, reason=why)
    scores = scored.probabilities[:, scored.positive]
    false_positive_rate, true_positive_rate, _ = roc_curve(scored.present, scores)
    precision, recall, _ = precision_recall_curve(scored.present, scores)
    keep = _thin(len(false_positive_rate))
    keep_pr = _thin(len(precision))
    ranking = Ranking.of(scored.present, ranking_scores(scored))
    band = PatientBootstrap.of(scored.patients, settings).roc_band(ranking, ROC_GRID)
    roc = RocCurve(
        false_positive_rate=tuple(false_positive_rate[keep].tolist()),
        true_positive_rate=tuple(true_positive_rate[keep].tolist()),
        grid=tuple(ROC_GRID.tolist()),
        low=tuple(band[0].tolist()) if band else None,
        high=tuple(band[1].tolist()) if band else None,
    )
    pr = PrCurve(recall=tuple(recall[keep_pr].tolist()), precision=tuple(precision[keep_pr].tolist()))
    return Curves(roc=roc, pr=pr, reason=None)


def operating_point_rows(
    validation: Scored, test: Scored, rule: DecisionRule, settings: Settings
) -> tuple[OperatingPoint, ...]:
    """Youden's point and fixed sensitivities: thresholds from validation, metrics on test."""
    if validation.positive is None:
        return ()  # of several classes each has its own
    scores = validation.probabilities[:, validation.positive]
    chosen: list[tuple[str, float | None]] = [(rule.source, rule.threshold)]
    for sensitivity in SENSITIVITIES:
        threshold = operating_points.threshold_at_sensitivity(validation.present, scores, sensitivity)
        chosen.append((f"sensitivity {sensitivity:.2f} on validation", threshold))
    rows = []
    for name, threshold in chosen:
        if threshold is None:
            why = "the validation images do not hold both classes"
            rows.append(OperatingPoint(name=name, threshold=None, metrics=None, reason=why))
            continue
        found = decision_estimates(test, replace(rule, threshold=threshold, source=name), settings.confidence)
        metrics = {key: found[key] for key in POINT_METRICS}
        rows.append(OperatingPoint(name=name, threshold=threshold, metrics=metrics, reason=None))
    return tuple(rows)


def calibration_section(test: Scored, rule: DecisionRule, seed: int) -> Calibration:
    """Reliability curves before and after calibration, with slope and intercept."""
    return Calibration(
        event=f"class {test.classes[test.positive]}" if test.positive is not None else "most probable class is right",
        bins=calibration.BINS,
        calibrated=_reliability(test, rule.calibration),
        uncalibrated=_reliability(test, calibration.AS_IT_IS),
        chance=_by_chance(test, rule, seed),
    )


def _by_chance(test: Scored, rule: DecisionRule, seed: int) -> CalibrationByChance | None:
    if rule.calibration is None or not len(test.labels):
        return None
    probabilities = calibration.softmax(test.logits, rule.calibration)
    outcome, predicted = calibration.calibrated_event(test.labels, probabilities, test.positive)
    found = calibration.ece_from_sums(calibration.bin_sums(outcome, predicted).sum(0))
    drawn = calibration.ece_by_chance(predicted, test.patients, seed=seed)
    return CalibrationByChance(
        expected=float(drawn.mean()), high=float(np.quantile(drawn, 0.95)), p_value=float((drawn >= found).mean())
    )


def _reliability(test: Scored, by: calibration.Calibration | None) -> Reliability | None:
    if by is None or not len(test.labels):
        return None
    probabilities = calibration.softmax(test.logits, by)
    outcome, predicted = calibration.calibrated_event(test.labels, probabilities, test.positive)
    curve = calibration.reliability(outcome, predicted)
    fit = calibration.recalibration(outcome, predicted)
    return Reliability(
        edges=tuple(curve.edges.tolist()),
        count=tuple(curve.count.tolist()),
        mean_predicted=_numbers(curve.mean_predicted),
        observed=_numbers(curve.observed),
        slope=fit[0] if fit else None,
        intercept=fit[1] if fit else None,
    )


def decision_curve_section(test: Scored, rule: DecisionRule) -> NetBenefit | None:
    """Net benefit of the calibrated model against treating all and none."""
    if test.positive is None or not len(test.labels):
        return None
    probabilities = calibration.softmax(test.logits, rule.calibration)[:, test.positive]
    curve = decision_curve(test.present, probabilities, DECISION_THRESHOLDS)
    if curve is None:
        return None
    return NetBenefit(
        thresholds=tuple(curve.thresholds.tolist()),
        model=tuple(curve.model.tolist()),
        treat_all=tuple(curve.treat_all.tolist()),
    )


def one_against_rest(
    evaluation: Evaluation, rule: DecisionRule, per_class: Mapping[str, Estimates]
) -> tuple[OneAgainstRest, ...]:
    """Of several classes each as the positive one; nothing for two, of which the report itself says it."""
    if evaluation.positive is not None:
        return ()
    return tuple(_part(evaluation, rule, target, per_class[name]) for target, name in enumerate(evaluation.classes))


def _part(evaluation: Evaluation, rule: DecisionRule, target: int, found: Estimates) -> OneAgainstRest:
    settings, whole = evaluation.settings, evaluation.scored["test"].of_class(target)
    validation, test = (evaluation.scored[split].against_rest(target) for split in ("validation", "test"))
    threshold, source = _choose_threshold(validation, None)
    return OneAgainstRest(
        name=evaluation.classes[target],
        prevalence=float(test.labels.mean()) if len(test.labels) else None,
        roc_auc=found["roc_auc"],
        pr_auc=found["pr_auc"],
        curves=curves(test, settings),
        operating_points=operating_point_rows(
            validation, test, replace(rule, threshold=threshold, source=source), settings
        ),
        calibration=calibration_section(whole, rule, settings.seed),
        decision_curve=decision_curve_section(whole, rule),
        comparison=comparison_section(evaluation.index["test"], whole, evaluation.reference, settings),
    )


def selective_section(test: Scored, rule: DecisionRule, coverage: float, settings: Settings) -> Selective:
    """What answering only the surest images gains on test."""
    sureness = selective.confidence(test.probabilities, rule.threshold, test.positive)
    decision = classification.decide(test.probabilities, rule.threshold, test.positive)
    shares, risks = selective.risk_coverage(sureness, decision == test.labels)
    keep = _thin(len(shares)) if len(shares) else np.empty(0, int)
    reached = metrics = None
    if rule.undecided_below is not None:
        answered = rule.decides(test.probabilities, test.positive)
        reached = proportion(answered, test.patients, "no labelled images", settings.confidence)
        rest = test.subset(answered)
        found = decision_estimates(rest, rule, settings.confidence)
        metrics = {name: found[name] for name in ("accuracy", *POINT_METRICS)}
    return Selective(
        coverage=tuple(shares[keep].tolist()),
        risk=tuple(risks[keep].tolist()),
        asked=None if reached is None else coverage,
        reached=reached,
        metrics=metrics,
    )


def delong_section(test: Scored, settings: Settings) -> AucVariance | None:
    """DeLong's variance of the test AUC, clustered by patient."""
    if test.positive is None or not len(test.labels):
        return None
    return delong(test.present, ranking_scores(test), test.patients, settings.confidence)


def comparison_section(
    index: pd.DataFrame, test: Scored, reference: pd.DataFrame | None, settings: Settings
) -> ModelComparison | None:
    """Paired DeLong comparison with another model's predictions on the same test images.

    ``reference`` has image_id, cohort, split and ``probability_<positive class>``, as predictions.parquet.
    """
    if reference is None or test.positive is None:
        return None
    column = f"probability_{test.classes[test.positive]}"
    if column not in reference:
        return ModelComparison(images=0, result=None, reason=f"the other model's predictions have no {column}")
    other = reference[reference["split"] == "test"].drop_duplicates(["cohort", "image_id"])
    joined = index[["cohort", "image_id"]].merge(other, on=["cohort", "image_id"], how="left")
    scores = joined[column].to_numpy(np.float64)
    both = np.isfinite(scores)
    subset = test.subset(both)
    found = (
        compare_aucs(subset.present, ranking_scores(subset), scores[both], subset.patients, settings.confidence)
        if both.any()
        else None
    )
    reason = None if found else "too few images scored by both models, or a class is absent"
    return ModelComparison(images=int(both.sum()), result=found, reason=reason)


def _why_no_curve(scored: Scored) -> str | None:
    if scored.positive is None:
        return "of several classes each has its own"
    if not len(scored.labels):
        return "no labelled images"
    if len(np.unique(scored.present)) < 2:
        return "the images hold one class only"
    return None


def _thin(count: int) -> np.ndarray:
    return np.unique(np.linspace(0, count - 1, min(count, CURVE_POINTS)).round().astype(int))


def _numbers(values: np.ndarray) -> tuple[float | None, ...]:
    return tuple(float(value) if np.isfinite(value) else None for value in values)
