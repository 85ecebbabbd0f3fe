"""The windows and value-of-interest tables of a DICOM header, and whether they show the film.

References
----------
DICOM PS3.3 C.11.2 (VOI LUT: tables, windows and their functions).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from penumo_assets.imaging.formats import dicom_header
from penumo_assets.imaging.formats.dicom_lut import read_table
from penumo_assets.imaging.formats.dicom_parser import MAX_ALTERNATIVES

# A window that shows the film has most of its pixels, or most of its range of values, between black and white: the
# two shares together come to 1.2 and more for windows that radiographs carry, to 0.5 and less for windows of 8 bits
# on 12. And it spreads what it shows over a good part of the gray levels: one of two bits too many leaves a quarter.
_LEAST_SHOWN = 0.8
_LEAST_CONTRAST = 0.3


@dataclass(frozen=True)
class FilmLevels:
    """The film's own values: how often each occurs, without padding, and the two between which nearly all lie."""

    values: np.ndarray
    counts: np.ndarray
    low: float
    high: float

    def shown_by(self, brightness: np.ndarray) -> bool:
        """Whether a window shows the film, given the brightness 0..1 that it gives to each of ``values``."""
        within = (self.values >= self.low) & (self.values <= self.high)
        own = within & (self.counts > 0)
        if self.high > self.low:  # large areas of black or white are often at the ends
            own &= (self.values > self.low) & (self.values < self.high)
        if not own.any():
            own = self.counts > 0
        grays = np.rint(brightness * 255)
        seen = grays[within & (self.counts > 0)]
        darkest, brightest = seen.min(initial=255), seen.max(initial=0)
        between = (grays > darkest) & (grays < brightest)  # at the ends a window or a table has cut off
        pixels = self.counts[own & between].sum() / self.counts[own].sum()
        contrast = (brightest - darkest) / 255
        return bool(contrast >= _LEAST_CONTRAST and pixels + between[within].mean() >= _LEAST_SHOWN)


def choose(dataset: Any, levels: FilmLevels) -> tuple[np.ndarray | None, list[str]]:
    """The brightness 0..1 of each of ``levels.values`` by the first table or window that shows the film, and notes.

    ``voi:lut``, ``voi:linear``, ``voi:linear_exact`` or ``voi:sigmoid`` says what was used, and ``voi:choice_2`` that
    it was the second that the header offers. ``None`` with ``voi:invalid`` where the header offers none that can be
    used, with ``voi:unusable`` where none shows the film, and without either where it offers nothing.
    ``voi:lut_ignored``: a table has no entries.
    """
    notes: list[str] = []
    offered = 0
    for brightness, note in _offered(dataset, levels.values):
        if brightness is None:
            notes.append(note)
            continue
        offered += 1
        if levels.shown_by(brightness):
            return brightness, [
                *(each for each in notes if each != "voi:invalid"),
                note,
                *([f"voi:choice_{offered}"] if offered > 1 else []),
            ]
    return None, [*dict.fromkeys(notes), *(["voi:unusable"] if offered else [])]


def window(values: np.ndarray, center: float, width: float, function: str = "LINEAR") -> np.ndarray:
    """Brightness 0..1 of ``values`` under a window (DICOM PS3.3 C.11.2.1.2 and C.11.2.1.3).

    Raises
    ------
    ValueError
        If the width is not allowed for the function (below 1 for LINEAR, else not positive).
    """
    if not (math.isfinite(center) and math.isfinite(width)) or width <= 0 or (function == "LINEAR" and width < 1):
        raise ValueError("a window needs a finite centre and a positive width")
    values = values.astype(np.float64)
    if function == "SIGMOID":
        return 1.0 / (1.0 + np.exp(np.clip(-4.0 * (values - center) / width, -700, 700)))
    if function == "LINEAR_EXACT":
        return np.clip((values - center) / width + 0.5, 0.0, 1.0)
    if width == 1:
        return (values > center - 0.5).astype(np.float64)
    return np.clip((values - (center - 0.5)) / (width - 1) + 0.5, 0.0, 1.0)


def _offered(dataset: Any, values: np.ndarray) -> Iterator[tuple[np.ndarray | None, str]]:
    """What a header offers, tables first: the brightness of each value and its name, or ``None`` and what is wrong."""
    for item in (dataset.get("VOILUTSequence") or ())[:MAX_ALTERNATIVES]:
        table = read_table(item, dataset)
        yield (table.apply(values) / table.full, "voi:lut") if table else (None, "voi:lut_ignored")
    function = dicom_header.text(dataset, "VOILUTFunction")
    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        function = "LINEAR"
    centers, widths = (dicom_header.numbers(dataset, name) for name in ("WindowCenter", "WindowWidth"))
    for center, width in zip(centers, widths, strict=False):
        try:
            yield window(values, center, width, function), f"voi:{function.lower()}"
        except ValueError:
            yield None, "voi:invalid"
    if bool(centers) != bool(widths):
        yield None, "voi:invalid"
