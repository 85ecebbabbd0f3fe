"""What a DICOM header says: is this one frontal chest radiograph, and the coded facts to keep."""

import math
import re
from typing import Any

import pydicom
from pydicom.multival import MultiValue
from pydicom.uid import UID

from penumo_assets.configs.prepare import DecodeConfig
from penumo_assets.imaging.errors import ImageRejected
from penumo_assets.imaging.formats.decoded import Tags
from penumo_assets.imaging.formats.dicom_parser import MAX_ALTERNATIVES
from penumo_assets.imaging.person import age_as_written, sex_code
from penumo_assets.imaging.view import view_code

# Of DICOM's list, and what programs write that do not keep to it: digital radiography, X-ray, rayos X.
_RADIOGRAPH = re.compile(
    r"CR|DX|RG|RF|XA|OT|SC|DF|[CDFR]?XR|[CD]R[DX]?|RX|RAD|(CHEST|DIGITAL|PLAIN)?[ _-]*X[ _-]*RAYS?|"
    r"((CHEST|COMPUTED|DIGITAL|PLAIN)[ _-]*)?RADIO(GRAPHY|GRAPH|GRAFIA|GRAPHIE)"
)
# Computed and digital X-ray, angiography and fluoroscopy: their images are projections, whatever else is said.
_PROJECTION_CLASSES = frozenset(f"1.2.840.10008.5.1.4.1.1.{number}" for number in ("1", "1.1", "1.1.1", "12.1", "12.2"))
_UNPROCESSED = "1.2.840.10008.5.1.4.1.1.1.1.1"  # digital X-ray for processing
# Classes of other images, for files without a modality.
_OTHER_CLASSES = re.compile(r"1\.2\.840\.10008\.5\.1\.4\.1\.1\.(2|4|3|6|20|128|130|77|66|1\.2|1\.3|13)(\.[0-9]+)*")
_NAMED_MODALITIES = frozenset(
    {"CT", "MR", "US", "NM", "PT", "SR", "PR", "KO", "SEG", "ES", "GM", "SM", "XC", "DOC", "ECG", "OP", "BMD"}
    | {"IVUS", "HD", "RTIMAGE", "RTPLAN", "RTDOSE", "RTSTRUCT"}
)
_OTHER_RADIOGRAPHS = {"MG": "a mammogram", "PX": "a panoramic dental X-ray", "IO": "an intra-oral X-ray"}

# Body parts of DICOM PS3.16 annex L that are not the chest; anything unknown is given the benefit of
# the doubt, because the field is free in practice ("THORAX PA", "TORAX", "UNKNOWN").
_NOT_CHEST = re.compile(
    r"^(L|R|LEFT|RIGHT|BILATERAL)?(ABDOMEN|PELVIS|ABDOMENPELVIS|HIP|HIPS|HAND|FINGER|THUMB|WRIST|FOREARM|ELBOW|"
    r"HUMERUS|UPPERARM|ARM|SHOULDER|SCAPULA|EXTREMITY|(UP|UPPER|LOW|LOWER)EXTREMITY|LEG|(UPPER|LOWER)LEG|FEMUR|THIGH|"
    r"KNEE|PATELLA|TIBIA|FIBULA|TIBIAFIBULA|CALF|ANKLE|FOOT|FEET|TOE|CALCANEUS|HEEL|HEAD|SKULL|BRAIN|FACE|JAW|MANDIBLE|"
    r"MAXILLA|TEETH|TOOTH|SINUS|SINUSES|PARANASALSINUS|NOSE|ORBIT|EYE|EAR|ZYGOMA|TMJ|NECK|BREAST|SPINE|[CLST]+SPINE|"
    r"CERVICALSPINE|LUMBARSPINE|THORACICSPINE|SACRUM|COCCYX|SIJOINT|KIDNEY|BLADDER|UTERUS|COLON|STOMACH|LIVER)S?$"
)
_LATERAL_CODES = frozenset({"399067008", "399173006", "399198007", "R-10228", "R-10232", "R-10236"})

