"""DICOM files with structures that no film has. All are explicit VR, little endian, but where it says otherwise."""

import struct
import zlib
from functools import cache

import pydicom
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, JPEG2000Lossless, RLELossless

from penumo_assets_tests.imaging.samples import bundled_dicom, dicom_dataset, file_bytes, phantom

UNDEFINED = 0xFFFFFFFF
ITEM, END_OF_ITEM, END_OF_SEQUENCE = (0xFFFE, 0xE000), (0xFFFE, 0xE00D), (0xFFFE, 0xE0DD)
ROWS, PATIENT_ID, PIXELS = (0x0028, 0x0010), (0x0010, 0x0020), (0x7FE0, 0x0010)
VIEW_CODES, VOI_LUT, PRIVATE = (0x0054, 0x0220), (0x0028, 0x3010), (0x0029, 0x1010)
Number = tuple[int, int]


def film(syntax: pydicom.uid.UID = ExplicitVRLittleEndian, **elements: object) -> bytes:
    return file_bytes(dicom_dataset(phantom(), syntax, BitsStored=12) if not elements else _with(syntax, elements))


def _with(syntax: pydicom.uid.UID, elements: dict) -> pydicom.Dataset:
    dataset = dicom_dataset(phantom(), syntax, BitsStored=12)
    for name, value in elements.items():
        setattr(dataset, name, value)
    return dataset


def tag(number: Number) -> bytes:
    return struct.pack("<HH", *number)


def item(length: int, number: Number = ITEM) -> bytes:
    return tag(number) + struct.pack("<I", length)


def element(number: Number, vr: bytes, value: bytes, length: int | None = None) -> bytes:
    """An element; a long VR unless it is one of the short ones used here."""
    size = len(value) if length is None else length
    if vr in (b"US", b"LO", b"DS", b"IS", b"CS", b"UI"):
        return tag(number) + vr + struct.pack("<H", size) + value
    return tag(number) + vr + b"\0\0" + struct.pack("<I", size) + value


def before(number: Number, vr: bytes, blob: bytes) -> bytes:
    """A good film with ``blob`` before one of its elements."""
    data = film()
    at = data.index(tag(number) + vr)
    return data[:at] + blob + data[at:]


def nested(number: Number, depth: int) -> bytes:
    """Sequences of undefined length within each other."""
    opening = element(number, b"SQ", b"", UNDEFINED) + item(UNDEFINED)
    return opening * depth + (item(0, END_OF_ITEM) + item(0, END_OF_SEQUENCE)) * depth


def nested_defined(number: Number, depth: int) -> bytes:
    blob = b""
    for _ in range(depth):
        blob = element(number, b"SQ", item(len(blob)) + blob)
    return blob


def relabelled(number: Number, vr: bytes, new_vr: bytes | None = None, length: int | None = None) -> bytes:
    """A good film in which an element declares another type or length."""
    data = bytearray(film())
    at = data.index(tag(number) + vr)
    if new_vr is not None:
        data[at + 4 : at + 6] = new_vr
    if length is not None:
        long = vr in (b"OW", b"OB")
        data[at + (8 if long else 6) : at + (12 if long else 8)] = struct.pack("<I" if long else "<H", length)
    return bytes(data)


@cache
def deflated_bombs(mebibytes: int = 96) -> dict[str, bytes]:
    """A megabyte that inflates to more than any film, behind heads that hide that it is deflated."""
    stream = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
    block, head = bytes(1 << 20), element(PRIVATE, b"OB", b"", mebibytes << 20)
    body = stream.compress(head) + b"".join(stream.compress(block) for _ in range(mebibytes)) + stream.flush()
    good = film(DeflatedExplicitVRLittleEndian)
    length = struct.unpack_from("<I", good, 140)[0]
    meta, at = good[144 : 144 + length], good[144 : 144 + length].index(tag((2, 0x10)))
    long = meta[:at] + element((2, 0x0F), b"OB", bytes(4000)) + meta[at:]
    return {
        "as the standard has it": good[:144] + meta + body,
        "its syntax behind kilobytes": good[:140] + struct.pack("<I", len(long)) + long + body,
        "without the group's length": good[:132] + meta + body,
        "with a wrong group length": good[:140] + struct.pack("<I", length - 10) + meta + body,
        "with a group length past the end": good[:140] + struct.pack("<I", UNDEFINED) + meta + body,
        "without a preamble": good[132:144] + meta + body,
    }


def deflated_twice() -> bytes:
    """A deflated file whose content claims to be deflated again."""
    good = film(DeflatedExplicitVRLittleEndian)
    end = 144 + struct.unpack_from("<I", good, 140)[0]
    stream = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
    return good[:end] + stream.compress(good[144:]) + stream.flush()


