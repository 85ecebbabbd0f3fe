"""The structure of a PNG file, checked before a decoder sees it.

Reference: https://www.w3.org/TR/png-3/
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from isal import isal_zlib

from penumo_assets.imaging.errors import ImageRejected
from penumo_assets.imaging.formats.exif import exif_orientation

Bytes = bytes | bytearray | memoryview

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CRITICAL = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # per pixel
_STORED_BYTES = 65_535  # the most that a block of deflated data holds as it is
_DEFLATE, _DICTIONARY = 8, 0x20  # in the header of zlib's format (RFC 1950)
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

    @property
    def bare(self) -> bytes:
        """A file of the header and the picture's data alone."""
        return png_file(self.critical[0][1], [body for kind, body in self.critical if kind == b"IDAT"])


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
        if kind == b"IHDR" and critical:
            raise ImageRejected("corrupt", "the PNG file has two headers.")
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


def inflate_rows(parts: PngParts) -> tuple[bytes, bytes, bool]:
    """The filtered rows of a picture of 8 or 16 bits that is not interlaced, their checksum as zlib writes it, and
    whether the picture's data holds nothing else.

    Raises
    ------
    ImageRejected
        ``truncated`` when the data ends before the last row, ``corrupt`` when it cannot be inflated.
    """
    header = parts.header
    size = header.height * (1 + header.width * _SAMPLES[header.colour_type] * header.depth // 8)
    data = b"".join(body for kind, body in parts.critical if kind == b"IDAT")
    if len(data) < 2 or data[0] & 0x0F != _DEFLATE or data[1] & _DICTIONARY or (data[0] << 8 | data[1]) % 31:
        raise _not_deflated()
    # Without zlib's checksum, which many programs do not look at, so that some writers get it wrong.
    stream = isal_zlib.decompressobj(-isal_zlib.MAX_WBITS)
    try:
        rows = stream.decompress(memoryview(data)[2:], size)
    except isal_zlib.IsalError:  # type: ignore[misc]  # declared as an instance
        raise _not_deflated() from None
    if len(rows) < size:
        raise ImageRejected("truncated", "the PNG's picture data ends before the last row.")
    checksum = struct.pack(">I", isal_zlib.adler32(rows))
    try:
        more = stream.decompress(stream.unconsumed_tail, 1)
    except isal_zlib.IsalError:  # type: ignore[misc]
        return rows, checksum, False
    return rows, checksum, not more and stream.unused_data == checksum


def _not_deflated() -> ImageRejected:
    return ImageRejected("corrupt", "the PNG's picture data cannot be inflated.")


def refuse_bomb(parts: PngParts) -> None:
    """Refuse a picture that inflates to more than it declares: libpng would inflate all of it, for hours if need be.

    Raises
    ------
    ImageRejected
        ``corrupt``.
    """
    header = parts.header
    samples = _SAMPLES[header.colour_type]
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


def stored_png(rows: bytes, checksum: bytes, parts: PngParts) -> bytes:
    """A PNG file of inflated rows and their checksum, whose data is not compressed again."""
    view = memoryview(rows)
    blocks: list[Bytes] = [b"\x78\x01"]
    for start in range(0, len(view), _STORED_BYTES):
        block = view[start : start + _STORED_BYTES]
        last = start + _STORED_BYTES >= len(view)
        blocks += [struct.pack("<BHH", last, len(block), len(block) ^ 0xFFFF), block]
    return png_file(parts.critical[0][1], [*blocks, checksum])


def png_file(header: Bytes, data: Sequence[Bytes]) -> bytes:
    """A PNG file of a header and a picture's data, in one chunk."""
    return b"".join((SIGNATURE, chunk(b"IHDR", header), *_pieces(b"IDAT", data), chunk(b"IEND", b"")))


def chunk(kind: bytes, body: Bytes) -> bytes:
    """A chunk of that kind, with its length and checksum."""
    return b"".join(_pieces(kind, (body,)))


def _pieces(kind: bytes, bodies: Sequence[Bytes]) -> Iterator[Bytes]:
    checksum = isal_zlib.crc32(kind)
    for body in bodies:
        checksum = isal_zlib.crc32(body, checksum)
    yield from (struct.pack(">I", sum(map(len, bodies))), kind, *bodies, struct.pack(">I", checksum))
