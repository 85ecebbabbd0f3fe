"""Which bits of a container are the film's, and which containers are padding: what a header says, held against them.

Reference: DICOM PS3.5 8.1.1 (bits allocated, bits stored, high bit), PS3.3 C.7.5.1.1.2 (pixel padding).
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from penumo_assets.imaging.formats import dicom_header
from penumo_assets.imaging.histogram import level_counts

_ROWS_LOOKED_AT = 64
_MUCH_SMOOTHER = 0.1  # a wrong sign tears a film apart where its values pass the middle of their range


@dataclass(frozen=True)
class StoredFormat:
    """How integers lie in their containers; ``above`` says whether bits above the stored ones may be in use."""

    container: int
    bits: int
    high_bit: int
    signed: bool
    above: bool = True

    @property
    def patterns(self) -> int:
        """How many bit patterns, from 0 on, a container can have."""
        return 1 << (self.container if self.above else self.bits)

    def values(self) -> np.ndarray:
        """The stored value (int32) that each of the `patterns` stands for."""
        return self.read(np.arange(self.patterns))

    def read(self, containers: np.ndarray) -> np.ndarray:
        """The stored values (int32) in containers, by arithmetic: of few pixels faster than looked up."""
        found = (containers.astype(np.int32) >> (self.high_bit + 1 - self.bits)) & ((1 << self.bits) - 1)
        if self.signed:
            found -= (found >> (self.bits - 1)) << self.bits
        return found


def stored_format(pixels: np.ndarray, dataset: Any) -> tuple[StoredFormat, tuple[str, ...]]:
    """How the samples of uncompressed gray pixels lie in their containers, and notes where the header is wrong.

    ``high_bit:ignored``: the samples end at another bit than the header says. ``sign:ignored``: they are signed, or
    unsigned, against what it says, as a much smoother picture tells. ``bits:beyond_stored``: bits above the stored
    ones are in use. They are read as a part of the samples if that gives the smoother picture, as it does where the
    header declares too few bits; else they are left out, as old overlays in them must be.

    Parameters
    ----------
    pixels : numpy.ndarray
        (H, W), 8 or 16 bits, signed ones as such or not.
    dataset : pydicom.Dataset
        With BitsStored and PixelRepresentation.
    """
    container = 8 * pixels.dtype.itemsize
    pixels = pixels.view(f"u{pixels.dtype.itemsize}")
    bits, signed = min(int(dataset.BitsStored), container), int(dataset.PixelRepresentation) == 1
    declared = dicom_header.value(dataset, "HighBit")
    high_bit = bits - 1 if declared is None else int(declared)
    notes: tuple[str, ...] = ()
    if high_bit != bits - 1 and not (high_bit < container and _lies_high(pixels, dataset, bits, high_bit)):
        high_bit, notes = bits - 1, ("high_bit:ignored",)
    stored = StoredFormat(container, bits, high_bit, signed)
    above = high_bit != bits - 1 or (bits < container and bool(int(pixels.max()) >> bits))
    if above and high_bit == bits - 1:
        beyond = _bits_beyond(pixels, dataset, stored)
        if beyond:
            notes = (*notes, "bits:beyond_stored")
            whole = StoredFormat(container, container if signed else bits + beyond, -1, signed)
            whole = StoredFormat(container, whole.bits, whole.bits - 1, signed)
            as_whole, as_stored = _steps(pixels, whole, stored)
            stored = whole if np.median(as_whole) < np.median(as_stored) else stored
    other = replace(stored, signed=not stored.signed)
    as_other, as_stored = _steps(pixels, other, stored)
    torn = np.percentile(as_other, 75) < np.percentile(as_stored, 25)
    if torn and np.median(as_other) < _MUCH_SMOOTHER * np.median(as_stored):
        stored, notes = other, (*notes, "sign:ignored")
    return replace(stored, above=above), notes


def padding_patterns(dataset: Any, stored: StoredFormat) -> np.ndarray:
    """Which of the bit patterns are padding; (patterns,) bool."""
    value = dicom_header.value(dataset, "PixelPaddingValue")
    if value is None:
        return np.zeros(stored.patterns, bool)
    limit = dicom_header.value(dataset, "PixelPaddingRangeLimit")
    ends = [_as_stored(int(end), stored) for end in (value, value if limit is None else limit)]
    values = stored.values()
    if not values.min() <= min(ends) <= max(ends) <= values.max():
        # Such a value can only be meant as a whole container, bits above the stored ones included.
        whole = StoredFormat(stored.container, stored.container, stored.container - 1, stored.signed)
        values = whole.values()[: stored.patterns]
    return (values >= min(ends)) & (values <= max(ends))


def _as_stored(value: int, stored: StoredFormat) -> int:
    """A header value in the sign of the pixels: writers mix up US and SS."""
    value &= 0xFFFF
    return value - 65536 if stored.signed and value >= 32768 else value


def _used(pixels: np.ndarray, dataset: Any, stored: StoredFormat) -> np.ndarray:
    """The bit patterns of pixels that are not padding."""
    return np.flatnonzero((level_counts(pixels) > 0) & ~padding_patterns(dataset, stored))


def _lies_high(pixels: np.ndarray, dataset: Any, bits: int, high_bit: int) -> bool:
    """Whether samples may end at ``high_bit``, above ``bits`` - 1: nothing lies below them, or something above."""
    if high_bit < bits:
        return False
    stored = StoredFormat(8 * pixels.dtype.itemsize, bits, high_bit, False)
    used = _used(pixels, dataset, stored)
    return not (used & ((1 << (high_bit + 1 - bits)) - 1)).any() or bool((used >> bits).any())


def _bits_beyond(pixels: np.ndarray, dataset: Any, stored: StoredFormat) -> int:
    """How many bits above the stored ones are in use, by more than the sign of signed samples."""
    used = _used(pixels, dataset, stored)
    beyond = used >> stored.bits
    if stored.signed:
        negative = used >> (stored.bits - 1) & 1 == 1
        beyond = beyond[~negative | (beyond != (1 << (stored.container - stored.bits)) - 1)]
    return int(beyond.max(initial=0)).bit_length()


def _steps(pixels: np.ndarray, one: StoredFormat, other: StoredFormat) -> tuple[np.ndarray, np.ndarray]:
    """How far neighbours in a row lie apart as either format reads them, in some of the rows and only where the two
    disagree; 0 if they never do."""
    rows = pixels[:: max(1, len(pixels) // _ROWS_LOOKED_AT)]
    first, second = (np.abs(np.diff(each.read(rows), axis=1)) for each in (one, other))
    apart = first != second
    return (first[apart], second[apart]) if apart.any() else (np.zeros(1), np.zeros(1))
