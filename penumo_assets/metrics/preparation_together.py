"""What all quantities of `preparation` tell together: a module apart, because jobs/pack has no scikit-learn."""

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from penumo_assets.metrics.auc import MIN_PATIENTS, Part, mean_auc
from penumo_assets.metrics.records import Estimate


def revealed_together(table: np.ndarray, positive: np.ndarray, patients: np.ndarray) -> Estimate:
    """ROC-AUC of a logistic regression on all columns of an (n, k) table, each image scored by a fold without its
    patient; rows with NaN are left out."""
    known = np.isfinite(table).all(axis=1)
    table, positive, patients = table[known], positive[known], patients[known]
    if min(len(np.unique(patients[side])) for side in (positive, ~positive)) < MIN_PATIENTS:
        return Estimate.undefined(f"fewer than {MIN_PATIENTS} patients with or without the class")
    scores = cross_val_predict(
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
        table,
        positive,
        groups=patients,
        cv=StratifiedGroupKFold(5, shuffle=True, random_state=0),
        method="decision_function",
    )
    return mean_auc([Part(positive, scores, patients)])
