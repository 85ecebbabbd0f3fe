"""DICOM films as people have them, after public reports: each is shown right, or flagged for what it is.

Every film is drawn and written here. The right picture is the phantom under its full window of 12 bits, or under the
percentile window where the header's own window does not show it.
"""

import struct

import cv2
import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    CTImageStorage,
    DigitalXRayImageStorageForProcessing,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
)

from penumo_assets.configs.prepare import DecodeConfig
from penumo_assets.imaging.decode import DecodedImage, decode_image
from penumo_assets.imaging.errors import ImageRejected
from penumo_assets.phantoms import draw_phantom
from penumo_assets_tests.imaging.samples import dicom_dataset, file_bytes, jpeg_bytes

CONFIG = DecodeConfig()
FILM = draw_phantom(7, height=160, width=160)[0]
EIGHT = (FILM >> 4).astype(np.uint8)
FULL = {"BitsStored": 12, "WindowCenter": 2048, "WindowWidth": 4096}
SQUARE = {"ImagerPixelSpacing": [0.14, 0.14]}


def film(pixels: np.ndarray = FILM, syntax: UID = ExplicitVRLittleEndian, **elements: object) -> DecodedImage:
    return decode_image(file_bytes(dicom_dataset(pixels, syntax, **{**SQUARE, "BitsStored": 12, **elements})), CONFIG)


def brightness(image: DecodedImage) -> np.ndarray:
    return image.pixels / np.iinfo(image.pixels.dtype).max


def assert_shown(image: DecodedImage, tolerance: float = 1e-4) -> None:
    """As the phantom is under its full window."""
    assert np.abs(brightness(image) - FILM / 4095).max() <= tolerance


def assert_percentile(image: DecodedImage, *flags: str) -> None:
    """As the phantom is under its percentile window, and flagged."""
    low, high = np.percentile(FILM, [0.5, 99.5], method="inverted_cdf")
    expected = np.clip((FILM - float(low)) / (float(high) - low), 0, 1)
    assert np.corrcoef(brightness(image).ravel(), expected.ravel())[0, 1] > 0.999
    assert {*flags, "window:percentile"} <= set(image.notes)


def table(entries: np.ndarray, first: int = 0, bits: int = 16, vr: str = "US") -> pydicom.Dataset:
    item = pydicom.Dataset()
    item.LUTDescriptor = [len(entries) % 65536, first, bits]
    item["LUTDescriptor"].VR = "SS" if first < 0 else "US"
    item.LUTData = [int(entry) for entry in entries]
    item["LUTData"].VR = vr
    item.ModalityLUTType = "US"
    return item


def words(entries: np.ndarray, order: str) -> pydicom.Dataset:
    """A table whose entries are bytes, as OW has them."""
    item = table(entries)
    item.add_new("LUTData", "OW", entries.astype(f"{order}u2").tobytes())
    return item


# --- windows and tables that do not show the film ------------------------------------------------------


@pytest.mark.parametrize(
    "elements",
    [
        {"WindowCenter": 128, "WindowWidth": 256},
        {"WindowCenter": 128, "WindowWidth": 256, "VOILUTFunction": "LINEAR_EXACT"},
        {"WindowCenter": 128, "WindowWidth": 256, "VOILUTFunction": "SIGMOID"},
        {"WindowCenter": 40000, "WindowWidth": 2000},
        {"WindowCenter": -3000, "WindowWidth": 500},
        {"WindowCenter": 2048, "WindowWidth": 1},
        {"WindowCenter": 2048, "WindowWidth": 0.5, "VOILUTFunction": "LINEAR_EXACT"},
        {"WindowCenter": 32768, "WindowWidth": 65536},
        {"WindowCenter": [128, 40000], "WindowWidth": [256, 10]},
    ],
)
@pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1"])
def test_a_window_that_does_not_show_the_film_is_flagged(elements: dict, photometric: str) -> None:
    pixels = FILM if photometric == "MONOCHROME2" else (4095 - FILM).astype(np.uint16)
    if photometric == "MONOCHROME1":
        center = np.atleast_1d(elements["WindowCenter"])
        elements = elements | {"WindowCenter": [float(each) for each in 4095 - center]}
    assert_percentile(film(pixels, PhotometricInterpretation=photometric, **elements), "voi:unusable")


