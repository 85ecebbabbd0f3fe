"""PNG, JPEG and JPEG 2000 files that claim, hide or leave out too much."""

import struct
import zlib
from functools import cache

import numpy as np
from pydicom.uid import JPEG2000Lossless

from penumo_assets.imaging.formats.png_chunks import SIGNATURE
from penumo_assets_tests.imaging.samples import dicom_dataset, file_bytes, jpeg_bytes, phantom

GRAY = phantom(bits=8).astype(np.uint8)
ROWS = zlib.compress(b"".join(b"\0" + row.tobytes() for row in GRAY))


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(size: tuple[int, int], idat: bytes, *extra: tuple[bytes, bytes], depth=8, colour=0, interlaced=0) -> bytes:
    """A PNG with any header (width, height), picture data and further chunks before it; checksums are right."""
    header = struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, interlaced)
    middle = b"".join(chunk(kind, body) for kind, body in extra)
    return SIGNATURE + chunk(b"IHDR", header) + middle + chunk(b"IDAT", idat) + chunk(b"IEND", b"")


@cache
def zeros(mebibytes: int) -> bytes:
    """That many mebibytes of zeros, deflated to a thousandth."""
    stream, block = zlib.compressobj(6), bytes(1 << 20)
    return b"".join(stream.compress(block) for _ in range(mebibytes)) + stream.flush()


def adam7_rows(width: int, height: int, depth: int) -> bytes:
    """The rows of a black interlaced picture, pass by pass, each with its filter byte (PNG, clause 8.2)."""
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    rows = b""
    for left, top, across, down in passes:
        columns, lines = -(-(width - left) // across), -(-(height - top) // down)
        rows += bytes(max(lines, 0) * (1 + -(-columns * depth // 8))) if columns > 0 else b""
    return rows


def resized_jpeg(width: int, height: int, **options: bool) -> bytes:
    data = bytearray(jpeg_bytes(GRAY, **options))
    at = data.find(b"\xff\xc2" if options.get("progressive") else b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def jpeg2000(side: int, tile: int | None = None) -> bytes:
    """A DICOM film whose header and codestream both declare ``side``, in tiles of ``tile`` or as they were."""
    dataset = dicom_dataset(phantom(), JPEG2000Lossless, BitsStored=12)
    stream = bytearray(dataset.PixelData)
    at = stream.index(b"\xff\x4f\xff\x51")
    stream[at + 8 : at + 16] = struct.pack(">II", side, side)
    if tile is not None:
        stream[at + 24 : at + 32] = struct.pack(">II", tile, tile)
    dataset.PixelData, dataset.Rows, dataset.Columns = bytes(stream), side, side
    return file_bytes(dataset)


SIZE = (GRAY.shape[1], GRAY.shape[0])
PALETTE = (b"PLTE", bytes(range(256)) * 3)


def giants() -> dict[str, tuple[bytes, str]]:
    """Files that declare more than they hold or anybody wants, and the code that each is rejected with."""
    return {
        "png 100,000 x 100,000": (png((100_000, 100_000), ROWS), "too_large"),
        "png 100,000 x 100,000, 16 bit": (png((100_000, 100_000), ROWS, depth=16), "too_large"),
        "png 8,000 x 8,000 of little data": (png((8_000, 8_000), ROWS), "truncated"),
        "png 8,000 x 8,000 with a palette": (png((8_000, 8_000), ROWS, PALETTE, colour=3), "corrupt"),
        "png 8,000 x 8,000 of 16-bit RGBA": (png((8_000, 8_000), ROWS, depth=16, colour=6), "too_large"),
        "jpeg 65,500 x 65,500": (resized_jpeg(65_500, 65_500), "too_large"),
        "jpeg 8,000 x 7,990 of little data": (resized_jpeg(8_000, 7_990), "corrupt"),
        "progressive jpeg 8,000 x 7,990": (resized_jpeg(8_000, 7_990, progressive=True), "corrupt"),
        "jpeg 2000, 60,000 x 60,000": (jpeg2000(60_000), "too_large"),
        "jpeg 2000, 8,000 x 8,000 in one tile": (jpeg2000(8_000, 8_000), "too_large"),
        "jpeg 2000, 8,000 x 8,000 with one tile of many": (jpeg2000(8_000), "truncated"),
        "jpeg 2000, 4,000 x 4,000 in tiles of one pixel": (jpeg2000(4_000, 1), "truncated"),
    }


def bombs() -> dict[str, tuple[bytes, str]]:
    """Files that inflate far beyond what their header declares."""
    many = SIGNATURE + chunk(b"IHDR", struct.pack(">IIBBBBB", *SIZE, 8, 0, 0, 0, 0)) + chunk(b"IDAT", b"") * 200_000
    return {
        "huge zTXt": (png(SIZE, ROWS, (b"zTXt", b"k\0\0" + zeros(160))), "decoded"),
        "huge iCCP": (png(SIZE, ROWS, (b"iCCP", b"k\0\0" + zeros(160))), "decoded"),
        "gray bomb": (png(SIZE, zeros(160)), "constant_image"),
        "palette bomb": (png(SIZE, zeros(160), PALETTE, colour=3), "corrupt"),
        "interlaced bomb": (png(SIZE, zeros(160), interlaced=1), "corrupt"),
        "huge palette": (png(SIZE, ROWS, (b"PLTE", bytes(9_000_000)), colour=3), "corrupt"),
        "200,000 chunks": (many + chunk(b"IDAT", ROWS) + chunk(b"IEND", b""), "corrupt"),
    }
