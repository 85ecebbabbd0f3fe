"""The structure of a PNG file, checked before a decoder sees it.

Reference: https://www.w3.org/TR/png-3/
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from isal import isal_zlib

from penumo_assets.imaging.errors import ImageRejected
from penumo_assets.imaging.formats.exif import exif_orientation

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CRITICAL = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
# Writers put at least some kilobytes into each chunk of a large picture.
_MAX_CHUNKS = 100_000


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


def refuse_bomb(parts: PngParts) -> None:
    """Refuse a picture that inflates to more than it declares: libpng would inflate all of it, for hours if need be.

    Raises
    ------
    ImageRejected
        ``corrupt``.
    """
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


def chunk(kind: bytes, body: bytes | bytearray | memoryview) -> bytes:
    """A chunk of that kind, with its length and checksum."""
    return b"".join(
        (struct.pack(">I", len(body)), kind, body, struct.pack(">I", isal_zlib.crc32(body, isal_zlib.crc32(kind))))
    )
