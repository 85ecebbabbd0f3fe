"""What is kept of a landed file: its picture as it was coded, the same pixels, and nothing else."""

import struct
import zlib

import cv2
import imagecodecs
import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, JPEGLosslessSV1, JPEGLSLossless, RLELossless

from penumo_assets.configs.prepare import DecodeConfig
from penumo_assets.imaging.decode import DecodedImage, decode_image, encode_png, read_back
from penumo_assets.imaging.errors import ImageRejected
from penumo_assets.imaging.formats.jpeg_stream import read_jpeg
from penumo_assets_tests.imaging.samples import (
    SECRET,
    all_samples,
    dicom_bytes,
    dicom_dataset,
    file_bytes,
    jpeg_bytes,
    phantom,
    png_bytes,
)
from penumo_assets_tests.imaging.test_raster import chunk, png_of

CONFIG = DecodeConfig()
GRAY = phantom(100, 84, 8).astype(np.uint8)
DEEP = phantom(100, 84, 16)
RGB = np.dstack((GRAY, GRAY // 2, 255 - GRAY))
NAME = SECRET.encode()
GRAY_HEADER = struct.pack(">IIBBBBB", 84, 100, 8, 0, 0, 0, 0)
ROWS = b"".join(b"\0" + row.tobytes() for row in GRAY)


def decoded(data: bytes, config: DecodeConfig = CONFIG) -> DecodedImage:
    """The image, after it was seen that what is kept of it has its pixels, ours or other people's reader, no name."""
    image = decode_image(data, config)
    if image.kept is not None:
        assert NAME not in image.kept
        theirs = cv2.imdecode(np.frombuffer(image.kept, np.uint8), cv2.IMREAD_ANYDEPTH | cv2.IMREAD_GRAYSCALE)
        for pixels in (read_back(image.kept), theirs):
            assert pixels.dtype == image.pixels.dtype
            assert np.array_equal(pixels, image.pixels)
        again = decode_image(image.kept, config)
        assert again.kept == image.kept, "there is no more to leave out"
        assert np.array_equal(again.pixels, image.pixels)
    return image


def marked(kind: int, content: bytes) -> bytes:
    return b"\xff" + bytes((kind,)) + struct.pack(">H", 2 + len(content)) + content


def plant(jpeg: bytes) -> bytes:
    """A name in a comment and in applications' segments, before and behind the tables and at the end."""
    segments = marked(0xFE, NAME) + b"".join(marked(kind, NAME) for kind in range(0xE1, 0xEE))
    scan = jpeg.index(b"\xff\xda")
    return jpeg[:2] + segments + jpeg[2:scan] + segments + jpeg[scan:-2] + marked(0xFE, NAME) + b"\xff\xd9" + NAME


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"optimize": True}, {"restart_marker_rows": 1}, {"restart_marker_blocks": 3}]
)
@pytest.mark.parametrize("pixels", [GRAY, RGB], ids=["gray", "colour"])
def test_a_jpegs_coded_data_is_kept_and_nothing_else(pixels: np.ndarray, options: dict[str, object]) -> None:
    data = jpeg_bytes(pixels, **options)
    image = decoded(plant(data))
    assert image.kept is not None
    assert image.kept == decode_image(data, CONFIG).kept
    assert abs(len(image.kept) - len(data)) <= 20
    assert data[data.index(b"\xff\xda") :] in image.kept


@pytest.mark.parametrize("space", ["RGB", "YCBCR"])
def test_adobes_word_for_the_colours_is_kept_without_what_stands_beside_it(space: str) -> None:
    data = imagecodecs.jpeg8_encode(RGB, level=95, colorspace="RGB", outcolorspace=space)
    ids = data.index(b"\xff\xc0") + 10
    numbered = bytearray(data)
    numbered[ids : ids + 9 : 3] = b"\7\x08\x09"  # components whose ids say nothing of colours
    scan = numbered.index(b"\xff\xda") + 5
    numbered[scan : scan + 6 : 2] = b"\7\x08\x09"
    numbered = numbered[:2] + numbered[numbered.index(b"\xff\xdb") :]
    adobe = marked(0xEE, b"Adobe\0\x64\0\0\0\0" + bytes((0 if space == "RGB" else 1,)) + NAME)
    image = decoded(bytes(numbered[:2] + adobe + numbered[2:]))
    assert image.kept is not None
    assert (b"Adobe" in image.kept) == (space == "RGB")
    assert np.abs(image.pixels.astype(int) - cv2.cvtColor(RGB, cv2.COLOR_RGB2GRAY)).mean() < 3


