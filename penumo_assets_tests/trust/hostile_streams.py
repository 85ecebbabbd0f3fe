"""DICOM films whose compressed pixel data leave it to a decoder which bytes are the picture, or cost far too much."""

import struct

import numpy as np
from pydicom.encaps import encapsulate, get_frame
from pydicom.uid import UID, JPEG2000Lossless

from penumo_assets_tests.imaging import streams
from penumo_assets_tests.imaging.samples import dicom_dataset, file_bytes, phantom
from penumo_assets_tests.trust.hostile_dicom import PIXELS, element, film, tag

EIGHT = phantom(64, 56, 8).astype(np.uint8)
GIANT = 4_000
_POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 2600 2600\n%%EndComments\n%%EOF\n"


def even(stream: bytes) -> bytes:
    return stream + bytes(len(stream) % 2)


def good_frame(syntax: UID) -> bytes:
    return even(get_frame(dicom_dataset(EIGHT, syntax).PixelData, 0, number_of_frames=1))


def giant_frame(syntax: UID) -> bytes:
    """A black picture of 16 million pixels, in some kilobytes."""
    black = np.zeros((GIANT, GIANT), np.uint8)
    if syntax == JPEG2000Lossless:
        return even(streams.jpeg2000(black, tile_size=(1000, 1000)))
    return even(get_frame(dicom_dataset(black, syntax).PixelData, 0, number_of_frames=1))


def extended_table(syntax: UID) -> bytes:
    """The film that its header declares, and a table that says that the frame is another picture behind it."""
    good, giant = good_frame(syntax), giant_frame(syntax)
    dataset = dicom_dataset(EIGHT, syntax)
    dataset.PixelData = encapsulate([good, giant], has_bot=False)
    dataset.ExtendedOffsetTable = struct.pack("<Q", 8 + len(good))
    dataset.ExtendedOffsetTableLengths = struct.pack("<Q", len(giant))
    return file_bytes(dataset)


def honest_table(syntax: UID) -> bytes:
    """A film with the extended table that it should have."""
    dataset, good = dicom_dataset(EIGHT, syntax), good_frame(syntax)
    dataset.PixelData = encapsulate([good], has_bot=False)
    dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths = bytes(8), struct.pack("<Q", len(good))
    return file_bytes(dataset)


def decoy_in_a_box() -> bytes:
    """A JP2 file of a giant, with the picture that the header declares in a box that readers leave out."""
    jp2 = streams.jpeg2000(np.zeros((GIANT, GIANT), np.uint8), wrapped=True, tile_size=(1000, 1000))
    at = jp2.index(b"jp2h") - 4
    return streams.film(even(jp2[:at] + streams.box(b"free", streams.jpeg2000(EIGHT)) + jp2[at:]), *EIGHT.shape)


def postscript() -> bytes:
    """A program with a picture behind it, so large that it is decoded at half its size."""
    return streams.film(even(_POSTSCRIPT + streams.jpeg2000(np.zeros((5_200, 5_200), np.uint8))), 5_200, 5_200)


def divided() -> dict[str, bytes]:
    """Black pictures of 4 million pixels, in a few kilobytes, in as many parts as the format allows."""
    side = 2_000
    black = np.zeros((side, side), np.uint8)
    plain = streams.jpeg2000(black, num_resolutions=6)
    found = {
        "precincts": streams.with_precincts(plain, b"\x11" * 6),
        "code blocks": streams.jpeg2000(black, codeblock_size=(4, 4)),
        "layers": streams.with_layers(streams.with_precincts(plain, b"\x55" * 6), 65_535),
    }
    return {name: streams.film(even(stream), side, side) for name, stream in found.items()}


def textual() -> dict[str, bytes]:
    """Values of 16 MB of which a parser makes lists, in the pixel data and in the file's head."""
    good, many = film(), 16 << 20
    pixels, syntax = good.index(tag(PIXELS) + b"OW"), good.index(tag((2, 0x10)))
    behind = syntax + 8 + struct.unpack_from("<H", good, syntax + 6)[0]
    backslashes = b"\\" * many
    return {
        "pixels as text": good[:pixels] + element(PIXELS, b"UC", backslashes),
        "pixels as numbers": good[:pixels] + element(PIXELS, b"UV", bytes(many)),
        "the head's first element": good[:132] + element((2, 0), b"UC", backslashes) + good[144:],
        "the transfer syntax": good[:syntax] + element((2, 0x10), b"UC", backslashes) + good[behind:],
    }
