import numpy as np
import pytest

from penumo_assets.configs.base import ConfigError
from penumo_assets.configs.train import Gates
from penumo_assets.metrics.auc import Part, mean_auc
from penumo_assets.metrics.gates import check_gates, choose_champion
from penumo_assets.metrics.records import Estimate
from penumo_assets.metrics.report.assemble import build_report
from penumo_assets.metrics.report.measured import CalibrationByChance, Shortcuts
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

    def made(auc_low=0.8, recall=0.9, ece=0.05, by_chance=0.02, groups=(), leaked=0, verdict="model better", few=40):
        test = {
            "roc_auc": estimate(0.85, auc_low),
            "recall": estimate(recall),
            "specificity": estimate(0.8),
            "ece": estimate(ece),
        }
        chance = CalibrationByChance(expected=by_chance / 2, high=by_chance, p_value=0.5)
        rows = [
            {"attribute": "sex", "group": name, "metrics": {"roc_auc": estimate(value)}, "roc_auc_upper": upper}
            for name, value, upper in groups
        ]
        splits = base.data.splits
        by_class = {"normal": 40, "pneumonia": few}
        splits = changed(splits, test=changed(splits.test, patients_by_class=by_class))
        leakage = {"patients_in_several_splits": leaked, "images_in_several_splits": 0}
        return changed(
            base,
            performance=changed(base.performance, test={**base.performance.test, **test}),
            calibration=changed(base.calibration, chance=chance),
            subgroups=tuple(changed(base.subgroups[0], **row) for row in rows),
            data=changed(base.data, leakage=leakage, splits=splits),
            shortcuts=Shortcuts(rows=(changed(base.shortcuts.rows[0], verdict=verdict),)),
        )

    return made


def changed(record, **parts):
    return record.model_copy(update=parts)


def only(results, gate):
    return next(result for result in results if result.gate == gate)


@pytest.mark.parametrize(
    ("gates", "changes", "status"),
    [
        ({"min_roc_auc_low": 0.8}, {}, "passed"),
        ({"min_roc_auc_low": 0.81}, {}, "failed"),
        ({"min_roc_auc_low": 0.1}, {"few": 9}, "not_decidable"),
        ({"min_roc_auc_low": 0.1}, {"auc_low": None}, "not_decidable"),
        ({"min_sensitivity": 0.9}, {}, "passed"),
        ({"min_sensitivity": 0.91}, {}, "failed"),
        ({"min_sensitivity": 0.1}, {"recall": None}, "not_decidable"),
        ({"min_sensitivity": 0.1}, {"few": 9}, "not_decidable"),
        ({"min_specificity": 0.81}, {}, "failed"),
        ({"min_specificity": 0.8}, {"few": 9}, "passed"),
        ({"max_ece": 0.05}, {}, "passed"),
        ({"max_ece": 0.04}, {}, "failed"),
        ({"max_ece": 0.04}, {"by_chance": 0.06}, "not_decidable"),
        ({"min_subgroup_roc_auc": 0.7}, {"groups": (("F", 0.9, 0.95), ("M", 0.6, 0.70))}, "passed"),
        ({"min_subgroup_roc_auc": 0.7}, {"groups": (("F", 0.9, 0.95), ("M", 0.6, 0.69))}, "failed"),
        ({"min_subgroup_roc_auc": 0.7}, {"groups": (("F", 0.9, None),)}, "not_decidable"),
        ({"beat_shortcuts": True}, {}, "passed"),
        ({"beat_shortcuts": True}, {"verdict": "not distinguishable"}, "failed"),
        ({"beat_shortcuts": True}, {"verdict": "shortcut better"}, "failed"),
        ({"beat_shortcuts": True}, {"verdict": None}, "not_decidable"),
    ],
)
def test_a_gate_says_what_follows_from_the_test_images(report, gates, changes, status):
    (name,) = gates
    found = only(check_gates(report(**changes), only_these(**gates)), name)
    assert found.status == status
    assert (found.passed, found.holds_up) == (status == "passed", status in ("failed", "not_decidable"))


def test_a_gate_names_what_it_found_and_why(report):
    results = check_gates(report(recall=None), only_these(min_sensitivity=0.1))
    assert only(results, "min_sensitivity").reason == "undefined: no image of class pneumonia"
    results = check_gates(report(groups=(("F", 0.9, 0.95), ("M", 0.6, 0.69))), only_these(min_subgroup_roc_auc=0.7))
    assert "sex M" in only(results, "min_subgroup_roc_auc").reason


def test_leakage_fails_unless_the_gate_is_off(report):
    assert only(check_gates(report(leaked=1), only_these()), "require_no_leakage").status == "failed"
    off = only(check_gates(report(leaked=1), only_these(require_no_leakage=False)), "require_no_leakage")
    assert (off.status, off.value) == ("not_asked", 1.0)


def test_a_gate_that_is_off_shows_its_value_and_is_not_asked(report):
    results = check_gates(report(), only_these())
    assert [item.gate for item in results] == list(Gates.model_fields)
    found = only(results, "min_sensitivity")
    assert (found.status, found.value, found.limit) == ("not_asked", 0.9, None)
    assert not found.passed


def test_by_default_all_that_the_contract_names_is_asked_for(report):
    results = check_gates(report(groups=(("F", 0.9, 0.95),)), Gates.defaults())
    asked = [item.gate for item in results if item.status != "not_asked"]
    assert asked == ["min_roc_auc_low", "min_sensitivity", "max_ece", "min_subgroup_roc_auc", "require_no_leakage"]


def test_perfect_calibration_and_six_groups_of_a_good_model_rarely_fail():
    """Of small test sets: a calibrated model of AUC 0.86 whose six groups have 12 to 15 patients of each class."""
    failed = 0
    for seed in range(60):
        random = np.random.default_rng(seed)
        uppers, level = [], 1 - 2 * 0.05 / 6
        for _ in range(6):
            present = np.arange(26) < 13
            part = Part(present, 1.5 * present + random.normal(size=26), np.arange(26))
            uppers.append(mean_auc([part], level).high)
        failed += min(uppers) < 0.6
    assert failed <= 3


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
