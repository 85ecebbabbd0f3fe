"""Into how many packets and code blocks a tile of a JPEG 2000 picture is divided, from what its headers declare.

References
----------
ITU-T T.800: annex A.6.1 and A.6.2 (coding styles), annex B (resolutions, precincts, code blocks, packets).
"""

import struct
from dataclasses import dataclass, field

from penumo_assets.imaging.errors import ImageRejected

_COD, _COC = 0xFF52, 0xFF53
# Beside those: CAP, TLM, PLM, PLT, CPF, QCD, QCC, RGN, POC, PPM, PPT, CRG, COM. Others have no place in a header, and
# OpenJPEG does not skip one that it does not know: it searches its content for others.
_MARKERS = frozenset({_COD, _COC, 0xFF50, 0xFF55, 0xFF57, 0xFF58, 0xFF59, *range(0xFF5C, 0xFF62), 0xFF63, 0xFF64})
_MAX_SEGMENTS = 2_000  # a header has some ten, and up to 256 of each of the kinds that hold lengths

Area = tuple[int, int, int, int]  # left, top, right, bottom on the reference grid
Steps = tuple[int, int]  # columns and rows of the grid per sample of a component


@dataclass(frozen=True)
class CodingStyle:
    """How a component is divided: resolutions, precincts and code blocks, their sides as exponents of two.

    Attributes
    ----------
    block : tuple of int
        Width and height of a code block.
    precincts : tuple of (int, int)
        Width and height of a precinct of each resolution, the coarsest first.
    """

    block: tuple[int, int]
    precincts: tuple[tuple[int, int], ...]

    def resolutions(self) -> list[tuple[int, tuple[int, int]]]:
        """How often each resolution is halved, and its precincts."""
        return list(zip(range(len(self.precincts) - 1, -1, -1), self.precincts, strict=True))


@dataclass
class Styles:
    """The coding styles that one header declares, one for all components and those of single ones; its length."""

    segments: int = 0
    layers: int = 0
    default: CodingStyle | None = None
    own: dict[int, CodingStyle] = field(default_factory=dict)


def read_styles(stream: bytes, position: int, last: int, components: int) -> tuple[Styles, int]:
    """The coding styles in the header at ``position``, and where the marker ``last`` ends it.

    Raises
    ------
    ImageRejected
        ``truncated`` or ``corrupt``.
    """
    styles, wide = Styles(), components > 256
    while position + 4 <= len(stream):
        marker, length = struct.unpack_from(">HH", stream, position)
        if marker == last:
            return styles, position
        styles.segments += 1
        if marker not in _MARKERS or length < 2 or styles.segments > _MAX_SEGMENTS:
            raise ImageRejected("corrupt", "a JPEG 2000 header holds something that is not part of one, or too much.")
        segment = stream[position + 4 : position + 2 + length]
        if marker == _COD:
            if styles.default is not None or len(segment) < 5 or segment[2:4] == b"\0\0":
                raise _impossible()
            styles.layers = struct.unpack_from(">H", segment, 2)[0]
            styles.default = _coding_style(segment[0], segment[5:])
        elif marker == _COC:
            component = int.from_bytes(segment[: 1 + wide], "big")
            if component in styles.own or component >= components or len(segment) < 2 + wide:
                raise _impossible()
            styles.own[component] = _coding_style(segment[1 + wide], segment[2 + wide :])
        position += 2 + length
    raise ImageRejected("truncated", "the JPEG 2000 stream ends within a header.")


def _coding_style(flags: int, content: bytes) -> CodingStyle:
    if len(content) < 5:
        raise _impossible()
    levels, block = content[0], (content[1] + 2, content[2] + 2)
    sizes = content[5 : 6 + levels] if flags & 1 else b"\xff" * (levels + 1)
    if levels > 32 or len(sizes) <= levels or max(block) > 10 or sum(block) > 12:
        raise _impossible()
    precincts = tuple((size & 15, size >> 4) for size in sizes)
    if any(min(sides) == 0 for sides in precincts[1:]):
        raise _impossible()
    return CodingStyle(block, precincts)


def tile_parts(area: Area, subsampling: tuple[Steps, ...], declared: list[Styles]) -> int:
    """How many packets and code blocks a tile has, and places at which a decoder looks for packets.

    Which of the declared styles holds for a component depends on their order, and not every decoder sees that the
    same way: the costliest counts.
    """
    layers = max(styles.layers for styles in declared)
    total = resolutions = 0
    across, down = area[2] - area[0], area[3] - area[1]
    for component, steps in enumerate(subsampling):
        styles = {one.default for one in declared} | {one.own.get(component) for one in declared}
        candidates = [style for style in styles if style is not None]
        total += max(_component_parts(area, steps, style, layers) for style in candidates)
        for halved, (width, height) in (level for style in candidates for level in style.resolutions()):
            resolutions += 1
            across, down = min(across, steps[0] << width + halved), min(down, steps[1] << height + halved)
    # Three of the five progressions look for packets wherever a precinct of any component or resolution can begin.
    places = _cells(area[0], area[2], 1, across) * _cells(area[1], area[3], 1, down)
    return total + places * resolutions


def _component_parts(area: Area, steps: Steps, style: CodingStyle, layers: int) -> int:
    """The packets and code blocks of one component of a tile."""
    packets = blocks = 0
    for halved, precinct in style.resolutions():
        coarsest = halved == len(style.precincts) - 1
        in_precincts, in_blocks = layers, 1 if coarsest else 3
        for axis in (0, 1):
            start, end, step = area[axis], area[axis + 2], steps[axis] << halved
            in_precincts *= _cells(start, end, step, 1 << precinct[axis])
            # The three bands of a finer resolution have half its sides; a block ends where its precinct does.
            band, side = (step, precinct[axis]) if coarsest else (2 * step, precinct[axis] - 1)
            in_blocks *= _cells(start, end, band, 1 << min(style.block[axis], side))
        packets += in_precincts
        blocks += in_blocks
    return packets + blocks


def _cells(start: int, end: int, step: int, side: int) -> int:
    """How many cells of ``side`` samples are touched by the samples, ``step`` apart, from ``start`` to ``end``."""
    first, last = -(-start // step), -(-end // step)
    return -(-last // side) - first // side if last > first else 0


def _impossible() -> ImageRejected:
    return ImageRejected("corrupt", "a JPEG 2000 stream declares an impossible division into blocks.")
