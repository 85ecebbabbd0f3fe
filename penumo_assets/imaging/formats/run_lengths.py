"""DICOM's run lengths (RLE Lossless, PS3.5 annex G) to samples, by imagecodecs."""

import imagecodecs
import numpy as np

from penumo_assets.imaging.errors import ImageRejected


def decode_samples(frame: bytes, shape: tuple[int, int, int], itemsize: int) -> np.ndarray:
    """The samples (H, W), or (H, W, 3), uint8 or uint16, never more of them than ``shape`` has.

    Parameters
    ----------
    frame : bytes
    shape : tuple of int
        Rows, columns and samples per pixel.
    itemsize : int
        Bytes per sample, 1 or 2.

    Raises
    ------
    ImageRejected
        ``corrupt`` for runs that are damaged, or hold more or less than the picture.
    """
    rows, columns, samples = shape
    room = np.empty(rows * columns * samples * itemsize, np.uint8)
    try:
        found = imagecodecs.dicomrle_decode(frame, f"<u{itemsize}", out=room.data)
    except Exception:
        found = b""
    if len(found) != room.size:
        raise ImageRejected("corrupt", "the RLE picture data is damaged, or holds more or less than the picture.")
    planes = room.view(f"<u{itemsize}").reshape(samples, rows, columns)
    return planes[0] if samples == 1 else np.ascontiguousarray(np.moveaxis(planes, 0, 2))
