"""The lookup tables of a DICOM header, in the file's own byte order.

References
----------
DICOM PS3.3 C.11.1.1 (descriptor and data), C.7.6.3.1.5 (palettes), PS3.5 7.3 (byte order of OW).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from penumo_assets.imaging.errors import ImageRejected


@dataclass(frozen=True)
class LookupTable:
    """``entries`` (int64) of ``bits``, of which the first stands for the value ``first`` and all values below it."""

    first: int
    entries: np.ndarray
    bits: int

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Look ``values`` up, rounded down; those outside the table take its ends.

        A first value that is negative may be written as an unsigned number.
        """
        first = self.first - 65536 if self.first >= 32768 and values.min() < 0 else self.first
        index = np.clip(np.floor(values).astype(np.int64) - first, 0, len(self.entries) - 1)
        return self.entries[index]

    @property
    def full(self) -> float:
        """The largest value of the declared bits; of those in use, where the declared ones are the container's or too
        few."""
        used = int(self.entries.max()).bit_length()
        return float(max(1, (1 << (self.bits if used < self.bits < 16 else used)) - 1))


def read_table(holder: Any, dataset: Any, prefix: str = "LUT") -> LookupTable | None:
    """The table in ``{prefix}Descriptor`` and ``{prefix}Data``; ``None`` where one is missing or empty, or has no bits.

    Parameters
    ----------
    holder : pydicom.Dataset
        The item, or the data set, that holds the two elements.
    dataset : pydicom.Dataset
        The file's data set, which knows its byte order.
    prefix : str

    Raises
    ------
    ImageRejected
        ``bad_header`` for a table that is shorter than it declares, or whose descriptor makes no sense.
    """
    descriptor, data = holder.get(f"{prefix}Descriptor"), holder.get(f"{prefix}Data")
    order = "<" if dataset.original_encoding[1] is not False else ">"
    if isinstance(descriptor, bytes):
        descriptor = np.frombuffer(descriptor[: len(descriptor) // 2 * 2], f"{order}u2")
    if descriptor is None or data is None or not np.size(descriptor) or not len(np.atleast_1d(data)) or data == b"":
        return None
    if np.size(descriptor) != 3:
        raise ImageRejected("bad_header", "a lookup table in the header has a descriptor that is none.")
    count, first, bits = (int(number) for number in descriptor)
    if not bits:
        return None
    count = count % 65536 or 65536
    entries = _entries(data, order, count, bits)
    if len(entries) < count:
        raise ImageRejected("bad_header", "a lookup table in the header has fewer entries than it declares.")
    return LookupTable(first, entries[:count].astype(np.int64), bits)


def _entries(data: Any, order: str, count: int, bits: int) -> np.ndarray:
    """The entries of a table, given as words in the file's byte order or as numbers."""
    if isinstance(data, bytes):
        if len(data) < 2 * count and len(data) % 2:
            return np.frombuffer(data, np.uint8)
        words = np.frombuffer(data[: len(data) // 2 * 2], f"{order}u2")
    else:
        words = np.atleast_1d(np.asarray(data)).astype(np.int64) & 0xFFFF
    # Entries of 8 bits may be packed two to a word, the first of them in its lower half.
    packed = len(words) < count <= 2 * len(words) and bits <= 8
    return words.astype("<u2").view(np.uint8) if packed else words
