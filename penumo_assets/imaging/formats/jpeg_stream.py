"""Read the structure of JPEG and JPEG-LS images without decoding them.

What a file declares is known here before a decoder allocates memory for it, and a file that was
cut off is found out: decoders return what they have and fill the rest with gray.

References
----------
JPEG: ITU-T T.81 annex B. JPEG-LS: ITU-T T.87 annex C.
"""

import re
import struct
from dataclasses import dataclass, replace

from penumo_assets.imaging.errors import ImageRejected
from penumo_assets.imaging.formats.exif import exif_orientation

# Inside a scan a real marker is 0xFF and a byte from 0x80 on that is no restart marker; below 0x80
# it is a stuffed byte (JPEG stuffs 0x00, JPEG-LS stuffs a bit, so anything below 0x80).
_NEXT_MARKER = re.compile(rb"\xff[\x80-\xcf\xd8-\xfe]")
_NO_FILL = re.compile(rb"[^\xff]")
_SOI, _EOI, _SOS = 0xD8, 0xD9, 0xDA
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xF7}
_LOSSLESS = frozenset({0xC3, 0xC7, 0xCB, 0xCF})
_LS = 0xF7
_JFIF, _ADOBE, _EXIF = 0xE0, 0xEE, 0xE1
# Decoding needs no comment and no application's segment, but for what they say of colours, which is written anew.
_IGNORED = frozenset({*range(0xE0, 0xF0), 0xFE})
# Baseline, extended and progressive frames of Huffman codes, their tables, restart intervals and scans: what every
# program reads.
_COMMON = frozenset({0xC0, 0xC1, 0xC2, 0xC4, 0xDA, 0xDB, 0xDD})
_LUMINANCE_SEGMENT = b"\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0"
_RGB_SEGMENT = b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\0"
# By the ids of a frame's components, numbers or letters, libjpeg tells luminance and chrominances from RGB.
_COLOURS: dict[tuple[int, ...], bool] = {(1, 2, 3): True, (82, 71, 66): False}

# Each scan of a progressive JPEG passes over the whole image: a 20-byte scan can cost a second.
_MAX_SCAN_MEGAPIXELS = 1000
_MAX_SEGMENTS = 10_000  # the largest profile and the largest preview take some 300 each


@dataclass(frozen=True)
class StreamHeader:
    """What a codestream declares about itself.

    Attributes
    ----------
    width, height, components, precision : int
    orientation : int
        EXIF's, 1 to 8.
    lossless, ls : bool
        Whether it is lossless JPEG, or JPEG-LS.
    luminance : bool or None
        Whether three components are luminance and two chrominances rather than red, green and blue, as libjpeg
        reads JFIF and Adobe markers and the components' ids; ``None`` where the stream does not say.
    end : int
        The position behind the end marker, where the stream has been walked.
    parts : tuple of (int, memoryview)
        The segments that decoding needs: marker, and what follows it, a scan's coded data included.
    """

    width: int
    height: int
    components: int
    precision: int
    orientation: int = 1
    lossless: bool = False
    ls: bool = False
    luminance: bool | None = None
    end: int = 0
    parts: tuple[tuple[int, memoryview], ...] = ()

    @property
    def bare(self) -> bytes | None:
        """The stream with nothing in it that decoding does not need: it leads to the same samples.

        ``None`` for kinds of JPEG that few programs read. libjpeg refuses segments that are longer than their tables,
        and its strict mode bytes that no table and no scan accounts for, so what it decodes holds no text.
        """
        if not self.parts or not {marker for marker, _ in self.parts} <= _COMMON:
            return None
        colours = _RGB_SEGMENT if self.components == 3 and self.luminance is False else _LUMINANCE_SEGMENT
        segments = (piece for marker, rest in self.parts for piece in (bytes((0xFF, marker)), rest))
        return b"".join((b"\xff\xd8", colours, *segments, b"\xff\xd9"))


