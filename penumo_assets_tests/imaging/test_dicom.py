import io
import struct
import zlib

import imagecodecs
import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import (
    MPEG2MPML,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLSLossless,
    RLELossless,
    SecondaryCaptureImageStorage,
)

from penumo_assets.configs.prepare import DecodeConfig
from penumo_assets.imaging.decode import DecodedImage, decode_image
from penumo_assets.imaging.errors import ImageRejected
from penumo_assets.imaging.formats import dicom_parser
from penumo_assets.imaging.formats.dicom_header import view_code
from penumo_assets.imaging.person import age_in_years
from penumo_assets_tests.imaging.samples import (
    SYNTAXES,
    bundled_dicom,
    dicom_bytes,
    dicom_dataset,
    file_bytes,
    jpeg_bytes,
    phantom,
)

CONFIG = DecodeConfig()
TWELVE = phantom()
EIGHT = phantom(bits=8).astype(np.uint8)
RGB = np.dstack((EIGHT, EIGHT // 2, 255 - EIGHT))


def decode(pixels: np.ndarray = TWELVE, syntax: UID = ExplicitVRLittleEndian, **elements: object) -> DecodedImage:
    return decode_image(dicom_bytes(pixels, syntax, **elements), CONFIG)


def refusal(data: bytes, config: DecodeConfig = CONFIG) -> ImageRejected:
    with pytest.raises(ImageRejected) as error:
        decode_image(data, config)
    return error.value


# --- transfer syntaxes and pixel formats -------------------------------------------------------------


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.keyword)
def test_every_lossless_syntax_gives_the_same_picture(syntax: UID) -> None:
    image = decode(TWELVE, syntax, BitsStored=12, WindowCenter=2048, WindowWidth=4096)
    assert np.abs(image.pixels - TWELVE / 4095 * 65535).max() <= 0.5
    assert (image.format, image.bits, image.pixels.dtype) == ("dicom", 12, np.uint16)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless, JPEGLSLossless])
def test_eight_bits_without_a_window_stay_as_they_are(syntax: UID) -> None:
    image = decode(EIGHT, syntax)
    assert np.array_equal(image.pixels, EIGHT)
    assert image.notes == ("window:full_range",)


def test_a_baseline_jpeg_is_what_the_jpeg_holds() -> None:
    image = decode(EIGHT, JPEGBaseline8Bit)
    assert np.abs(image.pixels.astype(int) - EIGHT).mean() < 2


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
@pytest.mark.parametrize("signed", [False, True])
def test_any_depth_and_sign_is_stretched_between_its_percentiles(bits: int, signed: bool) -> None:
    stored = phantom(bits=bits).astype(np.int32) - (2 ** (bits - 1) if signed else 0)
    pixels = stored.astype(np.int16 if signed else np.uint16)
    image = decode(pixels, BitsStored=bits, RescaleIntercept=5 if bits == 8 else 0, RescaleSlope=1)
    low, high = np.percentile(stored, [0.5, 99.5], method="inverted_cdf")
    expected = np.clip((stored - low) / (high - low), 0, 1) * 65535
    assert np.abs(image.pixels - expected).max() <= 0.51
    assert image.notes == ("window:percentile",)


def test_bits_above_those_stored_are_ignored() -> None:
    overlay = (TWELVE | (np.arange(TWELVE.size, dtype=np.uint16).reshape(TWELVE.shape) % 16 << 12)).astype(np.uint16)
    assert np.array_equal(decode(overlay, BitsStored=12).pixels, decode(TWELVE, BitsStored=12).pixels)


def test_values_may_lie_in_the_upper_bits() -> None:
    shifted = (TWELVE << 4).astype(np.uint16)
    high = decode(shifted, BitsStored=12, HighBit=15)
    assert np.array_equal(high.pixels, decode(TWELVE, BitsStored=12).pixels)


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless])
def test_a_codestream_may_have_more_bits_than_the_header_says(syntax: UID) -> None:
    dataset = dicom_dataset(TWELVE, syntax, BitsStored=12)
    expected = decode_image(file_bytes(dataset), CONFIG).pixels
    dataset.BitsStored, dataset.HighBit = 10, 9
    assert np.array_equal(decode_image(file_bytes(dataset), CONFIG).pixels, expected)


