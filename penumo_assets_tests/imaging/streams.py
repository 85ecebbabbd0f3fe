"""JPEG 2000 streams with other divisions and wrappings than an encoder gives them."""

import io
import struct

import numpy as np
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless

from penumo_assets_tests.imaging.samples import dicom_dataset, file_bytes, phantom

COD, COC, SOT, SOD = b"\xff\x52", b"\xff\x53", b"\xff\x90", b"\xff\x93"


def jpeg2000(pixels: np.ndarray, *, wrapped: bool = False, **options: object) -> bytes:
    """A codestream, or a JP2 file, written by Pillow."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG2000", no_jp2=not wrapped, **options)
    return buffer.getvalue()


def film(frame: bytes, rows: int, columns: int) -> bytes:
    """A DICOM film of 8-bit samples that holds ``frame`` and declares that size."""
    dataset = dicom_dataset(phantom(64, 56, 8).astype(np.uint8), JPEG2000Lossless)
    dataset.Rows, dataset.Columns = rows, columns
    dataset.PixelData = encapsulate([frame], has_bot=False)
    return file_bytes(dataset)


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), kind) + content


def segment(marker: bytes, content: bytes) -> bytes:
    return marker + struct.pack(">H", 2 + len(content)) + content


def coding_style(stream: bytes) -> tuple[int, bytes]:
    """Where the COD segment of a stream begins, and its content."""
    at = stream.index(COD)
    return at, stream[at + 4 : at + 2 + struct.unpack_from(">H", stream, at + 2)[0]]


def with_precincts(stream: bytes, sizes: bytes) -> bytes:
    """The stream with a precinct size (width and height as exponents of two, 4 bits each) per resolution."""
    at, style = coding_style(stream)
    end = at + 4 + len(style)
    return stream[:at] + segment(COD, bytes([style[0] | 1]) + style[1:] + sizes) + stream[end:]


def with_layers(stream: bytes, layers: int) -> bytes:
    at, style = coding_style(stream)
    return stream[: at + 4] + style[:2] + struct.pack(">H", layers) + style[4:] + stream[at + 4 + len(style) :]


def in_header(stream: bytes, segments: bytes) -> bytes:
    """The stream with ``segments`` at the end of its main header."""
    at = stream.index(SOT)
    return stream[:at] + segments + stream[at:]


def in_tile_header(stream: bytes, segments: bytes) -> bytes:
    """The stream with ``segments`` in the header of its first tile-part."""
    at = stream.index(SOT)
    length = struct.unpack_from(">I", stream, at + 6)[0]
    longer = struct.pack(">I", length + len(segments))
    return stream[: at + 6] + longer + stream[at + 10 : at + 12] + segments + stream[at + 12 :]