@pytest.mark.parametrize("padding", [None, 0])
def test_a_window_that_shows_nothing_but_padding_or_one_pixel_is_flagged(padding: int | None) -> None:
    pixels = (FILM.astype(np.uint32) * 12 + 10_000).astype(np.uint16)
    pixels[:1, : 1 if padding is None else 160] = 0
    elements = {} if padding is None else {"PixelPaddingValue": padding}
    image = film(pixels, BitsStored=16, WindowCenter=3174, WindowWidth=2426, **elements)
    assert {"voi:unusable", "window:percentile"} <= set(image.notes)
    assert np.corrcoef(brightness(image)[1:].ravel(), FILM[1:].ravel())[0, 1] > 0.99


@pytest.mark.parametrize("function", ["LINEAR", "SIGMOID"])
@pytest.mark.parametrize("syntax", [JPEGBaseline8Bit, ExplicitVRLittleEndian])
def test_eight_bits_under_a_window_of_twelve_are_flagged(function: str, syntax: UID) -> None:
    window = {"WindowCenter": 2048, "WindowWidth": 4096, "VOILUTFunction": function}
    image = film(EIGHT, syntax, **(window | {"BitsStored": 8}))
    assert_percentile(image, "voi:unusable")


def test_a_window_of_a_film_with_large_black_borders_is_kept() -> None:
    bordered = np.zeros((320, 320), np.uint16)
    bordered[80:240, 80:240] = FILM
    assert film(bordered, **FULL).notes == ("voi:linear",)
    narrow = film(WindowCenter=1900, WindowWidth=2400)
    assert narrow.notes == ("voi:linear",)


@pytest.mark.parametrize(
    ("centers", "widths", "choice"), [([2048, 128], [4096, 256], 1), ([128, 2048], [256, 4096], 2)]
)
def test_of_several_windows_the_first_that_shows_the_film_is_used(centers: list, widths: list, choice: int) -> None:
    image = film(WindowCenter=centers, WindowWidth=widths)
    assert_shown(image)
    assert image.notes == ("voi:linear", *(["voi:choice_2"] if choice == 2 else []))


def test_a_table_that_does_not_show_the_film_gives_way_to_the_window() -> None:
    white = table(np.full(4096, 4095))
    image = film(**FULL, VOILUTSequence=Sequence([white]))
    assert_shown(image)
    assert image.notes == ("voi:linear", "voi:choice_2")


def test_a_window_without_numbers_is_flagged() -> None:
    data = file_bytes(dicom_dataset(FILM, BitsStored=12, WindowCenter=2048, WindowWidth=4096, **SQUARE))
    assert data.count(b"DS\x06\x004096.0") == 1
    data = data.replace(b"DS\x06\x004096.0", b"DS\x06\x00wide  ")
    assert {"voi:invalid", "window:percentile"} <= set(decode_image(data, CONFIG).notes)


# --- tables --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["LUTData", "LUTDescriptor"])
@pytest.mark.parametrize("sequence", ["VOILUTSequence", "ModalityLUTSequence"])
def test_an_item_without_a_table_is_ignored_and_noted(missing: str, sequence: str) -> None:
    item = table(np.arange(4096))
    setattr(item, missing, None)
    image = film(**FULL, **{sequence: Sequence([item])})
    assert_shown(image)
    assert image.notes == (f"{sequence[: -len('LUTSequence')].lower()}:lut_ignored", "voi:linear")


