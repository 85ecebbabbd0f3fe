"""What decoding an image yields: pixels and a short list of coded facts that identify nobody."""

from dataclasses import dataclass

import cv2
import numpy as np

from penumo_assets.configs.prepare import DecodeConfig
from penumo_assets.imaging.letterbox import REDUCTIONS, reduced_size, resize


@dataclass(frozen=True)
class Tags:
    """Coded, non-identifying facts about an image; ``None`` where the file does not say.

    Attributes
    ----------
    view : str or None
        ``PA``, ``AP``, ``LATERAL``, ``OBLIQUE`` or ``DECUBITUS``.
    sex : str or None
        ``M``, ``F`` or ``O``.
    age : int or None
        Years, at most 90 (older patients are few enough to be recognised).
    modality : str or None
        DICOM modality code, such as ``DX``.
    pixel_spacing_mm : tuple of float or None
        Row and column spacing in millimetres, at the detector where the patient's is not known.
    burned_in : bool or None
        Whether the header says that annotation is burned into the pixels.
    """

    view: str | None = None
    sex: str | None = None
    age: int | None = None
    modality: str | None = None
    pixel_spacing_mm: tuple[float, float] | None = None
    burned_in: bool | None = None


@dataclass(frozen=True)
class DecodedImage:
    """Pixels as a radiologist would see them, high values bright.

    Attributes
    ----------
    pixels : numpy.ndarray
        (H, W) luminance, or (H, W, 3) RGB where colour is kept and real; uint8 or uint16.
    bits : int
        Significant bits of the source.
    format : str
        ``png``, ``jpeg`` or ``dicom``.
    tags : Tags
    size : tuple of int
        Height and width as landed; ``pixels`` can be half, a quarter or an eighth of it (`reduced`).
    patient_id : str or None
        The id as it stands in a DICOM header: pseudonymise it, never log it.
    notes : tuple of str
        What was decided on the way, such as ``window:percentile``.
    kept : bytes or None
        A JPEG or PNG file that `decode.read_back` reads as the same pixels: the picture as it landed, coded as it
        was, without anything else. ``None`` where the pixels are no longer those that were coded.
    """

    pixels: np.ndarray
    bits: int
    format: str
    tags: Tags
    size: tuple[int, int]
    patient_id: str | None
    notes: tuple[str, ...]
    kept: bytes | None = None

    def __repr__(self) -> str:
        # The generated one would print the patient id wherever an instance is logged.
        shape = "x".join(str(side) for side in self.pixels.shape)
        return f"DecodedImage({self.format}, {shape} {self.pixels.dtype}, notes={self.notes})"


def reduction(height: int, width: int, config: DecodeConfig) -> int:
    """By how much ``decode.reduce_to`` reduces an image of this size: 1, 2, 4 or 8."""
    if config.reduce_to is None:
        return 1
    return max(factor for factor in REDUCTIONS if factor == 1 or max(height, width) >= factor * config.reduce_to)


def reduced(pixels: np.ndarray, size: tuple[int, int], factor: int) -> np.ndarray:
    """``pixels`` at ``size`` divided by ``factor``, sides rounded up, by area averaging where they are larger."""
    target = reduced_size(size, factor)
    return pixels if pixels.shape[:2] == target else resize(pixels, *target)


def eight_bit(pixels: np.ndarray) -> np.ndarray:
    """Full-range uint16 pixels as uint8, rounded; uint8 pixels as they are."""
    return pixels if pixels.dtype == np.uint8 else cv2.convertScaleAbs(pixels, alpha=1 / 257)
