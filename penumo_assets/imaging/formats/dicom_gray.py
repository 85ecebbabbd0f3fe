"""Stored DICOM values to what a radiologist sees: modality LUT, VOI LUT or window, presentation.

The whole chain is worked out once per possible stored value and then looked up per pixel, which is
exact and costs the same for every kind of file.

References
----------
DICOM PS3.3 C.11.1 (modality LUT), C.11.2 (VOI LUT), C.7.6.3.1.2 (photometric interpretation),
C.7.5.1.1.2 (pixel padding).
"""

import math
from typing import Any

import cv2
import numpy as np

from penumo_assets.configs.prepare import DecodeConfig
from penumo_assets.imaging.errors import ImageRejected
from penumo_assets.imaging.formats import dicom_header, dicom_voi
from penumo_assets.imaging.formats.dicom_depth import StoredFormat, padding_patterns
from penumo_assets.imaging.formats.dicom_lut import read_table
from penumo_assets.imaging.histogram import level_counts, percentile_levels

_FULL = 65535
_PIXELS_LOOKED_AT = 500_000  # enough to judge a window by


def to_display(
    pixels: np.ndarray, dataset: Any, stored: StoredFormat, config: DecodeConfig
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Render stored values.

    Parameters
    ----------
    pixels : numpy.ndarray
        (H, W) containers, uint8 or uint16 (signed ones viewed as unsigned).
    dataset : pydicom.Dataset
    stored : StoredFormat
    config : DecodeConfig

    Returns
    -------
    (numpy.ndarray, tuple of str)
        (H, W), dark to bright: uint16 over the full range, or uint8 as stored when there are at most
        8 bits and the header asks for no transformation; and notes on the window that was used.

    Raises
    ------
    ImageRejected
        ``constant_image`` when all pixels that are not padding are equal.
    """
    values = stored.values()
    padding = padding_patterns(dataset, stored)
    inverted = dataset.PhotometricInterpretation == "MONOCHROME1"
    modality, notes = _modality(dataset, values)
    step = max(1, math.isqrt(pixels.size // _PIXELS_LOOKED_AT))
    brightness, voi_notes = dicom_voi.choose(
        dataset, _film_levels(np.ascontiguousarray(pixels[::step, ::step]), modality, padding, config)
    )
    notes += voi_notes
    if brightness is not None:
        return _shown(pixels, brightness, inverted, padding, _FULL), tuple(notes)
    if "voi:unusable" not in notes and stored.bits <= 8 and not stored.signed and modality is values:
        # Eight bits without any transformation are display values already: as a PNG would hold them.
        brightness = values / ((1 << stored.bits) - 1)
        if np.count_nonzero(level_counts(pixels)[: len(padding)][~padding]) < 2:
            raise _constant()
        return _shown(pixels, brightness, inverted, padding, 255), (*notes, "window:full_range")
    levels = _film_levels(pixels, modality, padding, config)
    if not levels.high > levels.low:
        raise _constant()
    brightness = np.clip((modality - levels.low) / (levels.high - levels.low), 0.0, 1.0)
    return _shown(pixels, brightness, inverted, padding, _FULL), (*notes, "window:percentile")


def _modality(dataset: Any, values: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Stored values after the modality LUT or rescale; ``values`` itself when there is neither."""
    notes = []
    items = dataset.get("ModalityLUTSequence")
    if items:
        table = read_table(items[0], dataset)
        if table is not None:
            return table.apply(values), ["modality:lut"]
        notes = ["modality:lut_ignored"]
    slope, intercept = (
        next(iter(dicom_header.numbers(dataset, keyword)), default)
        for keyword, default in (("RescaleSlope", 1.0), ("RescaleIntercept", 0.0))
    )
    if not slope or not math.isfinite(slope * intercept):
        return values, [*notes, "rescale:ignored"]
    if (slope, intercept) == (1.0, 0.0):
        return values, notes
    return values * slope + intercept, notes


def _film_levels(
    pixels: np.ndarray, modality: np.ndarray, padding: np.ndarray, config: DecodeConfig
) -> dicom_voi.FilmLevels:
    """The values of pixels that are not padding; the configured percentiles, or the extremes where these coincide.

    Both ends are 0 where nothing but padding is left.
    """
    counts = level_counts(pixels)[: len(padding)]
    counts[padding] = 0
    used = modality[counts > 0]
    if not used.size:
        return dicom_voi.FilmLevels(modality, counts, 0.0, 0.0)
    first, last = _without_borders(np.unique(used))
    film = np.where((modality >= first) & (modality <= last), counts, 0)
    order = np.argsort(modality, kind="stable")
    ends = percentile_levels(film[order], config.window_low_percentile, config.window_high_percentile)
    low, high = (float(end) for end in modality[order][list(ends)])
    if low == high:
        low, high = float(used.min()), float(used.max())
    return dicom_voi.FilmLevels(modality, counts, low, high)


def _without_borders(levels: np.ndarray) -> tuple[float, float]:
    """Between which two of the ascending ``levels`` the film lies.

    Levels that are farther off than the film reaches are padding that the header does not own up to, borders or
    marks: they must not stretch the window. There may be some on both sides.
    """
    for _ in range(2):
        gaps = np.diff(levels)
        at = int(gaps.argmax()) if len(gaps) > 1 else 0
        below, above = levels[: at + 1], levels[at + 1 :]
        if len(gaps) < 2 or gaps[at] <= max(np.ptp(below), np.ptp(above)):
            break
        levels = max(below, above, key=np.ptp)
    return levels[0], levels[-1]


def _shown(pixels: np.ndarray, brightness: np.ndarray, inverted: bool, padding: np.ndarray, full: int) -> np.ndarray:
    """Look up the brightness 0..1 of every pixel's bit pattern, as levels up to ``full``; padding is black."""
    shown = 1.0 - brightness if inverted else brightness.copy()
    shown[padding] = 0.0
    table: np.ndarray = np.zeros(1 << 8 * pixels.dtype.itemsize, np.uint8 if full < 256 else np.uint16)
    table[: len(shown)] = np.rint(shown * full)
    return cv2.LUT(pixels, table)


def _constant() -> ImageRejected:
    return ImageRejected("constant_image", "all pixels have one value: there is no picture.")
