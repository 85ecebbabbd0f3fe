import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from penumo_assets.metrics.preparation import QUANTITIES
from penumo_assets.metrics.shortcuts import SHORTCUTS, shortcut_features, shortcut_scores


def table(n: int = 400, seed: int = 0) -> tuple[pd.DataFrame, np.ndarray]:
    """Positive images are narrower; intensity and size are noise."""
    random = np.random.default_rng(seed)
    outcome = random.integers(0, 2, n)
    return pd.DataFrame(
        {
            "source_width": 1000 - 150 * outcome + random.normal(0, 60, n),
            "source_height": 1000 + random.normal(0, 60, n),
            "source_bytes": random.integers(20_000, 80_000, n),
            "mean_intensity": random.normal(120, 20, n),
        }
    ), outcome


def columns(name: str) -> list[str]:
    return list(next(item for item in SHORTCUTS if item.name == name).columns)


def split(n: int) -> tuple[np.ndarray, np.ndarray]:
    fit = np.arange(n) < n // 2
    return fit, ~fit


@pytest.mark.parametrize(
    ("name", "low", "high"), [("aspect_ratio", 0.85, 1.0), ("file_size", 0.38, 0.62), ("all", 0.85, 1.0)]
)
def test_a_shortcut_that_is_in_the_data_is_found_and_one_that_is_not_is_chance(name, low, high):
    index, outcome = table()
    fit, apply = split(400)
    scores = shortcut_scores(shortcut_features(index)[columns(name)], outcome, fit, apply)
    assert low < roc_auc_score(outcome[apply], scores) < high


def test_the_test_labels_have_no_influence():
    index, outcome = table()
    fit, apply = split(400)
    features = shortcut_features(index)[columns("aspect_ratio")]
    turned = np.where(apply, 1 - outcome, outcome)
    np.testing.assert_array_equal(
        shortcut_scores(features, outcome, fit, apply), shortcut_scores(features, turned, fit, apply)
    )


def test_unknown_features_give_nan_scores_in_their_rows_only():
    index, outcome = table()
    index.loc[[210, 399], "source_width"] = np.nan
    index.loc[250, "source_height"] = 0
    fit, apply = split(400)
    scores = shortcut_scores(shortcut_features(index)[columns("aspect_ratio")], outcome, fit, apply)
    assert np.flatnonzero(np.isnan(scores)).tolist() == [10, 50, 199]


def test_a_column_that_is_missing_is_unknown_everywhere_and_says_so():
    index, outcome = table()
    fit, apply = split(400)
    features = shortcut_features(index.drop(columns="source_bytes"))[columns("file_size")]
    with pytest.raises(ValueError, match="not known"):
        shortcut_scores(features, outcome, fit, apply)


def test_whom_and_how_a_film_shows_counts_as_a_shortcut():
    index = pd.DataFrame(
        {"view": ["AP Supine", "pa", "LATERAL", None], "sex": ["m", "F", "O", None], "age": [1, 2, "x", None]}
    )
    features = shortcut_features(index)
    nothing = [np.nan, np.nan]
    np.testing.assert_array_equal(features["is_ap"], [1, 0, *nothing])
    np.testing.assert_array_equal(features["is_male"], [1, 0, *nothing])
    np.testing.assert_array_equal(features["age"], [1, 2, *nothing])


def test_what_the_preparation_left_beside_the_lungs_counts_as_a_shortcut():
    index, outcome = table()
    random = np.random.default_rng(1)
    for name in QUANTITIES:
        index[name] = random.random(400)
    index["bar_height"] += 0.8 * outcome
    fit, apply = split(400)
    features = shortcut_features(index)
    for name, low, high in (("bar_share", 0.9, 1), ("preparation", 0.9, 1), ("border", 0.38, 0.62)):
        scores = shortcut_scores(features[columns(name)], outcome, fit, apply)
        assert low < roc_auc_score(outcome[apply], scores) <= high, name


def test_one_class_in_the_fit_rows_is_refused():
    index, outcome = table()
    fit, apply = split(400)
    with pytest.raises(ValueError, match="do not hold both classes"):
        shortcut_scores(shortcut_features(index)[columns("all")], np.where(fit, 1, outcome), fit, apply)


@pytest.mark.parametrize("columns", [1, 3])
def test_the_scores_are_those_of_scikit_learns_logistic_regression(columns):
    random = np.random.default_rng(columns)
    outcome = random.integers(0, 2, 120)
    features = pd.DataFrame(random.normal(5, 3, (120, columns)) + outcome[:, None])
    fit = np.arange(120) < 80
    known = make_pipeline(StandardScaler(), LogisticRegression(tol=1e-8)).fit(features[fit].to_numpy(), outcome[fit])
    expected = known.predict_proba(features[~fit].to_numpy())[:, 1]
    np.testing.assert_allclose(shortcut_scores(features, outcome, fit, ~fit), expected, atol=1e-4)
