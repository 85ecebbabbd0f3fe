"""The stored samples of a DICOM file, and how many of their bits are the film's."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from pydicom import uid
from pydicom.pixels import convert_color_space, get_decoder

from penumo_assets.configs.prepare import DecodeConfig
from penumo_assets.imaging.errors import ImageRejected
from penumo_assets.imaging.formats import dicom_frame, dicom_header, jpeg, jpeg2000, jpeg_ls, run_lengths
from penumo_assets.imaging.formats.decoded import reduction
from penumo_assets.imaging.formats.dicom_depth import StoredFormat, stored_format
from penumo_assets.imaging.formats.jpeg2000_stream import Jpeg2000Header
from penumo_assets.imaging.formats.jpeg_stream import StreamHeader
from penumo_assets.imaging.letterbox import reduced_size

NATIVE = frozenset(
    {
        uid.ImplicitVRLittleEndian,
        uid.ExplicitVRLittleEndian,
        uid.ExplicitVRBigEndian,
        uid.DeflatedExplicitVRLittleEndian,
    }
)
_ROWS_LOOKED_AT = 64
_CODED = frozenset({*uid.JPEGTransferSyntaxes, *uid.JPEGLSTransferSyntaxes, *uid.JPEG2000TransferSyntaxes})


@dataclass(frozen=True)
class StoredPixels:
    """The samples (H, W) or (H, W, 3) RGB of 8 or 16 bits in native byte order, what they hold, and notes.

    ``factor`` is by how much the whole picture is to be reduced; ``jpeg`` a JPEG file of the same samples, if that is
    how a gray picture is coded.
    """

    samples: np.ndarray
    format: StoredFormat
    notes: tuple[str, ...]
    factor: int
    jpeg: bytes | None = None


def decode_stored(dataset: Any, config: DecodeConfig) -> StoredPixels:
    """The samples as they are stored.

    JPEG and JPEG 2000 are decoded at a reduced size where one is wanted and cannot blend padding into the picture;
    everything else at its full size.

    Raises
    ------
    ImageRejected
        For pixel data that is not read, is damaged, or is not what the header declares.
    """
    syntax, noted = _syntax(dataset)
    bits, signed = int(dataset.BitsStored), int(dataset.PixelRepresentation) == 1
    factor = reduction(int(dataset.Rows), int(dataset.Columns), config)
    if syntax in _CODED:
        stream, header = dicom_frame.coded_stream(dataset)
        # A codestream knows its own depth; headers that declare fewer bits than it has are common.
        bits = max(bits, header.precision)
        if isinstance(header, Jpeg2000Header):
            while header.width * header.height > jpeg2000.MAX_SAMPLES * factor**2:
                factor *= 2
            if signed or header.signed:  # the sign stands in the stream's own topmost bit
                bits = header.precision
            noted += ("jpeg2000:mended",) if header.mended else ()
        pixels = _decode_stream(dataset, stream, header, 1 if _must_not_blend(dataset) else factor)
        stored = StoredFormat(8 * pixels.dtype.itemsize, bits, bits - 1, signed)
        whole = header.components == 1 and header.bare is not None and factor == 1
        return StoredPixels(pixels, stored, noted, factor, stream if whole else None)
    if syntax in NATIVE:
        dicom_frame.check_native(dataset)
        pixels = _native(dataset, syntax)
    elif syntax == uid.RLELossless:
        shape = (int(dataset.Rows), int(dataset.Columns), int(dataset.SamplesPerPixel))
        pixels = run_lengths.decode_samples(dicom_frame.run_lengths(dataset), shape, int(dataset.BitsAllocated) // 8)
    else:
        name = syntax.name if syntax.name != str(syntax) else "an unknown one"
        raise ImageRejected("unsupported_transfer_syntax", f"the transfer syntax ({name}) is not read.")
    if pixels.ndim == 3:
        stored = StoredFormat(8 * pixels.dtype.itemsize, bits, bits - 1, signed)
        return StoredPixels(_rgb(pixels, dataset), stored, noted, factor)
    stored, found = stored_format(pixels, dataset)
    return StoredPixels(pixels, stored, (*noted, *found), factor)


def _syntax(dataset: Any) -> tuple[uid.UID, tuple[str, ...]]:
    """How the pixel data is coded, and a note where that is not what the file says: programs that decompress a film
    may leave its old transfer syntax in place."""
    syntax, encapsulated = dicom_header.transfer_syntax(dataset), dicom_frame.is_encapsulated(dataset)
    if encapsulated is False and syntax in _CODED | {uid.RLELossless}:
        dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian  # the decoder looks there
        return uid.ExplicitVRLittleEndian, ("transfer_syntax:ignored",)
    if encapsulated and syntax in NATIVE:
        return uid.JPEGBaseline8Bit, ("transfer_syntax:ignored",)
    return syntax, ()


def _must_not_blend(dataset: Any) -> bool:
    """Whether some stored values are no gray levels: padding, and indices of a palette."""
    palette = dataset.PhotometricInterpretation == "PALETTE COLOR"
    return palette or dicom_header.value(dataset, "PixelPaddingValue") is not None


def _decode_stream(dataset: Any, stream: bytes, header: StreamHeader, factor: int) -> np.ndarray:
    """The samples of a compressed picture; chrominances become colours."""
    if isinstance(header, Jpeg2000Header):
        pixels = _rgb(jpeg2000.decode_samples(stream, header, factor), dataset)
    elif header.ls:
        pixels = _rgb(jpeg_ls.decode_samples(stream), dataset)
    elif header.lossless:
        pixels = _rgb(jpeg.decode_samples(stream, header), dataset)
    else:
        plain = header.luminance is None and header.components == 3
        pixels = jpeg.decode_samples(stream, header, factor, colour=header.components == 3, plain=plain)
        pixels = _rgb(pixels, dataset) if plain else pixels
    size = (header.height, header.width)
    if pixels.shape[:2] not in (size, reduced_size(size, factor)) or pixels.dtype.itemsize > 2:
        raise ImageRejected("size_mismatch", "the compressed picture is not what its own header declares.")
    return np.ascontiguousarray(pixels)


def _rgb(pixels: np.ndarray, dataset: Any) -> np.ndarray:
    """Samples of luminance and chrominances as RGB, where the header says that they are such.

    A picture without colour tells itself whether they are, and header and picture often disagree: its chrominances are
    flat and in the middle, and its colours equal.
    """
    photometric = str(dataset.PhotometricInterpretation)
    if pixels.ndim < 3 or pixels.dtype.kind != "u":
        return pixels
    middle = 1 << (min(int(dataset.BitsStored), 8 * pixels.dtype.itemsize) - 1)
    rows = pixels[:: max(1, len(pixels) // _ROWS_LOOKED_AT)].astype(np.int32)
    luminance, *others = (rows[..., channel] for channel in range(3))
    off_middle, apart = (max(np.abs(each - level).max() for each in others) for level in (middle, luminance))
    if off_middle <= middle // 16 < apart:
        return np.dstack((pixels[..., 0],) * 3)
    if photometric in ("YBR_FULL", "YBR_FULL_422") and apart > middle // 16:
        return convert_color_space(pixels, photometric, "RGB")
    return pixels


def _native(dataset: Any, syntax: uid.UID) -> np.ndarray:
    options: Any = {"correct_unused_bits": False, "view_only": True}
    try:
        pixels, _ = get_decoder(syntax).as_array(dataset, raw=True, **options)
    except Exception as error:
        name = type(error).__name__
        raise ImageRejected(
            "bad_header", f"the pixel data cannot be read as the header declares it ({name})."
        ) from None
    pixels = np.ascontiguousarray(pixels)
    return pixels if pixels.dtype.isnative else pixels.astype(pixels.dtype.newbyteorder("="))
