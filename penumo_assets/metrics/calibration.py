"""Do the probabilities mean what they say? Slope and offsets, reliability, ECE, Brier score, recalibration slope."""

from dataclasses import dataclass

import numpy as np
from scipy import optimize, special

from penumo_assets.metrics.scores import ScoreError, check_labels_and_scores

BINS = 10
_SPREAD = (1.5, 3.0)  # prior standard deviations of the logarithm of the temperature and of an offset


@dataclass(frozen=True)
class Calibration:
    """How logits become probabilities that mean what they say: softmax(logits / temperature + offsets).

    With two classes this is a slope, 1 / temperature, and an intercept of the log-odds (Platt 1999). ``offsets`` holds
    one number per class, adding to 0; empty in models that were calibrated by temperature alone.
    """

    temperature: float
    offsets: tuple[float, ...] = ()


AS_IT_IS = Calibration(1.0)


def softmax(logits: np.ndarray, by: Calibration | None = None) -> np.ndarray:
    """Probabilities (n, C) float64 of logits (n, C), calibrated if ``by`` is given."""
    return special.softmax(np.asarray(logits, np.float64) if by is None else calibrated_logits(logits, by), axis=1)


def calibrated_logits(logits: np.ndarray, by: Calibration) -> np.ndarray:
    """Logits (n, C) whose softmax is calibrated."""
    return np.asarray(logits, np.float64) / by.temperature + np.asarray(by.offsets or (0.0,))


def fit_calibration(labels: np.ndarray, logits: np.ndarray) -> Calibration | None:
    """Temperature and offsets by likelihood (Guo et al. 2017, arXiv:1706.04599; Alexandari et al. 2020).

    Fit it on validation data. A temperature alone cannot undo a prior that class weights shifted; the offsets do. A
    weak normal prior keeps both finite where the classes are perfectly separated or one is missing.

    Returns
    -------
    Calibration, or None if fewer than two classes are present.

    Raises
    ------
    ScoreError
        For NaN logits or labels outside the classes.
    """
    check_labels_and_scores(labels, logits)
    if len(np.unique(labels)) < 2:
        return None
    logits = np.asarray(logits, np.float64)
    truth = np.eye(logits.shape[1])[labels]
    spread = np.array([_SPREAD[0], *[_SPREAD[1]] * logits.shape[1]])

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        scaled = logits * np.exp(-parameters[0])
        log_probabilities = special.log_softmax(scaled + parameters[1:], axis=1)
        residual = np.exp(log_probabilities) - truth
        value = -log_probabilities[truth.astype(bool)].sum() + ((parameters / spread) ** 2).sum() / 2
        gradient = np.array([-(residual * scaled).sum(), *residual.sum(0)]) + parameters / spread**2
        return value / len(labels), gradient / len(labels)

    found = optimize.minimize(loss, np.zeros(logits.shape[1] + 1), jac=True, method="BFGS", options={"gtol": 1e-7}).x
    return Calibration(float(np.exp(found[0])), tuple(float(offset) for offset in found[1:] - found[1:].mean()))


@dataclass(frozen=True)
class Reliability:
    """Equal-width bins of a predicted probability: how many, mean prediction, observed frequency.

    ``mean_predicted`` and ``observed`` are NaN in empty bins.
    """

    edges: np.ndarray
    count: np.ndarray
    mean_predicted: np.ndarray
    observed: np.ndarray


def bin_sums(outcome: np.ndarray, predicted: np.ndarray, bins: int = BINS) -> np.ndarray:
    """Per image what a reliability bin adds up: (n, 3 * bins) of [count | prediction | outcome].

    Summed over any (re)sample of images they give its bins; ``ece_from_sums`` turns them into an
    error. Bins are [0, 1/bins), ... with 1 in the last.

    Raises
    ------
    ScoreError
        If a prediction is not a probability.
    """
    if len(predicted) and not (np.isfinite(predicted).all() and predicted.min() >= 0 and predicted.max() <= 1):
        raise ScoreError("calibration needs probabilities between 0 and 1")
    index = np.minimum((predicted * bins).astype(np.int64), bins - 1)
    rows = np.arange(len(predicted))
    sums = np.zeros((len(predicted), 3, bins))
    sums[rows, 0, index], sums[rows, 1, index], sums[rows, 2, index] = 1, predicted, outcome
    return sums.reshape(len(predicted), 3 * bins)


