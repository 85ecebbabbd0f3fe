import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from jsonschema import Draft202012Validator
from sklearn.metrics import roc_auc_score, roc_curve

from penumo_assets.metrics.records import Settings
from penumo_assets.metrics.report.assemble import build_report, headline
from penumo_assets.metrics.report.content import read_report, schema_text
from penumo_assets.metrics.shortcuts import SHORTCUTS
from penumo_assets_tests.metrics.synthetic import evaluation

HEADLINE = [
    "test_roc_auc",
    "test_roc_auc_low",
    "test_roc_auc_high",
    "test_pr_auc",
    "test_accuracy",
    "test_precision",
    "test_recall",
    "test_f1",
    "test_specificity",
    "test_balanced_accuracy",
    "test_youden_index",
    "test_macro_f1",
    "test_micro_f1",
    "test_ece",
    "test_brier",
    "validation_roc_auc",
    "validation_roc_auc_low",
    "threshold",
    "temperature",
    "test_images",
    "test_patients",
    "validation_images",
    "dice_mean",
]


@pytest.fixture(scope="module")
def report():
    return build_report(evaluation(context={"gates": {"min_roc_auc_low": 0.5}, "code_version": "1.2.3"}))


def assert_follows_the_schema(report) -> None:
    """Written, read back, and held against the schema that the package publishes."""
    text = json.dumps(report.as_json(), allow_nan=False)
    assert read_report(text) == report
    Draft202012Validator(json.loads(schema_text())).validate(json.loads(text))


def with_test(base, keep: np.ndarray):
    """The evaluation with only these rows of test."""
    index = {**base.index, "test": base.index["test"][keep].reset_index(drop=True)}
    return replace(base, index=index, logits={**base.logits, "test": base.logits["test"][keep]})


def test_a_binary_report_follows_the_schema_and_is_plain_json(report):
    assert_follows_the_schema(report)


def test_the_headline_has_every_agreed_key_with_numbers(report):
    values = headline(report)
    assert set(HEADLINE) <= set(values)
    for name in set(HEADLINE) - {"dice_mean"}:
        assert isinstance(values[name], int | float), name
    assert values["dice_mean"] is None
    assert values["test_images"] == 90
    json.dumps(values, allow_nan=False)


def test_the_threshold_comes_from_validation_and_not_from_test(report):
    base = evaluation()
    validation = base.scored["validation"]
    false_positive, true_positive, _ = roc_curve(validation.labels, validation.probabilities[:, 1])
    called = validation.probabilities[:, 1] >= report.decision_rule.threshold
    reached = called[validation.labels == 1].mean() - called[validation.labels == 0].mean()
    assert reached == pytest.approx((true_positive - false_positive).max())
    other_test = replace(base, logits={**base.logits, "test": base.logits["test"][::-1] * 3})
    assert build_report(other_test).decision_rule == report.decision_rule


def test_the_confusion_matrix_counts_the_decisions_at_that_threshold(report):
    test = evaluation().scored["test"]
    called = test.probabilities[:, 1] >= report.decision_rule.threshold
    counts = report.confusion_matrix.test.counts
    assert counts[1][1] == int((called & (test.labels == 1)).sum())
    assert counts[0][1] == int((called & (test.labels == 0)).sum())
    assert sum(map(sum, counts)) == 90


def test_operating_points_reach_their_sensitivity_on_validation(report):
    validation = evaluation().scored["validation"]
    scores = validation.probabilities[validation.labels == 1, 1]
    for row, wanted in zip(report.operating_points[1:], (0.90, 0.95), strict=True):
        assert (scores >= row.threshold).mean() >= wanted


def test_delong_and_bootstrap_tell_the_same_story(report):
    test = report.performance.test["roc_auc"]
    assert report.delong.auc == pytest.approx(test.value)
    assert report.delong.low == pytest.approx(test.low, abs=0.005)


def test_subgroups_cover_the_attributes_that_are_known(report):
    assert {row.attribute for row in report.subgroups} == {"cohort", "sex", "view", "age"}
    both = [row for row in report.subgroups if row.attribute == "cohort"]
    assert sum(row.images for row in both) == 90
    test, cohorts = evaluation().scored["test"], evaluation().index["test"]["cohort"]
    for row in both:
        inside = (cohorts == row.group).to_numpy()
        expected = roc_auc_score(test.labels[inside], test.logits[inside, 1] - test.logits[inside, 0])
        assert row.metrics["roc_auc"].value == pytest.approx(expected)


