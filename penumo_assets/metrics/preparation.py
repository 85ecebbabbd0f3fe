"""What the preparation of a tensor tells about its class, seen with the lungs blanked.

Black bars and the place of the lungs' outline are made by the preparation alone; nothing about them is a finding, so
they must not tell classes apart. The border of the picture is the film's own: collimation, arms, brightness.
"""

from collections.abc import Mapping

import numpy as np

from penumo_assets.metrics.auc import Part, mean_auc
from penumo_assets.metrics.ranking import roc_auc
from penumo_assets.metrics.records import Estimate

BARS = ("bar_height", "bar_width")
OUTLINE = ("outline_top", "outline_bottom", "outline_left", "outline_right", "outline_height", "outline_width")
BORDER = ("border_mean", "border_sd", "border_black")
QUANTITIES = (*BARS, *OUTLINE, *BORDER)
_RING = 8  # pixels at each side that are the border
_FLAT = 8  # gray levels between which a line of pixels is a bar
_BLACK = 16


def preparation_quantities(tensor: np.ndarray) -> dict[str, float]:
    """`QUANTITIES` of one (S, S, 4) uint8 tensor; NaN where there is nothing to measure.

    Bars (lines of one gray at opposite edges, together) and outline (the box of the mask) are shares of the side, the
    border's mean and standard deviation gray levels, and ``border_black`` the share of its pixels that are black.
    """
    gray, lungs = tensor[..., :3].mean(axis=2), tensor[..., 3] > 0
    side = len(gray)
    ring = np.ones_like(lungs)
    ring[_RING:-_RING, _RING:-_RING] = False
    border = gray[ring & ~lungs]
    found = dict.fromkeys(QUANTITIES, np.nan)
    found["bar_height"] = (_bar(gray) + _bar(gray[::-1])) / side
    found["bar_width"] = (_bar(gray.T) + _bar(gray.T[::-1])) / side
    if lungs.any():
        rows, columns = np.flatnonzero(lungs.any(axis=1)), np.flatnonzero(lungs.any(axis=0))
        ends = [rows[0], rows[-1] + 1, columns[0], columns[-1] + 1]
        ends += [ends[1] - ends[0], ends[3] - ends[2]]
        found |= {name: float(end) / side for name, end in zip(OUTLINE, ends, strict=True)}
    if len(border):
        found |= dict(zip(BORDER, (border.mean(), border.std(), (border < _BLACK).mean()), strict=True))
    return {name: float(value) for name, value in found.items()}


def revealed(
    quantities: Mapping[str, np.ndarray], positive: np.ndarray, patients: np.ndarray, confidence: float = 0.95
) -> dict[str, Estimate]:
    """ROC-AUC of each quantity by itself, in the better of its two directions, which flatters it.

    Parameters
    ----------
    quantities : (n,) values by name; NaN is left out.
    positive : (n,) bool, whether an image is of the class.
    patients : (n,) array of patient identifiers.
    """
    return {name: _alone(values, positive, patients, confidence) for name, values in quantities.items()}


def _bar(lines: np.ndarray) -> int:
    """How many lines from the first on have one gray level."""
    varied = np.ptp(lines, axis=1) > _FLAT
    return int(np.argmax(varied)) if varied.any() else len(lines)


def _alone(values: np.ndarray, positive: np.ndarray, patients: np.ndarray, confidence: float) -> Estimate:
    known = np.isfinite(values)
    values, positive, patients = values[known], positive[known], patients[known]
    if positive.all() or not positive.any():
        return Estimate.undefined("one class only")
    if roc_auc(positive.astype(np.int64), values) < 0.5:
        values = -values
    return mean_auc([Part(positive, values, patients)], confidence)
