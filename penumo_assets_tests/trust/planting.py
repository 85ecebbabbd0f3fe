"""Films that name their patients wherever a file can: header, picture comments, file and folder names, labels.csv."""

import csv
import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path

import cv2
import numpy as np
import pydicom
from pydicom import config as pydicom_config
from pydicom._dicom_dict import DicomDictionary, RepeatersDictionary
from pydicom.dataelem import DataElement
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import JPEGBaseline8Bit

from penumo_assets.phantoms import draw_phantom, write_cohort
from penumo_assets_tests.imaging.samples import dicom_dataset
from penumo_assets_tests.trust.search import word

BIRTH_DATE, TIME = "19310213", "031337.313373"
NUMBERS = {"DS": "7309182736455463", "IS": "730918273645", "UI": "2.25.7309182736455463"}
# Beside the words: what a text of digits can be told by. "1931-02-13" is how a program would write the date.
DIGITS = (BIRTH_DATE, "1931-02-13", TIME, *NUMBERS.values())
_TEXT = ("AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT")
# What decoding needs; free text in these is planted in films of their own (`coded_elements`).
_NEEDED = frozenset(
    [
        "SpecificCharacterSet", "TransferSyntaxUID", "SOPClassUID", "MediaStorageSOPClassUID", "Modality",
        "PatientSex", "PatientAge", "BodyPartExamined", "ViewPosition", "ViewCodeSequence",
        "PatientOrientation", "ImagerPixelSpacing", "PixelSpacing", "BurnedInAnnotation",
        "PhotometricInterpretation", "NumberOfFrames", "WindowCenter", "WindowWidth", "VOILUTFunction",
        "VOILUTSequence", "OriginalAttributesSequence", "ModalityLUTSequence", "RescaleIntercept",
        "RescaleSlope", "PixelData"
    ]
)  # fmt: skip
_CODED = ("Modality", "PatientSex", "BodyPartExamined", "ViewPosition", "PatientOrientation", "BurnedInAnnotation")


_NESTED = ("ReferencedStudySequence", "RequestAttributesSequence", "OriginalAttributesSequence")
# Commands, directories, what only a real-time video stream has, pixels, and delimiters.
_NOT_IN_FILES = (0x0000, 0x0004, 0x0006, 0x7FE0, 0xFFFA, 0xFFFC, 0xFFFE)


@dataclass
class Planter:
    """Deals words out, one per place, and remembers the places."""

    places: dict[str, str] = field(default_factory=dict)

    def __call__(self, place: str) -> str:
        planted = word(len(self.places))
        self.places[planted] = place
        return planted


def plant_header(dataset: pydicom.Dataset, plant: Planter) -> None:
    """Write a word into every standard element of ``dataset`` that can hold one, into private and repeating groups."""
    for tag, (vr, _, name, _, keyword) in sorted(DicomDictionary.items()):
        meta = tag >> 16 == 0x0002
        if keyword in _NEEDED or not keyword or tag >> 16 in _NOT_IN_FILES or (meta and vr not in (*_TEXT, "UI")):
            continue
        value = _value(vr, f"{keyword} {name}", plant)
        if value is not None:
            (dataset.file_meta if meta else dataset).add(DataElement(tag, vr.replace("OB or OW", "OB"), value))
    for mask, (vr, *_, keyword) in sorted(RepeatersDictionary.items()):
        if vr in _TEXT:
            dataset.add(DataElement(int(mask.replace("x", "0"), 16), vr, plant(keyword)))
    block = dataset.private_block(0x0029, plant("private creator"), create=True)
    block.add_new(0x01, "LO", plant("private text"))
    block.add_new(0x02, "UN", plant("private bytes").encode())
    dataset.add(DataElement(0x00291099, "OB", plant("private element without its creator").encode()))
    item = pydicom.Dataset()
    plant_person(item, plant, "nested deepest: ")
    for keyword in _NESTED:
        outer = pydicom.Dataset()
        plant_person(outer, plant, f"{keyword}: ")
        setattr(outer, keyword, Sequence([item]))
        item = outer
    dataset.OriginalAttributesSequence = Sequence([item])


def plant_person(dataset: pydicom.Dataset, plant: Planter, place: str) -> None:
    dataset.PatientName = f"{plant(place + 'family name')}^{plant(place + 'given name')}"
    dataset.PatientAddress = f"{plant(place + 'street')} 7, {plant(place + 'town')}"
    dataset.PatientComments = plant(place + "comment")


