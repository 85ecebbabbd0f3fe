import pytest

from penumo_assets.metrics.records import Estimate
from penumo_assets.metrics.report.assemble import build_report
from penumo_assets.metrics.report.measured import Shortcuts
from penumo_assets.metrics.report.prose import findings, limits, words
from penumo_assets_tests.metrics.synthetic import evaluation


@pytest.fixture(scope="module")
def report():
    return build_report(evaluation(60))


def changed(record, **parts):
    return record.model_copy(update=parts)


def with_shortcuts(report, *rows):
    return changed(report, shortcuts=Shortcuts(rows=rows))


def test_a_shortcut_that_beats_the_model_is_named_in_the_summary(report):
    row = changed(report.shortcuts.rows[0], verdict="shortcut better")
    found = findings(with_shortcuts(report, row))
    assert any("rank the test images better than the model: aspect ratio (all cohorts)" in line for line in found)


def test_of_several_classes_the_one_that_a_shortcut_tells_is_named():
    report = build_report(evaluation(60, ["normal", "bacterial", "viral"]))
    row = changed(report.shortcuts.rows[0], verdict="shortcut better", title="View (AP or PA)")
    both = with_shortcuts(report, *(changed(row, finding=name) for name in ("normal", "viral")))
    assert any("view (AP or PA) (normal, all cohorts), view (AP or PA) (viral, all" in line for line in findings(both))


def test_a_pooled_auc_far_above_the_one_within_cohorts_is_explained(report):
    pooled = report.performance.test["roc_auc"].value
    low, same = Estimate(value=pooled - 0.1), Estimate(value=pooled)
    assert any("telling cohorts apart" in line for line in findings(changed(report, within_cohorts_roc_auc=low)))
    assert not any("telling cohorts apart" in line for line in findings(changed(report, within_cohorts_roc_auc=same)))


def test_leakage_is_said_aloud(report):
    leaky = changed(report.data, leakage={**report.data.leakage, "patients_in_several_splits": 3})
    assert any("too good" in line for line in findings(changed(report, data=leaky)))
    assert not any("too good" in line for line in findings(report))


def test_calibration_that_got_worse_is_said_aloud(report):
    metrics = {**report.performance.test, "ece": Estimate(value=0.2), "ece_uncalibrated": Estimate(value=0.1)}
    worse = changed(report, performance=changed(report.performance, test=metrics))
    assert any("ECE 0.100 before, 0.200 after" in line for line in findings(worse))


def test_a_model_that_ranks_by_chance_or_calls_all_alike_is_named_first(report):
    metrics = {**report.performance.test, "roc_auc": Estimate(value=0.43, low=0.35, high=0.5)}
    matrix = changed(report.confusion_matrix.test, counts=((0, 45), (0, 45)))
    useless = changed(
        report,
        performance=changed(report.performance, test=metrics),
        confusion_matrix=changed(report.confusion_matrix, test=matrix),
    )
    first, second, *_ = findings(useless)
    assert "not shown to rank these images better than chance: ROC-AUC 0.430, 0.350 to 0.500" in first
    assert "Every test image is called pneumonia" in second
    assert not any("chance" in line or "Every test image" in line for line in findings(report))


def test_a_shortcut_that_turns_round_is_said_not_to_be_beaten(report):
    row = changed(report.shortcuts.rows[0], shortcut_auc=Estimate(value=0.19, low=0.14, high=0.25))
    assert any(
        "the other way round" in line and "aspect ratio 0.81" in line for line in findings(with_shortcuts(report, row))
    )
    assert not any("the other way round" in line for line in findings(report))


def test_a_small_test_set_and_unknown_attributes_are_limits(report):
    splits = report.data.splits
    groups = {name: counts for name, counts in splits.test.groups.items() if name != "sex"}
    small = changed(report.data, splits=changed(splits, test=changed(splits.test, groups=groups)))
    lines = " ".join(limits(changed(report, data=small)))
    assert "only" in lines
    assert "not looked at: sex" in lines


def test_phantoms_are_the_first_limit(report):
    assert limits(changed(report, phantoms=True))[0].startswith("The images are phantoms")


def test_names_become_words():
    assert words("implausible_mask") == "Implausible mask"
    assert words("roc_auc") == "ROC-AUC"


def test_many_tied_shortcuts_make_one_sentence(report):
    row = report.shortcuts.rows[0]
    rows = [
        changed(row, title=title, cohort=cohort, verdict="not distinguishable")
        for cohort in ("all cohorts", "alpha", "beta")
        for title in ("Aspect ratio", "File size")
    ]
    rows.append(changed(row, title="Which cohort", cohort="alpha", verdict="model better"))
    found = findings(with_shortcuts(report, *rows))
    (line,) = [line for line in found if "shortcut" in line]
    assert line == (
        "The model is not distinguishably better than 6 of 7 shortcut baselines "
        "(aspect ratio, file size; see Shortcut baselines)."
    )


def test_repeated_looks_at_the_test_images_are_said_with_what_luck_they_give(report):
    looked = [changed(report, data=changed(report.data, test_looks=n)) for n in (None, 1, 20)]
    assert [any("models were measured" in line for line in findings(item)) for item in looked] == [False, False, True]
    assert any("20 models" in line and "up to 40 %" in line for line in findings(looked[2]))
