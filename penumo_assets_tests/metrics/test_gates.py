import pytest

from penumo_assets.configs.base import ConfigError
from penumo_assets.configs.train import Gates
from penumo_assets.metrics.gates import check_gates, choose_champion
from penumo_assets.metrics.records import Estimate
from penumo_assets.metrics.report.assemble import build_report
from penumo_assets.metrics.report.content import Shortcuts
from penumo_assets_tests.metrics.synthetic import evaluation

OFF = {"min_roc_auc_low": None, "min_sensitivity": None, "max_ece": None, "min_subgroup_roc_auc": None}


def only_these(**gates) -> Gates:
    return Gates.parse(OFF | gates)


def estimate(value, low=None, reason="no image of class pneumonia"):
    return Estimate(value=value, low=low, reason=reason)


@pytest.fixture(scope="module")
def base():
    return build_report(evaluation(40))


@pytest.fixture
def report(base):
    """A report that says what a test wants it to say, of what gates look at."""

    def made(auc_low=0.8, recall=0.9, ece=0.05, groups=(), leaked=0, verdict="model better"):
        test = {
            "roc_auc": estimate(0.85, auc_low),
            "recall": estimate(recall),
            "specificity": estimate(0.8),
            "ece": estimate(ece),
        }
        rows = [(base.subgroups[0], {"group": name, "metrics": {"roc_auc": estimate(v)}}) for name, v in groups]
        shortcut = base.shortcuts.rows[0].model_copy(update={"verdict": verdict})
        return base.model_copy(
            update={
                "performance": base.performance.model_copy(update={"test": {**base.performance.test, **test}}),
                "subgroups": tuple(row.model_copy(update={"attribute": "sex", **parts}) for row, parts in rows),
                "data": base.data.model_copy(
                    update={"leakage": {"patients_in_several_splits": leaked, "images_in_several_splits": 0}}
                ),
                "shortcuts": Shortcuts(rows=(shortcut,), reason=None),
            }
        )

    return made


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
def test_a_gate_holds_at_its_limit_and_not_beyond(report, gates, changes, passed):
    (name,) = gates
    assert only(check_gates(report(**changes), only_these(**gates)), name).passed is passed


def test_the_auc_gate_looks_at_the_lower_bound_and_not_at_the_estimate(report):
    assert not only(check_gates(report(auc_low=0.6), only_these(min_roc_auc_low=0.8)), "min_roc_auc_low").passed


def test_an_undefined_metric_does_not_pass_and_says_why(report):
    result = only(check_gates(report(recall=None), only_these(min_sensitivity=0.1)), "min_sensitivity")
    assert not result.passed
    assert result.reason == "undefined: no image of class pneumonia"


def test_an_estimate_without_an_interval_does_not_pass(report):
    assert not only(check_gates(report(auc_low=None), only_these(min_roc_auc_low=0.1)), "min_roc_auc_low").passed


def test_a_subgroup_too_small_to_judge_is_passed_over_and_the_lowest_is_named(report):
    results = check_gates(report(groups=(("F", None), ("M", 0.6), ("X", 0.7))), only_these(min_subgroup_roc_auc=0.65))
    result = only(results, "min_subgroup_roc_auc")
    assert (result.passed, result.value) == (False, 0.6)
    assert "sex M" in result.reason


def test_leakage_fails_unless_the_gate_is_off(report):
    assert not only(check_gates(report(leaked=1), only_these()), "require_no_leakage").passed
    assert check_gates(report(leaked=1), only_these(require_no_leakage=False)) == ()


def test_gates_that_are_off_are_left_out(report):
    assert [result.gate for result in check_gates(report(), only_these())] == ["require_no_leakage"]


def test_by_default_all_that_the_contract_names_is_asked_for(report):
    asked = [result.gate for result in check_gates(report(groups=(("F", 0.9),)), Gates.defaults())]
    assert asked == ["min_roc_auc_low", "min_sensitivity", "max_ece", "min_subgroup_roc_auc", "require_no_leakage"]


def test_an_unknown_gate_and_an_impossible_limit_are_refused_by_name():
    with pytest.raises(ConfigError, match="min_auc: Extra inputs"):
        Gates.parse({"min_auc": 0.5})
    with pytest.raises(ConfigError, match=r"max_ece.*less than or equal to 1"):
        Gates.parse({"max_ece": 15})


def test_the_champion_is_the_best_on_validation():
    assert choose_champion({"resnet34": 0.91, "resnet50": 0.93}) == "resnet50"
    assert choose_champion({}) is None


def test_a_tie_goes_to_the_first_name_and_an_undefined_auc_never_wins():
    assert choose_champion({"b": 0.9, "a": 0.9, "c": None}) == "a"
    assert choose_champion({"c": None}) is None
