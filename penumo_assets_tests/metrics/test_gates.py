import pytest

from penumo_assets.configs.base import ConfigError
from penumo_assets.configs.train import Gates
from penumo_assets.metrics.gates import check_gates, choose_champion

OFF = {"min_roc_auc_low": None, "min_sensitivity": None, "max_ece": None, "min_subgroup_roc_auc": None}


def only_these(**gates) -> Gates:
    return Gates.parse(OFF | gates)


def estimate(value, low=None, reason=None):
    return {"value": value, "low": low, "high": None, "reason": reason}


def report(auc_low=0.8, recall=0.9, ece=0.05, groups=(), leaked=0, validation_auc=0.9, verdict="model better"):
    return {
        "performance": {
            "test": {
                "roc_auc": estimate(0.85, auc_low),
                "recall": estimate(recall, reason="no image of class pneumonia"),
                "specificity": estimate(0.8),
                "ece": estimate(ece),
            },
            "validation": {"roc_auc": estimate(validation_auc)},
        },
        "subgroups": [
            {"attribute": "sex", "group": name, "metrics": {"roc_auc": estimate(value)}} for name, value in groups
        ],
        "data": {"leakage": {"patients_in_several_splits": leaked, "images_in_several_splits": 0}},
        "shortcuts": {"rows": [{"title": "Aspect ratio", "cohort": "alpha", "verdict": verdict}]},
    }


def only(results, gate):
    return next(result for result in results if result.gate == gate)


@pytest.mark.parametrize(
    ("gates", "changes", "passed"),
    [
        ({"min_roc_auc_low": 0.8}, {}, True),
        ({"min_roc_auc_low": 0.81}, {}, False),
        ({"min_sensitivity": 0.9}, {}, True),
        ({"min_sensitivity": 0.91}, {}, False),
        ({"min_specificity": 0.81}, {}, False),
        ({"max_ece": 0.05}, {}, True),
        ({"max_ece": 0.04}, {}, False),
        ({"min_subgroup_roc_auc": 0.7}, {"groups": (("F", 0.9), ("M", 0.71))}, True),
        ({"min_subgroup_roc_auc": 0.7}, {"groups": (("F", 0.9), ("M", 0.69))}, False),
        ({"beat_shortcuts": True}, {"verdict": "not distinguishable"}, True),
        ({"beat_shortcuts": True}, {"verdict": "shortcut better"}, False),
    ],
)
def test_a_gate_holds_at_its_limit_and_not_beyond(gates, changes, passed):
    (name,) = gates
    assert only(check_gates(report(**changes), only_these(**gates)), name).passed is passed


def test_the_auc_gate_looks_at_the_lower_bound_and_not_at_the_estimate():
    assert not only(check_gates(report(auc_low=0.6), only_these(min_roc_auc_low=0.8)), "min_roc_auc_low").passed


def test_an_undefined_metric_does_not_pass_and_says_why():
    result = only(check_gates(report(recall=None), only_these(min_sensitivity=0.1)), "min_sensitivity")
    assert not result.passed
    assert result.reason == "undefined: no image of class pneumonia"


def test_an_estimate_without_an_interval_does_not_pass():
    assert not only(check_gates(report(auc_low=None), only_these(min_roc_auc_low=0.1)), "min_roc_auc_low").passed


def test_a_subgroup_too_small_to_judge_is_passed_over_and_the_lowest_is_named():
    results = check_gates(report(groups=(("F", None), ("M", 0.6), ("X", 0.7))), only_these(min_subgroup_roc_auc=0.65))
    result = only(results, "min_subgroup_roc_auc")
    assert (result.passed, result.value) == (False, 0.6)
    assert "sex M" in result.reason


def test_leakage_fails_unless_the_gate_is_off():
    assert not only(check_gates(report(leaked=1), only_these()), "require_no_leakage").passed
    assert check_gates(report(leaked=1), only_these(require_no_leakage=False)) == []


def test_gates_that_are_off_are_left_out():
    assert [result.gate for result in check_gates(report(), only_these())] == ["require_no_leakage"]


def test_by_default_all_that_the_contract_names_is_asked_for():
    asked = [result.gate for result in check_gates(report(groups=(("F", 0.9),)), Gates())]
    assert asked == ["min_roc_auc_low", "min_sensitivity", "max_ece", "min_subgroup_roc_auc", "require_no_leakage"]


def test_an_unknown_gate_and_an_impossible_limit_are_refused_by_name():
    with pytest.raises(ConfigError, match="min_auc: Extra inputs"):
        Gates.parse({"min_auc": 0.5})
    with pytest.raises(ConfigError, match=r"max_ece.*less than or equal to 1"):
        Gates.parse({"max_ece": 15})


def test_the_champion_is_the_best_on_validation_among_those_that_passed():
    reports = {"resnet34": report(validation_auc=0.91), "resnet50": report(validation_auc=0.93, auc_low=0.1)}
    assert choose_champion(reports, ["resnet34", "resnet50"]) == "resnet50"
    assert choose_champion(reports, ["resnet34"]) == "resnet34"
    assert choose_champion(reports, []) is None


def test_a_tie_goes_to_the_first_name_and_an_undefined_auc_never_wins():
    reports = {"b": report(), "a": report(), "c": report(validation_auc=None)}
    assert choose_champion(reports, ["b", "a", "c"]) == "a"
    assert choose_champion(reports, ["c"]) is None
