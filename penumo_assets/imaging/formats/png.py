"""PNG files to pixels and back, quickly.

Gray and RGB pictures of 8 and 16 bits are decoded by the png crate (kornia-rs), whose undoing of the Paeth filter
is what makes it fast; anything else by OpenCV. Milliseconds of processor time for a 2000x2000 radiograph, at nearly
equal sizes:

==============  ======  =====  ===========  ==============  ==========  =========
decode          OpenCV  spng   imagecodecs  Wuffs           kornia-rs   (isal alone)
==============  ======  =====  ===========  ==============  ==========  =========
8 bits, level 6     32     39           30              32          16          5
8 bits, level 1     20     21           20              12           7          5
16 bits             42     46           44               -          24         13
==============  ======  =====  ===========  ==============  ==========  =========

The writer filters every row by the one above it, and deflates 8 bits with libdeflate, whose output depends on nothing
but its input. 16 bits take ISA-L (isal) a third of the time, but its bytes for the same pixels may differ from
processor to processor, and one process in some thousand wrote others: see ``StageOutput.content``. Milliseconds and
megabytes of a 2000x2000 phantom of 12 bits in 16 (libdeflate and ISA-L beside 3 ms of filtering), and what a real
radiograph of 15 bits takes:

============  ===========  ========  ======  =====  ======  =======  =====  =======  ======  ==========  ===========
encode        libdeflate   ISA-L 1   (32K)   (2)    (0)     zlib-ng  Paeth  JPEG-LS  HTJ2K   JPEG XL 1   OpenCV PNG
============  ===========  ========  ======  =====  ======  =======  =====  =======  ======  ==========  ===========
ms            61           15        18      22     19      63       16     84       40      11          131
MB            5.47         5.80      5.72    5.55   7.93    7.25     5.77   5.29     5.59    5.37        5.99
real, ms      57           9         16      18     17      72       16     102      41      11          -
real, MB      5.60         5.62      5.62    5.61   7.76    7.38     5.54   4.59     4.60    4.70        -
============  ===========  ========  ======  =====  ======  =======  =====  =======  ======  ==========  ===========

``ISA-L 1``, as written, looks for repetitions no farther back than 512 bytes, for noise has none; ``(32K)`` and what
follows look 32 KiB back, ``Paeth`` behind that filter, which numpy takes 100 ms for. JPEG XL would be better still, but
browsers and OpenCV do not read it. 8 bits take libdeflate 15 ms, ISA-L 12, OpenCV 48.

Reference: https://www.w3.org/TR/png-3/
"""

import struct

import cv2
import deflate
import kornia_rs.io
import numpy as np
from isal import isal_zlib

from penumo_assets.configs.prepare import DecodeConfig
from penumo_assets.imaging.errors import ImageRejected, is_decoder_failure
from penumo_assets.imaging.formats.decoded import DecodedImage
from penumo_assets.imaging.formats.exif import upright
from penumo_assets.imaging.formats.pixels import check_size, fill_depth, finished, to_luminance
from penumo_assets.imaging.formats.png_chunks import (
    SIGNATURE,
    PngHeader,
    PngParts,
    chunk,
    inflate_rows,
    png_file,
    read_header,
    read_parts,
    refuse_bomb,
    stored_png,
)

_FILTER_UP = 2
_NEAR = 9  # bits of the window that 16 bits are searched in for repetitions


def looks_like(data: bytes) -> bool:
    """Whether the bytes begin as a PNG file does."""
    return data.startswith(SIGNATURE)


def decode(data: bytes, config: DecodeConfig) -> DecodedImage:
    """Decode a PNG file: 1 to 16 bits, gray, palette or colour, alpha laid over black.

    Raises
    ------
    ImageRejected
    """
    parts, samples, kept = _png_pixels(data, config)
    pixels = samples
    if pixels.ndim == 3 and pixels.shape[2] == 4:
        pixels = _over_black(pixels)
    notes = []
    bits = parts.header.depth
    pixels = upright(to_luminance(pixels, keep_colour=config.keep_colour), parts.orientation)
    if bits == 16:
        pixels, bits = fill_depth(pixels)
        if bits < 16:
            notes.append(f"depth:{bits}")
    return finished(pixels, pixels.shape[:2], bits, "png", config, notes, kept if pixels is samples else None)