def test_the_auc_within_cohorts_ignores_pairs_of_different_cohorts():
    """Scores that know only the cohort rank nothing within one, whatever they reach over all."""
    base = evaluation(400)
    frame = base.index["test"]
    frame["cohort"] = np.where(np.random.default_rng(0).random(400) < 0.1, "beta", "alpha")
    frame.loc[frame["target"] == 1, "cohort"] = np.where(frame[frame["target"] == 1].index % 4, "beta", "alpha")
    score = (frame["cohort"] == "beta").to_numpy(float)
    report = build_report(replace(base, logits={**base.logits, "test": np.stack([-score, score], 1)}))
    assert report.performance.test["roc_auc"].value > 0.75
    assert report.within_cohorts_roc_auc.value == 0.5


def test_the_shortcut_that_is_in_the_data_stands_beside_the_model(report):
    rows = {(row.cohort, row.shortcut): row for row in report.shortcuts.rows}
    assert set(rows) == {
        (cohort, name) for cohort in ("all cohorts", "alpha", "beta") for name in (item.name for item in SHORTCUTS)
    } | {("all cohorts", "cohort")}
    intensity = rows["all cohorts", "mean_intensity"]
    assert 0.55 < intensity.shortcut_auc.value < 0.85
    assert intensity.model_auc.value == pytest.approx(report.performance.test["roc_auc"].value)
    assert intensity.verdict == "model better"


def test_a_model_that_only_reads_the_brightness_is_caught():
    base = evaluation(400)
    brightness = base.index["test"]["mean_intensity"].to_numpy()
    noise = np.random.default_rng(1).normal(0, 30, 400)
    logits = np.stack([-(brightness + noise), brightness + noise], 1) / 20
    report = build_report(replace(base, logits={**base.logits, "test": logits}))
    row = next(row for row in report.shortcuts.rows if row.shortcut == "mean_intensity")
    assert row.verdict == "shortcut better"


def test_several_classes_follow_the_schema_and_say_where_their_curves_are():
    report = build_report(evaluation(120, ["covid", "normal", "pneumonia"]))
    assert_follows_the_schema(report)
    assert report.decision_rule.threshold is None
    assert report.performance.test["top_2_accuracy"].value > report.performance.test["accuracy"].value
    assert report.curves.roc is None
    assert "each has its own" in report.curves.reason
    assert [part.name for part in report.parts] == ["covid", "normal", "pneumonia"]
    assert headline(report)["test_youden_index"] is None


def test_each_of_several_classes_has_what_a_report_of_two_says_of_its_positive_one():
    """The same images, labels and probabilities as two classes give the same figures."""
    base = evaluation(150, ["covid", "normal", "pneumonia"])
    frame = base.index["test"][["cohort", "image_id"]].assign(split="test")
    weak = {f"probability_{name}": np.random.default_rng(3).random(150) for name in base.classes}
    report = build_report(replace(base, reference=frame.assign(**weak)))
    pairs = {split: base.scored[split].against_rest(2) for split in ("validation", "test")}
    index = {name: rows.assign(target=(rows["target"] == 2).astype(int)) for name, rows in base.index.items()}
    two = replace(
        base,
        index=index,
        logits={split: pair.logits for split, pair in pairs.items()},
        classes=["not pneumonia", "pneumonia"],
        positive=1,
    )
    expected, found = build_report(two), report.parts[2]
    assert found.curves == expected.curves
    assert found.operating_points == expected.operating_points
    assert found.calibration.uncalibrated.observed == expected.calibration.uncalibrated.observed
    assert found.calibration.uncalibrated.slope == pytest.approx(expected.calibration.uncalibrated.slope)
    assert found.roc_auc.value == pytest.approx(expected.performance.test["roc_auc"].value)
    assert found.calibration.calibrated.count != expected.calibration.calibrated.count  # one temperature for all
    assert found.decision_curve.treat_all == expected.decision_curve.treat_all
    assert found.comparison.result.p_value < 0.05
    rows = [row for row in report.shortcuts.rows if row.finding == "pneumonia"]
    assert [row.shortcut_auc for row in rows] == [row.shortcut_auc for row in expected.shortcuts.rows]
    assert len(report.shortcuts.rows) == 3 * len(rows)
    assert report.within_cohorts_roc_auc.value is not None


def test_a_test_set_of_one_class_gives_nulls_with_reasons():
    base = evaluation()
    report = build_report(with_test(base, (base.index["test"]["target"] == 0).to_numpy()))
    assert_follows_the_schema(report)
    auc = report.performance.test["roc_auc"]
    assert (auc.value, auc.reason) == (None, "no image of class pneumonia")
    assert report.curves.reason == "the images hold one class only"
    assert headline(report)["test_roc_auc"] is None
    assert headline(report)["test_accuracy"] is not None


def test_an_empty_test_set_gives_nulls_with_reasons():
    base = evaluation()
    report = build_report(with_test(base, np.zeros(90, bool)))
    assert_follows_the_schema(report)
    assert report.performance.test["accuracy"].reason == "no labelled images"
    assert report.failures == ()


