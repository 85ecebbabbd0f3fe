"""What leaves the checks of a compressed film: one frame, of exactly the bytes that were checked."""

import struct

import numpy as np
import pytest
from pydicom.encaps import encapsulate, get_frame
from pydicom.uid import UID, JPEG2000Lossless, JPEGBaseline8Bit, JPEGLSLossless, RLELossless

from penumo_assets.imaging.formats import dicom_frame
from penumo_assets_tests.imaging.samples import dicom_dataset, phantom

EIGHT = phantom(bits=8).astype(np.uint8)


def only_frame(pixel_data: bytes) -> bytes:
    """The one fragment of encapsulated pixel data without offsets."""
    tags = struct.unpack_from("<HHIHHI", pixel_data)
    assert tags[:5] == (0xFFFE, 0xE000, 0, 0xFFFE, 0xE000)
    assert pixel_data[16 + tags[5] :] in (b"", struct.pack("<HHI", 0xFFFE, 0xE0DD, 0))
    return pixel_data[16 : 16 + tags[5]]


@pytest.mark.parametrize("syntax", [JPEGBaseline8Bit, JPEGLSLossless, JPEG2000Lossless])
def test_only_the_checked_stream_is_left_in_a_film(syntax: UID) -> None:
    dataset = dicom_dataset(EIGHT, syntax)
    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    padding = b"\0\0" if syntax == JPEG2000Lossless else b"\xff\xd8another picture"
    dataset.PixelData = encapsulate([frame + padding], fragments_per_frame=2)
    stream, header = dicom_frame.check_stream(dataset, syntax)
    assert stream == frame[: len(stream)]
    assert stream.endswith(b"\xff\xd9")
    assert (header.height, header.width) == EIGHT.shape
    assert only_frame(dataset.PixelData) == stream + bytes(len(stream) % 2)


def test_only_the_checked_run_lengths_are_left_in_a_film() -> None:
    dataset = dicom_dataset(EIGHT, RLELossless)
    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    dataset.PixelData = encapsulate([frame, bytes(100)], has_bot=True)
    dicom_frame.check_run_lengths(dataset)
    assert only_frame(dataset.PixelData) == frame
