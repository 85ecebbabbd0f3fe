"""JPEG 2000 streams to samples, by OpenJPEG: whole through imagecodecs, smaller ones through Pillow."""

import io

import imagecodecs
import numpy as np
from PIL import Image

from penumo_assets.imaging.errors import ImageRejected
from penumo_assets.imaging.formats.jpeg2000_stream import Jpeg2000Header
from penumo_assets.imaging.letterbox import reduced_size

# Decoding takes about 0.1 s per million samples of a noisy picture: larger ones are decoded at a reduced size.
MAX_SAMPLES = 24_000_000


def decode_samples(stream: bytes, header: Jpeg2000Header, factor: int = 1) -> np.ndarray:
    """The samples (H, W) or (H, W, 3), 8 or 16 bits wide, signed or not.

    Reduced by ``factor`` (the finest wavelet levels left out) if the stream is gray and allows it.

    Raises
    ------
    ImageRejected
        ``corrupt``, or ``too_large`` for a picture that is huge and cannot be had at a reduced size.
    """
    if factor > 1 and header.components == 1 and header.precision <= 16:
        pixels = _reduced(stream, header, factor)
        if pixels is not None:
            return pixels
    if header.height * header.width * header.components > MAX_SAMPLES:
        raise ImageRejected("too_large", "the JPEG 2000 picture is huge and cannot be decoded at a reduced size.")
    try:
        return imagecodecs.jpeg2k_decode(stream)
    except Exception:
        raise ImageRejected("corrupt", "the JPEG 2000 picture data is damaged or incomplete.") from None


def _reduced(stream: bytes, header: Jpeg2000Header, factor: int) -> np.ndarray | None:
    """Gray samples (H, W) at the size divided by ``factor``, the sign within the sample's own bits.

    ``None`` when that cannot be had: the stream has too few resolution levels, or a size that Pillow rounds
    otherwise than the standard, or is damaged (which decoding it whole tells better).
    """
    try:
        # Without the format, Pillow would try others, of which some run programs.
        with Image.open(io.BytesIO(stream), formats=["JPEG2000"]) as image:
            image.reduce = factor.bit_length() - 1  # type: ignore[assignment]  # a level here, a method elsewhere
            pixels = np.asarray(image)
    except (OSError, ValueError, Image.DecompressionBombError):
        return None
    if pixels.shape != reduced_size((header.height, header.width), factor) or pixels.dtype.kind != "u":
        return None
    # Pillow shifts samples to the top of their bytes and adds half the range to signed ones.
    pixels = pixels >> (8 * pixels.dtype.itemsize - header.precision)
    return pixels ^ pixels.dtype.type(1 << (header.precision - 1)) if header.signed else pixels