def crowds() -> dict[str, bytes]:
    """Hundreds of thousands of elements, items or fragments."""
    many, empty = 200_000, item(0)
    compressed = film(JPEG2000Lossless)
    at = compressed.index(tag(PIXELS) + b"OB") + 12
    fragments = compressed[:at] + empty + empty * many + compressed[at + 8 + 4 * (compressed[at + 4] // 4) :]
    return {
        "private elements": before(PIXELS, b"OW", b"".join(element((0x29, 0x1000), b"LO", b"") for _ in range(many))),
        "the same element": before((0x28, 0x11), b"US", element(ROWS, b"US", struct.pack("<H", 64)) * many),
        "items": before(PIXELS, b"OW", element(VOI_LUT, b"SQ", empty * many)),
        "items of undefined length": before(PIXELS, b"OW", element(VOI_LUT, b"SQ", empty * many, UNDEFINED)),
        "items in the place of a number": before((0x28, 0x11), b"US", element(ROWS, b"SQ", empty * many)),
        "items in a code": before(
            (0x28, 0x2),
            b"US",
            element(VIEW_CODES, b"SQ", item(8 * many + 12) + element((8, 0x100), b"SQ", empty * many)),
        ),
        "meta elements": film()[:144] + element((2, 0x102), b"OB", b"") * many + film()[144:],
        "fragments": fragments,
    }


def depths() -> dict[str, bytes]:
    return {
        f"{kind}, {depth} deep": before((0x28, 0x2), b"US", build(number, depth))
        for depth in (1_000, 100_000)
        for kind, number, build in (
            ("view codes", VIEW_CODES, nested),
            ("private", PRIVATE, nested),
            ("unknown", (0x0018, 0x9999), nested),
        )
    } | {"defined lengths, 3,000 deep": before(PIXELS, b"OW", nested_defined(VOI_LUT, 3_000))}


def lengths() -> dict[str, bytes]:
    """Elements that declare other lengths than they have, odd and negative ones included."""
    wrong = {"none": 0, "odd": 7_167, "past the end": 0x7FFFFFFF, "negative": 0xFFFFFFFE, "undefined": UNDEFINED}
    files = {f"pixels: {name}": relabelled(PIXELS, b"OW", length=length) for name, length in wrong.items()}
    for number, vr, name in ((ROWS, b"US", "rows"), (PATIENT_ID, b"LO", "patient id"), ((8, 0x16), b"UI", "class")):
        files |= {f"{name}: {length:#x}": relabelled(number, vr, length=length) for length in (0, 1, 3, 0xFFFE, 0xFFFF)}
    return files


def types() -> dict[str, bytes]:
    """Elements of another type than theirs."""
    return {
        f"{name} as {vr!r}": relabelled(number, own, vr)
        for name, number, own in (("rows", ROWS, b"US"), ("patient id", PATIENT_ID, b"LO"), ("pixels", PIXELS, b"OW"))
        for vr in (b"OB", b"SQ", b"UN", b"FD", b"XX", b"\0\0", b"DS", b"PN")
    }


def pixels() -> dict[str, tuple[bytes, str]]:
    """Pixel data that is not what the header says."""
    native = film()
    length = len(phantom().tobytes())
    palette = bundled_dicom("examples_palette.dcm")
    palette.RedPaletteColorLookupTableData = b"\0\0"
    compressed = film(JPEG2000Lossless)
    at = compressed.index(tag(PIXELS) + b"OB") + 12
    table = 8 + struct.unpack_from("<I", compressed, at + 4)[0]
    run_length = bytearray(film(RLELossless))
    segments = run_length.index(struct.pack("<I", 2), run_length.index(tag(PIXELS) + b"OB") + 12)
    run_length[segments : segments + 12] = struct.pack("<3I", 2, 64, 0xFFFFFFF0)
    return {
        "shorter": (film(PixelData=phantom().tobytes()[: length // 2]), "truncated"),
        "longer": (film(PixelData=phantom().tobytes() * 3), "size_mismatch"),
        "65,535 x 65,535": (film(Rows=65_535, Columns=65_535), "too_large"),
        "8,000 x 8,000": (film(Rows=8_000, Columns=8_000), "truncated"),
        "a million frames": (film(NumberOfFrames=1_000_000), "multi_frame"),
        "an empty palette": (file_bytes(palette), "bad_header"),
        "offsets past the end": (
            compressed[:at] + item(4) + struct.pack("<I", 0xFFFFFFF0) + compressed[at + table :], "decoded"),
        "a table of three bytes": (compressed[:at] + item(3) + b"\1\2\3" + compressed[at + table :], "decoded"),
        "run lengths past the end": (bytes(run_length), "corrupt"),
        "cut off": (native[:-100], "truncated"),
    }  # fmt: skip
