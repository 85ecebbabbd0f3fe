"""PNG: check a file's structure before a decoder sees it, and read and write pictures quickly.

Gray and RGB pictures of 8 and 16 bits are decoded by the png crate (kornia-rs), whose undoing of the Paeth filter
is what makes it fast; anything else by OpenCV. The writer filters every row by the one above it and deflates
with libdeflate, whose output depends on nothing but its input. ISA-L (isal) is a third quicker, but one process in
some thousand wrote other bytes for the same pixels, and digests of stored objects are compared. Milliseconds of
processor time for a 2000x2000 radiograph, at nearly equal sizes:

==============  ======  =====  ===========  ==============  ==========  =========
decode          OpenCV  spng   imagecodecs  Wuffs           kornia-rs   (isal alone)
==============  ======  =====  ===========  ==============  ==========  =========
8 bits, level 6     32     39           30              32          16          5
8 bits, level 1     20     21           20              12           7          5
16 bits             42     46           44               -          24         13
==============  ======  =====  ===========  ==============  ==========  =========

Encoding 8 bits takes OpenCV 48 ms, libdeflate 16, ISA-L 11; 16 bits 88, 52 and 35.

Reference: https://www.w3.org/TR/png-3/
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import deflate
import kornia_rs.io
import numpy as np
from isal import isal_zlib

from penumo_assets.imaging.errors import ImageRejected, is_decoder_failure
from penumo_assets.imaging.formats.jpeg import exif_orientation

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CRITICAL = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_FILTER_UP = 2
# Writers put at least some kilobytes into each chunk of a large picture.
_MAX_CHUNKS = 100_000
_ENDS_EARLY = ("not have enough data", "InsufficientInput", "unexpected end")


@dataclass(frozen=True)
class PngHeader:
    """What IHDR declares; ``depth`` in bits per sample, ``colour_type`` as in the standard."""

    width: int
    height: int
    depth: int
    colour_type: int
    interlaced: bool


@dataclass(frozen=True)
class PngParts:
    """The chunks of a PNG file that make its picture."""

    header: PngHeader
    critical: list[tuple[bytes, memoryview]]
    orientation: int


def read_header(data: bytes) -> PngHeader:
    """Read the size and the kind of a PNG file.

    Raises
    ------
    ImageRejected
        ``truncated`` when it ends within its header, ``corrupt`` when the header makes no sense.
    """
    if len(data) < 33:
        raise ImageRejected("truncated", "the PNG file ends within its header.")
    if data[12:16] != b"IHDR" or data[8:12] != b"\0\0\0\r":
        raise ImageRejected("corrupt", "the PNG file does not begin with its header.")
    width, height, depth, colour_type, compression, filtering, interlace = struct.unpack_from(">IIBBBBB", data, 16)
    if depth not in _DEPTHS.get(colour_type, ()) or compression or filtering or interlace > 1:
        raise ImageRejected("corrupt", "the PNG header declares a kind of image that does not exist.")
    if not 0 < width < 2**31 or not 0 < height < 2**31:
        raise ImageRejected("corrupt", "the PNG header declares an impossible size.")
    return PngHeader(width, height, depth, colour_type, bool(interlace))


def read_parts(data: bytes) -> PngParts:
    """Walk all chunks, checking lengths and checksums, and keep those that make the picture.

    Raises
    ------
    ImageRejected
        ``truncated`` when the file ends before its last chunk, ``corrupt`` when a checksum does not
        match, there is no picture, or there are more chunks than one can need, ``multi_frame`` when it is animated.
    """
    header = read_header(data)
    critical: list[tuple[bytes, memoryview]] = []
    orientation = 1
    for count, (kind, body) in enumerate(_chunks(data)):
        if count > _MAX_CHUNKS:
            raise ImageRejected("corrupt", "the PNG file has more chunks than a picture can need.")
        if kind == b"acTL":
            raise ImageRejected("multi_frame", "the PNG is an animation; export one image.")
        if kind == b"eXIf":
            orientation = exif_orientation(bytes(body))
        if kind in _CRITICAL:
            critical.append((kind, body))
        elif not kind[0] & 0x20:
            raise ImageRejected("corrupt", "the PNG holds a critical part that the standard does not know.")
    if not any(kind == b"IDAT" for kind, _ in critical):
        raise ImageRejected("corrupt", "the PNG file holds no picture.")
    return PngParts(header, critical, orientation)


def decode_parts(parts: PngParts) -> np.ndarray:
    """The samples of a PNG: (H, W), (H, W, 3) RGB or (H, W, 4) RGBA, uint8 or uint16.

    Raises
    ------
    ImageRejected
        ``truncated`` when the picture's data ends early, ``corrupt`` when it cannot be inflated or inflates to more
        than the picture.
    """
    header = parts.header
    slim = SIGNATURE + b"".join(_chunk(kind, body) for kind, body in parts.critical)
    plain = header.colour_type in (0, 2) and header.depth >= 8 and not header.interlaced
    if plain and not any(kind in (b"PLTE", b"tRNS") for kind, _ in parts.critical):
        return _decode_plain(slim, header)
    _refuse_bomb(parts)
    pixels = cv2.imdecode(np.frombuffer(slim, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.shape[:2] != (header.height, header.width):
        raise ImageRejected("corrupt", "the PNG's picture data cannot be decoded.")
    if pixels.ndim == 3:
        order = cv2.COLOR_BGR2RGB if pixels.shape[2] == 3 else cv2.COLOR_BGRA2RGBA
        pixels = cv2.cvtColor(pixels, order)
    return pixels


def encode_png(pixels: np.ndarray) -> bytes:
    """Encode (H, W) or (H, W, 3) RGB, uint8 or uint16, losslessly and without metadata.

    Raises
    ------
    ValueError
        For any other shape or dtype, or an empty image.
    """
    if pixels.dtype not in (np.uint8, np.uint16) or not pixels.size:
        raise ValueError(f"a PNG holds uint8 or uint16 pixels, got {pixels.dtype} {pixels.shape}")
    if pixels.ndim != 2 and pixels.shape[2:] != (3,):
        raise ValueError(f"expected (H, W) or (H, W, 3) pixels, got {pixels.shape}")
    height, width = pixels.shape[:2]
    samples = np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder(">")).view(np.uint8).reshape(height, -1)
    rows = np.empty((height, samples.shape[1] + 1), np.uint8)
    rows[:, 0] = _FILTER_UP
    rows[0, 1:] = samples[0]
    np.subtract(samples[1:], samples[:-1], out=rows[1:, 1:])
    colour_type = 0 if pixels.ndim == 2 else 2
    header = struct.pack(">IIBBBBB", width, height, 8 * pixels.dtype.itemsize, colour_type, 0, 0, 0)
    body = deflate.zlib_compress(rows, 1)
    return SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", body) + _chunk(b"IEND", b"")


def _chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    view, position = memoryview(data), len(SIGNATURE)
    while True:
        if position + 12 > len(view):
            raise ImageRejected("truncated", "the PNG file ends before its end mark: it was cut off.")
        length, kind = struct.unpack_from(">I4s", view, position)
        end = position + 12 + length
        if end > len(view):
            raise ImageRejected("truncated", "the PNG file ends before its end mark: it was cut off.")
        (checksum,) = struct.unpack_from(">I", view, end - 4)
        if isal_zlib.crc32(view[position + 4 : end - 4]) != checksum:
            raise ImageRejected("corrupt", "a checksum in the PNG file does not match: it is damaged.")
        yield kind, view[position + 8 : end - 4]
        if kind == b"IEND":
            return
        position = end


def _refuse_bomb(parts: PngParts) -> None:
    """Inflate what libpng would inflate, for hours if need be, even though only a picture's worth is used."""
    header = parts.header
    samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[header.colour_type]
    # Seven passes of an interlaced picture begin and end each of their rows within a byte of their own.
    limit = header.height * (header.width * samples * header.depth // 8 + 2) + 16 * (header.width + header.height)
    stream, total = isal_zlib.decompressobj(), 0
    for pending in (body for kind, body in parts.critical if kind == b"IDAT"):
        while pending and not stream.eof:
            try:
                total += len(stream.decompress(pending, 1 << 20))
            except isal_zlib.IsalError:  # type: ignore[misc]  # declared as an instance
                return  # libpng says what is wrong with it
            pending = memoryview(stream.unconsumed_tail)
            if total > limit:
                raise ImageRejected("corrupt", "the PNG's picture data inflates to more than its header declares.")


def _decode_plain(data: bytes, header: PngHeader) -> np.ndarray:
    """Decode a gray or RGB picture of 8 or 16 bits that is not interlaced."""
    decode = kornia_rs.io.decode_image_png_u8 if header.depth == 8 else kornia_rs.io.decode_image_png_u16
    try:
        pixels = decode(data, (header.height, header.width), "mono" if header.colour_type == 0 else "rgb")
    except BaseException as error:
        if not is_decoder_failure(error):
            raise
        if any(sign in str(error) for sign in _ENDS_EARLY):
            raise ImageRejected("truncated", "the PNG's picture data ends before the last row.") from None
        raise ImageRejected("corrupt", "the PNG's picture data cannot be decoded.") from None
    return pixels[..., 0] if header.colour_type == 0 else pixels


def _chunk(kind: bytes, body: bytes | bytearray | memoryview) -> bytes:
    return b"".join(
        (struct.pack(">I", len(body)), kind, body, struct.pack(">I", isal_zlib.crc32(body, isal_zlib.crc32(kind))))
    )
