"""What a JPEG 2000 stream declares, where it begins and ends, and how far it may be divided."""

import struct
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import EpsImagePlugin
from pydicom.encaps import get_frame
from pydicom.uid import JPEG2000Lossless

from penumo_assets.configs.prepare import DecodeConfig
from penumo_assets.imaging.decode import decode_image
from penumo_assets.imaging.errors import ImageRejected
from penumo_assets.imaging.formats import jpeg2000
from penumo_assets.imaging.formats.jpeg2000_division import read_styles, tile_parts
from penumo_assets.imaging.formats.jpeg2000_stream import Jpeg2000Header, check_tiles, codestream_in, read_jpeg2000
from penumo_assets_tests.imaging import streams
from penumo_assets_tests.imaging.samples import bundled_dicom, dicom_dataset, file_bytes, phantom

GRAY = phantom(300, 280, 8).astype(np.uint8)
STREAM = streams.jpeg2000(GRAY, num_resolutions=4)
LARGE = np.zeros((1024, 1024), np.uint8)


def refusal(action: Callable[[], object]) -> ImageRejected:
    with pytest.raises(ImageRejected) as error:
        action()
    return error.value


def check(stream: bytes) -> None:
    check_tiles(stream, read_jpeg2000(stream))


def parts(stream: bytes) -> int:
    """The packets, code blocks and places of the first tile."""
    header = read_jpeg2000(stream)
    styles, _ = read_styles(stream, stream.index(streams.COD), 0xFF90, header.components)
    return tile_parts(header.tile_area(0), header.subsampling, [styles])


# --- size, beginning, end ----------------------------------------------------------------------------