def read_jpeg(data: bytes | memoryview) -> StreamHeader:
    """Walk a JPEG or JPEG-LS stream from its first marker to its last.

    Raises
    ------
    ImageRejected
        ``truncated`` when the stream ends before its end-of-image marker, ``corrupt`` when its
        markers make no sense.
    """
    view = memoryview(data)
    if bytes(view[:2]) != b"\xff\xd8":
        raise ImageRejected("corrupt", "a JPEG stream does not begin with its start marker.")
    header: StreamHeader | None = None
    orientation, scans, position = 1, 0, 2
    luminance: bool | None = None
    parts: list[tuple[int, memoryview]] = []
    for _ in range(_MAX_SEGMENTS):
        marker, start = _marker(view, position)
        if marker == _EOI:
            position = start
            break
        segment = _segment(view, start)
        position = start + len(segment) + 2
        if marker in _START_OF_FRAME:
            if header is not None:
                raise ImageRejected("corrupt", "a JPEG stream declares the size of its image twice.")
            header = _start_of_frame(segment, marker)
        elif marker == _EXIF and bytes(segment[:6]) == b"Exif\0\0":
            orientation = exif_orientation(bytes(segment[6:]))
        elif marker == _JFIF and bytes(segment[:5]) == b"JFIF\0" and len(segment) >= 14:
            luminance = True
        elif marker == _ADOBE and bytes(segment[:5]) == b"Adobe" and len(segment) >= 12 and luminance is None:
            luminance = segment[11] != 0
        elif marker == _SOS:
            if header is None:
                raise ImageRejected("corrupt", "a JPEG scan comes before the size of the image.")
            scans += 1
            _refuse_scan_bomb(header, scans)
            found = _NEXT_MARKER.search(view, position)
            if found is None:
                raise _truncated_jpeg()
            position = found.start()
        if marker not in _IGNORED:
            parts.append((marker, view[start:position]))
    else:
        raise _too_many_segments()
    if header is None or not scans:
        raise ImageRejected("corrupt", "a JPEG stream holds no image.")
    luminance = header.luminance if luminance is None else luminance
    return replace(header, orientation=orientation, luminance=luminance, end=position, parts=tuple(parts))


def read_size(data: bytes) -> StreamHeader:
    """The size that a JPEG file declares, without walking its scans.

    Raises
    ------
    ImageRejected
        ``truncated`` or ``corrupt``.
    """
    view, position = memoryview(data), 2
    for _ in range(_MAX_SEGMENTS):
        marker, position = _marker(view, position)
        segment = _segment(view, position)
        if marker in _START_OF_FRAME:
            return _start_of_frame(segment, marker)
        position += len(segment) + 2
    raise _too_many_segments()


def _marker(view: memoryview, position: int) -> tuple[int, int]:
    """The marker at ``position`` (fill bytes skipped) and the position behind it."""
    if position >= len(view):
        raise _truncated_jpeg()
    if view[position] != 0xFF:
        raise ImageRejected("corrupt", "a JPEG stream has bytes where a marker should be.")
    found = _NO_FILL.search(view, position)
    if found is None:
        raise _truncated_jpeg()
    return view[found.start()], found.end()


def _segment(view: memoryview, position: int) -> memoryview:
    """The content of the marker segment whose length stands at ``position``."""
    if position + 2 > len(view):
        raise _truncated_jpeg()
    (length,) = struct.unpack_from(">H", view, position)
    if length < 2:
        raise ImageRejected("corrupt", "a JPEG segment declares an impossible length.")
    if position + length > len(view):
        raise _truncated_jpeg()
    return view[position + 2 : position + length]


def _start_of_frame(segment: memoryview, marker: int) -> StreamHeader:
    if len(segment) < 6:
        raise ImageRejected("corrupt", "a JPEG frame header is too short.")
    precision, height, width, components = struct.unpack_from(">BHHB", segment)
    if not height or not width or not components:
        raise ImageRejected("corrupt", "a JPEG stream declares an image without pixels.")
    ids = tuple(segment[6 : 6 + 3 * components : 3])
    return StreamHeader(
        width,
        height,
        components,
        precision,
        lossless=marker in _LOSSLESS,
        ls=marker == _LS,
        luminance=_COLOURS.get(ids),
    )


def _refuse_scan_bomb(header: StreamHeader, scans: int) -> None:
    if scans > 4 and scans * header.width * header.height > _MAX_SCAN_MEGAPIXELS * 1_000_000:
        raise ImageRejected("corrupt", "a JPEG stream has more scans than an image of its size can need.")


def _truncated_jpeg() -> ImageRejected:
    return ImageRejected("truncated", "the JPEG stream ends before its end marker: the file was cut off.")


def _too_many_segments() -> ImageRejected:
    return ImageRejected("corrupt", "a JPEG stream has more segments than an image can need.")
