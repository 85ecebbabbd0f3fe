"""What leaves the checks of a compressed film: one frame, of exactly the bytes that were checked."""

import struct

import numpy as np
import pytest
from pydicom.encaps import encapsulate, get_frame
from pydicom.uid import UID, JPEG2000Lossless, JPEGBaseline8Bit, JPEGLSLossless, RLELossless

from penumo_assets.imaging.errors import ImageRejected
from penumo_assets.imaging.formats import dicom_frame
from penumo_assets_tests.imaging.samples import dicom_dataset, phantom

EIGHT = phantom(bits=8).astype(np.uint8)
END = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)


def item(content: bytes) -> bytes:
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(content)) + content


@pytest.mark.parametrize("syntax", [JPEGBaseline8Bit, JPEGLSLossless, JPEG2000Lossless])
def test_only_the_checked_stream_of_a_film_is_decoded(syntax: UID) -> None:
    dataset = dicom_dataset(EIGHT, syntax)
    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    padding = b"\0\0" if syntax == JPEG2000Lossless else b"\xff\xd8another picture"
    dataset.PixelData = encapsulate([frame + padding], fragments_per_frame=2)
    stream, header = dicom_frame.coded_stream(dataset)
    assert stream == frame[: len(stream)]
    assert stream.endswith(b"\xff\xd9")
    assert (header.height, header.width) == EIGHT.shape


@pytest.mark.parametrize("offsets", [b"", struct.pack("<I", 0), struct.pack("<III", 0, 108, 216), b"\1\2\3"])
def test_all_fragments_are_the_one_frame_whatever_the_offset_table_says(offsets: bytes) -> None:
    fragments = item(b"a" * 100) + item(b"b" * 100) + item(b"c")
    assert dicom_frame.joined_fragments(item(offsets) + fragments + END) == b"a" * 100 + b"b" * 100 + b"c"
    assert dicom_frame.joined_fragments(item(offsets) + fragments) == b"a" * 100 + b"b" * 100 + b"c"


def test_the_offset_table_may_be_missing() -> None:
    assert dicom_frame.joined_fragments(item(b"\xff\xd8a") + item(b"b") + END) == b"\xff\xd8ab"


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        END,
        item(b""),
        item(b"") + END,
        item(b"") + item(b"a")[:-1],
        item(b"") + b"\1" + item(b"a"),
        item(b"") + item(b"") * 20_000 + item(b"a"),
    ],
)
def test_fragments_that_cannot_be_are_refused(damaged: bytes) -> None:
    with pytest.raises(ImageRejected) as error:
        dicom_frame.joined_fragments(damaged)
    assert error.value.code == "corrupt"


def test_run_lengths_longer_than_the_picture_can_be_are_refused() -> None:
    dataset = dicom_dataset(EIGHT, RLELossless)
    assert dicom_frame.run_lengths(dataset)[:4] == struct.pack("<I", 1)
    dataset.PixelData = encapsulate([bytes(3 * EIGHT.size + 4096)])
    with pytest.raises(ImageRejected) as error:
        dicom_frame.run_lengths(dataset)
    assert error.value.code == "size_mismatch"
