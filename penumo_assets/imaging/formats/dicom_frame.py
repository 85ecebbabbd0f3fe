"""The one frame of a DICOM file, checked before any decoder sees it.

What is checked is what is decoded: a data set leaves here with the bytes that were looked at and no others, because
offset tables, further fragments and wrappers leave it to a decoder which bytes it takes for the picture.
"""

from typing import Any

from pydicom import uid
from pydicom.encaps import encapsulate, get_frame

from penumo_assets.imaging.errors import ImageRejected
from penumo_assets.imaging.formats import jpeg, jpeg2000

JPEG2000 = frozenset(uid.JPEG2000TransferSyntaxes)


def check_native(dataset: Any) -> None:
    rows, columns, samples = int(dataset.Rows), int(dataset.Columns), int(dataset.SamplesPerPixel)
    row_bytes = columns * samples * int(dataset.BitsAllocated) // 8
    if str(dataset.PhotometricInterpretation) == "YBR_FULL_422":
        row_bytes = row_bytes * 2 // 3
    length = len(dataset.PixelData)
    if length < rows * row_bytes:
        raise ImageRejected("truncated", f"the pixel data has {length} bytes; the header declares {rows * row_bytes}.")
    # A little padding is common; a whole row too many means that the declared size is not the real one.
    if length >= rows * row_bytes + max(row_bytes, 2):
        raise ImageRejected(
            "size_mismatch", f"the pixel data has {length} bytes; the header declares {rows * row_bytes}."
        )


def check_run_lengths(dataset: Any) -> None:
    """Incompressible rows grow by one byte in 128: far more than that is not this image."""
    frame = _first_frame(dataset)
    samples = int(dataset.Rows) * int(dataset.Columns) * int(dataset.SamplesPerPixel)
    if len(frame) > 4096 + 2 * samples * int(dataset.BitsAllocated) // 8:
        raise ImageRejected("size_mismatch", "the RLE data is longer than the declared image can be.")
    dataset.PixelData = encapsulate([frame], has_bot=False)


def check_stream(dataset: Any, syntax: uid.UID) -> tuple[bytes, jpeg.StreamHeader]:
    """The one compressed picture of the data set, which from now on holds nothing else, and what it declares."""
    frame = _first_frame(dataset)
    if syntax in JPEG2000:
        stream = jpeg2000.codestream_in(frame)
        header: jpeg.StreamHeader = jpeg2000.read_jpeg2000(stream)
    else:
        header = jpeg.read_jpeg(frame)
        stream = frame[: header.end]
    rows, columns, samples = int(dataset.Rows), int(dataset.Columns), int(dataset.SamplesPerPixel)
    if (header.height, header.width, header.components) != (rows, columns, samples):
        raise ImageRejected(
            "size_mismatch",
            f"the header declares {columns}x{rows}x{samples}, the compressed picture "
            f"{header.width}x{header.height}x{header.components}.",
        )
    if header.precision > int(dataset.BitsAllocated):
        raise ImageRejected("size_mismatch", "the compressed picture has more bits than the header allocates.")
    if isinstance(header, jpeg2000.Jpeg2000Header):
        jpeg2000.check_tiles(stream, header)
    dataset.PixelData = encapsulate([stream], has_bot=False)
    return stream, header


def _first_frame(dataset: Any) -> bytes:
    try:
        return get_frame(dataset.PixelData, 0, number_of_frames=1)
    except Exception:
        raise ImageRejected("corrupt", "the fragments of the compressed pixel data are damaged.") from None
