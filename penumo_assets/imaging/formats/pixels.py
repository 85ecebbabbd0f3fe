"""What every format does with a picture: bounds on its size, luminance, depth, and no picture without contrast."""

import cv2
import numpy as np

from penumo_assets.configs.prepare import DecodeConfig
from penumo_assets.imaging.errors import ImageRejected
from penumo_assets.imaging.formats.decoded import DecodedImage, Tags, reduced, reduction

# Decoded samples of one image may take this many bytes per permitted pixel: enough for 16-bit gray
# or 8-bit RGBA at the largest permitted size, so that one image stays far below 1 GiB.
_BYTES_PER_PIXEL = 4

# JPEG and rounding in viewers tint gray images by a few levels; a marker drawn in colour is far above.
_COLOUR_SPREAD = 16
_SPARSE = 64


def check_size(height: int, width: int, bytes_per_pixel: int, config: DecodeConfig) -> None:
    """Refuse what a header declares before anything is allocated for it.

    Raises
    ------
    ImageRejected
        ``too_large`` or ``too_small``.
    """
    limit = config.max_megapixels * 1_000_000
    if height * width > limit:
        raise ImageRejected(
            "too_large", f"the header declares {width}x{height} pixels; the limit is {config.max_megapixels:g} million."
        )
    if height * width * bytes_per_pixel > limit * _BYTES_PER_PIXEL:
        raise ImageRejected(
            "too_large", f"the header declares {width}x{height} pixels of {bytes_per_pixel} bytes: too much memory."
        )
    if min(height, width) < config.min_side:
        raise ImageRejected(
            "too_small", f"the image has {width}x{height} pixels; its shorter side needs {config.min_side}."
        )


def to_luminance(pixels: np.ndarray, *, keep_colour: bool) -> np.ndarray:
    """(H, W, 3) RGB to (H, W) luminance (ITU-R BT.601), unless real colour is to be kept."""
    if pixels.ndim == 2:
        return pixels
    if keep_colour and has_colour(pixels):
        return pixels
    return cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)


def has_colour(pixels: np.ndarray) -> bool:
    """Whether the channels of an (H, W, 3) image differ by more than rounding."""
    spread = _COLOUR_SPREAD if pixels.dtype == np.uint8 else _COLOUR_SPREAD * 257
    red, green, blue = cv2.split(pixels)
    return bool(max(cv2.absdiff(red, green).max(), cv2.absdiff(green, blue).max()) > spread)


def fill_depth(pixels: np.ndarray) -> tuple[np.ndarray, int]:
    """Shift 10- to 15-bit values that lie in 16-bit samples up to the full range, without loss.

    Returns the pixels and the number of bits that were in use.
    """
    bits = max(8, int(pixels.max()).bit_length())
    return (pixels << (16 - bits) if bits < 16 else pixels), bits


def refuse_constant(pixels: np.ndarray) -> np.ndarray:
    """``pixels`` as they came.

    Raises
    ------
    ImageRejected
        ``constant_image`` when all are equal.
    """
    sparse = pixels[::_SPARSE, ::_SPARSE]  # tells of nearly every picture that it is none
    if sparse.min() == sparse.max() and pixels.min() == pixels.max():
        raise ImageRejected("constant_image", "all pixels have one value: there is no picture.")
    return pixels


def finished(
    pixels: np.ndarray,
    size: tuple[int, int],
    bits: int,
    kind: str,
    config: DecodeConfig,
    notes: list[str],
    kept: bytes | None,
) -> DecodedImage:
    """The image of a format without a header of its own, at the size that ``decode.reduce_to`` asks for.

    ``kept`` is a file of the same pixels, if there is one, at the size they landed with.

    Raises
    ------
    ImageRejected
        ``constant_image``.
    """
    factor = reduction(*size, config)
    if factor > 1:
        pixels = reduced(pixels, size, factor)
        notes.append(f"reduced:{factor}")
        kept = None
    return DecodedImage(refuse_constant(pixels), bits, kind, Tags(), size, None, tuple(notes), kept)