def png_samples(data: bytes, config: DecodeConfig) -> np.ndarray:
    """A PNG file's samples, (H, W), (H, W, 3) RGB or (H, W, 4) RGBA; nothing is decoded that is too large.

    Raises
    ------
    ImageRejected
    """
    return _png_pixels(data, config)[1]


def decode_png(data: bytes) -> np.ndarray:
    """Read back what :func:`encode_png` wrote: (H, W) or (H, W, 3) RGB, uint8 or uint16.

    Raises
    ------
    ImageRejected
        When the file is not a PNG, is damaged or was cut off.
    """
    if not looks_like(data):
        raise ImageRejected("not_an_image", "expected a PNG file.")
    return _decode_parts(read_parts(data))[0]


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
    body = deflate.zlib_compress(rows, 1) if pixels.dtype == np.uint8 else isal_zlib.compress(rows, 1, _NEAR)
    return png_file(header, (body,))


def _png_pixels(data: bytes, config: DecodeConfig) -> tuple[PngParts, np.ndarray, bytes | None]:
    """The chunks of a PNG file, its samples, and a file of nothing but them."""
    header = read_header(data)
    channels = {0: 1, 2: 3, 3: 4, 4: 4, 6: 4}[header.colour_type]
    check_size(header.height, header.width, channels * (2 if header.depth == 16 else 1), config)
    parts = read_parts(data)
    return parts, *_decode_parts(parts)


def _decode_parts(parts: PngParts) -> tuple[np.ndarray, bytes | None]:
    """The samples of a PNG: (H, W), (H, W, 3) RGB or (H, W, 4) RGBA, uint8 or uint16; and the file without anything
    else, for gray and RGB pictures of 8 or 16 bits.

    Raises
    ------
    ImageRejected
        ``truncated`` when the picture's data ends early, ``corrupt`` when it cannot be inflated or inflates to more
        than the picture.
    """
    header = parts.header
    plain = header.colour_type in (0, 2) and header.depth >= 8 and not header.interlaced
    if plain and not any(kind in (b"PLTE", b"tRNS") for kind, _ in parts.critical):
        rows, checksum, exact = inflate_rows(parts)
        return _unfilter(stored_png(rows, checksum, parts), header), parts.bare if exact else None
    refuse_bomb(parts)
    slim = SIGNATURE + b"".join(chunk(kind, body) for kind, body in parts.critical)
    pixels = cv2.imdecode(np.frombuffer(slim, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.shape[:2] != (header.height, header.width):
        raise ImageRejected("corrupt", "the PNG's picture data cannot be decoded.")
    if pixels.ndim == 3:
        order = cv2.COLOR_BGR2RGB if pixels.shape[2] == 3 else cv2.COLOR_BGRA2RGBA
        pixels = cv2.cvtColor(pixels, order)
    return pixels, None


def _unfilter(stored: bytes, header: PngHeader) -> np.ndarray:
    """Decode a gray or RGB picture of 8 or 16 bits that is not interlaced, from a file of its inflated rows."""
    decode = kornia_rs.io.decode_image_png_u8 if header.depth == 8 else kornia_rs.io.decode_image_png_u16
    try:
        pixels = decode(stored, (header.height, header.width), "mono" if header.colour_type == 0 else "rgb")
    except BaseException as error:
        if not is_decoder_failure(error):
            raise
        raise ImageRejected("corrupt", "the PNG's picture data cannot be decoded.") from None
    return pixels[..., 0] if header.colour_type == 0 else pixels


def _over_black(pixels: np.ndarray) -> np.ndarray:
    """Composite (H, W, 4) RGBA on black, (H, W, 3) RGB."""
    alpha = pixels[..., 3]
    opaque = np.iinfo(pixels.dtype).max
    colour = cv2.cvtColor(pixels, cv2.COLOR_RGBA2RGB)
    if int(alpha.min()) == opaque:
        return colour
    return cv2.multiply(colour, cv2.merge((alpha, alpha, alpha)), scale=1.0 / opaque)