def ece_from_sums(sums: np.ndarray) -> np.ndarray:
    """Expected calibration error of (..., 3 * bins) summed ``bin_sums``: (...); NaN without images.

    ECE = sum_b (n_b / n) |observed_b - predicted_b| (Naeini et al. 2015, AAAI). It is biased upwards
    in small samples.
    """
    count, predicted, outcome = np.split(np.asarray(sums, np.float64), 3, axis=-1)
    total = count.sum(-1)
    gap = np.abs(outcome - predicted).sum(-1)
    return np.divide(gap, total, out=np.full(total.shape, np.nan), where=total > 0)


def ece_by_chance(predicted: np.ndarray, patients: np.ndarray, draws: int = 1000, seed: int = 0) -> np.ndarray:
    """ECE of ``draws`` sets of outcomes that the (n,) probabilities are perfectly calibrated for: (draws,).

    The error is biased upwards in small samples, so this, and not 0, is what it must be compared with. The images of a
    patient share their draw: they mostly share their label.
    """
    _, codes = np.unique(patients, return_inverse=True)
    random = np.random.default_rng(seed)
    index = np.minimum((predicted * BINS).astype(np.int64), BINS - 1)
    order = np.argsort(index, kind="stable")
    starts = np.flatnonzero(np.diff(index[order], prepend=-1))
    found = np.empty(draws)
    for i in range(draws):
        gap = (random.random(codes.max() + 1)[codes] < predicted) - predicted
        found[i] = np.abs(np.add.reduceat(gap[order], starts)).sum() / len(predicted)
    return found


def reliability(outcome: np.ndarray, predicted: np.ndarray, bins: int = BINS) -> Reliability:
    """The reliability curve of (n,) outcomes in {0, 1} and (n,) probabilities."""
    count, predicted_sum, outcome_sum = np.split(bin_sums(outcome, predicted, bins).sum(0), 3)
    with np.errstate(invalid="ignore"):
        return Reliability(
            np.linspace(0, 1, bins + 1), count.astype(np.int64), predicted_sum / count, outcome_sum / count
        )


def calibrated_event(
    labels: np.ndarray, probabilities: np.ndarray, positive: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """What calibration is measured on: outcome (n,) in {0, 1} and its predicted probability (n,).

    With a positive class, its probability; otherwise "the most probable class is right" and its
    confidence (Guo et al. 2017).
    """
    if positive is not None:
        return (labels == positive).astype(np.float64), probabilities[:, positive]
    best = probabilities.argmax(1)
    return (best == labels).astype(np.float64), probabilities[np.arange(len(labels)), best]


def brier_per_image(labels: np.ndarray, probabilities: np.ndarray, positive: int | None) -> np.ndarray:
    """Squared error per image (n,), whose mean is the Brier score (Brier 1950).

    With a positive class, (p - y)^2 in 0..1; otherwise summed over the classes, in 0..2.
    """
    if positive is not None:
        return (probabilities[:, positive] - (labels == positive)) ** 2
    return ((probabilities - np.eye(probabilities.shape[1])[labels]) ** 2).sum(1)


def recalibration(outcome: np.ndarray, predicted: np.ndarray) -> tuple[float, float] | None:
    """Slope of a logistic regression of the outcome on logit(prediction), and calibration in the large (Cox 1958).

    The second is the intercept with the slope held at 1: above 0 the predictions are too low on average. Slope 1 and
    intercept 0 are perfect; a slope below 1 says that the predictions are too extreme (Van Calster et al. 2019,
    doi:10.1186/s12916-019-1466-7).

    Returns
    -------
    (slope, intercept), or None if an outcome is absent, all predictions are equal, or the outcome
    is perfectly separated (no finite maximum of the likelihood).
    """
    logit = special.logit(np.clip(predicted, 1e-7, 1 - 1e-7))
    present = outcome.astype(bool)
    if present.all() or not present.any() or np.ptp(logit) == 0:
        return None
    if logit[present].min() >= logit[~present].max() or logit[present].max() <= logit[~present].min():
        return None

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        linear = parameters[0] * logit + parameters[1]
        residual = special.expit(linear) - outcome
        value = np.logaddexp(0, linear) - outcome * linear
        return float(value.mean()), np.array([(residual * logit).mean(), residual.mean()])

    def excess(intercept: float) -> float:
        return float((special.expit(logit + intercept) - outcome).mean())

    slope = optimize.minimize(loss, np.array([1.0, 0.0]), jac=True, method="BFGS").x[0]
    return float(slope), float(optimize.brentq(excess, -40.0, 40.0))
