"""Quality gates: what a report must show before its model may be used, and which of several models wins."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from penumo_assets.configs.train import Gates
from penumo_assets.metrics.report.content import DECIDABLE, GateResult, GateStatus, Report


def check_gates(report: Report, gates: Gates) -> tuple[GateResult, ...]:
    """Judge a report: one result for each gate there is, in the order of ``Gates``.

    A gate whose metric is undefined, or has fewer than ``DECIDABLE`` patients behind it, is not decidable: a person
    has to look. A gate that is off is not asked for.
    """
    judged = {
        "min_roc_auc_low": _auc(report, gates.min_roc_auc_low),
        "min_sensitivity": _rate(report, "recall", gates.min_sensitivity, with_finding=True),
        "min_specificity": _rate(report, "specificity", gates.min_specificity, with_finding=False),
        "max_ece": _ece(report, gates.max_ece),
        "min_subgroup_roc_auc": _subgroup_floor(report, gates.min_subgroup_roc_auc),
        "require_no_leakage": _leakage(report),
        "beat_shortcuts": _shortcuts(report),
    }
    return tuple(_result(name, getattr(gates, name), found) for name, found in judged.items())


def choose_champion(validation_roc_auc: Mapping[str, float | None]) -> str | None:
    """The name of the model with the highest ROC-AUC on validation, of those that may win.

    Test data never chooses. Ties go to the first name in alphabetical order; None if there is no model
    or none has a validation AUC.
    """
    known = {name: value for name, value in sorted(validation_roc_auc.items()) if value is not None}
    return max(known, key=lambda name: known[name], default=None)


@dataclass(frozen=True)
class _Found:
    """What a gate saw: ``holds`` is None where the test images cannot tell."""

    value: float | None
    holds: bool | None
    reason: str


def _result(gate: str, limit: float | bool | None, found: _Found) -> GateResult:
    asked = limit is not None and limit is not False
    holds: dict[bool | None, GateStatus] = {True: "passed", False: "failed", None: "not_decidable"}
    return GateResult(
        gate=gate,
        status=holds[found.holds] if asked else "not_asked",
        limit=None if not asked else 0.0 if limit is True else limit,
        value=found.value,
        reason=found.reason,
    )


def _compared(value: float, limit: float | None, *, at_least: bool = True) -> _Found:
    if limit is None:
        return _Found(value, None, f"the value is {value:.3f}")
    holds = value >= limit if at_least else value <= limit
    relation = ("at least" if holds else "below") if at_least else ("at most" if holds else "above")
    return _Found(value, holds, f"{value:.3f} is {relation} {limit:.3f}")


def _auc(report: Report, limit: float | None) -> _Found:
    estimate = report.performance.test["roc_auc"]
    if estimate.low is None:
        return _Found(None, None, f"undefined: {estimate.reason or 'no interval'}")
    few = _too_few(report, report.data.classes)
    return _Found(estimate.low, None, few) if few else _compared(estimate.low, limit)


def _rate(report: Report, name: str, limit: float | None, *, with_finding: bool) -> _Found:
    estimate, positive = report.performance.test[name], report.data.positive_class
    if estimate.value is None:
        return _Found(None, None, f"undefined: {estimate.reason}")
    classes = [c for c in report.data.classes if positive is None or (c == positive) is with_finding]
    few = _too_few(report, classes)
    return _Found(estimate.value, None, few) if few else _compared(estimate.value, limit)


def _too_few(report: Report, classes: Sequence[str]) -> str | None:
    counts = {name: report.data.splits.test.patients_by_class[name] for name in classes}
    name, fewest = min(counts.items(), key=lambda item: item[1])
    return f"only {fewest} test patients of class {name}, at least {DECIDABLE} decide" if fewest < DECIDABLE else None


def _ece(report: Report, limit: float | None) -> _Found:
    """Above the limit only where chance alone does not explain it: the ECE of few images is large by itself."""
    estimate, chance = report.performance.test["ece"], report.calibration.chance
    if estimate.value is None or chance is None:
        return _Found(None, None, f"undefined: {estimate.reason}")
    found = _compared(estimate.value, limit, at_least=False)
    if found.holds is False and estimate.value <= chance.high:
        return _Found(
            found.value,
            None,
            f"{found.reason}, but perfectly calibrated probabilities of as many images reach {chance.high:.3f}",
        )
    return found


def _subgroup_floor(report: Report, limit: float | None) -> _Found:
    """Below the floor only where a bound says so that holds for all groups together."""
    judged = [
        (row.roc_auc_upper, row.metrics["roc_auc"].value, f"{row.attribute} {row.group}")
        for row in report.subgroups
        if row.roc_auc_upper is not None
    ]
    if not judged:
        return _Found(None, None, "no subgroup is large enough to judge")
    bound, value, name = min(judged)
    reason = f"the lowest upper bound among {len(judged)} groups is {bound:.3f} ({name}, estimate {value:.3f})"
    if limit is None:
        return _Found(bound, None, reason)
    return _Found(bound, bound >= limit, f"{reason}, the floor {limit:.3f}")


def _leakage(report: Report) -> _Found:
    leakage = report.data.leakage
    found = sum(leakage.values())
    reason = ", ".join(f"{name.replace('_', ' ')}: {count}" for name, count in leakage.items())
    return _Found(float(found), found == 0, reason)


def _shortcuts(report: Report) -> _Found:
    rows = report.shortcuts.rows
    if all(row.verdict is None for row in rows):
        return _Found(None, None, "no shortcut could be compared with the model")
    one = len({row.finding for row in rows}) == 1
    unbeaten = [
        f"{row.title} ({row.cohort if one else f'{row.finding}, {row.cohort}'})"
        for row in rows
        if row.verdict not in ("model better", None)
    ]
    reason = f"not shown to be better than: {', '.join(unbeaten)}" if unbeaten else "better than every shortcut"
    return _Found(float(len(unbeaten)), not unbeaten, reason)
