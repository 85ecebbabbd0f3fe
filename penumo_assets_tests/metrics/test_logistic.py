"""The regression by hand is scikit-learn's, and scores no patient by a fit that has seen one of its rows."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from penumo_assets.metrics.logistic import fit, out_of_fold_scores


@pytest.mark.parametrize("telling", [0.0, 1.0, 100.0])  # the last separates the classes
def test_weights_are_those_of_scikit_learn(telling: float) -> None:
    random = np.random.default_rng(1)
    table = random.normal(size=(120, 3))
    positive = telling * table[:, 0] + random.normal(size=120) > 0.5
    found = fit(np.column_stack([table, np.ones(120)]), positive)
    expected = LogisticRegression(max_iter=10_000, tol=1e-10).fit(table, positive)
    np.testing.assert_allclose(found, [*expected.coef_[0], *expected.intercept_], atol=1e-4)


def test_a_patients_rows_are_never_scored_by_themselves() -> None:
    random = np.random.default_rng(2)
    patients = np.repeat(np.arange(40), 3)
    positive = np.repeat(random.permutation(40) < 20, 3)
    secret = np.repeat(random.normal(size=(40, 30)), 3, axis=0)  # tells a patient, and nothing of the class
    scores = out_of_fold_scores(secret, positive, patients)
    agreement = np.mean((scores > 0) == positive)
    assert 0.25 < agreement < 0.75
    assert (
        np.mean(
            (np.column_stack([secret, np.ones(120)]) @ fit(np.column_stack([secret, np.ones(120)]), positive) > 0)
            == positive
        )
        > 0.85
    )


def test_a_column_that_tells_the_class_is_found_and_one_that_never_varies_does_no_harm() -> None:
    random = np.random.default_rng(3)
    positive = np.arange(60) < 30
    table = np.column_stack([positive + random.normal(0, 0.3, 60), np.full(60, 7.0)])
    scores = out_of_fold_scores(table, positive, np.arange(60))
    assert np.mean((scores > 0) == positive) > 0.9
