import io
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydicom.encaps import get_frame
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless

from penumo_assets.imaging.codestream import exif_orientation, read_jpeg, read_jpeg2000, read_size
from penumo_assets.imaging.errors import ImageRejected
from penumo_assets_tests.imaging.samples import bundled_dicom, dicom_dataset, jpeg_bytes, phantom

GRAY = phantom(50, 70, 8).astype(np.uint8)


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_header_is_read(progressive: bool) -> None:
    data = jpeg_bytes(np.dstack((GRAY,) * 3), progressive=progressive)
    header = read_jpeg(data)
    assert (header.height, header.width, header.components, header.precision) == (50, 70, 3, 8)
    assert header.progressive is progressive
    assert (read_size(data).height, read_size(data).width) == (50, 70)


def test_a_thumbnail_inside_a_segment_is_not_taken_for_the_image() -> None:
    thumbnail = jpeg_bytes(GRAY[:10, :10])
    app = b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail
    data = jpeg_bytes(GRAY)
    assert read_jpeg(data[:2] + app + data[2:]).width == 70
    with pytest.raises(ImageRejected, match="cut off"):
        read_jpeg(data[:2] + app + data[2:-2])


def test_a_twelve_bit_jpeg_and_a_jpeg_ls_declare_their_depth() -> None:
    twelve = bundled_dicom("JPGExtended.dcm")
    assert read_jpeg(get_frame(twelve.PixelData, 0, number_of_frames=1)).precision == 12
    lossless = dicom_dataset(phantom(), JPEGLSLossless, BitsStored=12)
    header = read_jpeg(get_frame(lossless.PixelData, 0, number_of_frames=1))
    assert (header.height, header.width, header.precision) == (64, 56, 12)


def test_a_jpeg2000_header_is_read_and_its_end_is_checked() -> None:
    frame = get_frame(dicom_dataset(phantom(), JPEG2000Lossless, BitsStored=12).PixelData, 0, number_of_frames=1)
    header = read_jpeg2000(frame)
    assert (header.height, header.width, header.components, header.precision) == (64, 56, 1, 12)
    with pytest.raises(ImageRejected) as error:
        read_jpeg2000(frame[: len(frame) // 2])
    assert error.value.code == "truncated"
    with pytest.raises(ImageRejected) as error:
        read_jpeg2000(b"\0" * 100)
    assert error.value.code == "corrupt"


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
    for reader, start in ((read_jpeg, b"\xff\xd8"), (read_size, b"\xff\xd8"), (read_jpeg2000, b"\xff\x4f\xff\x51")):
        try:
            header = reader(start + data)
        except ImageRejected:
            continue
        assert header.width > 0
        assert header.height > 0