def _value(vr: str, place: str, plant: Planter) -> object:
    if vr in _TEXT:
        return plant(place)
    if vr in ("OB", "UN", "OB or OW"):
        return plant(place).encode()
    if vr in ("DA", "TM", "DT"):
        return {"DA": BIRTH_DATE, "TM": TIME, "DT": BIRTH_DATE + TIME}[vr]
    if vr == "SQ":
        item = pydicom.Dataset()
        item.CodeMeaning = plant(f"{place}, nested")
        return Sequence([item])
    return NUMBERS.get(vr)


def coded_elements(plant: Planter) -> Iterator[tuple[str, dict[str, str]]]:
    """Free text in each of the elements that are read, by what it is written into."""
    for keyword in _CODED:
        yield keyword, {keyword: f"{'PA ' if keyword == 'ViewPosition' else ''}{plant(f'{keyword}, which is read')}"}


def picture(seed: int, side: int = 300) -> np.ndarray:
    film, _ = draw_phantom(seed, height=side, width=side)
    return (film >> 4).astype(np.uint8)


def png_with_comments(pixels: np.ndarray, plant: Planter) -> bytes:
    """A PNG whose tEXt, zTXt, iTXt and eXIf chunks name somebody."""
    texts = [
        (b"tEXt", b"Author\0" + plant("PNG tEXt").encode()),
        (b"zTXt", b"Comment\0\0" + zlib.compress(plant("PNG zTXt").encode())),
        (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + plant("PNG iTXt").encode()),
        (b"iTXt", b"Description\0\1\0\0\0" + zlib.compress(plant("PNG compressed iTXt").encode())),
        (b"eXIf", _exif(plant("PNG eXIf"))),
    ]
    encoded = cv2.imencode(".png", pixels)[1].tobytes()
    chunks = b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in texts
    )
    return encoded[:33] + chunks + encoded[33:]