def test_signed_values_below_their_container_are_extended() -> None:
    signed = TWELVE.astype(np.int16) - 2048
    unextended = (signed & 0x0FFF).astype(np.int16)
    assert np.array_equal(decode(unextended, BitsStored=12).pixels, decode(signed, BitsStored=12).pixels)


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless])
def test_signed_values_survive_compression(syntax: UID) -> None:
    signed = phantom(bits=16).astype(np.int32) - 32768
    raw, packed = decode(signed.astype(np.int16)), decode(signed.astype(np.int16), syntax)
    assert np.array_equal(packed.pixels, raw.pixels)


@pytest.mark.parametrize("planar", [0, 1])
def test_colour_becomes_luminance_in_either_planar_configuration(planar: int) -> None:
    dataset = dicom_dataset(RGB)
    if planar:
        dataset.PlanarConfiguration = 1
        dataset.PixelData = np.ascontiguousarray(RGB.transpose(2, 0, 1)).tobytes()
    image = decode_image(file_bytes(dataset), CONFIG)
    assert np.abs(image.pixels - RGB @ np.array([0.299, 0.587, 0.114])).max() <= 1
    assert np.array_equal(decode_image(file_bytes(dataset), DecodeConfig(keep_colour=True)).pixels, RGB)


@pytest.mark.parametrize(
    "name",
    [
        "SC_rgb_dcmtk_+eb+cy+np.dcm",
        "SC_ybr_full_422_uncompressed.dcm",
        "SC_rgb_rle.dcm",
        "SC_rgb_small_odd.dcm",
    ],
)
def test_colour_of_every_kind_has_the_luminance_of_pydicoms_rgb(name: str) -> None:
    dataset = bundled_dicom(name)
    rgb = pydicom.pixels.pixel_array(dataset)
    image = decode_image(file_bytes(dataset), DecodeConfig(min_side=1))
    assert np.abs(image.pixels - rgb @ np.array([0.299, 0.587, 0.114])).max() <= 2


def test_a_palette_is_resolved() -> None:
    dataset = bundled_dicom("examples_palette.dcm")
    rgb = pydicom.pixels.apply_color_lut(dataset.pixel_array, dataset)
    image = decode_image(file_bytes(dataset), CONFIG)
    assert np.abs(image.pixels - rgb @ np.array([0.299, 0.587, 0.114])).max() <= 1


# --- the grayscale pipeline --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "elements",
    [
        {"WindowCenter": 1800, "WindowWidth": 2500},
        {"WindowCenter": [1800, 500], "WindowWidth": [2500, 100]},
        {"WindowCenter": 1800.5, "WindowWidth": 2500.25, "VOILUTFunction": "LINEAR_EXACT"},
        {"WindowCenter": 1800, "WindowWidth": 1500, "VOILUTFunction": "SIGMOID"},
        {"WindowCenter": 700, "WindowWidth": 900, "RescaleSlope": 0.5, "RescaleIntercept": -300},
    ],
)
@pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1"])
def test_windows_are_those_of_pydicom(elements: dict, photometric: str) -> None:
    dataset = dicom_dataset(TWELVE, BitsStored=12, PhotometricInterpretation=photometric, **elements)
    expected = pydicom.pixels.apply_voi_lut(
        pydicom.pixels.apply_modality_lut(dataset.pixel_array, dataset), dataset
    ).astype(float)
    low, high = _output_range(dataset)
    expected = (expected - low) / (high - low)
    if photometric == "MONOCHROME1":
        expected = 1 - expected
    image = decode_image(file_bytes(dataset), CONFIG)
    assert np.abs(image.pixels / 65535 - expected).max() < 1e-4
    assert image.notes == (f"voi:{dataset.get('VOILUTFunction', 'LINEAR').lower()}",)


def test_a_negative_slope_turns_dark_into_bright() -> None:
    # pydicom reverses its output range here, against PS3.3 C.11.2.1.2, so it is no reference.
    window = {"BitsStored": 12, "WindowCenter": 2048, "WindowWidth": 4096}
    turned = decode(TWELVE, RescaleSlope=-1, RescaleIntercept=4095, **window)
    assert np.array_equal(turned.pixels, decode((4095 - TWELVE).astype(np.uint16), **window).pixels)


