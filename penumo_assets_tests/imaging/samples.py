"""Small radiograph-like files of every format and transfer syntax, made on the spot.

Encoders here are other people's (Pillow, OpenCV, pydicom and its plugins), so that what the package
reads was not written by the package.
"""

import io
from typing import Any

import cv2
import imagecodecs
import numpy as np
import pydicom
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

# What a careless log would leak; tests look for it in everything that comes out.
SECRET = "DOE^JANE^SECRET"

SYNTAXES = [
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
    RLELossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEG2000Lossless,
]


def phantom(height: int = 64, width: int = 56, bits: int = 12, seed: int = 0) -> np.ndarray:
    """Two dark lungs on a bright body with noise: (height, width) uint16 below 2**bits."""
    rows, columns = np.mgrid[0:height, 0:width] / np.array([height, width]).reshape(2, 1, 1)
    body = 0.75 - 0.3 * (columns - 0.5) ** 2
    for centre in (0.3, 0.7):
        body -= 0.45 * np.exp(-(((columns - centre) / 0.13) ** 2) - ((rows - 0.5) / 0.3) ** 2)
    noisy = body + np.random.default_rng(seed).normal(0, 0.02, body.shape)
    return (np.clip(noisy, 0, 1) * (2**bits - 1)).astype(np.uint16)


def dicom_dataset(pixels: np.ndarray, syntax: UID = ExplicitVRLittleEndian, **elements: Any) -> pydicom.Dataset:
    """A chest radiograph; ``elements`` are set last, ``None`` removes one."""
    dataset = pydicom.Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["penumo"])
    dataset.SOPClassUID = DigitalXRayImageStorageForPresentation
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID
    dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate = SECRET, "HOSP-0042", "19500101"
    dataset.PatientSex, dataset.PatientAge = "F", "062Y"
    dataset.Modality, dataset.BodyPartExamined, dataset.ViewPosition = "DX", "CHEST", "PA"
    dataset.SeriesDescription = SECRET
    dataset.ImagerPixelSpacing = [0.14, 0.15]
    colour = pixels.ndim == 3
    dataset.SamplesPerPixel = 3 if colour else 1
    if colour:
        dataset.PlanarConfiguration = 0
    dataset.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.BitsAllocated = 8 * pixels.dtype.itemsize
    dataset.BitsStored = dataset.BitsAllocated
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    for name, value in elements.items():
        if value is None:
            delattr(dataset, name)
        else:
            setattr(dataset, name, value)
    if "HighBit" not in elements:
        dataset.HighBit = dataset.BitsStored - 1
    _set_pixels(dataset, pixels, syntax)
    return dataset


def dicom_bytes(pixels: np.ndarray, syntax: UID = ExplicitVRLittleEndian, **elements: Any) -> bytes:
    """The file of :func:`dicom_dataset`."""
    return file_bytes(dicom_dataset(pixels, syntax, **elements))


def file_bytes(dataset: pydicom.Dataset) -> bytes:
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def jpeg_bytes(pixels: np.ndarray, **options: Any) -> bytes:
    """A JPEG file written by Pillow."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95, **options)
    return buffer.getvalue()


def png_bytes(pixels: np.ndarray, **options: Any) -> bytes:
    """A PNG file written by Pillow."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", **options)
    return buffer.getvalue()


def bundled_dicom(name: str, **elements: Any) -> pydicom.Dataset:
    """One of pydicom's own test files, relabelled as a radiograph."""
    dataset = pydicom.dcmread(str(get_testdata_file(name, download=False)))
    dataset.Modality = "CR"
    for key, value in elements.items():
        setattr(dataset, key, value)
    return dataset