# Around a code or a text spaces mean nothing (PS3.5 table 6.2-1); some programs pad with zeros or end lines.
PADDING = " \0\t\r\n"
_SQUARE = 1.1  # sides of pixels that differ by less are as much as square

_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"  # its multi-frame kinds begin alike


def refuse_other_images(dataset: pydicom.Dataset, config: DecodeConfig) -> None:
    """Refuse what is not one frontal chest radiograph, by what the header says.

    Raises
    ------
    ImageRejected
        ``not_a_radiograph``, ``unknown_modality``, ``not_chest``, ``multi_frame`` or ``lateral_view``.
    """
    modality = text(dataset, "Modality")
    if modality in _OTHER_RADIOGRAPHS:
        raise ImageRejected("not_chest", f"the header says that this is {_OTHER_RADIOGRAPHS[modality]}.")
    kind = _sop_class(dataset)
    if modality in _NAMED_MODALITIES or (not modality and _OTHER_CLASSES.fullmatch(kind)):
        known = f" (modality {modality})" if modality else ""
        raise ImageRejected("not_a_radiograph", f"the header says that this is no projection X-ray{known}.")
    if modality and not _RADIOGRAPH.fullmatch(modality) and kind not in _PROJECTION_CLASSES | {_UNPROCESSED}:
        raise ImageRejected(
            "unknown_modality",
            "the header names a modality that is not known; those of X-rays are CR, DX, RG, RF, XA, OT and SC.",
        )
    frames = value(dataset, "NumberOfFrames")
    if frames is not None and int(frames) > 1:
        raise ImageRejected("multi_frame", f"the file holds {int(frames)} frames; export one image per file.")
    body_part = re.sub(r"[^A-Z]", "", text(dataset, "BodyPartExamined"))
    if _NOT_CHEST.match(body_part):
        raise ImageRejected("not_chest", "the header names a body part that is not the chest.")
    if config.reject_lateral and view(dataset) == "LATERAL":
        raise ImageRejected("lateral_view", "the header says that this is a lateral view; frontal views are used.")


def read_tags(dataset: pydicom.Dataset) -> Tags:
    """The coded facts of a header; anything that is not one of the known codes is dropped."""
    sex, burned_in, modality = (text(dataset, name) for name in ("PatientSex", "BurnedInAnnotation", "Modality"))
    return Tags(
        view=view(dataset),
        sex=sex_code(sex),
        age=age_as_written(text(dataset, "PatientAge")),
        modality=modality if _RADIOGRAPH.fullmatch(modality) else None,
        pixel_spacing_mm=_spacing(dataset),
        burned_in={"YES": True, "NO": False}.get(burned_in),
    )


def identity_notes(dataset: pydicom.Dataset) -> tuple[str, ...]:
    """What in the picture itself may identify somebody, beside annotation that the header owns up to.

    ``recognizable_visual_features``, and ``secondary_capture``: a screenshot or a scan, which often shows a name,
    unless its header denies that annotation is burned in.
    """
    notes = ["recognizable_visual_features"] if text(dataset, "RecognizableVisualFeatures") == "YES" else []
    captured = text(dataset, "Modality") == "SC" or _sop_class(dataset).startswith(_SECONDARY_CAPTURE)
    denied = text(dataset, "BurnedInAnnotation") == "NO"
    return (*notes, "secondary_capture") if captured and not denied else tuple(notes)


