"""A landed file's bytes to pixels: what it is, is told by its first bytes, never by its name."""

import numpy as np

from penumo_assets.configs.prepare import DecodeConfig
from penumo_assets.imaging.errors import ImageRejected
from penumo_assets.imaging.formats import dicom, jpeg, png
from penumo_assets.imaging.formats.decoded import DecodedImage, Tags
from penumo_assets.imaging.formats.png import decode_png, encode_png

__all__ = ["DecodedImage", "Tags", "decode_image", "decode_png", "encode_png", "read_back"]

_FORMATS = (png, jpeg, dicom)
_OTHER_FORMATS = (
    (b"GIF8", "GIF"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"%PDF", "PDF"),
    (b"PK\x03\x04", "ZIP"),
    (b"\x1f\x8b", "gzip"),
)


def decode_image(data: bytes, config: DecodeConfig) -> DecodedImage:
    """Decode a PNG, JPEG or DICOM file.

    Parameters
    ----------
    data : bytes
        The whole file.
    config : DecodeConfig

    Raises
    ------
    ImageRejected
        For any bytes that are not one usable frontal radiograph. Nothing else is raised.
    """
    try:
        return _decode(data, config)
    except ImageRejected:
        raise
    except Exception as error:
        # Decoders meet arbitrary bytes here and raise what they like. Their messages can quote the
        # header, so neither the message nor the chain goes on.
        name = type(error).__name__
        raise ImageRejected("undecodable", f"the file cannot be read as an image ({name}).") from None


def read_back(data: bytes) -> np.ndarray:
    """The pixels of a picture that was stored: kept as it landed (`DecodedImage.kept`), or written by `encode_png`.

    Raises
    ------
    ImageRejected
    """
    return jpeg.decode_luminance(data) if jpeg.looks_like(data) else decode_png(data)


def _decode(data: bytes, config: DecodeConfig) -> DecodedImage:
    if not data:
        raise ImageRejected("empty", "the file has no bytes.")
    for known in _FORMATS:
        if known.looks_like(data):
            return known.decode(data, config)
    for magic, name in _OTHER_FORMATS:
        if data.startswith(magic):
            raise ImageRejected("unsupported_format", f"this is a {name} file; PNG, JPEG and DICOM are read.")
    raise ImageRejected("not_an_image", "the file is neither PNG nor JPEG nor DICOM.")