def _output_range(dataset: pydicom.Dataset) -> tuple[float, float]:
    """The range that pydicom windows into: that of the stored values after the rescale."""
    ends = np.array([0, 2**dataset.BitsStored - 1]) * float(dataset.get("RescaleSlope", 1))
    ends += float(dataset.get("RescaleIntercept", 0))
    return ends.min(), ends.max()


def lut(first: int, data: list[int], bits: int = 16) -> pydicom.Dataset:
    item = pydicom.Dataset()
    item.LUTDescriptor = [len(data) % 65536, first, bits]
    item["LUTDescriptor"].VR = "SS" if first < 0 else "US"
    item.LUTData = data
    item["LUTData"].VR = "US"
    item.ModalityLUTType = "US"
    return item


@pytest.mark.parametrize("first", [0, 500])
def test_a_voi_lut_is_applied_as_pydicom_does_and_goes_before_a_window(first: int) -> None:
    curve = [int(65535 * (step / 2999) ** 2) for step in range(3000)]
    dataset = dicom_dataset(
        TWELVE, BitsStored=12, VOILUTSequence=Sequence([lut(first, curve)]), WindowCenter=1, WindowWidth=2
    )
    expected = pydicom.pixels.apply_voi_lut(dataset.pixel_array, dataset)
    image = decode_image(file_bytes(dataset), CONFIG)
    assert np.array_equal(image.pixels, expected)
    assert image.notes == ("voi:lut",)


@pytest.mark.parametrize("first", [-2048, 65536 - 2048])
def test_a_voi_lut_may_begin_below_zero_even_where_it_is_written_unsigned(first: int) -> None:
    signed = TWELVE.astype(np.int16) - 2048
    curve = [int(65535 * step / 4095) for step in range(4096)]
    dataset = dicom_dataset(signed, BitsStored=12, VOILUTSequence=Sequence([lut(first, curve)]))
    assert np.abs(decode_image(file_bytes(dataset), CONFIG).pixels - TWELVE / 4095 * 65535).max() <= 1


def test_a_modality_lut_comes_before_the_window_and_replaces_the_rescale() -> None:
    curve = [4095 - step for step in range(4096)]
    dataset = dicom_dataset(
        TWELVE,
        BitsStored=12,
        ModalityLUTSequence=Sequence([lut(0, curve, 12)]),
        WindowCenter=2048,
        WindowWidth=4096,
        RescaleSlope=7,
        RescaleIntercept=3,
    )
    image = decode_image(file_bytes(dataset), CONFIG)
    assert np.abs(image.pixels - (4095 - TWELVE.astype(float)) / 4095 * 65535).max() <= 0.5
    assert image.notes == ("modality:lut", "voi:linear")


def test_monochrome1_is_inverted() -> None:
    bright = decode(TWELVE, BitsStored=12).pixels.astype(int)
    dark = decode(TWELVE, BitsStored=12, PhotometricInterpretation="MONOCHROME1").pixels
    assert np.array_equal(dark, 65535 - bright)
    assert np.array_equal(decode(EIGHT, PhotometricInterpretation="MONOCHROME1").pixels, 255 - EIGHT)


@pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1"])
def test_padding_is_black_and_takes_no_part_in_the_percentiles(photometric: str) -> None:
    padded = TWELVE.copy()
    padded[:, :20] = 4000
    padded[:, 20:25] = 4040
    image = decode(
        padded,
        BitsStored=12,
        PhotometricInterpretation=photometric,
        PixelPaddingValue=4000,
        PixelPaddingRangeLimit=4050,
    )
    inside = padded[:, 25:][padded[:, 25:] < 4000]
    low, high = np.percentile(inside, [0.5, 99.5], method="inverted_cdf").astype(float)
    expected = np.clip((padded - low) / (high - low), 0, 1)
    expected = (expected if photometric == "MONOCHROME2" else 1 - expected) * 65535
    expected[(padded >= 4000) & (padded <= 4050)] = 0
    assert np.abs(image.pixels - expected).max() <= 0.51