def test_a_header_is_read_and_the_end_is_checked() -> None:
    frame = get_frame(dicom_dataset(phantom(), JPEG2000Lossless, BitsStored=12).PixelData, 0, number_of_frames=1)
    header = read_jpeg2000(codestream_in(frame))
    assert (header.height, header.width, header.components, header.precision) == (64, 56, 1, 12)
    half = codestream_in(frame[: len(frame) // 2])
    assert refusal(lambda: check_tiles(half, header)).code == "truncated"
    assert refusal(lambda: codestream_in(bytes(100))).code == "corrupt"


@pytest.mark.parametrize("padding", [b"", b"\0", b"\xff"])
def test_padding_behind_the_end_marker_is_left_out(padding: bytes) -> None:
    assert codestream_in(STREAM + padding) == STREAM


def test_a_stream_begins_where_the_frame_begins() -> None:
    assert refusal(lambda: codestream_in(b"%!PS-Adobe-3.0 EPSF-3.0\n" + STREAM)).code == "corrupt"


def test_tiles_and_picture_may_begin_anywhere_on_the_grid() -> None:
    stream = streams.jpeg2000(GRAY, offset=(30, 50), tile_offset=(10, 20), tile_size=(128, 100))
    header = read_jpeg2000(stream)
    assert (header.width, header.height) == (280, 300)
    assert (header.tiles_across, header.tiles) == (3, 12)
    assert header.tile_area(0) == (30, 50, 138, 120)
    assert header.tile_area(11) == (266, 320, 310, 350)
    check(stream)


@pytest.mark.parametrize(("across", "down"), [(10, 400), (400, 10)])
def test_a_first_tile_beside_the_picture_is_refused(across: int, down: int) -> None:
    area = struct.pack(">4I", 310, 350, 30, 50)
    tiles = struct.pack(">4I", across, down, 0, 0)
    assert read_jpeg2000(STREAM[:8] + area + struct.pack(">4I", 400, 400, 0, 0) + STREAM[40:]).tiles == 1
    assert refusal(lambda: read_jpeg2000(STREAM[:8] + area + tiles + STREAM[40:])).code == "corrupt"


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for stream in (b"\xff\x4f\xff\x51" + data, STREAM[:47] + data, STREAM[:70] + data):
        try:
            header = read_jpeg2000(stream)
            check_tiles(stream, header)
        except ImageRejected:
            continue
        assert min(header.width, header.height) > 0


# --- JP2 files in pixel data -------------------------------------------------------------------------


def test_of_a_jp2_file_only_the_stream_is_passed_on() -> None:
    wrapped = streams.jpeg2000(GRAY, wrapped=True, num_resolutions=4)
    assert codestream_in(wrapped) == STREAM
    at = wrapped.index(b"jp2c") - 4
    endless = wrapped[:at] + struct.pack(">I", 0) + wrapped[at + 4 :]
    assert codestream_in(endless) == STREAM
    long = wrapped[:at] + struct.pack(">I4sQ", 1, b"jp2c", 16 + len(STREAM)) + STREAM
    assert codestream_in(long) == STREAM


@pytest.mark.parametrize("kind", [b"free", b"uuid", b"xml "])
def test_a_stream_in_another_box_is_not_taken_for_the_picture(kind: bytes) -> None:
    wrapped, decoy = streams.jpeg2000(GRAY, wrapped=True, num_resolutions=4), streams.jpeg2000(GRAY[:64, :56])
    at = wrapped.index(b"jp2h") - 4
    assert codestream_in(wrapped[:at] + streams.box(kind, decoy) + wrapped[at:]) == STREAM


def test_a_jp2_file_without_a_stream_is_refused() -> None:
    wrapped = streams.jpeg2000(GRAY, wrapped=True)
    at = wrapped.index(b"jp2c") - 4
    hidden = wrapped[:at] + streams.box(b"free", wrapped[at + 8 :])
    for jp2 in (wrapped[:at], hidden, wrapped[:at] + struct.pack(">I4s", 1, b"free") + bytes(40)):
        assert refusal(lambda jp2=jp2: codestream_in(jp2)).code == "corrupt"


def test_a_film_of_another_programs_jp2_is_decoded_as_its_stream_is() -> None:
    dataset = bundled_dicom("GDCMJ2K_TextGBR.dcm")
    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    rgb = cv2.imdecode(np.frombuffer(frame, np.uint8), cv2.IMREAD_COLOR_RGB)
    image = decode_image(file_bytes(dataset), DecodeConfig())
    assert np.abs(image.pixels - rgb @ np.array([0.299, 0.587, 0.114])).max() <= 1


def test_a_stream_is_never_opened_as_another_format(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[object] = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *arguments: opened.append(arguments))
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 28 30\n%%EndComments\n%%EOF\n"
    header = Jpeg2000Header(56, 60, 1, 8)
    assert jpeg2000._reduced(postscript, header, 2) is None
    assert not opened


# --- divisions ---------------------------------------------------------------------------------------


def test_packets_blocks_and_places_are_counted_as_the_standard_divides() -> None:
    square = np.zeros((256, 256), np.uint8)
    plain = streams.jpeg2000(square, num_resolutions=3, codeblock_size=(64, 64))
    # Resolutions of 64, 128 and 256 samples: a packet and a place each; 1, 3 x 1 and 3 x 4 code blocks.
    assert parts(plain) == 3 + (1 + 3 + 12) + 3
    assert parts(streams.with_layers(plain, 10)) == 30 + 16 + 3
    # Precincts of 32: 4, 16 and 64 of them; blocks of 32 in the coarsest, of 16 in the bands of the others.
    small = streams.with_precincts(plain, b"\x55\x55\x55")
    assert parts(small) == (4 + 16 + 64) + (4 + 3 * 16 + 3 * 64) + 64 * 3


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"tile_size": (128, 128)},
        {"tile_size": (64, 64)},
        {"codeblock_size": (32, 32)},
        {"codeblock_size": (16, 16)},
        {"precinct_size": (128, 128), "progression": "RPCL"},
        {"precinct_size": (64, 64), "codeblock_size": (32, 32), "progression": "CPRL"},
        {"tile_size": (256, 256), "quality_layers": [100, 50, 20, 10, 5, 2, 1], "irreversible": True},
    ],
)
@pytest.mark.parametrize("side", [64, 300, 1024])
def test_divisions_that_encoders_make_are_accepted(options: dict, side: int) -> None:
    pixels = np.resize(GRAY, (side, side))
    check(streams.jpeg2000(pixels, **options))
    check(streams.jpeg2000(np.dstack((pixels,) * 3), mct=1, **options))