def presentation_notes(dataset: pydicom.Dataset) -> tuple[str, ...]:
    """What makes the picture look otherwise than others, by the header.

    ``for_processing``: it holds a detector's raw values; ``presentation:contradictory``: PresentationLUTShape inverts
    what the photometric interpretation does not, or the other way round, so that other programs show the negative;
    ``orientation:turned`` and ``orientation:mirrored``: rows do not run to the patient's left and columns to the feet;
    ``pixels:not_square``: by more than a tenth.
    """
    notes = []
    if text(dataset, "PresentationIntentType") == "FOR PROCESSING" or _sop_class(dataset) == _UNPROCESSED:
        notes.append("for_processing")
    pair = (text(dataset, "PhotometricInterpretation"), text(dataset, "PresentationLUTShape"))
    if pair in (("MONOCHROME2", "INVERSE"), ("MONOCHROME1", "IDENTITY")):
        notes.append("presentation:contradictory")
    directions = texts(dataset, "PatientOrientation")
    if len(directions) == 2 and all(each[:1] in tuple("LRHF") for each in directions):
        towards = "".join(each[0] for each in directions)
        if towards != "LF":
            notes.append("orientation:mirrored" if towards == "RF" else "orientation:turned")
    for keyword in ("PixelAspectRatio", "PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"):
        sides = numbers(dataset, keyword)
        if len(sides) == 2 and min(sides) > 0 and max(sides) > _SQUARE * min(sides):
            return (*notes, "pixels:not_square")
    return tuple(notes)


def view(dataset: pydicom.Dataset) -> str | None:
    """The projection, from ViewPosition, else ViewCodeSequence, else PatientOrientation."""
    position = text(dataset, "ViewPosition")
    if position:
        return view_code(position)
    codes = value(dataset, "ViewCodeSequence")
    if codes:
        code = str(codes[0].get("CodeValue") or "").strip()
        known = {"399348003": "AP", "R-10206": "AP", "272479007": "PA", "R-10214": "PA"}
        return "LATERAL" if code in _LATERAL_CODES else known.get(code)
    # Rows that run from front to back, or back to front, are only seen from the side.
    if text(dataset, "PatientOrientation")[:1] in ("A", "P"):
        return "LATERAL"
    return None


def value(dataset: pydicom.Dataset, keyword: str) -> Any:
    """An element's value, the first of several; ``None`` when it is absent, empty or malformed."""
    try:
        found = dataset.get(keyword)
        if isinstance(found, (MultiValue, list, tuple)):
            found = found[0] if len(found) else None
    except Exception:  # pydicom raises a dozen types for malformed values; all mean that it is unusable
        return None
    return None if found == "" else found


def text(dataset: pydicom.Dataset, keyword: str) -> str:
    """The first value of an element, as upper-case text without padding; empty when absent."""
    found = value(dataset, keyword)
    return "" if found is None else str(found).strip(PADDING).upper()


def texts(dataset: pydicom.Dataset, keyword: str) -> list[str]:
    """The first values of an element, each as `text` gives one."""
    return [str(each).strip(PADDING).upper() for each in _values(dataset, keyword)]


def numbers(dataset: pydicom.Dataset, keyword: str) -> list[float]:
    """The first values of an element as numbers, NaN for what is none; nothing when it is absent or malformed."""
    return [_number(each) for each in _values(dataset, keyword)]


def _values(dataset: pydicom.Dataset, keyword: str) -> list[Any]:
    try:
        found = dataset.get(keyword)
    except Exception:  # as in `value`
        found = None
    if found is None or found == "":
        return []
    return list(found)[:MAX_ALTERNATIVES] if isinstance(found, (MultiValue, list, tuple)) else [found]


def _number(found: Any) -> float:
    try:
        return float(found)
    except (TypeError, ValueError):
        return math.nan


def patient_id(dataset: pydicom.Dataset) -> str | None:
    """The patient id as it stands in the header, ``None`` when it is empty."""
    found = value(dataset, "PatientID")
    return (str(found).strip(PADDING) or None) if found is not None else None


def transfer_syntax(dataset: pydicom.Dataset) -> UID:
    return dataset.file_meta.TransferSyntaxUID


def _sop_class(dataset: pydicom.Dataset) -> str:
    """The kind of image, by the data set, else by the file's head, unless nothing is there that the head speaks of."""
    of_file = text(dataset.file_meta, "MediaStorageSOPClassUID") if "Rows" in dataset else ""
    return text(dataset, "SOPClassUID") or of_file


def _spacing(dataset: pydicom.Dataset) -> tuple[float, float] | None:
    for keyword in ("PixelSpacing", "ImagerPixelSpacing"):
        sides = numbers(dataset, keyword)
        if len(sides) == 2 and all(0 < side < 100 for side in sides):
            return sides[0], sides[1]
    return None
