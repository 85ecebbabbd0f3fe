import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from penumo_assets.metrics.delong import compare_aucs
from penumo_assets.metrics.paired import compare_paired, compare_predictions
from penumo_assets.metrics.scores import ScoreError

CLASSES = ["covid", "normal", "pneumonia"]


def images(n: int, random: np.random.Generator, strengths=(1.5, 1.5), films: int = 2):
    """Labels, two models' scores of the same patients (correlated, as two networks' are), and the patients."""
    patients = np.repeat(np.arange(n // films), films)
    labels = np.repeat(random.integers(0, 2, n // films), films)
    shared = np.repeat(random.normal(size=n // films), films) + random.normal(size=n)
    first, second = (strength * labels + shared + random.normal(size=n) for strength in strengths)
    return labels, first, second, patients


def test_the_comparison_agrees_with_delongs_clustered_one():
    labels, first, second, patients = images(300, np.random.default_rng(0), (1.6, 1.2))
    found, known = compare_paired(labels, first, second, patients), compare_aucs(labels, second, first, patients)
    assert (found.champion, found.challenger) == pytest.approx((known.second, known.first))
    assert (found.low, found.high) == pytest.approx((known.low, known.high), abs=2e-4)
    assert (found.images, found.patients) == (300, 150)


def test_a_clearly_worse_challenger_is_worse_and_a_better_one_is_not():
    random = np.random.default_rng(1)
    assert compare_paired(*images(400, random, (2.0, 0.4))).worse
    assert not compare_paired(*images(400, random, (0.4, 2.0))).worse


def test_a_loss_within_the_margin_is_not_worse():
    labels, first, second, patients = images(2000, np.random.default_rng(2), (1.6, 1.2))
    found = compare_paired(labels, first, second, patients)
    assert found.worse
    allowed = compare_paired(labels, first, second, patients, margin=-found.difference)
    assert not allowed.worse
    assert allowed.p_worse == pytest.approx(0.5)


@pytest.mark.parametrize("films", [1, 3])
def test_equal_models_are_called_worse_in_one_of_forty_comparisons(films):
    random = np.random.default_rng(3)
    worse = [compare_paired(*images(180, random, films=films)).worse for _ in range(1500)]
    assert 0.012 < np.mean(worse) < 0.042


def test_the_same_ranking_is_not_worse_and_has_no_p_value():
    labels, first, _, patients = images(60, np.random.default_rng(4))
    found = compare_paired(labels, first, 3 * first + 1, patients)
    assert (found.difference, found.worse, found.p_worse) == (0.0, False, None)


def test_several_classes_are_compared_by_their_mean_auc():
    random = np.random.default_rng(5)
    labels, patients = random.integers(0, 3, 240), np.arange(240) // 2
    good, bad = (strength * np.eye(3)[labels] + random.normal(size=(240, 3)) for strength in (2.0, 0.3))
    found = compare_paired(labels, good, bad, patients)
    means = [np.mean([roc_auc_score(labels == i, scores[:, i]) for i in range(3)]) for scores in (good, bad)]
    assert [found.champion, found.challenger] == pytest.approx(means)
    assert found.worse


def test_too_few_patients_of_a_class_are_not_compared():
    labels = np.array([1] * 12 + [0] * 12)
    scores = np.random.default_rng(6).normal(size=24)
    assert compare_paired(labels, scores, -scores, np.arange(24)) is not None
    assert compare_paired(labels, scores, -scores, np.arange(24) // 4) is None


def test_broken_scores_other_shapes_and_a_negative_margin_are_refused():
    labels, first, second, patients = images(40, np.random.default_rng(7))
    with pytest.raises(ScoreError, match="NaN"):
        compare_paired(labels, first, np.where(labels == 1, np.nan, second), patients)
    with pytest.raises(ScoreError, match="not paired"):
        compare_paired(labels, first, second[:-1], patients)
    with pytest.raises(ValueError, match="margin"):
        compare_paired(labels, first, second, patients, margin=-0.1)


def frame(labels, scores, patients, names=("normal", "pneumonia")) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "split": "test",
            "cohort": "alpha",
            "image_id": [f"i{i}" for i in range(len(labels))],
            "patient_id": patients.astype(str),
            "label": np.array(names)[labels],
            "probability_pneumonia": scores,
        }
    )


def test_predictions_are_compared_on_the_images_that_both_scored_with_the_same_label():
    labels, first, second, patients = images(120, np.random.default_rng(8), (2.0, 0.2))
    champion, challenger = frame(labels, first, patients), frame(labels, second, patients)
    champion.loc[0, "label"] = "pneumonia" if labels[0] == 0 else "normal"
    champion.loc[1, "split"] = "validation"
    found = compare_predictions(champion, challenger.iloc[:-4], ["normal", "pneumonia"], "pneumonia", 0.01)
    expected = compare_paired(labels[2:-4], first[2:-4], second[2:-4], patients[2:-4], 0.01)
    for name, value in expected.model_dump().items():
        assert getattr(found, name) == (pytest.approx(value) if isinstance(value, float) else value), name


def test_predictions_that_cannot_be_compared_say_why():
    labels, first, second, patients = images(120, np.random.default_rng(9))
    champion, challenger = frame(labels, first, patients), frame(labels, second, patients)
    assert "champion's predictions have no probability_covid" in compare_predictions(
        champion, challenger, CLASSES, None
    )
    none = compare_predictions(champion, challenger, ["normal", "pneumonia"], "pneumonia", split="validation")
    assert none.startswith("the two models scored 0 of the same validation images")
    few = compare_predictions(champion.iloc[:8], challenger, ["normal", "pneumonia"], "pneumonia")
    assert few.startswith("the two models scored 8 of the same test images")
    other = champion.assign(image_id="x")
    assert "scored 0 of" in compare_predictions(other, challenger, ["normal", "pneumonia"], "pneumonia")
