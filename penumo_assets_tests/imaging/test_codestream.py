import io
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydicom.encaps import get_frame
from pydicom.uid import JPEGLSLossless

from penumo_assets.imaging.errors import ImageRejected
from penumo_assets.imaging.formats.exif import exif_orientation
from penumo_assets.imaging.formats.jpeg_stream import read_jpeg, read_size
from penumo_assets_tests.imaging.samples import bundled_dicom, dicom_dataset, jpeg_bytes, phantom

GRAY = phantom(50, 70, 8).astype(np.uint8)


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_header_is_read(progressive: bool) -> None:
    data = jpeg_bytes(np.dstack((GRAY,) * 3), progressive=progressive)
    header = read_jpeg(data)
    assert (header.height, header.width, header.components, header.precision) == (50, 70, 3, 8)
    assert (header.lossless, header.ls, header.luminance) == (False, False, True)
    assert (read_size(data).height, read_size(data).width) == (50, 70)


def test_a_thumbnail_inside_a_segment_is_not_taken_for_the_image() -> None:
    thumbnail = jpeg_bytes(GRAY[:10, :10])
    app = b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail
    data = jpeg_bytes(GRAY)
    assert read_jpeg(data[:2] + app + data[2:]).width == 70
    with pytest.raises(ImageRejected, match="cut off"):
        read_jpeg(data[:2] + app + data[2:-2])


def test_a_stream_ends_with_its_end_marker_whatever_follows() -> None:
    data = jpeg_bytes(GRAY)
    assert read_jpeg(data + jpeg_bytes(GRAY[:10, :10])).end == len(data)


def test_a_jpeg_that_declares_two_sizes_is_refused() -> None:
    # The first is what a decoder takes memory for, the last is what would be checked.
    data = jpeg_bytes(GRAY)
    at = data.index(b"\xff\xc0")
    frame = data[at : at + 19]
    giant = frame[:5] + struct.pack(">HH", 60_000, 60_000) + frame[9:]
    with pytest.raises(ImageRejected, match="twice") as error:
        read_jpeg(data[:at] + giant[: 2 + frame[3]] + data[at:])
    assert error.value.code == "corrupt"


@pytest.mark.parametrize("reader", [read_jpeg, read_size])
def test_a_crowd_of_segments_is_refused_before_all_are_walked(reader) -> None:
    data = jpeg_bytes(GRAY)
    with pytest.raises(ImageRejected, match="more segments"):
        reader(data[:2] + b"\xff\xfe\0\2" * 20_000 + data[2:])
    assert reader(data[:2] + b"\xff\xfe\0\2" * 600 + data[2:]).width == 70


def test_fill_bytes_before_a_marker_are_skipped() -> None:
    data = jpeg_bytes(GRAY)
    assert read_jpeg(data[:2] + b"\xff" * 1000 + data[2:]).width == 70
    with pytest.raises(ImageRejected, match="cut off"):
        read_jpeg(data[:2] + b"\xff" * 1000)


def test_a_twelve_bit_jpeg_and_a_jpeg_ls_declare_their_depth() -> None:
    twelve = bundled_dicom("JPGExtended.dcm")
    assert read_jpeg(get_frame(twelve.PixelData, 0, number_of_frames=1)).precision == 12
    lossless = dicom_dataset(phantom(), JPEGLSLossless, BitsStored=12)
    header = read_jpeg(get_frame(lossless.PixelData, 0, number_of_frames=1))
    assert (header.height, header.width, header.precision) == (64, 56, 12)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_exif_orientation_is_the_one_that_pillow_wrote(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x010E] = "a description before it"
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    Image.fromarray(GRAY).save(buffer, "JPEG", exif=exif)
    assert read_jpeg(buffer.getvalue()).orientation == orientation


@given(st.binary(max_size=200))
def test_any_exif_block_has_some_orientation(block: bytes) -> None:
    for order in (b"", b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08"):
        assert 1 <= exif_orientation(order + block) <= 8


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for reader in (read_jpeg, read_size):
        try:
            header = reader(b"\xff\xd8" + data)
        except ImageRejected:
            continue
        assert header.width > 0
        assert header.height > 0
