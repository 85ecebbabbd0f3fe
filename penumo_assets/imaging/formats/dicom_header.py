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
from penumo_assets.imaging.view import view_code

_RADIOGRAPHS = frozenset({"CR", "DX", "RG", "RF", "XA", "OT", "SC", ""})
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

_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"  # its multi-frame kinds begin alike


def refuse_other_images(dataset: pydicom.Dataset, config: DecodeConfig) -> None:
    """Refuse what is not one frontal chest radiograph, by what the header says.

    Raises
    ------
    ImageRejected
        ``not_a_radiograph``, ``not_chest``, ``multi_frame`` or ``lateral_view``.
    """
    modality = text(dataset, "Modality")
    if modality in _OTHER_RADIOGRAPHS:
        raise ImageRejected("not_chest", f"the header says that this is {_OTHER_RADIOGRAPHS[modality]}.")
    if modality not in _RADIOGRAPHS:
        known = f" (modality {modality})" if modality in _NAMED_MODALITIES else ""
        raise ImageRejected("not_a_radiograph", f"the header says that this is no projection X-ray{known}.")
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
        sex=sex if sex in ("M", "F", "O") else None,
        age=age_in_years(text(dataset, "PatientAge")),
        modality=modality if modality and modality in _RADIOGRAPHS else None,
        pixel_spacing_mm=_spacing(dataset),
        burned_in={"YES": True, "NO": False}.get(burned_in),
    )


def identity_notes(dataset: pydicom.Dataset) -> tuple[str, ...]:
    """What in the picture itself may identify somebody, beside annotation that the header owns up to.

    ``recognizable_visual_features``, and ``secondary_capture``: a screenshot or a scan, which often shows a name,
    unless its header denies that annotation is burned in.
    """
    notes = ["recognizable_visual_features"] if text(dataset, "RecognizableVisualFeatures") == "YES" else []
    captured = text(dataset, "Modality") == "SC" or text(dataset, "SOPClassUID").startswith(_SECONDARY_CAPTURE)
    denied = text(dataset, "BurnedInAnnotation") == "NO"
    return (*notes, "secondary_capture") if captured and not denied else tuple(notes)


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


def age_in_years(value: str) -> int | None:
    """Years, at most 90, from a DICOM age string (``062Y``, ``018M``) or a bare number of years."""
    match = re.fullmatch(r"(\d{1,3})([YMWD]?)", value)
    if match is None:
        return None
    years = int(match[1]) // {"Y": 1, "": 1, "M": 12, "W": 52, "D": 365}[match[2]]
    return min(years, 90) if years <= 120 else None


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
    return "" if found is None else str(found).strip(" \0").upper()


def patient_id(dataset: pydicom.Dataset) -> str | None:
    """The patient id as it stands in the header, ``None`` when it is empty."""
    found = value(dataset, "PatientID")
    return (str(found).strip(" \0") or None) if found is not None else None


def transfer_syntax(dataset: pydicom.Dataset) -> UID:
    return dataset.file_meta.TransferSyntaxUID


def _spacing(dataset: pydicom.Dataset) -> tuple[float, float] | None:
    for keyword in ("PixelSpacing", "ImagerPixelSpacing"):
        try:
            row, column = (float(value) for value in dataset.get(keyword) or ())
        except (TypeError, ValueError):
            continue
        if all(math.isfinite(value) and 0 < value < 100 for value in (row, column)):
            return row, column
    return None
