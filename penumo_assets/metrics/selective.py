"""Answers that a model may withhold: how sure it is of each, and what answering fewer images gains."""

import numpy as np
from scipy import special

NOT_DECIDED = "not decided"


def confidence(probabilities: np.ndarray, threshold: float | None, positive: int | None) -> np.ndarray:
    """How far each decision is from another, (n,): in log-odds from the threshold, or between the likeliest classes.

    Parameters
    ----------
    probabilities : (n, C), uncalibrated, as decisions are made on them.
    threshold, positive : see ``classification.decide``.
    """
    tiny = np.finfo(np.float64).tiny
    if threshold is not None and positive is not None:
        p = np.clip(probabilities[:, positive], 1e-12, 1 - 1e-12)
        return np.abs(special.logit(p) - special.logit(np.clip(threshold, 1e-12, 1 - 1e-12)))
    best = np.sort(np.maximum(probabilities, tiny), axis=1)
    return np.log(best[:, -1]) - np.log(best[:, -2])


def cut_for_coverage(sureness: np.ndarray, coverage: float) -> float | None:
    """The confidence below which an image is not decided, so that a share ``coverage`` of (n,) is; None for all.

    Half-way between the least sure image that is decided and the next, so that no image stands on the cut: rounding,
    which differs with the batch that an image is computed in, would decide it.
    """
    if coverage >= 1 or not len(sureness):
        return None
    least = np.quantile(sureness, 1 - coverage, method="lower")
    return float((least + sureness[sureness < least].max(initial=0)) / 2)


def risk_coverage(sureness: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Share of wrong decisions among the surest images, by their share (El-Yaniv & Wiener 2010): both (n,), rising.

    ``right`` is (n,) bool. Images of one confidence are answered together, so their points are the same.
    """
    order = np.argsort(-sureness, kind="stable")
    ordered = sureness[order]
    last = np.searchsorted(-ordered, -ordered, side="right")  # images at least as sure as each
    wrong = np.cumsum(~right[order])
    return last / len(right), wrong[last - 1] / last