def test_negative_padding_is_found_in_signed_pixels() -> None:
    pixels = TWELVE.astype(np.int16)
    pixels[:10] = -2000
    image = decode(pixels, PhotometricInterpretation="MONOCHROME1", PixelPaddingValue=-2000)
    assert not image.pixels[:10].any()
    assert image.pixels[10:].max() == 65535


@pytest.mark.parametrize(
    ("elements", "note"),
    [
        ({"WindowCenter": 30000, "WindowWidth": 10}, "voi:unusable"),
        ({"WindowCenter": 2000, "WindowWidth": 0}, "voi:invalid"),
        ({"WindowCenter": 2000, "WindowWidth": -5}, "voi:invalid"),
        ({"WindowCenter": 2000}, "voi:invalid"),
    ],
)
def test_a_window_that_shows_nothing_gives_way_to_the_percentiles(elements: dict, note: str) -> None:
    image = decode(TWELVE, BitsStored=12, **elements)
    assert np.array_equal(image.pixels, decode(TWELVE, BitsStored=12).pixels)
    assert image.notes == (note, "window:percentile")


def test_a_slope_of_zero_is_ignored() -> None:
    image = decode(TWELVE, BitsStored=12, RescaleSlope=0, RescaleIntercept=0)
    assert np.array_equal(image.pixels, decode(TWELVE, BitsStored=12).pixels)
    assert image.notes == ("rescale:ignored", "window:percentile")


def test_malformed_numbers_in_a_header_are_as_good_as_none() -> None:
    data = dicom_bytes(TWELVE, BitsStored=12, WindowCenter=2048, WindowWidth=4096, ImagerPixelSpacing=[0.14, 0.15])
    data = data.replace(b"2048", b"2O48").replace(b"0.14\\0.15", b"0.14\\O.15")
    image = decode_image(data, CONFIG)
    assert image.notes == ("voi:invalid", "window:percentile")
    assert image.tags.pixel_spacing_mm is None


@pytest.mark.parametrize("name", ["MR_small.dcm", "MR_small_RLE.dcm", "MR_small_jp2klossless.dcm", "MR_small_expb.dcm"])
def test_real_files_come_out_as_pydicom_shows_them(name: str) -> None:
    dataset = bundled_dicom(name)
    shown = pydicom.pixels.apply_windowing(dataset.pixel_array.astype(float), dataset)
    image = decode_image(file_bytes(dataset), CONFIG)
    low, high = -32768.0, 32767.0
    assert np.abs(image.pixels / 65535 - (shown - low) / (high - low)).max() < 1e-3


def test_twelve_bit_jpeg_is_read() -> None:
    dataset = dicom_dataset(TWELVE, BitsStored=12, WindowCenter=2048, WindowWidth=4096)
    expected = decode_image(file_bytes(dataset), CONFIG).pixels.astype(int)
    dataset.PixelData = encapsulate([imagecodecs.jpeg8_encode(TWELVE, level=98, bitspersample=12)])
    dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
    dataset.file_meta.TransferSyntaxUID = JPEGExtended12Bit
    assert np.abs(decode_image(file_bytes(dataset), CONFIG).pixels - expected).max() < 0.005 * 65535


def test_two_colour_films_of_one_picture_are_one_picture_whatever_their_compression() -> None:
    lossless, plain = (
        decode_image(file_bytes(bundled_dicom(name)), DecodeConfig(keep_colour=True)).pixels
        for name in ("SC_rgb_jpeg_gdcm.dcm", "SC_rgb_rle.dcm")
    )
    assert np.array_equal(lossless, plain)


# --- what is refused ---------------------------------------------------------------------------------


@pytest.mark.parametrize("modality", ["CT", "MR", "US", "NM", "PT", "SR", "RTPLAN", "SEG"])
def test_what_is_no_projection_x_ray_is_refused(modality: str) -> None:
    error = refusal(dicom_bytes(TWELVE, Modality=modality))
    assert error.code == "not_a_radiograph"
    assert f"modality {modality}" in error.reason


