"""Read the structure of JPEG 2000 pictures without decoding them, and refuse what costs more than a picture can.

A decoder sets up every tile, precinct, code block and packet before it reads any of them, so a kilobyte that declares
millions of them costs gigabytes, whatever the size of the picture. All is bounded by the picture's own samples.

References
----------
ITU-T T.800: annex A (codestream), annex B (tiles, precincts, code blocks, packets), annex I (the JP2 file format).
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace

from penumo_assets.imaging.errors import ImageRejected
from penumo_assets.imaging.formats.jpeg2000_division import Area, Steps, Styles, read_styles, tile_parts
from penumo_assets.imaging.formats.jpeg_stream import StreamHeader

_SOC_SIZ, _EOC = b"\xff\x4f\xff\x51", b"\xff\xd9"
_SOT, _SOD = 0xFF90, 0xFF93
_SOT_BYTES = 12  # start of a tile-part: marker, length, tile, length of the part, its number, how many there are
_JP2_SIGNATURE = b"\0\0\0\x0cjP  \r\n\x87\n"

# Encoders make tiles of 128 x 128 samples and more, and code blocks of 32 x 32 or 64 x 64. A tile takes OpenJPEG some
# 9 KB, a code block or precinct up to 400 bytes.
_SAMPLES_PER_TILE, _SPARE_TILES = 4096, 64
_SAMPLES_PER_PART, _SPARE_PARTS = 128, 4096

STARTS = (_SOC_SIZ, _JP2_SIGNATURE)
# Of a stream that ends before its last tile-part does, this share may be missing: zeros in its place are packets
# without data, so that the picture lacks some of its finest detail in a corner.
_MISSING = 0.01


@dataclass(frozen=True)
class Jpeg2000Header(StreamHeader):
    """What the size marker of a JPEG 2000 codestream declares.

    Attributes
    ----------
    signed : bool
    area : tuple of int
        Left, top, right and bottom of the picture on the reference grid, where it begins anywhere.
    tile : tuple of int
        Left, top, width and height of the first tile on the same grid.
    subsampling : tuple of (int, int)
        Columns and rows of the grid per sample, of each component.
    mended : bool
        Whether the lengths that the stream declares were wrong and have been put right.
    """

    signed: bool = False
    area: Area = (0, 0, 0, 0)
    tile: tuple[int, int, int, int] = (0, 0, 0, 0)
    subsampling: tuple[Steps, ...] = ()
    mended: bool = False

    @property
    def tiles_across(self) -> int:
        return -(-(self.area[2] - self.tile[0]) // self.tile[2])

    @property
    def tiles(self) -> int:
        return self.tiles_across * -(-(self.area[3] - self.tile[1]) // self.tile[3])

    def tile_area(self, number: int) -> Area:
        row, column = divmod(number, self.tiles_across)
        left, top = self.tile[0] + column * self.tile[2], self.tile[1] + row * self.tile[3]
        right, bottom = left + self.tile[2], top + self.tile[3]
        return (
            max(left, self.area[0]),
            max(top, self.area[1]),
            min(right, self.area[2]),
            min(bottom, self.area[3]),
        )


def codestream_in(frame: bytes) -> bytes:
    """The codestream that a frame is, or that it holds in the first ``jp2c`` box of a JP2 file, and nothing else.

    Raises
    ------
    ImageRejected
        ``corrupt`` where there is none.
    """
    stream = _jp2_codestream(frame) if frame.startswith(_JP2_SIGNATURE) else frame
    if not stream.startswith(_SOC_SIZ):
        raise ImageRejected("corrupt", "a JPEG 2000 stream does not begin with its size.")
    # Fragments are padded to an even length: with a zero byte, by some programs with a byte of ones.
    trimmed = stream.rstrip(b"\0\xff")
    return trimmed if trimmed.endswith(_EOC) else stream


def _jp2_codestream(jp2: bytes) -> bytes:
    position = 0
    while position + 16 <= len(jp2):
        length, kind = struct.unpack_from(">I4s", jp2, position)
        head = 16 if length == 1 else 8
        if length == 1:
            (length,) = struct.unpack_from(">Q", jp2, position + 8)
        end = position + length if length else len(jp2)
        if length and length < head:
            break
        if kind == b"jp2c":
            return jp2[position + head : end]
        position = end
    raise ImageRejected("corrupt", "a JP2 file in the pixel data holds no JPEG 2000 stream.")


def read_jpeg2000(stream: bytes) -> Jpeg2000Header:
    """Read the size marker with which a codestream begins.

    Raises
    ------
    ImageRejected
        ``corrupt`` without a possible size.
    """
    if not stream.startswith(_SOC_SIZ) or len(stream) < 45:
        raise ImageRejected("corrupt", "a JPEG 2000 stream does not begin with its size.")
    length, _, right, bottom, left, top = struct.unpack_from(">HH4I", stream, 4)
    tile_width, tile_height, tile_left, tile_top = struct.unpack_from(">4I", stream, 24)
    components, depth = struct.unpack_from(">HB", stream, 40)
    if length != 38 + 3 * components or len(stream) < 4 + length:
        raise _impossible_size()
    subsampling = tuple((stream[43 + 3 * number], stream[44 + 3 * number]) for number in range(components))
    if right <= left or bottom <= top or not components or not all(min(steps) for steps in subsampling):
        raise _impossible_size()
    if not tile_left <= left < tile_left + tile_width or not tile_top <= top < tile_top + tile_height:
        raise _impossible_size()
    return Jpeg2000Header(
        right - left,
        bottom - top,
        components,
        (depth & 0x7F) + 1,
        signed=depth > 0x7F,
        area=(left, top, right, bottom),
        tile=(tile_left, tile_top, tile_width, tile_height),
        subsampling=subsampling,
    )


def check_tiles(stream: bytes, header: Jpeg2000Header) -> tuple[bytes, Jpeg2000Header]:
    """Refuse a codestream that leaves out tiles, or that is divided into more parts than its size can need.

    A decoder fills missing tiles with nothing, however many there are.

    Returns
    -------
    (bytes, Jpeg2000Header)
        As they came; or with the length of the last tile-part and the end marker that the standard asks for, where an
        encoder wrote others.

    Raises
    ------
    ImageRejected
        ``truncated`` or ``corrupt``.
    """
    samples = header.width * header.height * header.components
    if header.tiles > len(stream) // _SOT_BYTES:
        raise _missing_tiles()
    if header.tiles > samples // _SAMPLES_PER_TILE + _SPARE_TILES:
        raise _too_many_parts()
    main, position = read_styles(stream, 4 + struct.unpack_from(">H", stream, 4)[0], _SOT, header.components)
    if main.default is None:
        raise ImageRejected("corrupt", "a JPEG 2000 stream does not say how it is coded.")
    tiles: dict[int, list[Styles]] = {}
    left = samples // _SAMPLES_PER_PART + _SPARE_PARTS
    last = position
    for at, tile, styles in _tile_headers(stream, position, header):
        last = at
        tiles.setdefault(tile, [main]).append(styles)
        left -= 1 + styles.segments
        if left < 0:
            raise _too_many_parts()
    if len(tiles) < header.tiles:
        raise _missing_tiles()
    for tile, declared in tiles.items():
        left -= tile_parts(header.tile_area(tile), header.subsampling, declared)
        if left < 0:
            raise _too_many_parts()
    mended = _mended(stream, last)
    return mended, replace(header, mended=mended != stream)


def _tile_headers(stream: bytes, position: int, header: Jpeg2000Header) -> Iterator[tuple[int, int, Styles]]:
    """Where each tile-part begins, its tile, and the coding styles in its header."""
    while position + _SOT_BYTES <= len(stream):
        marker, length, tile, part_length = struct.unpack_from(">HHHI", stream, position)
        if marker != _SOT:
            return
        if length != _SOT_BYTES - 2 or tile >= header.tiles or 0 < part_length < _SOT_BYTES:
            raise ImageRejected("corrupt", "a JPEG 2000 tile declares an impossible length or number.")
        yield position, tile, read_styles(stream, position + _SOT_BYTES, _SOD, header.components)[0]
        if not part_length:
            return  # the last one: it runs to the end of the stream
        position += part_length


def _mended(stream: bytes, last: int) -> bytes:
    """``stream``, whose last tile-part begins at ``last``, with the length and the end marker that belong there.

    OpenJPEG refuses, unless it is told not to be strict, a stream without an end marker, and one that ends before or
    behind the length which its last tile-part declares.
    """
    (length,) = struct.unpack_from(">I", stream, last + 6)
    end = last + length
    if not stream.endswith(_EOC):
        if not length or end > len(stream):
            raise ImageRejected("truncated", "the JPEG 2000 stream ends before its end marker.")
        return stream[:end] + _EOC
    missing = end - (len(stream) - len(_EOC))
    if not length or not missing or stream[end : end + 2] == _EOC:
        return stream
    if 0 < missing <= _MISSING * len(stream):
        return stream[: -len(_EOC)] + bytes(missing) + _EOC
    return stream[: last + 6] + bytes(4) + stream[last + 10 :]  # none declared: to the end of the stream


def _impossible_size() -> ImageRejected:
    return ImageRejected("corrupt", "a JPEG 2000 stream declares an impossible size.")


def _missing_tiles() -> ImageRejected:
    return ImageRejected("truncated", "the JPEG 2000 stream holds fewer tiles than its size needs.")


def _too_many_parts() -> ImageRejected:
    return ImageRejected(
        "corrupt",
        "a JPEG 2000 stream has more tiles, precincts, code blocks or layers than its size needs.",
    )
