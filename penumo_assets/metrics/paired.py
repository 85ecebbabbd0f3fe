"""Is one model worse than another? Both ranked the same images, so they are compared patient by patient."""

from typing import Literal

import numpy as np
import pandas as pd
from pydantic import Field
from scipy import special  # not scipy.stats: see metrics.auc

from penumo_assets.metrics.delong import auc_influence
from penumo_assets.metrics.records import Count, Record, Share
from penumo_assets.metrics.scores import ScoreError

MIN_PATIENTS = 5  # with and without a class; below, a difference says nothing


class PairedComparison(Record):
    """ROC-AUC of a challenger minus that of the champion, on the same images.

    ``low`` and ``high`` bound the difference. ``worse``: the whole interval lies below ``-margin``. ``p_worse`` is the
    one-sided p value of that; None when both rank alike, because the difference then has no variance.
    """

    champion: Share
    challenger: Share
    difference: float
    low: float
    high: float
    margin: float = Field(ge=0)
    p_worse: Share | None
    worse: bool
    images: Count
    patients: Count
    method: Literal["paired DeLong, by patient"] = "paired DeLong, by patient"


def compare_paired(
    labels: np.ndarray,
    champion: np.ndarray,
    challenger: np.ndarray,
    patients: np.ndarray,
    margin: float = 0.0,
    confidence: float = 0.95,
) -> PairedComparison | None:
    """Is the challenger's ROC-AUC lower than the champion's by more than ``margin``, beyond chance?

    Parameters
    ----------
    labels : (n,) int. With one-dimensional scores 0 and 1, else positions in the columns of the scores.
    champion, challenger : (n,) scores of the positive class, or (n, C) of each class, whose AUCs against the rest
        are then averaged.
    patients : (n,) patient identifiers; images of one patient count as one observation.
    margin : what may be lost, in AUC.
    confidence : two-sided level of the interval.

    Returns
    -------
    PairedComparison, or None if fewer than ``MIN_PATIENTS`` patients have, or lack, one of the classes.

    Raises
    ------
    ScoreError
        For NaN scores, unequal shapes or impossible labels.
    ValueError
        If ``margin`` is negative.
    """
    if margin < 0:
        raise ValueError(f"margin must not be negative, got {margin}")
    if champion.shape != challenger.shape or len(champion) != len(patients):
        raise ScoreError(f"scores {champion.shape} and {challenger.shape} of {len(patients)} images are not paired")
    targets = [1] if champion.ndim == 1 else list(range(champion.shape[1]))
    if not all(_enough(labels == target, patients) for target in targets):
        return None
    aucs, influence = np.zeros(2), np.zeros((2, len(np.unique(patients))))
    for target in targets:
        columns = [scores if scores.ndim == 1 else scores[:, target] for scores in (champion, challenger)]
        auc, by_patient = auc_influence(labels == target, np.stack(columns), patients)
        aucs += auc / len(targets)
        influence += by_patient / len(targets)
    difference = float(aucs[1] - aucs[0])
    error = float(np.sqrt(((influence[1] - influence[0]) ** 2).sum()))
    half = float(special.ndtri(0.5 + confidence / 2)) * error
    return PairedComparison(
        champion=float(aucs[0]),
        challenger=float(aucs[1]),
        difference=difference,
        low=difference - half,
        high=difference + half,
        margin=margin,
        p_worse=float(special.ndtr((difference + margin) / error)) if error > 1e-12 else None,
        worse=difference + half < -margin,
        images=len(labels),
        patients=influence.shape[1],
    )


def compare_predictions(
    champion: pd.DataFrame,
    challenger: pd.DataFrame,
    classes: list[str],
    positive: str | None,
    margin: float = 0.0,
    split: str = "test",
) -> PairedComparison | str:
    """The comparison of two models' ``predictions.parquet`` on the images of a split that both scored alike.

    Parameters
    ----------
    champion, challenger : split, cohort, image_id, patient_id, label and ``probability_<class>``, as the evaluate job
        writes them. An image counts when both name it with the same label.
    classes, positive : the class names, and the positive one of two.
    split : "test" or "validation".

    Returns
    -------
    PairedComparison, or in one sentence why there is none.
    """
    columns = [f"probability_{name}" for name in ([positive] if positive is not None else classes)]
    for name, frame in (("champion", champion), ("challenger", challenger)):
        if missing := [column for column in columns if column not in frame]:
            return f"the {name}'s predictions have no {', '.join(missing)}"
    keys = ["cohort", "image_id", "label"]
    ours, theirs = (
        frame.loc[frame["split"] == split, [*keys, "patient_id", *columns]].drop_duplicates(keys)
        for frame in (challenger, champion)
    )
    both = ours.merge(theirs.drop(columns="patient_id"), on=keys, suffixes=("", "_champion"))
    both = both[both["label"].isin(classes)]
    if positive is not None:
        labels = (both["label"] == positive).to_numpy(np.int64)
    else:
        labels = both["label"].map({name: i for i, name in enumerate(classes)}).to_numpy(np.int64)
    scores = [both[[column + suffix for column in columns]].to_numpy(np.float64) for suffix in ("_champion", "")]
    first, second = (values[:, 0] if positive is not None else values for values in scores)
    found = compare_paired(labels, first, second, both["patient_id"].to_numpy(str), margin) if len(both) else None
    return found or (
        f"the two models scored {len(both)} of the same {split} images, which are too few: at least {MIN_PATIENTS} "
        "patients must have, and as many lack, each class"
    )


def _enough(present: np.ndarray, patients: np.ndarray) -> bool:
    return min(len(np.unique(patients[side])) for side in (present, ~present)) >= MIN_PATIENTS