def test_an_unknown_modality_is_refused_unless_the_class_is_that_of_an_x_ray() -> None:
    error = refusal(dicom_bytes(TWELVE, Modality="SMITH", SOPClassUID=SecondaryCaptureImageStorage))
    assert error.code == "unknown_modality"
    assert "SMITH" not in error.reason
    assert decode(TWELVE, Modality="SMITH").tags.modality is None


@pytest.mark.parametrize("modality", ["CR", "DX", "RG", "RF", "XA", "OT", "SC", "", "dx"])
def test_radiographs_and_captures_of_them_are_accepted(modality: str) -> None:
    assert decode(TWELVE, Modality=modality).pixels.shape == TWELVE.shape


@pytest.mark.parametrize(
    "part",
    ["HIP", "HAND", "EXTREMITY", "SKULL", "ABDOMEN", "L KNEE", "CSPINE", "LSPINE", "SHOULDER", "FOOT", "PELVIS"],
)
def test_another_body_part_is_refused(part: str) -> None:
    assert refusal(dicom_bytes(TWELVE, BodyPartExamined=part)).code == "not_chest"


@pytest.mark.parametrize(
    "part", ["CHEST", "", None, "THORAX", "LUNG", "PORT CHEST", "CHEST_TO_PELVIS", "UNKNOWN", "RIB"]
)
def test_the_chest_and_what_may_be_the_chest_is_accepted(part: str | None) -> None:
    assert decode(TWELVE, BodyPartExamined=part).pixels.shape == TWELVE.shape


@pytest.mark.parametrize("modality", ["MG", "PX", "IO"])
def test_radiographs_of_breast_and_teeth_are_not_of_the_chest(modality: str) -> None:
    assert refusal(dicom_bytes(TWELVE, Modality=modality)).code == "not_chest"


@pytest.mark.parametrize("position", ["LL", "RL", "LATERAL", "LAT", "L LAT", "Lateral", "LEFT LATERAL", "CHEST LAT"])
def test_a_lateral_view_is_refused_unless_it_is_wanted(position: str) -> None:
    data = dicom_bytes(TWELVE, ViewPosition=position)
    assert refusal(data).code == "lateral_view"
    assert decode_image(data, DecodeConfig(reject_lateral=False)).tags.view == "LATERAL"


def test_a_lateral_view_is_told_by_its_code_or_by_its_orientation() -> None:
    code = pydicom.Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "399067008", "SCT", "lateral"
    assert refusal(dicom_bytes(TWELVE, ViewPosition="", ViewCodeSequence=Sequence([code]))).code == "lateral_view"
    assert refusal(dicom_bytes(TWELVE, ViewPosition=None, PatientOrientation=["P", "F"])).code == "lateral_view"
    assert decode(TWELVE, ViewPosition=None, PatientOrientation=["L", "F"]).tags.view is None


@pytest.mark.parametrize(
    ("written", "code"),
    [
        ("PA", "PA"),
        ("pa ", "PA"),
        ("AP SUPINE", "AP"),
        ("AP_PORTABLE", "AP"),
        ("LLD", "DECUBITUS"),
        ("LLO", "OBLIQUE"),
        ("LATERAL DECUBITUS", "DECUBITUS"),
        ("", None),
        ("XYZ", None),
        ("L", "LATERAL"),
    ],
)
def test_views_are_written_in_many_ways(written: str, code: str | None) -> None:
    assert view_code(written) == code


def test_many_frames_are_refused_by_name() -> None:
    error = refusal(dicom_bytes(np.vstack([TWELVE] * 3), NumberOfFrames=3, Rows=64))
    assert error.code == "multi_frame"
    assert "3 frames" in error.reason


