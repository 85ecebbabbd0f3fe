"""Quality gates: what a report must show before its model may be used, and which of several models wins."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from penumo_assets.configs.train import Gates


@dataclass(frozen=True)
class GateResult:
    """One gate: the limit, what was found, and whether it holds. An undefined metric does not pass."""

    gate: str
    limit: float | None
    value: float | None
    passed: bool
    reason: str


def check_gates(report: Mapping[str, Any], gates: Gates) -> list[GateResult]:
    """Judge a report (the content of report.json); gates that are off are left out.

    The subgroup floor looks at estimates, not at intervals: a group whose interval merely reaches the floor must not
    pass for one that does well. Groups too small for an estimate are not judged.
    """
    test = report["performance"]["test"]
    results = [
        _bound("min_roc_auc_low", gates.min_roc_auc_low, test["roc_auc"], "low", at_least=True),
        _bound("min_sensitivity", gates.min_sensitivity, test["recall"], "value", at_least=True),
        _bound("min_specificity", gates.min_specificity, test["specificity"], "value", at_least=True),
        _bound("max_ece", gates.max_ece, test["ece"], "value", at_least=False),
        _subgroup_floor(report, gates.min_subgroup_roc_auc),
        _leakage(report) if gates.require_no_leakage else None,
        _shortcuts(report) if gates.beat_shortcuts else None,
    ]
    return [result for result in results if result is not None]


def choose_champion(reports: Mapping[str, Mapping[str, Any]], passed: Sequence[str]) -> str | None:
    """The name of the report with the highest validation ROC-AUC among those that ``passed``.

    Test data never chooses. Ties go to the first name in alphabetical order; None if none passed
    or none has a validation AUC.
    """
    candidates = {}
    for name in sorted(passed):
        value = reports[name]["performance"]["validation"]["roc_auc"]["value"]
        if value is not None:
            candidates[name] = value
    return max(candidates, key=lambda name: candidates[name]) if candidates else None


def _bound(
    gate: str, limit: float | None, estimate: Mapping[str, Any], field: str, *, at_least: bool
) -> GateResult | None:
    if limit is None:
        return None
    value = estimate[field]
    if value is None:
        return GateResult(gate, limit, None, False, f"undefined: {estimate['reason'] or 'no interval'}")
    passed = value >= limit if at_least else value <= limit
    relation = ("at least" if passed else "below") if at_least else ("at most" if passed else "above")
    return GateResult(gate, limit, value, passed, f"{value:.3f} is {relation} {limit:.3f}")


def _subgroup_floor(report: Mapping[str, Any], limit: float | None) -> GateResult | None:
    if limit is None:
        return None
    known = [
        (row["metrics"]["roc_auc"]["value"], f"{row['attribute']} {row['group']}")
        for row in report["subgroups"]
        if row["metrics"]["roc_auc"]["value"] is not None
    ]
    if not known:
        return GateResult("min_subgroup_roc_auc", limit, None, True, "no subgroup is large enough to judge")
    value, name = min(known)
    passed = value >= limit
    return GateResult(
        "min_subgroup_roc_auc", limit, value, passed, f"the lowest is {value:.3f} ({name}), the floor {limit:.3f}"
    )


def _leakage(report: Mapping[str, Any]) -> GateResult:
    leakage = report["data"]["leakage"]
    found = sum(leakage.values())
    reason = ", ".join(f"{name.replace('_', ' ')}: {count}" for name, count in leakage.items())
    return GateResult("require_no_leakage", 0.0, float(found), found == 0, reason)


def _shortcuts(report: Mapping[str, Any]) -> GateResult:
    better = [
        f"{row['title']} ({row['cohort']})"
        for row in report["shortcuts"]["rows"]
        if row["verdict"] == "shortcut better"
    ]
    reason = f"better than the model: {', '.join(better)}" if better else "no shortcut is better than the model"
    return GateResult("beat_shortcuts", 0.0, float(len(better)), not better, reason)
