"""The one frame of a DICOM file, checked before any decoder sees it.

What is checked is what is decoded: a decoder gets the bytes that were looked at and no others.
"""

import struct
from typing import Any

from penumo_assets.imaging.errors import ImageRejected
from penumo_assets.imaging.formats import jpeg2000_stream, jpeg_stream

_ITEM, _END_OF_ITEMS = (0xFFFE, 0xE000), (0xFFFE, 0xE0DD)
_ITEM_TAG = struct.pack("<HH", *_ITEM)
_MAX_FRAGMENTS = 10_000  # a film of the largest size has one, or some hundreds of 64 KiB
_STREAM_STARTS = (b"\xff\xd8", *jpeg2000_stream.STARTS)
_RLE_FIRST_OFFSET = struct.pack("<I", 64)  # behind the number of segments (PS3.5 G.3.2)


def check_native(dataset: Any) -> None:
    """Refuse pixel data that is shorter or longer than the header declares.

    Raises
    ------
    ImageRejected
        ``truncated`` or ``size_mismatch``.
    """
    rows, row_bytes, length = int(dataset.Rows), _row_bytes(dataset), len(dataset.PixelData)
    if length < rows * row_bytes:
        raise ImageRejected("truncated", f"the pixel data has {length} bytes; the header declares {rows * row_bytes}.")
    # A little padding is common; a whole row too many means that the declared size is not the real one.
    if length >= rows * row_bytes + max(row_bytes, 2):
        raise ImageRejected(
            "size_mismatch", f"the pixel data has {length} bytes; the header declares {rows * row_bytes}."
        )


def _row_bytes(dataset: Any) -> int:
    row_bytes = int(dataset.Columns) * int(dataset.SamplesPerPixel) * int(dataset.BitsAllocated) // 8
    return row_bytes * 2 // 3 if str(dataset.PhotometricInterpretation) == "YBR_FULL_422" else row_bytes


def is_encapsulated(dataset: Any) -> bool | None:
    """Whether the pixel data lies in items, by its own bytes and length; ``None`` where these do not say."""
    if len(dataset.PixelData) >= int(dataset.Rows) * _row_bytes(dataset):
        return None if dataset.PixelData[:4] == _ITEM_TAG else False
    return True if dataset.PixelData[:4] == _ITEM_TAG else None


def run_lengths(dataset: Any) -> bytes:
    """The run lengths of the data set; incompressible rows grow by one byte in 128, and far more is not this image.

    Raises
    ------
    ImageRejected
        ``corrupt`` or ``size_mismatch``.
    """
    frame = joined_fragments(dataset.PixelData)
    samples = int(dataset.Rows) * int(dataset.Columns) * int(dataset.SamplesPerPixel)
    if len(frame) > 4096 + 2 * samples * int(dataset.BitsAllocated) // 8:
        raise ImageRejected("size_mismatch", "the RLE data is longer than the declared image can be.")
    return frame


def coded_stream(dataset: Any) -> tuple[bytes, jpeg_stream.StreamHeader]:
    """The one picture of the data set, of any kind of JPEG, and what it declares; its first bytes tell the kind.

    Raises
    ------
    ImageRejected
        ``truncated``, ``corrupt``, or ``size_mismatch`` where picture and header contradict each other.
    """
    frame = joined_fragments(dataset.PixelData)
    header: jpeg_stream.StreamHeader
    if frame.startswith(jpeg2000_stream.STARTS):
        stream = jpeg2000_stream.codestream_in(frame)
        header = jpeg2000_stream.read_jpeg2000(stream)
    else:
        header = jpeg_stream.read_jpeg(frame)
        # What can be kept as it is coded is what is decoded.
        stream = (header.bare if header.components == 1 else None) or frame[: header.end]
    rows, columns, samples = int(dataset.Rows), int(dataset.Columns), int(dataset.SamplesPerPixel)
    if (header.height, header.width, header.components) != (rows, columns, samples):
        raise ImageRejected(
            "size_mismatch",
            f"the header declares {columns}x{rows}x{samples}, the compressed picture "
            f"{header.width}x{header.height}x{header.components}.",
        )
    if header.precision > int(dataset.BitsAllocated):
        raise ImageRejected("size_mismatch", "the compressed picture has more bits than the header allocates.")
    if isinstance(header, jpeg2000_stream.Jpeg2000Header):
        stream, header = jpeg2000_stream.check_tiles(stream, header)
    return stream, header


def joined_fragments(pixel_data: bytes) -> bytes:
    """All fragments of encapsulated pixel data, which with one frame are that frame, whatever the offset table says.

    Raises
    ------
    ImageRejected
        ``corrupt`` for anything but a list of fragments, or more of them than an image can need.
    """
    fragments: list[bytes] = []
    position = 0
    while position + 8 <= len(pixel_data):
        group, element, length = struct.unpack_from("<HHI", pixel_data, position)
        if (group, element) == _END_OF_ITEMS:
            break
        position += 8 + length
        if (group, element) != _ITEM or position > len(pixel_data) or len(fragments) > _MAX_FRAGMENTS:
            raise _damaged()
        fragments.append(pixel_data[position - length : position])
    # The first item is the offset table, which some writers leave out.
    is_picture = fragments and (fragments[0].startswith(_STREAM_STARTS) or fragments[0][4:8] == _RLE_FIRST_OFFSET)
    if fragments and not is_picture:
        del fragments[0]
    frame = b"".join(fragments)
    if not frame:
        raise _damaged()
    return frame


def _damaged() -> ImageRejected:
    return ImageRejected("corrupt", "the fragments of the compressed pixel data are damaged.")