@pytest.mark.parametrize(
    ("elements", "code"),
    [
        ({"Rows": 640}, "truncated"),
        ({"Rows": 60}, "size_mismatch"),
        ({"Columns": 50}, "size_mismatch"),
        ({"Rows": 65535, "Columns": 65535}, "too_large"),
        ({"Rows": 20}, "too_small"),
        ({"BitsAllocated": 32, "BitsStored": 32}, "unsupported_depth"),
        ({"BitsStored": 1}, "unsupported_depth"),
        ({"BitsStored": 17}, "unsupported_depth"),
        ({"SamplesPerPixel": 3}, "bad_header"),
        ({"Rows": None}, "bad_header"),
        ({"BitsAllocated": None}, "bad_header"),
        ({"PhotometricInterpretation": None}, "bad_header"),
        ({"PhotometricInterpretation": "ARGB"}, "unsupported_colour"),
    ],
)
def test_a_header_that_does_not_fit_its_pixels_is_refused(elements: dict, code: str) -> None:
    dataset = dicom_dataset(TWELVE)
    for name, value in elements.items():
        if value is None:
            delattr(dataset, name)
        else:
            setattr(dataset, name, value)
    if "HighBit" not in elements and "BitsStored" in elements:
        dataset.HighBit = dataset.BitsStored - 1
    assert refusal(file_bytes(dataset)).code == code


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless, JPEGBaseline8Bit])
def test_a_compressed_picture_of_another_size_than_declared_is_refused(syntax: UID) -> None:
    dataset = dicom_dataset(EIGHT, syntax)
    dataset.Rows = 4000
    assert refusal(file_bytes(dataset)).code == "size_mismatch"