@pytest.mark.parametrize("sequence", ["VOILUTSequence", "ModalityLUTSequence"])
@pytest.mark.parametrize(
    ("syntax", "kind"),
    [(syntax, kind) for syntax in (ExplicitVRBigEndian, ExplicitVRLittleEndian) for kind in ("OW", "US")]
    + [(ImplicitVRLittleEndian, "OW")],
)
def test_a_table_is_read_in_the_files_byte_order(syntax: UID, kind: str, sequence: str) -> None:
    entries = np.arange(4096)[::-1].copy()
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    item = words(entries, order) if kind == "OW" else table(entries)
    window = {} if sequence == "VOILUTSequence" else FULL
    image = film((4095 - FILM).astype(np.uint16), syntax, **window, **{sequence: Sequence([item])})
    assert_shown(image)


@pytest.mark.parametrize("first", [-2048, 65536 - 2048])
@pytest.mark.parametrize("sequence", ["VOILUTSequence", "ModalityLUTSequence"])
def test_a_table_may_begin_below_zero(first: int, sequence: str) -> None:
    signed = FILM.astype(np.int16) - 2048
    window = {} if sequence == "VOILUTSequence" else FULL
    assert_shown(film(signed, **window, **{sequence: Sequence([table(np.arange(4096), first)])}))


def test_a_table_of_no_entries_has_65536() -> None:
    image = film(BitsStored=16, VOILUTSequence=Sequence([table(np.minimum(np.arange(65536), 4095))]))
    assert_shown(image)


@pytest.mark.parametrize("order", ["<", ">"])
def test_entries_of_eight_bits_may_be_packed_two_to_a_word(order: str) -> None:
    item = table(np.arange(4096) >> 4, bits=8)
    packed = (np.arange(4096) >> 4).astype(np.uint8).view("<u2")
    item.add_new("LUTData", "OW", packed.astype(f"{order}u2").tobytes())
    syntax = ExplicitVRBigEndian if order == ">" else ExplicitVRLittleEndian
    assert_shown(film(FILM, syntax, VOILUTSequence=Sequence([item])), 1 / 255)


@pytest.mark.parametrize("syntax", [ExplicitVRBigEndian, ExplicitVRLittleEndian])
def test_a_palette_is_read_in_the_files_byte_order(syntax: UID) -> None:
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    dataset = dicom_dataset(EIGHT, syntax, PhotometricInterpretation="PALETTE COLOR", **SQUARE)
    entries = (np.arange(256) * 257).astype(f"{order}u2").tobytes()
    for name in ("Red", "Green", "Blue"):
        setattr(dataset, f"{name}PaletteColorLookupTableDescriptor", [256, 0, 16])
        dataset[f"{name}PaletteColorLookupTableDescriptor"].VR = "US"
        setattr(dataset, f"{name}PaletteColorLookupTableData", entries)
    image = decode_image(file_bytes(dataset), CONFIG)
    assert np.array_equal(image.pixels, EIGHT.astype(np.uint16) * 257)


# --- what a header says of the film --------------------------------------------------------------------


@pytest.mark.parametrize("modality", ["DR", "XR", "RX", "CXR", "dr ", "", None, "DIGITAL"])
def test_a_projection_is_a_radiograph_whatever_its_modality_is_called(modality: str | None) -> None:
    assert_shown(film(**FULL, Modality=modality))


def test_an_image_without_modality_is_judged_by_its_class() -> None:
    with pytest.raises(ImageRejected) as error:
        film(**FULL, Modality=None, SOPClassUID=CTImageStorage)
    assert error.value.code == "not_a_radiograph"


@pytest.mark.parametrize("photometric", [" MONOCHROME2", "MONOCHROME2 ", "  monochrome2  ", "MONOCHROME2\0"])
def test_spaces_around_a_code_mean_nothing(photometric: str) -> None:
    assert_shown(film(**FULL, PhotometricInterpretation=photometric))