def test_a_validation_set_of_one_class_falls_back_to_the_models_threshold_and_says_so():
    base = evaluation()
    keep = (base.index["validation"]["target"] == 1).to_numpy()
    index = {**base.index, "validation": base.index["validation"][keep].reset_index(drop=True)}
    logits = {**base.logits, "validation": base.logits["validation"][keep]}
    report = build_report(replace(base, index=index, logits=logits, model={**base.model, "threshold": 0.3}))
    assert_follows_the_schema(report)
    assert report.decision_rule.threshold == 0.3
    assert "validation lacks a class" in report.decision_rule.source
    assert report.decision_rule.temperature is None
    assert report.performance.test["ece"].value is None


def test_a_patient_on_two_sides_is_counted_as_leakage_and_fails_the_gate():
    base = evaluation()
    base.index["test"].loc[0, "patient_id"] = base.index["train"].loc[0, "patient_id"]
    report = build_report(base)
    assert report.data.leakage["patients_in_several_splits"] == 1
    assert [gate.status for gate in report.gates if gate.gate == "require_no_leakage"] == ["failed"]
    assert headline(report)["gates_passed"] is False


def test_failures_are_the_most_certain_wrong_decisions_of_both_kinds(report):
    test = evaluation().scored["test"]
    called = (test.probabilities[:, 1] >= report.decision_rule.threshold).astype(int)
    assert 0 < len(report.failures) <= 12
    for row in report.failures:
        assert test.classes[test.labels[row.row]] == row.truth != row.called
    missed = [row for row in report.failures if row.truth == "pneumonia"]
    worst = test.probabilities[(called == 0) & (test.labels == 1), 0].max()
    assert missed[0].confidence == pytest.approx(worst)


def test_dice_rows_become_means_over_all_and_by_cohort():
    rows = [
        {"cohort": "alpha", "patient_id": f"p{i}", "image_id": str(i), "dice": value, "iou": value / (2 - value)}
        for i, value in enumerate([0.9, 0.95, 0.85])
    ]
    report = build_report(evaluation(context={"dice": rows}))
    assert_follows_the_schema(report)
    assert report.segmentation.dice.value == pytest.approx(0.9)
    assert headline(report)["dice_mean"] == pytest.approx(0.9)
    assert report.segmentation.cohorts[0].cohort == "alpha"


def test_another_models_predictions_are_compared_on_the_images_both_scored():
    base = evaluation(300)
    frame = base.index["test"]
    weak = np.random.default_rng(5).random(300)
    reference = pd.DataFrame(
        {"split": "test", "cohort": frame["cohort"], "image_id": frame["image_id"], "probability_pneumonia": weak}
    ).iloc[:280]
    report = build_report(replace(base, reference=reference))
    assert_follows_the_schema(report)
    assert report.comparison.images == 280
    assert report.comparison.result.second == pytest.approx(roc_auc_score(frame["target"][:280], weak[:280]))
    assert report.comparison.result.p_value < 0.001


def test_predictions_of_other_classes_are_not_compared_and_say_so():
    reference = pd.DataFrame({"split": ["test"], "cohort": ["alpha"], "image_id": ["x"], "probability_other": [0.5]})
    report = build_report(replace(evaluation(), reference=reference))
    assert report.comparison.result is None
    assert "probability_pneumonia" in report.comparison.reason


def test_the_same_seed_gives_the_same_report():
    first, second = (build_report(evaluation(30)) for _ in range(2))
    assert first == second.model_copy(update={"created": first.created})


def test_more_resamples_are_used_when_asked_for():
    few, many = (build_report(replace(evaluation(40), settings=Settings(resamples=n))) for n in (33, 66))
    assert (few.settings.resamples, many.settings.resamples) == (33, 66)
    assert few.curves.roc.low != many.curves.roc.low


def test_every_checklist_item_is_answered_or_says_why_not(report):
    assert [row.item for row in report.checklist if row.item is not None] == list(range(1, 45))
    for row in report.checklist:
        assert (row.section is None) == bool(row.reason), row


def test_answers_can_be_withheld_and_the_report_says_what_that_gains():
    base = evaluation(200)
    whole, selective = build_report(base), build_report(replace(base, coverage=0.7))
    assert_follows_the_schema(selective)
    assert (whole.selective.asked, whole.decision_rule.undecided_below) == (None, None)
    assert whole.selective.coverage == selective.selective.coverage
    assert whole.selective.risk[-1] == pytest.approx(1 - whole.performance.test["accuracy"].value)
    assert selective.selective.asked == 0.7
    assert selective.selective.reached.low < 0.7 < selective.selective.reached.high
    assert selective.selective.metrics["accuracy"].value > whole.performance.test["accuracy"].value
    assert selective.performance == whole.performance