def test_a_turned_jpeg_is_written_anew() -> None:
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        assert (decoded(jpeg_bytes(GRAY, exif=exif)).kept is not None) == (orientation == 1)


def test_a_colour_jpeg_is_written_anew_where_colour_is_kept() -> None:
    """Whether it is read as luminance or as colour must not hang on who reads it."""
    assert decoded(jpeg_bytes(RGB), DecodeConfig(keep_colour=True)).kept is None
    assert decoded(jpeg_bytes(GRAY), DecodeConfig(keep_colour=True)).kept is not None


@pytest.mark.parametrize("encode", [jpeg_bytes, png_bytes])
def test_what_is_reduced_is_written_anew(encode) -> None:
    large = phantom(1100, 1030, 8).astype(np.uint8)
    assert decoded(encode(large)).kept is not None
    assert decoded(encode(large), DecodeConfig(reduce_to=512)).kept is None


@pytest.mark.parametrize("frame", [0xC3, 0xC9, 0xCA, 0xF7])
def test_kinds_of_jpeg_that_few_programs_read_are_written_anew(frame: int) -> None:
    data = jpeg_bytes(GRAY)
    assert read_jpeg(data).bare is not None
    assert read_jpeg(data.replace(b"\xff\xc0", bytes((0xFF, frame)))).bare is None


@pytest.mark.parametrize("segment", [marked(0xCC, b"\0\1"), marked(0xDC, b"\0\x64"), marked(0xF0, NAME)])
def test_a_jpeg_with_segments_that_are_not_known_is_written_anew(segment: bytes) -> None:
    data = jpeg_bytes(GRAY)
    scan = data.index(b"\xff\xda")
    assert read_jpeg(data[:scan] + segment + data[scan:]).bare is None


def test_text_within_a_jpegs_tables_or_behind_its_scan_is_refused() -> None:
    data = jpeg_bytes(GRAY)
    table = data.index(b"\xff\xdb")
    (length,) = struct.unpack_from(">H", data, table + 2)
    stuffed = data[: table + 2] + struct.pack(">H", length + len(NAME)) + data[table + 4 : table + 2 + length] + NAME
    for hostile in (stuffed + data[table + 2 + length :], data[:-2] + NAME + data[-2:]):
        with pytest.raises(ImageRejected, match="damaged"):
            decode_image(hostile, CONFIG)


@pytest.mark.parametrize("pixels", [GRAY, DEEP], ids=["8", "16"])
def test_a_gray_pngs_picture_is_kept_and_nothing_else(pixels: np.ndarray) -> None:
    info = PngInfo()
    info.add_text("Comment", SECRET)
    info.add_itxt("Author", SECRET)
    data = png_bytes(pixels, pnginfo=info, dpi=(72, 72), icc_profile=NAME)
    private = chunk(b"prVt", NAME)
    image = decoded(data[:33] + private + data[33:-12] + private + data[-12:] + NAME)
    assert image.kept is not None
    assert image.kept == decode_image(png_bytes(pixels), CONFIG).kept
    kinds = [image.kept[at : at + 4] for at in (12, 37, len(image.kept) - 8)]
    assert kinds == [b"IHDR", b"IDAT", b"IEND"]
    assert decoded(png_bytes(pixels, exif=Image.Exif())).kept == image.kept


def test_a_png_in_many_pieces_becomes_one_piece() -> None:
    data = zlib.compress(ROWS)
    pieces = [chunk(b"IDAT", data[at : at + 100]) for at in range(0, len(data), 100)]
    assert decoded(png_of(GRAY_HEADER, *pieces)).kept == png_of(GRAY_HEADER, chunk(b"IDAT", data))