@pytest.mark.parametrize(
    ("photometric", "shape", "flagged"),
    [
        ("MONOCHROME2", "INVERSE", True),
        ("MONOCHROME1", "IDENTITY", True),
        ("MONOCHROME2", "IDENTITY", False),
        ("MONOCHROME1", "INVERSE", False),
    ],
)
def test_a_presentation_shape_that_contradicts_the_photometric_interpretation_is_flagged(
    photometric: str, shape: str, flagged: bool
) -> None:
    image = film(**FULL, PhotometricInterpretation=photometric, PresentationLUTShape=shape)
    assert ("presentation:contradictory" in image.notes) is flagged


@pytest.mark.parametrize(
    "elements",
    [{"PresentationIntentType": "FOR PROCESSING"}, {"SOPClassUID": DigitalXRayImageStorageForProcessing}],
)
def test_raw_detector_values_are_flagged(elements: dict) -> None:
    assert "for_processing" in film(**FULL, **elements).notes
    assert "for_processing" not in film(**FULL, PresentationIntentType="FOR PRESENTATION").notes


@pytest.mark.parametrize(
    ("orientation", "note"),
    [("LF", None), ("LH", "turned"), ("RH", "turned"), ("FL", "turned"), ("RF", "mirrored")],
)
def test_rows_and_columns_that_do_not_run_to_the_left_and_to_the_feet_are_flagged(
    orientation: str, note: str | None
) -> None:
    notes = film(**FULL, PatientOrientation=list(orientation)).notes
    assert [each for each in notes if each.startswith("orientation")] == ([f"orientation:{note}"] if note else [])


@pytest.mark.parametrize(
    ("elements", "flagged"),
    [
        ({"PixelAspectRatio": [2, 1]}, True),
        ({"PixelAspectRatio": [1, 1]}, False),
        ({"PixelSpacing": [0.2, 0.1]}, True),
        ({"ImagerPixelSpacing": [0.1, 0.125]}, True),
        ({"ImagerPixelSpacing": [0.14, 0.1401]}, False),
    ],
)
def test_pixels_that_are_not_square_are_flagged(elements: dict, flagged: bool) -> None:
    assert ("pixels:not_square" in film(**FULL, **elements).notes) is flagged


# --- bits ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("high_bit", [0, 7, 15, 200])
def test_a_wrong_high_bit_is_ignored_and_noted(high_bit: int) -> None:
    image = film(**FULL, HighBit=high_bit)
    assert_shown(image)
    assert "high_bit:ignored" in image.notes


def test_samples_that_lie_at_the_top_of_their_containers_are_read_there() -> None:
    image = film((FILM << 4).astype(np.uint16), **FULL, HighBit=15)
    assert_shown(image)
    assert image.notes == ("voi:linear",)


@pytest.mark.parametrize("window", [{}, {"WindowCenter": 512, "WindowWidth": 1024}])
def test_values_above_the_stored_bits_are_shown_and_flagged(window: dict) -> None:
    assert_percentile(film(BitsStored=10, **window), "bits:beyond_stored")


def test_an_overlay_above_the_stored_bits_is_left_out_and_flagged() -> None:
    drawn = FILM.copy()
    drawn[::7, ::5] |= 1 << 13
    image = film(drawn, **FULL)
    assert_shown(image)
    assert "bits:beyond_stored" in image.notes


@pytest.mark.parametrize("extended", [True, False])
def test_the_sign_above_the_stored_bits_is_no_use_of_them(extended: bool) -> None:
    signed = FILM.astype(np.int16) - 2048
    image = film(signed if extended else (signed & 0x0FFF), BitsStored=12, WindowCenter=0, WindowWidth=4096)
    assert_shown(image, 2e-4)
    assert image.notes == ("voi:linear",)


