"""What the preparation of a tensor tells about its class, seen with the lungs blanked.

Black bars and the place of the lungs' outline are made by the preparation alone; nothing about them is a finding, so
they must not tell classes apart. The border of the picture is the film's own (collimation, arms, brightness), but for
what enhancement adds to it: `metrics.revealed.added` compares it with the same border before any filter.
"""

import numpy as np

BARS = ("bar_height", "bar_width")
OUTLINE = ("outline_top", "outline_bottom", "outline_left", "outline_right", "outline_height", "outline_width")
BORDER = ("border_mean", "border_sd", "border_black")
QUANTITIES = (*BARS, *OUTLINE, *BORDER)
FILM_BORDER = ("film_border_mean", "film_border_sd", "film_border_black")  # the border before any filter
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
    found = dict.fromkeys(QUANTITIES, np.nan)
    found["bar_height"] = (_bar(gray) + _bar(gray[::-1])) / side
    found["bar_width"] = (_bar(gray.T) + _bar(gray.T[::-1])) / side
    if lungs.any():
        rows, columns = np.flatnonzero(lungs.any(axis=1)), np.flatnonzero(lungs.any(axis=0))
        ends = [rows[0], rows[-1] + 1, columns[0], columns[-1] + 1]
        ends += [ends[1] - ends[0], ends[3] - ends[2]]
        found |= {name: float(end) / side for name, end in zip(OUTLINE, ends, strict=True)}
    found |= dict(zip(BORDER, border_quantities(gray, lungs), strict=True))
    return {name: float(value) for name, value in found.items()}


def border_quantities(gray: np.ndarray, lungs: np.ndarray) -> tuple[float, float, float]:
    """`BORDER` of an (S, S) picture beside its (S, S) bool lungs; NaN where they leave nothing of the border."""
    ring = np.ones_like(lungs)
    ring[_RING:-_RING, _RING:-_RING] = False
    border = gray[ring & ~lungs]
    if not len(border):
        return (np.nan, np.nan, np.nan)
    return float(border.mean()), float(border.std()), float((border < _BLACK).mean())


def _bar(lines: np.ndarray) -> int:
    """How many lines from the first on have one gray level."""
    varied = np.ptp(lines, axis=1) > _FLAT
    return int(np.argmax(varied)) if varied.any() else len(lines)
