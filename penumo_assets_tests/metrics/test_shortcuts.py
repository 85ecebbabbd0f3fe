import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

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
    with pytest.raises(ValueError, match="do not hold both classes"):
        shortcut_scores(features, outcome, fit, apply)


def test_one_class_in_the_fit_rows_is_refused():
    index, outcome = table()
    fit, apply = split(400)
    with pytest.raises(ValueError, match="do not hold both classes"):
        shortcut_scores(shortcut_features(index), np.where(fit, 1, outcome), fit, apply)
