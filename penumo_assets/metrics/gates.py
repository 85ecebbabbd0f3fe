"""Quality gates: what a report must show before its model may be used, and which of several models wins."""

from collections.abc import Mapping

from penumo_assets.configs.train import Gates
from penumo_assets.metrics.records import Estimate
from penumo_assets.metrics.report.content import GateResult, Report


def check_gates(report: Report, gates: Gates) -> tuple[GateResult, ...]:
    """Judge a report; gates that are off are left out.

    The subgroup floor looks at estimates, not at intervals: a group whose interval merely reaches the floor must not
    pass for one that does well. Groups too small for an estimate are not judged.
    """
    test = report.performance.test
    results = [
        _bound("min_roc_auc_low", gates.min_roc_auc_low, test["roc_auc"], test["roc_auc"].low, at_least=True),
        _bound("min_sensitivity", gates.min_sensitivity, test["recall"], test["recall"].value, at_least=True),
        _bound("min_specificity", gates.min_specificity, test["specificity"], test["specificity"].value, at_least=True),
        _bound("max_ece", gates.max_ece, test["ece"], test["ece"].value, at_least=False),
        _subgroup_floor(report, gates.min_subgroup_roc_auc),
        _leakage(report) if gates.require_no_leakage else None,
        _shortcuts(report) if gates.beat_shortcuts else None,
    ]
    return tuple(result for result in results if result is not None)


def choose_champion(validation_roc_auc: Mapping[str, float | None]) -> str | None:
    """The name of the model with the highest ROC-AUC on validation, of those that may win.

    Test data never chooses. Ties go to the first name in alphabetical order; None if there is no model
    or none has a validation AUC.
    """
    known = {name: value for name, value in sorted(validation_roc_auc.items()) if value is not None}
    return max(known, key=lambda name: known[name], default=None)


def _bound(
    gate: str, limit: float | None, estimate: Estimate, value: float | None, *, at_least: bool
) -> GateResult | None:
    if limit is None:
        return None
    if value is None:
        return _result(gate, limit, None, False, f"undefined: {estimate.reason or 'no interval'}")
    passed = value >= limit if at_least else value <= limit
    relation = ("at least" if passed else "below") if at_least else ("at most" if passed else "above")
    return _result(gate, limit, value, passed, f"{value:.3f} is {relation} {limit:.3f}")


def _subgroup_floor(report: Report, limit: float | None) -> GateResult | None:
    if limit is None:
        return None
    aucs = ((row.metrics["roc_auc"].value, f"{row.attribute} {row.group}") for row in report.subgroups)
    known = [(value, name) for value, name in aucs if value is not None]
    if not known:
        return _result("min_subgroup_roc_auc", limit, None, True, "no subgroup is large enough to judge")
    value, name = min(known)
    reason = f"the lowest is {value:.3f} ({name}), the floor {limit:.3f}"
    return _result("min_subgroup_roc_auc", limit, value, value >= limit, reason)


def _leakage(report: Report) -> GateResult:
    leakage = report.data.leakage
    found = sum(leakage.values())
    reason = ", ".join(f"{name.replace('_', ' ')}: {count}" for name, count in leakage.items())
    return _result("require_no_leakage", 0.0, float(found), found == 0, reason)


def _shortcuts(report: Report) -> GateResult:
    better = [f"{row.title} ({row.cohort})" for row in report.shortcuts.rows if row.verdict == "shortcut better"]
    reason = f"better than the model: {', '.join(better)}" if better else "no shortcut is better than the model"
    return _result("beat_shortcuts", 0.0, float(len(better)), not better, reason)


def _result(gate: str, limit: float, value: float | None, passed: bool, reason: str) -> GateResult:
    return GateResult(gate=gate, limit=limit, value=value, passed=passed, reason=reason)