def all_samples() -> dict[str, bytes]:
    """One small file of every kind that is read."""
    gray = phantom(bits=12)
    eight = phantom(bits=8).astype(np.uint8)
    colour = np.dstack((eight, eight // 2, 255 - eight))
    samples = {
        "gray.png": png_bytes(eight),
        "gray16.png": cv2.imencode(".png", phantom(bits=16))[1].tobytes(),
        "colour.png": png_bytes(colour),
        "alpha.png": png_bytes(np.dstack((colour, eight))),
        "gray.jpg": jpeg_bytes(eight),
        "colour.jpg": jpeg_bytes(colour),
        "progressive.jpg": jpeg_bytes(eight, progressive=True),
        "baseline.dcm": dicom_bytes(eight, JPEGBaseline8Bit),
        "colour.dcm": dicom_bytes(colour),
    }
    for syntax in SYNTAXES:
        samples[f"{syntax.keyword}.dcm"] = dicom_bytes(gray, syntax, BitsStored=12)
    for name in ("JPGExtended.dcm", "SC_rgb_jpeg_gdcm.dcm", "examples_palette.dcm", "SC_rgb_dcmtk_+eb+cy+np.dcm"):
        samples[name] = file_bytes(bundled_dicom(name))
    samples["window.dcm"] = dicom_bytes(
        gray, BitsStored=12, WindowCenter=2000, WindowWidth=3000, RescaleSlope=1, RescaleIntercept=-100
    )
    return samples | _contradictory_samples(gray, eight)


def _contradictory_samples(gray: np.ndarray, eight: np.ndarray) -> dict[str, bytes]:
    """Films whose headers and pixels disagree, each decided by another part of the decoder."""
    table = pydicom.Dataset()
    table.add_new("LUTDescriptor", "US", [4096, 0, 12])
    table.add_new("LUTData", "OW", np.arange(4096).astype(">u2").tobytes())
    palette = dicom_dataset(eight, ExplicitVRBigEndian, PhotometricInterpretation="PALETTE COLOR")
    for name in ("Red", "Green", "Blue"):
        palette.add_new(f"{name}PaletteColorLookupTableDescriptor", "US", [256, 0, 16])
        palette.add_new(f"{name}PaletteColorLookupTableData", "OW", (np.arange(256) * 257).astype(">u2").tobytes())
    padded = dicom_dataset(np.where(gray > 3500, 0xFFFF, gray).astype(np.uint16), BitsStored=12)
    padded.add_new("PixelPaddingValue", "US", 0xFFFF)
    zero, lengths = (dicom_dataset(gray, syntax, BitsStored=12) for syntax in (JPEGLSLossless, JPEG2000Lossless))
    zero.PixelData = encapsulate([get_frame(zero.PixelData, 0, number_of_frames=1).rstrip(b"\0")[:-2] + b"\0\xff\xd9"])
    stream = bytearray(get_frame(lengths.PixelData, 0, number_of_frames=1))
    stream[stream.index(b"\xff\x90") + 9] ^= 3  # the last byte of the length of its one tile-part
    lengths.PixelData = encapsulate([bytes(stream)])
    windows = {"WindowCenter": [128, 2048, 9], "WindowWidth": [256, 4096, 0], "VOILUTFunction": "SIGMOID"}
    return {
        "windows.dcm": dicom_bytes(gray, BitsStored=12, **windows),
        "table.dcm": dicom_bytes(gray, ExplicitVRBigEndian, BitsStored=12, VOILUTSequence=Sequence([table])),
        "palette.dcm": file_bytes(palette),
        "padding.dcm": file_bytes(padded),
        "beyond.dcm": dicom_bytes(gray, BitsStored=10),
        "high_bit.dcm": dicom_bytes(gray, BitsStored=12, HighBit=15),
        "planar.dcm": dicom_bytes(np.dstack((eight, eight, eight)), PlanarConfiguration=None),
        "zero.dcm": file_bytes(zero),
        "lengths.dcm": file_bytes(lengths),
    }


def _stream(pixels: np.ndarray, syntax: UID, bits: int) -> bytes:
    if syntax == JPEGLosslessSV1:
        return imagecodecs.jpeg8_encode(pixels, lossless=True, predictor=1, bitspersample=bits)
    depth = {"bitspersample": bits} if bits < 8 * pixels.dtype.itemsize else {}
    return imagecodecs.jpeg2k_encode(pixels, level=0, reversible=True, codecformat="J2K", **depth)


def _set_pixels(dataset: pydicom.Dataset, pixels: np.ndarray, syntax: UID) -> None:
    little = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
    if syntax == JPEGBaseline8Bit:
        dataset.PixelData = encapsulate([jpeg_bytes(pixels)])
        dataset["PixelData"].is_undefined_length = True
    elif syntax in (RLELossless, JPEGLSLossless):
        dataset.PixelData = little
        dataset["PixelData"].VR = "OW" if dataset.BitsAllocated > 8 else "OB"
        dataset.compress(syntax, generate_instance_uid=False)
    elif syntax in (JPEG2000Lossless, JPEGLosslessSV1):
        dataset.PixelData = encapsulate([_stream(pixels, syntax, dataset.BitsStored)])
        dataset["PixelData"].is_undefined_length = True
    elif syntax == ExplicitVRBigEndian:
        dataset.PixelData = pixels.astype(pixels.dtype.newbyteorder(">")).tobytes()
    else:
        dataset.PixelData = little
    if not syntax.is_encapsulated:
        dataset["PixelData"].VR = "OW" if dataset.BitsAllocated > 8 else "OB"
        if len(dataset.PixelData) % 2:
            dataset.PixelData += b"\0"
    dataset.file_meta.TransferSyntaxUID = syntax