@pytest.mark.parametrize(
    "data",
    [
        zlib.compress(ROWS) + NAME,
        zlib.compress(ROWS + NAME, 0),
        zlib.compress(ROWS)[:-4] + b"JANE",
        zlib.compress(ROWS)[:-4],
        zlib.compress(ROWS)[:-4] + zlib.compress(ROWS)[-4:] * 2,
    ],
    ids=["behind", "rows too many", "no checksum of it", "no checksum", "two checksums"],
)
def test_a_png_with_more_than_its_rows_is_written_anew(data: bytes) -> None:
    image = decoded(png_of(GRAY_HEADER, chunk(b"IDAT", data)))
    assert image.kept is None
    assert np.array_equal(image.pixels, GRAY)


def test_pngs_whose_samples_are_no_gray_levels_yet_are_written_anew() -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    palette = Image.fromarray(GRAY).quantize(32)
    for data in (
        png_bytes(RGB),
        png_bytes(np.dstack((GRAY, GRAY))),
        png_bytes(np.dstack((RGB, GRAY))),
        png_bytes(np.asarray(palette), transparency=3),
        png_bytes(GRAY, transparency=7),
        png_bytes(GRAY > 90),
        png_bytes(GRAY, exif=turned),
        png_bytes(DEEP >> 4),
        png_of(GRAY_HEADER, chunk(b"PLTE", NAME[:15]), chunk(b"IDAT", zlib.compress(ROWS))),
    ):
        assert decoded(data).kept is None


def test_a_png_in_colour_is_kept_where_colour_is() -> None:
    image = decode_image(png_bytes(RGB), DecodeConfig(keep_colour=True))
    assert image.kept is not None
    assert np.array_equal(read_back(image.kept), RGB)


def test_a_second_header_is_refused() -> None:
    data = png_of(GRAY_HEADER, chunk(b"IHDR", GRAY_HEADER), chunk(b"IDAT", zlib.compress(ROWS)))
    with pytest.raises(ImageRejected, match="two headers"):
        decode_image(data, CONFIG)


# --- DICOM -------------------------------------------------------------------------------------------


def test_baseline_jpeg_leaves_a_dicom_file_as_it_is_coded() -> None:
    dataset = dicom_dataset(GRAY, JPEGBaseline8Bit)
    stream = jpeg_bytes(GRAY)
    dataset.PixelData = encapsulate([plant(stream)])
    image = decoded(file_bytes(dataset))
    assert image.kept == decode_image(stream, CONFIG).kept
    assert image.kept is not None


@pytest.mark.parametrize(
    "elements",
    [
        {"PhotometricInterpretation": "MONOCHROME1"},
        {"WindowCenter": 100, "WindowWidth": 150},
        {"RescaleSlope": 2, "RescaleIntercept": 0},
        {"PixelPaddingValue": 128},
        {"PixelRepresentation": 1},
        {"BitsStored": 7},
    ],
    ids=lambda elements: next(iter(elements)),
)
def test_a_dicom_jpeg_that_is_shown_otherwise_than_it_is_stored_is_written_anew(elements: dict[str, object]) -> None:
    data = jpeg_bytes(GRAY)
    dataset = dicom_dataset(GRAY, JPEGBaseline8Bit, **elements)
    dataset.PixelData = encapsulate([data])
    image = decoded(file_bytes(dataset))
    shown = not np.array_equal(image.pixels, decode_image(data, CONFIG).pixels)
    assert (image.kept is None) == shown
    if "BitsStored" not in elements:  # the picture's own depth holds
        assert shown


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless, JPEGLosslessSV1, RLELossless])
def test_other_codings_of_dicom_files_are_written_anew(syntax: str) -> None:
    """They are kept by no page, no browser and few programs, and JPEG 2000 takes ten times as long to read as PNG."""
    assert decoded(dicom_bytes(GRAY, syntax)).kept is None


def test_a_dicom_jpeg_in_colour_is_written_anew() -> None:
    assert decoded(dicom_bytes(RGB, JPEGBaseline8Bit)).kept is None


def test_every_sample_is_read_back_as_it_was_decoded() -> None:
    kept = {name for name, data in all_samples().items() if decoded(data).kept is not None}
    assert kept == {"gray.png", "gray16.png", "gray.jpg", "colour.jpg", "progressive.jpg", "baseline.dcm"}
    assert np.array_equal(read_back(encode_png(DEEP)), DEEP)
