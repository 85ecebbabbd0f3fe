"""JPEG-LS streams to samples, by CharLS (imagecodecs)."""

import imagecodecs
import numpy as np

from penumo_assets.imaging.errors import ImageRejected

_EOI_BYTES = 2


def decode_samples(stream: bytes) -> np.ndarray:
    """The samples of a JPEG-LS picture: (H, W) or (H, W, 3), uint8 or uint16.

    Some encoders put a zero byte before the end marker, which CharLS refuses: it is left out where the stream is
    refused with it.

    Raises
    ------
    ImageRejected
        ``corrupt`` for a stream that cannot be decoded.
    """
    trimmed = stream[:-_EOI_BYTES].rstrip(b"\0") + stream[-_EOI_BYTES:]
    for each in dict.fromkeys((stream, trimmed)):
        try:
            return imagecodecs.jpegls_decode(each)
        except Exception:  # CharLS's own type, and numpy's for sizes that cannot be
            continue
    raise ImageRejected("corrupt", "the JPEG-LS picture data is damaged or incomplete.")