def divisions() -> dict[str, bytes]:
    plain = streams.jpeg2000(LARGE, num_resolutions=6)
    _, style = streams.coding_style(plain)
    small = style[5:] + b"\x11" * 6
    tall = b"\xf0" + b"\xf1" * 5
    hidden = streams.segment(streams.COD, b"\1" + style[1:5] + small)
    three = streams.jpeg2000(np.dstack((LARGE,) * 3), num_resolutions=6)
    return {
        "precincts of 2 x 2": streams.with_precincts(plain, b"\x11" * 6),
        "precincts of 2 x 2 in the finest": streams.with_precincts(plain, b"\xff" * 5 + b"\x11"),
        "code blocks of 4 x 4": streams.jpeg2000(LARGE, codeblock_size=(4, 4)),
        "tiles of 16 x 16": streams.jpeg2000(LARGE, tile_size=(16, 16)),
        "tiles of 32 x 32 in one part each": streams.jpeg2000(LARGE, tile_size=(32, 32), num_resolutions=1),
        "layers": streams.with_layers(plain, 65_535),
        "one component": streams.in_header(three, streams.segment(streams.COC, b"\2\1" + small)),
        "a component in a tile": streams.in_tile_header(plain, streams.segment(streams.COC, b"\0\1" + small)),
        "a tile": streams.in_tile_header(plain, hidden),
        "tall and wide precincts": streams.in_header(
            streams.with_precincts(three, tall),
            streams.segment(streams.COC, b"\1\1" + style[5:] + b"\x0f" + b"\x1f" * 5),
        ),
    }


@pytest.mark.parametrize("name", divisions())
def test_more_parts_than_the_samples_can_need_are_refused(name: str) -> None:
    error = refusal(lambda: check(divisions()[name]))
    assert error.code == "corrupt"
    assert "than its size needs" in error.reason


def test_a_division_that_only_a_searching_decoder_finds_is_refused() -> None:
    # OpenJPEG searches the content of a segment that it does not know for markers that it knows.
    _, style = streams.coding_style(STREAM)
    inner = streams.segment(streams.COD, b"\1" + style[1:] + b"\x11" * 4)
    error = refusal(lambda: check(streams.in_header(STREAM, streams.segment(b"\xff\x6f", inner))))
    assert "not part of one" in error.reason


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda stream: stream.replace(streams.COD, b"\xff\x64", 1), "does not say how"),
        (lambda stream: streams.with_layers(stream, 0), "impossible division"),
        (lambda stream: streams.with_precincts(stream, b"\x11"), "impossible division"),
        (lambda stream: streams.with_precincts(stream, b"\x00" * 4), "impossible division"),
        (lambda stream: streams.in_header(stream, streams.segment(streams.COD, bytes(10))), "impossible division"),
        (lambda stream: streams.in_header(stream, streams.segment(streams.COC, b"\1\0" + bytes(5))), "impossible"),
        (lambda stream: streams.in_header(stream, streams.segment(streams.COC, b"\0\0\x21" + bytes(4))), "impossible"),
        (lambda stream: streams.in_header(stream, b"\xff\x64\0\2" * 3_000), "too much"),
    ],
)
def test_a_coding_style_that_cannot_be_is_refused(change: Callable[[bytes], bytes], words: str) -> None:
    error = refusal(lambda: check(change(STREAM)))
    assert error.code == "corrupt"
    assert words in error.reason


def test_a_crowd_of_tile_parts_is_refused() -> None:
    at = STREAM.index(streams.SOT)
    empty = streams.SOT + struct.pack(">HHIBB", 10, 0, 14, 0, 0) + streams.SOD
    error = refusal(lambda: check(STREAM[:at] + empty * 20_000 + STREAM[at:]))
    assert "than its size needs" in error.reason
