"""DICOM films whose header and pixels contradict each other: what the pixels themselves say decides, and is noted."""

import io
import struct

import numpy as np
import pydicom
import pytest
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    CTImageStorage,
    DigitalXRayImageStorageForProcessing,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
    SecondaryCaptureImageStorage,
)

from penumo_assets.imaging.decode import decode_image
from penumo_assets.imaging.errors import ImageRejected
from penumo_assets_tests.imaging.samples import dicom_dataset, file_bytes, jpeg_bytes
from penumo_assets_tests.imaging.test_cases_dicom import (
    CONFIG,
    EIGHT,
    FILM,
    FULL,
    SQUARE,
    assert_percentile,
    assert_shown,
    brightness,
    film,
    table,
)

SIXTEEN = FILM.astype(np.uint16) * 16
GRAY = np.dstack((EIGHT,) * 3)


# --- windows and tables --------------------------------------------------------------------------------


@pytest.mark.parametrize(("pixels", "bits"), [(FILM, 12), (EIGHT, 8), (EIGHT.astype(np.uint16), 8)])
def test_a_window_two_bits_too_wide_is_flagged(pixels: np.ndarray, bits: int) -> None:
    width = 1 << (bits + 2)
    image = film(pixels, BitsStored=bits, WindowCenter=width // 2, WindowWidth=width)
    assert_percentile(image, "voi:unusable")
    half = film(pixels, BitsStored=bits, WindowCenter=width // 4, WindowWidth=width // 2)
    assert half.notes == ("voi:linear",), "twice as wide is dark, and still a picture"


def test_a_table_that_shows_the_film_in_one_gray_is_passed_over() -> None:
    flat, good = table(np.arange(100)), table(np.arange(4096))
    image = film(VOILUTSequence=Sequence([flat, good]))
    assert_shown(image)
    assert image.notes == ("voi:lut", "voi:choice_2")


@pytest.mark.parametrize("data", [b"", b"\0\0"])
def test_a_table_without_bits_is_none(data: bytes) -> None:
    item = table(np.arange(4096))
    item.LUTDescriptor = [0, 0, 0]
    item.add_new("LUTData", "OW", data)
    image = film(**FULL, VOILUTSequence=Sequence([item]))
    assert_shown(image)
    assert image.notes == ("voi:lut_ignored", "voi:linear")


@pytest.mark.parametrize(("bits", "share"), [(12, 0.5), (16, 1.0), (10, 1.0)])
def test_a_table_may_leave_the_brightest_of_its_bits_unused(bits: int, share: float) -> None:
    """16 bits are often the container's, and 10 are too few for entries up to 2047."""
    image = film(VOILUTSequence=Sequence([table(np.arange(4096) // 2, bits=bits)]))
    assert np.abs(brightness(image) - share * FILM / 4095).max() < 5e-4


@pytest.mark.parametrize("border", [0, 65535])
@pytest.mark.parametrize("window", [{}, {"WindowCenter": 32768, "WindowWidth": 65536}])
def test_a_border_that_is_no_declared_padding_does_not_stretch_the_window(border: int, window: dict) -> None:
    pixels = FILM + np.uint16(40_000 if border == 0 else 0)
    pixels[:48] = border
    image = film(pixels, BitsStored=16, **window)
    assert {"window:percentile", *(["voi:unusable"] if window else [])} == set(image.notes)
    shown = brightness(image)[48:]
    assert shown.std() > 0.15
    assert np.corrcoef(shown.ravel(), FILM[48:].ravel())[0, 1] > 0.99
    assert (image.pixels[:48] == border).all()


# --- bits and signs ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pixels", "stored"), [(FILM, 8), (FILM, 11), (SIXTEEN, 12), (SIXTEEN, 15), (SIXTEEN | (FILM & 15), 12)]
)
def test_samples_of_more_bits_than_declared_are_read_whole(pixels: np.ndarray, stored: int) -> None:
    assert_percentile(film(pixels, BitsStored=stored), "bits:beyond_stored")


@pytest.mark.parametrize("drawn", [(slice(10, 12), slice(20, 60)), (slice(10, 60), slice(20, 60)), ...])
def test_what_is_drawn_above_the_stored_bits_is_left_out_however_large_it_is(drawn: object) -> None:
    pixels = FILM.copy()
    pixels[drawn] |= 1 << 15
    image = film(pixels, **FULL)
    assert_shown(image)
    assert image.notes == ("bits:beyond_stored", "voi:linear")


@pytest.mark.parametrize(
    ("pixels", "bits"),
    [
        ((FILM.astype(np.int16) - 2048).view(np.uint16), 16),
        ((FILM.astype(np.int16) - 2048).view(np.uint16) & 0x0FFF, 12),
        (SIXTEEN.view(np.int16), 16),
        (FILM.view(np.int16), 12),
        (EIGHT.view(np.int8), 8),
    ],
)
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless])
def test_a_film_with_the_wrong_sign_is_read_with_the_right_one(pixels: np.ndarray, bits: int, syntax: UID) -> None:
    image = film(pixels, syntax, BitsStored=bits)
    assert "sign:ignored" in image.notes
    assert np.corrcoef(brightness(image).ravel(), FILM.ravel())[0, 1] > 0.999


@pytest.mark.parametrize("low", [0, 20_000, 40_000])
def test_a_black_border_does_not_change_a_films_sign(low: int) -> None:
    pixels = FILM * np.uint16(6) + np.uint16(low)
    pixels[:, :20] = 0
    for photometric in ("MONOCHROME1", "MONOCHROME2"):
        assert "sign:ignored" not in film(pixels, BitsStored=16, PhotometricInterpretation=photometric).notes


# --- what the film is ----------------------------------------------------------------------------------


@pytest.mark.parametrize("modality", ["X RAY", "RADIOGRAPHY", "Digital Radiography", "RAD", "DRX"])
def test_an_x_ray_is_known_by_its_words_in_a_secondary_capture(modality: str) -> None:
    assert_shown(film(**FULL, Modality=modality, SOPClassUID=SecondaryCaptureImageStorage))


def without_class(kind: UID, **elements: object) -> bytes:
    """A film whose class stands in the file's head alone."""
    dataset = dicom_dataset(FILM, **FULL, **SQUARE, **elements)
    del dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPClassUID = kind
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=False)
    return buffer.getvalue()


def test_the_files_head_tells_the_kind_of_an_image_where_the_header_does_not() -> None:
    assert "for_processing" in decode_image(without_class(DigitalXRayImageStorageForProcessing), CONFIG).notes
    with pytest.raises(ImageRejected) as error:
        decode_image(without_class(CTImageStorage, Modality=None), CONFIG)
    assert error.value.code == "not_a_radiograph"


@pytest.mark.parametrize(("sex", "code"), [("Female", "F"), (" m", "M"), ("W", "F"), ("other", "O"), ("?", None)])
def test_a_sex_in_a_header_is_read_as_in_a_table(sex: str, code: str | None) -> None:
    assert film(**FULL, PatientSex=sex).tags.sex == code


def test_the_spacing_of_a_scanned_film_may_not_be_square() -> None:
    assert "pixels:not_square" in film(**FULL, NominalScannedPixelSpacing=[0.1, 0.2]).notes


# --- colours -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("keyword", "value"), [("PlanarConfiguration", 2), ("SamplesPerPixel", None)])
def test_colour_with_a_missing_or_impossible_layout_is_colour_by_pixel(keyword: str, value: int | None) -> None:
    dataset = dicom_dataset(GRAY, **SQUARE)
    setattr(dataset, keyword, value)
    assert np.abs(decode_image(file_bytes(dataset), CONFIG).pixels.astype(int) - EIGHT).max() <= 1


@pytest.mark.parametrize(
    "syntax", [ExplicitVRLittleEndian, RLELossless, JPEGLSLossless, JPEGLosslessSV1, JPEG2000Lossless]
)
@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL"])
@pytest.mark.parametrize("coded", ["RGB", "YBR_FULL"])
def test_a_film_in_colours_tells_whether_they_are_chrominances(syntax: UID, photometric: str, coded: str) -> None:
    middle = np.full_like(EIGHT, 128)
    pixels = GRAY if coded == "RGB" else np.dstack((EIGHT, middle, middle))
    image = decode_image(file_bytes(dicom_dataset(pixels, syntax, PhotometricInterpretation=photometric)), CONFIG)
    assert np.abs(image.pixels.astype(int) - EIGHT).max() <= 1


# --- how the pixel data lies in the file ---------------------------------------------------------------


def with_syntax(data: bytes, old: UID, new: UID) -> bytes:
    """A file that names another transfer syntax than its own."""
    before, after = (bytes(each, "ascii") + b"\0" * (len(each) % 2) for each in (old, new))
    at, group = data.index(before) - 2, data.index(b"\x02\0\0\0UL\x04\0") + 8
    (length,) = struct.unpack_from("<I", data, group)
    head = data[:group] + struct.pack("<I", length + len(after) - len(before)) + data[group + 4 : at]
    return head + struct.pack("<H", len(after)) + after + data[at + 2 + len(before) :]


@pytest.mark.parametrize("wrong", [JPEGLosslessSV1, JPEG2000Lossless, RLELossless])
def test_a_film_that_is_not_compressed_is_read_whatever_its_transfer_syntax_says(wrong: UID) -> None:
    plain = file_bytes(dicom_dataset(FILM, **FULL, **SQUARE))
    image = decode_image(with_syntax(plain, ExplicitVRLittleEndian, wrong), CONFIG)
    assert_shown(image)
    assert image.notes == ("transfer_syntax:ignored", "voi:linear")


def test_a_film_that_is_compressed_is_read_whatever_its_transfer_syntax_says() -> None:
    coded = file_bytes(dicom_dataset(EIGHT, JPEGBaseline8Bit, **SQUARE))
    image = decode_image(with_syntax(coded, JPEGBaseline8Bit, ExplicitVRLittleEndian), CONFIG)
    assert np.array_equal(image.pixels, decode_image(jpeg_bytes(EIGHT), CONFIG).pixels)
    assert "transfer_syntax:ignored" in image.notes


def test_run_lengths_need_no_table_of_offsets() -> None:
    dataset = dicom_dataset(FILM, RLELossless, **FULL, **SQUARE)
    frame = pydicom.encaps.get_frame(dataset.PixelData, 0, number_of_frames=1)
    dataset.PixelData = struct.pack("<HHI", 0xFFFE, 0xE000, len(frame)) + frame
    assert_shown(decode_image(file_bytes(dataset), CONFIG))
