"""Stored DICOM values to what a radiologist sees: modality LUT, VOI LUT or window, presentation.

The whole chain is worked out once per possible stored value and then looked up per pixel, which is
exact and costs the same for every kind of file.

References
----------
DICOM PS3.3 C.11.1 (modality LUT), C.11.2 (VOI LUT), C.7.6.3.1.2 (photometric interpretation),
C.7.5.1.1.2 (pixel padding).
"""

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from penumo_assets.configs.prepare import DecodeConfig
from penumo_assets.imaging.errors import ImageRejected
from penumo_assets.imaging.formats import dicom_header
from penumo_assets.imaging.histogram import level_counts, percentile_levels

_FULL = 65535


@dataclass(frozen=True)
class StoredFormat:
    """How integers lie in their containers (DICOM PS3.5 8.1.1)."""

    container: int
    bits: int
    high_bit: int
    signed: bool

    def values(self) -> np.ndarray:
        """The stored value (int32) that each of the 2**container bit patterns stands for."""
        raw = np.arange(1 << self.container, dtype=np.int32)
        raw = (raw >> (self.high_bit + 1 - self.bits)) & ((1 << self.bits) - 1)
        if self.signed:
            raw -= (raw >> (self.bits - 1)) << self.bits
        return raw


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
    padding = _padding(dataset, values, stored)
    inverted = dataset.get("PhotometricInterpretation") == "MONOCHROME1"
    modality, notes = _modality(dataset, values)
    brightness, voi_note = _voi(dataset, modality)
    if brightness is None and stored.bits <= 8 and not stored.signed and modality is values:
        # Eight bits without any transformation are display values already: as a PNG would hold them.
        brightness, voi_note = values / ((1 << stored.bits) - 1), "window:full_range"
        display = cv2.LUT(pixels, _table(brightness, inverted, padding, 255).astype(np.uint8))
        _refuse_constant(pixels, padding)
        return display, (*notes, voi_note)
    if brightness is not None:
        display = cv2.LUT(pixels, _table(brightness, inverted, padding, _FULL))
        if _varies(display):
            return display, (*notes, *([voi_note] if voi_note else []))
        voi_note = "voi:unusable"
    counts = level_counts(pixels)
    counts[padding] = 0
    brightness = _percentile_window(modality, counts, config)
    notes += [voi_note] if voi_note else []
    return cv2.LUT(pixels, _table(brightness, inverted, padding, _FULL)), (*notes, "window:percentile")


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


def _modality(dataset: Any, values: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Stored values after the modality LUT or rescale; ``values`` itself when there is neither."""
    table = _first_item(dataset, "ModalityLUTSequence")
    if table is not None:
        return _apply_lut(table, values)[0], ["modality:lut"]
    slope, intercept = _number(dataset, "RescaleSlope", 1.0), _number(dataset, "RescaleIntercept", 0.0)
    if slope == 0:
        return values, ["rescale:ignored"]
    if (slope, intercept) == (1.0, 0.0):
        return values, []
    return values * slope + intercept, []


def _voi(dataset: Any, modality: np.ndarray) -> tuple[np.ndarray | None, str]:
    """Brightness 0..1 per stored value, or ``None`` and why there is none."""
    table = _first_item(dataset, "VOILUTSequence")
    if table is not None:
        output, full = _apply_lut(table, modality)
        return output / full, "voi:lut"
    center, width = _number(dataset, "WindowCenter", math.nan), _number(dataset, "WindowWidth", math.nan)
    if math.isnan(center) and math.isnan(width):
        return None, ""
    function = dicom_header.text(dataset, "VOILUTFunction")
    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        function = "LINEAR"
    try:
        return window(modality, center, width, function), f"voi:{function.lower()}"
    except ValueError:
        return None, "voi:invalid"


def _apply_lut(item: Any, values: np.ndarray) -> tuple[np.ndarray, float]:
    """Look ``values`` up in a LUT item; the outputs and the largest value their bits can hold."""
    entries, first, _ = (int(number) for number in item.LUTDescriptor)
    entries = entries or 65536
    data = item.LUTData
    if isinstance(data, bytes):
        # PS3.3 C.11.1.1: 8-bit entries may be packed two to a word.
        data = np.frombuffer(data, "<u2" if len(data) >= 2 * entries else np.uint8)
    table = np.atleast_1d(np.asarray(data)).astype(np.int64)[:entries]
    if len(table) < entries:
        raise ImageRejected("bad_header", "a lookup table in the header has fewer entries than it declares.")
    if first >= 32768 and values.min() < 0:
        first -= 65536
    # Outputs are scaled by the bits they use: the declared depth is often the container's.
    full = float(max(1, (1 << int(table.max()).bit_length()) - 1))
    index = np.clip(np.floor(values).astype(np.int64) - first, 0, entries - 1)
    return table[index], full


def _percentile_window(modality: np.ndarray, counts: np.ndarray, config: DecodeConfig) -> np.ndarray:
    """Brightness that stretches the configured percentiles of the counted pixels to 0..1."""
    order = np.argsort(modality, kind="stable")
    used = modality[counts > 0]
    if not used.size or used.min() == used.max():
        raise _constant()
    levels = percentile_levels(counts[order], config.window_low_percentile, config.window_high_percentile)
    low, high = modality[order][list(levels)]
    if low == high:
        low, high = used.min(), used.max()
    return np.clip((modality - float(low)) / (float(high) - float(low)), 0.0, 1.0)


def _padding(dataset: Any, values: np.ndarray, stored: StoredFormat) -> np.ndarray:
    """Which stored values are padding."""
    value = dicom_header.value(dataset, "PixelPaddingValue")
    if value is None:
        return np.zeros(len(values), bool)
    limit = dicom_header.value(dataset, "PixelPaddingRangeLimit")
    ends = [_as_stored(int(value), stored), _as_stored(int(value if limit is None else limit), stored)]
    return (values >= min(ends)) & (values <= max(ends))


def _as_stored(value: int, stored: StoredFormat) -> int:
    """A header value in the sign of the pixels: writers mix up US and SS."""
    value &= 0xFFFF
    return value - 65536 if stored.signed and value >= 32768 else value


def _table(brightness: np.ndarray, inverted: bool, padding: np.ndarray, full: int) -> np.ndarray:
    table = 1.0 - brightness if inverted else brightness.copy()
    table[padding] = 0.0
    return np.rint(table * full).astype(np.uint16)


def _varies(display: np.ndarray) -> bool:
    low, high, *_ = cv2.minMaxLoc(display)
    return low != high


def _refuse_constant(pixels: np.ndarray, padding: np.ndarray) -> None:
    counts = level_counts(pixels)
    if np.count_nonzero(counts[~padding]) < 2:
        raise _constant()


def _constant() -> ImageRejected:
    return ImageRejected("constant_image", "all pixels have one value: there is no picture.")


def _first_item(dataset: Any, keyword: str) -> Any:
    sequence = dataset.get(keyword)
    return sequence[0] if sequence else None


def _number(dataset: Any, keyword: str, default: float) -> float:
    """The first of an element's numbers, ``default`` when there is none or it is not finite."""
    try:
        number = float(dicom_header.value(dataset, keyword))
    except (TypeError, ValueError):
        return default
    return number if math.isfinite(number) else default