@pytest.mark.parametrize(("padding", "signed"), [(0xFFFF, False), (63536, False), (-2000, True), (-32768, True)])
def test_padding_may_lie_beyond_the_stored_bits(padding: int, signed: bool) -> None:
    kind = np.int16 if signed else np.uint16
    pixels = FILM.astype(kind)
    pixels[:40] = np.array(padding & 0xFFFF, np.uint16).astype(kind)
    dataset = dicom_dataset(pixels, **SQUARE, BitsStored=12 if not signed else 13, HighBit=12 if signed else 11)
    dataset.add_new("PixelPaddingValue", "SS" if signed else "US", padding)
    image = decode_image(file_bytes(dataset), CONFIG)
    assert not image.pixels[:40].any()
    assert np.corrcoef(image.pixels[40:].ravel(), FILM[40:].ravel())[0, 1] > 0.99
    assert image.notes == ("window:percentile",)


# --- compressed pictures -------------------------------------------------------------------------------


def coded(stream: bytes, syntax: UID, offsets: bytes = b"", fragments: int = 1, **elements: object) -> DecodedImage:
    """A film of that stream, in fragments behind a table of offsets."""
    bits = {JPEGBaseline8Bit: 8}.get(syntax, 12)
    pixels = EIGHT if bits == 8 else FILM
    if elements.get("SamplesPerPixel") == 3:
        pixels = np.dstack((pixels,) * 3)
    dataset = dicom_dataset(pixels, BitsStored=bits, **SQUARE, **elements)
    if bits == 12:
        dataset.WindowCenter, dataset.WindowWidth = 2048, 4096
    size = -(-len(stream) // fragments + 1) // 2 * 2
    parts = [stream[at : at + size] for at in range(0, len(stream), size)]
    parts[-1] += b"\0" * (len(parts[-1]) % 2)
    items = [struct.pack("<HHI", 0xFFFE, 0xE000, len(part)) + part for part in (offsets, *parts)]
    dataset.PixelData = b"".join(items) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
    dataset.file_meta.TransferSyntaxUID = syntax
    return decode_image(file_bytes(dataset), CONFIG)


def stream_of(syntax: UID) -> bytes:
    dataset = dicom_dataset(FILM, syntax, BitsStored=12)
    return pydicom.encaps.get_frame(dataset.PixelData, 0, number_of_frames=1)


@pytest.mark.parametrize("zeros", [1, 2, 3])
def test_zero_bytes_before_the_end_of_a_jpeg_ls_picture_are_no_damage(zeros: int) -> None:
    stream = stream_of(JPEGLSLossless).rstrip(b"\0")
    assert_shown(coded(stream[:-2] + bytes(zeros) + stream[-2:], JPEGLSLossless))


@pytest.mark.parametrize("fragments", [1, 2, 5])
def test_one_frame_needs_no_table_of_offsets(fragments: int) -> None:
    stream = jpeg_bytes(EIGHT)
    size = -(-len(stream) // fragments + 1) // 2 * 2
    offsets = struct.pack(f"<{fragments}I", *((size + 8) * number for number in range(fragments)))
    for wrong in (offsets, bytes(4 * fragments), struct.pack("<I", 0xFFFFFFF0), b"\1\2\3\4\5\6"):
        image = coded(stream, JPEGBaseline8Bit, wrong, fragments)
        assert np.abs(image.pixels.astype(int) - EIGHT).max() < 20


def test_the_components_of_a_jpeg_say_what_they_are_where_its_header_is_wrong() -> None:
    colour = cv2.imencode(".jpg", np.dstack((EIGHT,) * 3), [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
    at = colour.index(b"\xff\xe0")
    bare = colour[:at] + colour[at + 18 :]  # without the JFIF marker: components 1, 2, 3 alone
    wrong = coded(bare, JPEGBaseline8Bit, SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=0)
    as_file = decode_image(colour, CONFIG).pixels
    assert np.abs(wrong.pixels.astype(int) - as_file).max() <= 1
    renamed = bytearray(bare)
    for marker, first in ((b"\xff\xc0", 10), (b"\xff\xda", 5)):
        start = renamed.index(marker)
        step = 3 if marker == b"\xff\xc0" else 2
        for number in range(3):
            renamed[start + first + step * number] = number  # 0, 1, 2: nothing that says what they are
    labelled = coded(
        bytes(renamed), JPEGBaseline8Bit, SamplesPerPixel=3, PhotometricInterpretation="YBR_FULL", PlanarConfiguration=0
    )
    assert np.abs(labelled.pixels.astype(int) - as_file).max() <= 1


def test_colour_without_a_planar_configuration_is_colour_by_pixel() -> None:
    dataset = dicom_dataset(np.dstack((EIGHT,) * 3), **SQUARE)
    del dataset.PlanarConfiguration
    image = decode_image(file_bytes(dataset), CONFIG)
    assert np.abs(image.pixels.astype(int) - EIGHT).max() <= 1
    assert "planar:assumed" in image.notes
    stream = jpeg_bytes(np.dstack((EIGHT,) * 3))
    compressed = coded(stream, JPEGBaseline8Bit, SamplesPerPixel=3, PlanarConfiguration=None)
    assert compressed.notes == ()


def _psot(stream: bytes, change: int) -> bytes:
    at = stream.index(b"\xff\x90") + 6
    (length,) = struct.unpack_from(">I", stream, at)
    return stream[:at] + struct.pack(">I", length + change) + stream[at + 4 :]


@pytest.mark.parametrize(
    "change",
    [
        lambda stream: stream[:-2],
        lambda stream: stream[:-2] + b"\0\0",
        *(lambda stream, by=by: _psot(stream, by) for by in (-20, -2, 1, 2, 14, 100_000)),
    ],
)
def test_a_jpeg_2000_picture_with_wrong_lengths_is_whole_all_the_same(change) -> None:
    image = coded(change(stream_of(JPEG2000Lossless).rstrip(b"\0")), JPEG2000Lossless)
    assert_shown(image)
    assert "jpeg2000:mended" in image.notes


def test_a_jpeg_2000_picture_that_lacks_its_last_bytes_is_shown_and_flagged() -> None:
    stream = stream_of(JPEG2000Lossless).rstrip(b"\0")
    image = coded(stream[:-102] + stream[-2:], JPEG2000Lossless)
    assert np.corrcoef(image.pixels.ravel(), FILM.ravel())[0, 1] > 0.99
    assert "jpeg2000:mended" in image.notes
    with pytest.raises(ImageRejected):
        coded(stream[: len(stream) // 2] + stream[-2:], JPEG2000Lossless)


@pytest.mark.parametrize("syntax", [JPEGBaseline8Bit, JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless])
def test_the_first_bytes_of_a_picture_tell_its_compression(syntax: UID) -> None:
    assert_shown(coded(stream_of(JPEGLosslessSV1), syntax if syntax != JPEGBaseline8Bit else JPEGLosslessSV1))


# --- what is refused -----------------------------------------------------------------------------------


def refusal(dataset: pydicom.Dataset) -> ImageRejected:
    with pytest.raises(ImageRejected) as error:
        decode_image(file_bytes(dataset), CONFIG)
    return error.value


def test_reasons_are_true() -> None:
    short = table(np.arange(100))
    short.LUTDescriptor = [200, 0, 16]
    plain = {"BitsStored": 12, **SQUARE}
    found = [
        refusal(dicom_dataset(FILM, **plain, VOILUTSequence=Sequence([short]))),
        refusal(dicom_dataset(FILM, **plain, PhotometricInterpretation="YBR_PARTIAL_420")),
        refusal(dicom_dataset(FILM, **plain, Modality="CT")),
    ]
    assert [error.code for error in found] == ["bad_header", "unsupported_colour", "not_a_radiograph"]
    for error in found:
        assert not {"damaged", "compressed", "cut off"} & set(error.reason.replace(",", "").split())


def test_encapsulated_data_is_only_read_as_such() -> None:
    dataset = dicom_dataset(FILM, **SQUARE)
    dataset.PixelData = encapsulate([b"no picture at all"])
    dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
    dataset.file_meta.TransferSyntaxUID = JPEGLSLossless
    assert refusal(dataset).code == "corrupt"
