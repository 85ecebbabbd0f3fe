"""DICOM files to pixels as a radiologist would see them."""

from functools import partial
from typing import Any

import numpy as np

from penumo_assets.configs.prepare import DecodeConfig
from penumo_assets.imaging.errors import ImageRejected
from penumo_assets.imaging.formats import dicom_header, dicom_parser, pixels
from penumo_assets.imaging.formats.decoded import DecodedImage, reduced
from penumo_assets.imaging.formats.dicom_gray import to_display
from penumo_assets.imaging.formats.dicom_lut import read_table
from penumo_assets.imaging.formats.dicom_parser import looks_like
from penumo_assets.imaging.formats.dicom_pixels import NATIVE, decode_stored

__all__ = ["decode", "looks_like"]

_COLOUR = frozenset({"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"})
_SAMPLES = {"MONOCHROME1": 1, "MONOCHROME2": 1, "PALETTE COLOR": 1, **dict.fromkeys(_COLOUR, 3)}


def decode(data: bytes, config: DecodeConfig) -> DecodedImage:
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
    notes = _check_declared(dataset, config)
    stored = decode_stored(dataset, config)
    raw, factor = stored.samples, stored.factor
    size, bits = (int(dataset.Rows), int(dataset.Columns)), stored.format.bits
    if dataset.PhotometricInterpretation in ("MONOCHROME1", "MONOCHROME2"):
        shown, more = to_display(raw.view(f"u{raw.dtype.itemsize}"), dataset, stored.format, config)
    else:
        (shown, bits), more = _colour(raw, dataset, config), ()
    notes += (*stored.notes, *more)
    if factor > 1:
        shown, notes = reduced(shown, size, factor), (*notes, f"reduced:{factor}")
    return DecodedImage(
        pixels=pixels.refuse_constant(shown),
        bits=bits,
        format="dicom",
        tags=dicom_header.read_tags(dataset),
        size=size,
        patient_id=dicom_header.patient_id(dataset),
        notes=(*notes, *dicom_header.presentation_notes(dataset), *dicom_header.identity_notes(dataset)),
        kept=stored.jpeg if stored.jpeg and shown.dtype == raw.dtype and np.array_equal(shown, raw) else None,
    )


def _check_declared(dataset: Any, config: DecodeConfig) -> tuple[str, ...]:
    """Refuse headers that are incomplete, too large, or of a kind that is not read; notes on what was assumed."""
    value = partial(dicom_header.value, dataset)
    required = ("Rows", "Columns", "BitsAllocated", "BitsStored", "PixelRepresentation", "PhotometricInterpretation")
    missing = [name for name in required if value(name) is None]
    if missing:
        raise ImageRejected("bad_header", f"the header does not say {', '.join(missing)}.")
    allocated, bits = int(dataset.BitsAllocated), int(dataset.BitsStored)
    if allocated not in (8, 16) or not 2 <= bits <= allocated:
        raise ImageRejected(
            "unsupported_depth", f"{bits} bits stored in {allocated} are not read; 2 to 16 bits in 8 or 16 are."
        )
    dataset.PhotometricInterpretation = photometric = dicom_header.text(dataset, "PhotometricInterpretation")
    expected = _SAMPLES.get(photometric)
    if expected is None:
        raise ImageRejected("unsupported_colour", "the photometric interpretation in the header is not read.")
    dataset.SamplesPerPixel = samples = int(value("SamplesPerPixel") or expected)
    if samples != expected:
        raise ImageRejected("bad_header", f"{samples} samples per pixel contradict {photometric}.")
    output = 3 * allocated // 8 if expected == 3 or photometric == "PALETTE COLOR" else 2
    pixels.check_size(int(dataset.Rows), int(dataset.Columns), output, config)
    if samples == 3 and value("PlanarConfiguration") not in (0, 1):
        dataset.PlanarConfiguration = 0  # colour by pixel, as nearly all programs write it
        return ("planar:assumed",) if dicom_header.transfer_syntax(dataset) in NATIVE else ()
    return ()


def _colour(raw: np.ndarray, dataset: Any, config: DecodeConfig) -> tuple[np.ndarray, int]:
    """Luminance (or RGB) of a colour image, and its significant bits."""
    bits = int(dataset.BitsStored)
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        raw = _through_palette(raw, dataset)
        bits = 8 * raw.dtype.itemsize
    if raw.dtype not in (np.uint8, np.uint16):
        raise ImageRejected("unsupported_colour", "a colour image with signed values is not read.")
    raw = np.ascontiguousarray(raw)
    if 8 < bits < 16:
        raw = raw << np.uint16(16 - bits)
    return pixels.to_luminance(raw, keep_colour=config.keep_colour), bits


def _through_palette(raw: np.ndarray, dataset: Any) -> np.ndarray:
    """(H, W) indices as (H, W, 3) RGB, uint8 where the palette has no more than 8 bits, else uint16."""
    tables = [read_table(dataset, dataset, f"{name}PaletteColorLookupTable") for name in ("Red", "Green", "Blue")]
    palette = [table for table in tables if table is not None]
    if len(palette) < 3:
        raise ImageRejected("unsupported_colour", "the image has a palette of a kind that is not read.")
    values = np.arange(1 << 8 * raw.dtype.itemsize)
    wide = max(int(table.entries.max()) for table in palette) > 255
    colours = np.stack([table.apply(values) for table in palette], axis=1).astype(np.uint16 if wide else np.uint8)
    return colours[raw.view(f"u{raw.dtype.itemsize}")]


def _no_pixels(data: bytes, dataset: Any) -> ImageRejected:
    if dataset.get("FloatPixelData") is not None or dataset.get("DoubleFloatPixelData") is not None:
        return ImageRejected("unsupported_depth", "the pixels are floating-point numbers; integers are read.")
    if b"\xe0\x7f\x10\x00" in data or b"\x7f\xe0\x00\x10" in data:
        return ImageRejected("truncated", "the file ends within its pixel data: it was cut off.")
    return ImageRejected("no_pixel_data", "the DICOM file holds no image, or was cut off before it.")
