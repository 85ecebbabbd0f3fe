"""DICOM files to pixels as a radiologist would see them."""

import io
from functools import partial
from typing import Any

import numpy as np
from PIL import Image
from pydicom import uid
from pydicom.pixels import apply_color_lut, get_decoder

from penumo_assets.configs.prepare import DecodeConfig
from penumo_assets.imaging.errors import ImageRejected, is_decoder_failure
from penumo_assets.imaging.formats import dicom_frame, dicom_header, dicom_parser, jpeg2000, raster
from penumo_assets.imaging.formats.decoded import DecodedImage, reduced, reduction
from penumo_assets.imaging.formats.dicom_parser import looks_like_dicom
from penumo_assets.imaging.formats.grayscale import StoredFormat, to_display
from penumo_assets.imaging.letterbox import reduced_size

__all__ = ["decode_dicom", "looks_like_dicom"]

_NATIVE = frozenset(
    {
        uid.ImplicitVRLittleEndian,
        uid.ExplicitVRLittleEndian,
        uid.ExplicitVRBigEndian,
        uid.DeflatedExplicitVRLittleEndian,
    }
)
_JPEG = frozenset({*uid.JPEGTransferSyntaxes, *uid.JPEGLSTransferSyntaxes})
_BASELINE = frozenset({uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit})
# Decoding takes about 0.1 s per million samples of a noisy picture: larger ones are decoded at a reduced size.
_MAX_JPEG2000_SAMPLES = 24_000_000
_COLOUR = frozenset({"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"})


def decode_dicom(data: bytes, config: DecodeConfig) -> DecodedImage:
    """Decode one frontal chest radiograph.

    Raises
    ------
    ImageRejected
        When the header says that it is something else, or the pixels cannot be had.
    """
    dataset = dicom_parser.read_dataset(data, config)
    dicom_header.refuse_other_images(dataset, config)
    if not dataset.get("PixelData"):
        raise _no_pixels(data, dataset)
    _check_declared(dataset, config)
    size = (int(dataset.Rows), int(dataset.Columns))
    factor = _reduction(dataset, config)
    raw, stored = _decode_pixels(dataset, factor)
    bits = int(dataset.BitsStored)
    if dataset.PhotometricInterpretation in ("MONOCHROME1", "MONOCHROME2"):
        pixels, notes = to_display(raw.view(f"u{raw.dtype.itemsize}"), dataset, stored, config)
    else:
        pixels, bits = _colour(raw, dataset, config)
        notes = ()
    if factor > 1:
        pixels, notes = reduced(pixels, size, factor), (*notes, f"reduced:{factor}")
    return DecodedImage(
        pixels=raster.refuse_constant(pixels),
        bits=bits,
        format="dicom",
        tags=dicom_header.read_tags(dataset),
        size=size,
        patient_id=dicom_header.patient_id(dataset),
        notes=(*notes, *dicom_header.identity_notes(dataset)),
    )


def _check_declared(dataset: Any, config: DecodeConfig) -> None:
    """Refuse headers that are incomplete, too large, or of a kind that is not read."""
    value = partial(dicom_header.value, dataset)
    required = ("Rows", "Columns", "BitsAllocated", "BitsStored", "PixelRepresentation", "PhotometricInterpretation")
    missing = [name for name in required if value(name) is None]
    if missing:
        raise ImageRejected("bad_header", f"the header does not say {', '.join(missing)}.")
    samples = int(value("SamplesPerPixel") or 1)
    dataset.SamplesPerPixel = samples
    allocated, bits = int(dataset.BitsAllocated), int(dataset.BitsStored)
    if allocated not in (8, 16) or not 2 <= bits <= allocated or not bits <= _high_bit(dataset) + 1 <= allocated:
        raise ImageRejected(
            "unsupported_depth", f"{bits} bits stored in {allocated} are not read; 8 to 16 bits in 8 or 16 are."
        )
    photometric = str(dataset.PhotometricInterpretation)
    expected = {"MONOCHROME1": 1, "MONOCHROME2": 1, "PALETTE COLOR": 1, **dict.fromkeys(_COLOUR, 3)}.get(photometric)
    if expected is None:
        raise ImageRejected("unsupported_colour", "the photometric interpretation in the header is not read.")
    if samples != expected:
        raise ImageRejected("bad_header", f"{samples} samples per pixel contradict {photometric}.")
    output = 3 * allocated // 8 if expected == 3 or photometric == "PALETTE COLOR" else 2
    raster.check_size(int(dataset.Rows), int(dataset.Columns), output, config)


def _reduction(dataset: Any, config: DecodeConfig) -> int:
    """By how much to reduce the image: what the settings ask for, more for a huge JPEG 2000 picture."""
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    factor = reduction(rows, columns, config)
    if dicom_header.transfer_syntax(dataset) in dicom_frame.JPEG2000:
        while rows * columns > _MAX_JPEG2000_SAMPLES * factor**2:
            factor *= 2
    return factor