def test_a_jpeg_in_a_dicom_file_that_was_cut_off_and_closed_again_is_refused() -> None:
    dataset = dicom_dataset(EIGHT, JPEGBaseline8Bit)
    jpeg = jpeg_bytes(EIGHT)
    dataset.PixelData = encapsulate([jpeg[: len(jpeg) * 2 // 3] + b"\xff\xd9"])
    dataset["PixelData"].is_undefined_length = True
    assert refusal(file_bytes(dataset)).code == "corrupt"


def test_a_compressed_picture_that_declares_a_giant_is_refused_without_memory(peak_memory) -> None:
    dataset = dicom_dataset(TWELVE, JPEG2000Lossless, BitsStored=12)
    stream = bytearray(dataset.PixelData)
    at = stream.index(b"\xff\x51") + 6
    stream[at : at + 8] = struct.pack(">II", 60000, 60000)
    dataset.PixelData = bytes(stream)
    assert refusal(file_bytes(dataset)).code == "size_mismatch"
    assert peak_memory() < 20


def test_a_deflated_bomb_is_refused_without_memory(peak_memory) -> None:
    meta = file_bytes(dicom_dataset(TWELVE, DeflatedExplicitVRLittleEndian))
    end = 144 + struct.unpack_from("<I", meta, 140)[0]
    deflate = zlib.compressobj(1, zlib.DEFLATED, -15)
    head = struct.pack("<HH2sHI", 0x0009, 0x1001, b"OB", 0, 400_000_000)
    zeros = bytes(1_000_000)
    bomb = deflate.compress(head) + b"".join(deflate.compress(zeros) for _ in range(400)) + deflate.flush()
    assert refusal(meta[:end] + bomb).code == "too_large"
    assert peak_memory() < 30


def test_a_run_length_bomb_is_refused() -> None:
    dataset = dicom_dataset(EIGHT, RLELossless)
    segments = struct.pack("<16I", 1, 64, *[0] * 14) + b"\x81\x00" * 50_000
    dataset.PixelData = encapsulate([segments])
    assert refusal(file_bytes(dataset)).code in ("size_mismatch", "corrupt")


def test_deeply_nested_sequences_are_refused() -> None:
    head = dicom_bytes(TWELVE, ImplicitVRLittleEndian)
    end = 144 + struct.unpack_from("<I", head, 140)[0]
    nest = struct.pack("<HHI", 0x0008, 0x1140, 0xFFFFFFFF) + struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    assert refusal(head[:end] + nest * 20_000).code in ("corrupt", "no_pixel_data", "truncated")


def test_a_syntax_that_is_not_read_is_refused_by_name() -> None:
    dataset = dicom_dataset(TWELVE)
    dataset.PixelData = encapsulate([bytes(100)])
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = MPEG2MPML
    error = refusal(file_bytes(dataset))
    assert error.code == "unsupported_transfer_syntax"
    assert "MPEG2" in error.reason


def test_floating_point_pixels_are_refused() -> None:
    dataset = dicom_dataset(TWELVE)
    del dataset.PixelData
    dataset.FloatPixelData = TWELVE.astype("<f4").tobytes()
    assert refusal(file_bytes(dataset)).code == "unsupported_depth"


def test_a_header_without_pixels_is_refused() -> None:
    dataset = dicom_dataset(TWELVE)
    del dataset.PixelData
    assert refusal(file_bytes(dataset)).code == "no_pixel_data"


@pytest.mark.parametrize("elements", [{}, {"WindowCenter": 50, "WindowWidth": 100}, {"RescaleSlope": 2}])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_constant_image_is_refused(elements: dict, dtype: type) -> None:
    if elements.get("RescaleSlope"):
        elements = {**elements, "RescaleIntercept": 0}
    assert refusal(dicom_bytes(np.full((64, 64), 7, dtype), **elements)).code == "constant_image"


def test_an_image_of_nothing_but_padding_and_one_value_is_refused() -> None:
    pixels = np.full((64, 64), 7, np.uint16)
    pixels[:32] = 0
    assert refusal(dicom_bytes(pixels, PixelPaddingValue=0)).code == "constant_image"


# --- files without a preamble ------------------------------------------------------------------------


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_a_data_set_without_preamble_and_meta_header_is_read(syntax: UID) -> None:
    whole = dicom_bytes(TWELVE, syntax, BitsStored=12)
    bare = whole[144 + struct.unpack_from("<I", whole, 140)[0] :]
    assert bare[:2] == b"\x08\0"
    assert np.array_equal(decode_image(bare, CONFIG).pixels, decode_image(whole, CONFIG).pixels)


def test_a_meta_header_without_preamble_is_read() -> None:
    whole = dicom_bytes(TWELVE, BitsStored=12)
    assert np.array_equal(decode_image(whole[132:], CONFIG).pixels, decode_image(whole, CONFIG).pixels)


# --- tags --------------------------------------------------------------------------------------------


def test_only_coded_facts_and_the_patient_id_are_kept() -> None:
    image = decode(TWELVE, BurnedInAnnotation="NO", PixelSpacing=[0.2, 0.3])
    tags = image.tags
    assert (tags.view, tags.sex, tags.age, tags.modality, tags.burned_in) == ("PA", "F", 62, "DX", False)
    assert tags.pixel_spacing_mm == (0.2, 0.3)
    assert image.patient_id == "HOSP-0042"


def test_missing_and_free_text_tags_are_none() -> None:
    image = decode(
        TWELVE,
        PatientSex="DOE",
        PatientAge=None,
        ViewPosition=None,
        PatientID="",
        ImagerPixelSpacing=[0, 0],
        BurnedInAnnotation="MAYBE",
    )
    assert image.tags.sex is None
    assert image.tags.age is None
    assert image.tags.view is None
    assert image.tags.pixel_spacing_mm is None
    assert image.tags.burned_in is None
    assert image.patient_id is None


@pytest.mark.parametrize(
    ("written", "years"),
    [
        ("062Y", 62),
        ("62", 62),
        ("090Y", 90),
        ("091Y", 90),
        ("120Y", 90),
        ("411Y", None),
        ("018M", 1),
        ("010W", 0),
        ("400D", 1),
        ("", None),
        ("62 years", None),
        ("-5Y", None),
    ],
)
def test_ages_are_in_years_and_capped_at_ninety(written: str, years: int | None) -> None:
    assert age_in_years(written) == years


def test_the_parser_never_sees_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[pydicom.Dataset] = []
    real = dicom_parser.read_partial
    monkeypatch.setattr(
        dicom_parser, "read_partial", lambda *args, **options: seen.append(real(*args, **options)) or seen[0]
    )
    decode(TWELVE)
    assert "PatientID" in seen[0]
    assert not {"PatientName", "PatientBirthDate", "SeriesDescription"} & set(seen[0].dir())


def test_writing_and_reading_again_is_not_what_makes_these_tests_pass() -> None:
    """The samples are valid DICOM to an independent reader."""
    dataset = pydicom.dcmread(io.BytesIO(dicom_bytes(TWELVE, BitsStored=12)))
    assert np.array_equal(dataset.pixel_array, TWELVE)
