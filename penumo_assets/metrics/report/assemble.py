"""Put the parts of report.json together."""

import json
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from penumo_assets.metrics.gates import check_gates
from penumo_assets.metrics.performance import per_class, performance
from penumo_assets.metrics.records import Estimate
from penumo_assets.metrics.report import baselines, groups, results
from penumo_assets.metrics.report.checklist import checklist
from penumo_assets.metrics.report.content import SCHEMA, ModelFacts, Report, Versions
from penumo_assets.metrics.report.data import data_section
from penumo_assets.metrics.report.inputs import Evaluation
from penumo_assets.metrics.report.measured import Confusions, Performance

NOT_A_DEVICE = (
    "Not a medical device. This report describes a research model; it has not been cleared for clinical use "
    "and must not guide the care of a patient."
)
LIBRARIES = ("numpy", "scipy", "scikit-learn", "pandas", "torch", "torchvision", "opencv-python-headless")


def build_report(evaluation: Evaluation) -> Report:
    """Everything that a report says of a model and its test images.

    Raises
    ------
    ScoreError
        If a logit is NaN or infinite.
    """
    validation, test = evaluation.scored["validation"], evaluation.scored["test"]
    settings, context = evaluation.settings, evaluation.context
    rule = results.choose_rule(validation, evaluation.model.get("threshold"), evaluation.coverage)
    of_classes = per_class(test, rule, settings)
    report = Report(
        schema=SCHEMA,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        phantoms=context.phantoms,
        external=context.external,
        disclaimer=NOT_A_DEVICE,
        model=ModelFacts.model_validate_json(json.dumps(evaluation.model)),
        versions=versions(evaluation),
        settings=settings,
        data=data_section(evaluation),
        decision_rule=results.reported_rule(rule),
        performance=Performance(
            validation=performance(validation, rule, settings), test=performance(test, rule, settings)
        ),
        per_class=of_classes,
        within_cohorts_roc_auc=groups.within_cohorts_auc(evaluation),
        confusion_matrix=Confusions(validation=results.confusion(validation, rule), test=results.confusion(test, rule)),
        curves=results.curves(test, settings),
        operating_points=results.operating_point_rows(validation, test, rule, settings),
        calibration=results.calibration_section(test, rule, settings.seed),
        decision_curve=results.decision_curve_section(test, rule),
        selective=results.selective_section(test, rule, evaluation.coverage, settings),
        delong=results.delong_section(test, settings),
        comparison=results.comparison_section(evaluation.index["test"], test, evaluation.reference, settings),
        one_against_rest=results.one_against_rest(evaluation, rule, of_classes),
        subgroups=groups.subgroup_rows(evaluation, rule),
        shortcuts=baselines.shortcut_section(evaluation),
        segmentation=groups.segmentation_section(context.dice, settings),
        explanation=groups.explanation_section(evaluation.explained, settings),
        failures=groups.failure_rows(evaluation, rule),
        gates=(),
        checklist=(),
    )
    return report.model_copy(
        update={"gates": check_gates(report, context.gates), "checklist": checklist(report, context)}
    )


def versions(evaluation: Evaluation) -> Versions:
    """Code, configuration and library versions behind the numbers."""
    libraries: dict[str, str | None] = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            libraries[name] = version(name)
        except PackageNotFoundError:
            libraries[name] = None
    context = evaluation.context
    return Versions(
        code=context.code_version,
        config_digest=context.config_digest,
        mlflow_run_id=context.mlflow_run_id,
        libraries=libraries,
    )


def headline(report: Report) -> dict[str, Any]:
    """Flat numbers for result.json, the asset and MLflow, with the ends of intervals; None where undefined."""
    test, validation = report.performance.test, report.performance.validation
    splits = report.data.splits
    values: dict[str, Any] = {}
    for name, estimate in test.items():
        values |= _with_ends(f"test_{name}", estimate)
    values.setdefault("test_youden_index", None)
    values |= {
        **_with_ends("validation_roc_auc", validation["roc_auc"]),
        **_with_ends("test_within_cohorts_roc_auc", report.within_cohorts_roc_auc),
        "threshold": report.decision_rule.threshold,
        "calibrated_threshold": report.decision_rule.calibrated_threshold,
        "temperature": report.decision_rule.temperature,
        "test_images": splits.test.images,
        "test_patients": splits.test.patients,
        "validation_images": splits.validation.images,
        **_with_ends("dice_mean", report.segmentation.dice),
        **_with_ends("iou_mean", report.segmentation.iou),
        "best_shortcut_roc_auc": _best_shortcut(report),
        "gates_passed": not any(gate.holds_up for gate in report.gates),
        "phantoms": report.phantoms,
    }
    return values


def _with_ends(name: str, estimate: Estimate) -> dict[str, float | None]:
    """A metric, and beside it the ends of its interval."""
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def _best_shortcut(report: Report) -> float | None:
    """The highest shortcut AUC over all images (a lone cohort is all images)."""
    rows = report.shortcuts.rows
    known = (row.shortcut_auc.value for row in rows if row.cohort == rows[0].cohort)
    return max((value for value in known if value is not None), default=None)