def jpeg_with_comments(pixels: np.ndarray, plant: Planter) -> bytes:
    """A JPEG with a comment, EXIF, XMP and IPTC blocks that name somebody, and a trailer behind its end."""
    segments = [
        (0xFE, plant("JPEG comment").encode()),
        (0xE1, b"Exif\0\0" + _exif(plant("JPEG EXIF"))),
        (0xE1, b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta>" + plant("JPEG XMP").encode() + b"</x:xmpmeta>"),
        (0xED, b"Photoshop 3.0\x008BIM\x04\x04\0\0\0\0\0\x11\x1c\x02\x78\0\x0c" + plant("JPEG IPTC").encode()),
    ]
    encoded = cv2.imencode(".jpg", pixels)[1].tobytes()
    blocks = b"".join(b"\xff" + bytes([kind]) + struct.pack(">H", len(body) + 2) + body for kind, body in segments)
    return encoded[:2] + blocks + encoded[2:] + plant("behind a JPEG's end").encode()


def _exif(artist: str) -> bytes:
    """A TIFF block with one element, Artist."""
    text = artist.encode() + b"\0"
    return b"II*\0\x08\0\0\0\x01\0" + struct.pack("<HHII", 0x013B, 2, len(text), 26) + b"\0\0\0\0" + text


def write_planted_cohort(folder: Path, plant: Planter, patients: int) -> None:
    """A cohort of phantoms in DICOM with names planted everywhere, and one file for each way to be rejected."""
    write_cohort(folder, "ward", patients=patients, seed=3, dicom=True, broken=False)
    with (folder / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for number, row in enumerate(rows):
        name = f"{plant('folder name')}^Anna/{plant('file name')}_JANE_1931-02-13.dcm"
        _rename(folder, row["file"], name, plant)
        row |= {"file": name, "finding": plant("labels.csv finding"), "note": plant("labels.csv further column")}
        row["patient_id"] = f"{plant('labels.csv patient id of a DICOM file')}/{number // 2 if number < 2 else number}"
    _plant_into(folder / rows[0]["file"], plant)
    coded = [
        {**row, "file": name, "label": "", **extra}  # unlabelled: many of them show the same picture
        for row, (name, extra) in zip(cycle(rows), _further(folder, plant), strict=False)
    ]
    missing = rows[1] | {"file": f"{plant('name of a file that has not landed')}.dcm"}
    columns = [*rows[0], plant("labels.csv heading")]
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows([*rows, *coded, missing, rows[-1]])
        file.write(f"{_put(folder, plant, 'malformed_label', '.png', b'')},{plant('malformed patient id')}\n")


def _rename(folder: Path, old: str, new: str, plant: Planter) -> None:
    target = folder / new
    target.parent.mkdir(parents=True, exist_ok=True)
    (folder / old).rename(target)
    (folder / "masks" / f"{Path(old).stem}.png").rename(folder / "masks" / f"{target.stem}.png")


def _plant_into(path: Path, plant: Planter) -> None:
    mode = pydicom_config.settings.writing_validation_mode
    pydicom_config.settings.writing_validation_mode = pydicom_config.IGNORE
    try:
        dataset = pydicom.dcmread(path)
        plant_header(dataset, plant)
        dataset.save_as(path, enforce_file_format=True)
    finally:
        pydicom_config.settings.writing_validation_mode = mode


def _further(folder: Path, plant: Planter) -> Iterator[tuple[str, dict[str, str]]]:
    """Films and files of other kinds, most of them rejected: the name of each, and what labels.csv says of it."""
    gray = picture(11)
    sixteen = draw_phantom(12, height=300, width=300)[0].astype(np.uint16)
    for keyword, elements in coded_elements(plant):
        yield _put(folder, plant, keyword, ".dcm", _dicom(sixteen, plant, **elements)), {}
    yield _put(folder, plant, "burned in", ".dcm", _dicom(sixteen, plant, BurnedInAnnotation="YES")), {}
    coded = dicom_dataset(gray, JPEGBaseline8Bit)
    coded.PixelData = encapsulate([jpeg_with_comments(gray, plant)])
    yield _put(folder, plant, "JPEG in DICOM", ".dcm", _planted(coded, plant)), {}
    for code, elements in {
        "not_a_radiograph": {"Modality": "CT"},
        "not_chest": {"BodyPartExamined": "SKULL"},
        "lateral_view": {"ViewPosition": "LL"},
        "multi_frame": {"NumberOfFrames": 2},
        "unsupported_colour": {"PhotometricInterpretation": "CMYK"},
        "unsupported_transfer_syntax": {},
    }.items():
        data = _dicom(sixteen, plant, **elements)
        if code == "unsupported_transfer_syntax":
            data = data.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.9\0")
        yield _put(folder, plant, code, ".dcm", data), {}
    no_lung = np.tile(np.linspace(0, 255, 300).astype(np.uint8), (300, 1))
    png = png_with_comments(gray, plant)
    jpeg = jpeg_with_comments(picture(13), plant)
    pictures = {
        "PNG": (png, {"patient_id": "png-1"}),
        "JPEG": (jpeg, {"patient_id": "jpeg-1"}),
        "truncated": (png[: len(png) // 2], {}),
        "corrupt JPEG": (jpeg[:-3000] + jpeg[-2000:], {}),
        "too_small": (png_with_comments(gray[:16], plant), {}),
        "constant_image": (png_with_comments(np.zeros_like(gray), plant), {}),
        "implausible_mask": (png_with_comments(no_lung, plant), {"patient_id": "png-2"}),
        "second film of a patient": (png_with_comments(picture(14), plant), {"patient_id": "png-1"}),
        "unsafe_patient_id": (png, {"patient_id": f"{plant('unsafe patient id')} Jane"}),
        "unknown_label": (png, {"label": plant("unknown label")}),
        "view of labels.csv": (png, {"patient_id": "png-3", "view": f"LAT {plant('view')}", "sex": plant("sex")}),
        "not_an_image": (plant("text file").encode(), {}),
        "empty": (b"", {}),
    }
    for place, (data, said) in pictures.items():
        yield _put(folder, plant, place, ".png", data), said


def _put(folder: Path, plant: Planter, place: str, extension: str, data: bytes) -> str:
    name = f"{plant(f'name of a file: {place}')}{extension}"
    (folder / name).write_bytes(data)
    return name


def _dicom(pixels: np.ndarray, plant: Planter, **elements: object) -> bytes:
    return _planted(dicom_dataset(pixels, BitsStored=12, **elements), plant)


def _planted(dataset: pydicom.Dataset, plant: Planter) -> bytes:
    plant_person(dataset, plant, "rejected or coded film: ")
    dataset.PatientBirthDate, dataset.SeriesDescription = BIRTH_DATE, plant("series description")
    buffer = io.BytesIO()
    mode = pydicom_config.settings.writing_validation_mode
    pydicom_config.settings.writing_validation_mode = pydicom_config.IGNORE
    try:
        pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    finally:
        pydicom_config.settings.writing_validation_mode = mode
    return buffer.getvalue()