def _decode_pixels(dataset: Any, factor: int) -> tuple[np.ndarray, StoredFormat]:
    """The stored samples, (H, W) or (H, W, 3) of 8 or 16 bits in native byte order, and what they hold.

    JPEG and JPEG 2000 are decoded at the size divided by ``factor`` where that cannot blend padding into the
    picture; everything else at its full size.
    """
    syntax = dicom_header.transfer_syntax(dataset)
    bits, high_bit = int(dataset.BitsStored), _high_bit(dataset)
    stream, header = b"", None
    if syntax in _NATIVE:
        dicom_frame.check_native(dataset)
    elif syntax in _JPEG or syntax in dicom_frame.JPEG2000:
        stream, header = dicom_frame.check_stream(dataset, syntax)
        # A codestream knows its own depth; headers that declare fewer bits than it has are common.
        bits = max(bits, header.precision)
        high_bit = bits - 1
    elif syntax == uid.RLELossless:
        dicom_frame.check_run_lengths(dataset)
    else:
        name = syntax.name if syntax.name != str(syntax) else "an unknown one"
        raise ImageRejected("unsupported_transfer_syntax", f"the transfer syntax ({name}) is not read.")
    scale = factor if dicom_header.value(dataset, "PixelPaddingValue") is None else 1
    if header and syntax in _BASELINE and header.components == 1 and header.precision == 8:
        pixels = raster.decode_jpeg(stream, header, scale)
    elif isinstance(header, jpeg2000.Jpeg2000Header):
        pixels = _decode_jpeg2000(dataset, syntax, stream, header, scale)
    else:
        pixels = _decode_any(dataset, syntax)
    return pixels, StoredFormat(8 * pixels.dtype.itemsize, bits, high_bit, int(dataset.PixelRepresentation) == 1)


def _decode_jpeg2000(
    dataset: Any, syntax: uid.UID, stream: bytes, header: jpeg2000.Jpeg2000Header, factor: int
) -> np.ndarray:
    """The samples, reduced by ``factor`` (leaving out the finest wavelet levels) if the stream allows it."""
    signed = int(dataset.PixelRepresentation) == 1
    if factor > 1 and header.components == 1 and header.signed == signed and header.precision <= 16:
        pixels = _reduced_jpeg2000(stream, header, factor)
        if pixels is not None:
            return pixels
    if header.height * header.width * header.components > _MAX_JPEG2000_SAMPLES:
        raise ImageRejected("too_large", "the JPEG 2000 picture is huge and cannot be decoded at a reduced size.")
    return _decode_any(dataset, syntax)


def _reduced_jpeg2000(stream: bytes, header: jpeg2000.Jpeg2000Header, factor: int) -> np.ndarray | None:
    """Gray samples (H, W) at the size divided by ``factor``, the sign within the sample's own bits.

    ``None`` when that cannot be had: the stream has too few resolution levels, or a size that Pillow rounds
    otherwise than the standard, or is damaged (which decoding it whole tells better).
    """
    try:
        # Without the format, Pillow would try others, of which some run programs.
        with Image.open(io.BytesIO(stream), formats=["JPEG2000"]) as image:
            image.reduce = factor.bit_length() - 1  # type: ignore[assignment]  # a level here, a method elsewhere
            pixels = np.asarray(image)
    except (OSError, ValueError, Image.DecompressionBombError):
        return None
    if pixels.shape != reduced_size((header.height, header.width), factor) or pixels.dtype.kind != "u":
        return None
    # Pillow shifts samples to the top of their bytes and adds half the range to signed ones.
    pixels = pixels >> (8 * pixels.dtype.itemsize - header.precision)
    return pixels ^ pixels.dtype.type(1 << (header.precision - 1)) if header.signed else pixels


def _decode_any(dataset: Any, syntax: uid.UID) -> np.ndarray:
    # The plugin is named, because pydicom would else take whichever it finds first: Pillow where it
    # is installed, which reads JPEG 2000 three times slower.
    plugin = "" if syntax in _NATIVE else "pyjpegls" if syntax in uid.JPEGLSTransferSyntaxes else "pylibjpeg"
    options: Any = {"correct_unused_bits": False}
    try:
        pixels, _ = get_decoder(syntax).as_array(dataset, raw=False, decoding_plugin=plugin, **options)
    except BaseException as error:
        if not is_decoder_failure(error):
            raise
        name = type(error).__name__
        raise ImageRejected("corrupt", f"the compressed pixel data cannot be decoded ({name}).") from None
    if pixels.shape[:2] != (int(dataset.Rows), int(dataset.Columns)):
        raise ImageRejected("size_mismatch", "the pixel data does not have the size that the header declares.")
    pixels = np.ascontiguousarray(pixels)
    return pixels if pixels.dtype.isnative else pixels.astype(pixels.dtype.newbyteorder("="))


def _colour(raw: np.ndarray, dataset: Any, config: DecodeConfig) -> tuple[np.ndarray, int]:
    """Luminance (or RGB) of a colour image, and its significant bits."""
    bits = int(dataset.BitsStored)
    if str(dataset.PhotometricInterpretation) == "PALETTE COLOR":
        if dataset.get("RedPaletteColorLookupTableData") is None:
            raise ImageRejected("unsupported_colour", "the image has a palette of a kind that is not read.")
        raw = apply_color_lut(raw, dataset)
        bits = 8 * raw.dtype.itemsize
    if raw.dtype not in (np.uint8, np.uint16):
        raise ImageRejected("unsupported_colour", "a colour image with signed values is not read.")
    raw = np.ascontiguousarray(raw)
    if 8 < bits < 16:
        raw = raw << np.uint16(16 - bits)
    return raster.to_luminance(raw, keep_colour=config.keep_colour), bits


def _high_bit(dataset: Any) -> int:
    value = dataset.get("HighBit")
    return int(dataset.BitsStored) - 1 if value is None else int(value)


def _no_pixels(data: bytes, dataset: Any) -> ImageRejected:
    if dataset.get("FloatPixelData") is not None or dataset.get("DoubleFloatPixelData") is not None:
        return ImageRejected("unsupported_depth", "the pixels are floating-point numbers; integers are read.")
    if b"\xe0\x7f\x10\x00" in data or b"\x7f\xe0\x00\x10" in data:
        return ImageRejected("truncated", "the file ends within its pixel data: it was cut off.")
    return ImageRejected("no_pixel_data", "the DICOM file holds no image, or was cut off before it.")
