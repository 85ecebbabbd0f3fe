import copy

import pytest

from penumo_assets.metrics.report.assemble import build_report
from penumo_assets.metrics.report.prose import findings, limits, words
from penumo_assets_tests.metrics.synthetic import evaluation


@pytest.fixture(scope="module")
def report():
    return build_report(evaluation(60))


def changed(report, **parts):
    copied = copy.deepcopy(report)
    copied.update(parts)
    return copied


def test_a_shortcut_that_beats_the_model_is_named_in_the_summary(report):
    row = {**report["shortcuts"]["rows"][0], "verdict": "shortcut better"}
    found = findings(changed(report, shortcuts={"rows": [row], "reason": None}))
    assert any("rank the test images better than the model: aspect ratio (all cohorts)" in line for line in found)


def test_a_pooled_auc_far_above_the_one_within_cohorts_is_explained(report):
    pooled = report["performance"]["test"]["roc_auc"]["value"]
    low = {**report["within_cohorts_roc_auc"], "value": pooled - 0.1}
    assert any("telling cohorts apart" in line for line in findings(changed(report, within_cohorts_roc_auc=low)))
    same = {**low, "value": pooled}
    assert not any("telling cohorts apart" in line for line in findings(changed(report, within_cohorts_roc_auc=same)))


def test_leakage_is_said_aloud(report):
    leaky = copy.deepcopy(report)
    leaky["data"]["leakage"]["patients_in_several_splits"] = 3
    assert any("too good" in line for line in findings(leaky))
    assert not any("too good" in line for line in findings(report))


def test_calibration_that_got_worse_is_said_aloud(report):
    worse = copy.deepcopy(report)
    worse["performance"]["test"]["ece"]["value"] = 0.2
    worse["performance"]["test"]["ece_uncalibrated"]["value"] = 0.1
    assert any("ECE 0.100 before, 0.200 after" in line for line in findings(worse))


def test_a_small_test_set_and_unknown_attributes_are_limits(report):
    small = copy.deepcopy(report)
    small["data"]["splits"]["test"]["groups"].pop("sex")
    lines = " ".join(limits(small))
    assert "only" in lines
    assert "not looked at: sex" in lines


def test_phantoms_are_the_first_limit(report):
    assert limits(changed(report, phantoms=True))[0].startswith("The images are phantoms")


def test_names_become_words():
    assert words("implausible_mask") == "Implausible mask"
    assert words("roc_auc") == "ROC-AUC"


def test_many_tied_shortcuts_make_one_sentence(report):
    rows = [
        {"title": title, "cohort": cohort, "verdict": "not distinguishable"}
        for cohort in ("all cohorts", "alpha", "beta")
        for title in ("Aspect ratio", "File size")
    ]
    rows.append({"title": "Which cohort", "cohort": "alpha", "verdict": "model better"})
    found = findings(changed(report, shortcuts={"rows": rows, "reason": None}))
    (line,) = [line for line in found if "shortcut" in line]
    assert line == (
        "The model is not distinguishably better than 6 of 7 shortcut baselines "
        "(aspect ratio, file size; see Shortcut baselines)."
    )
