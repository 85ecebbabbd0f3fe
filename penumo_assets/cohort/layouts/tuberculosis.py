"""The tuberculosis films of Shenzhen and Montgomery (Jaeger et al. 2014): the label ends the name, masks lie beside.

``CXR_png/CHNCXR_0001_0.png``, ``CXR_png/MCUCXR_0001_0.png``; ``ClinicalReadings/CHNCXR_0001_0.txt`` says
``male 45yrs``, that of Montgomery ``Patient's Sex: F`` and ``Patient's Age: 027Y``. Masks:
``mask/CHNCXR_0001_0_mask.png``, ``ManualMask/leftMask/MCUCXR_0001_0.png`` and ``rightMask``.
"""

import re
from collections.abc import Iterator
from functools import partial

from penumo_assets.cohort.errors import LandingError
from penumo_assets.cohort.layouts.base import NORMAL, Film, Folder, Layout, Options
from penumo_assets.cohort.names import in_mask_folder

_FINDINGS = {"0": "normal", "1": "tuberculosis"}
_SEX = re.compile(r"sex:\s*(\w+)|\b(female|male)\b", re.IGNORECASE)
_AGE = re.compile(r"age:\s*(\d+\s*[A-Z]?)|(\d+)\s*(y|mo|d)", re.IGNORECASE)


def read(folder: Folder, options: Options, prefix: str) -> Iterator[Film]:
    pattern = re.compile(rf"({prefix}_\d+)_([01])\.(png|jpg|dcm)", re.IGNORECASE)
    found = False
    for name in sorted(folder.names.values()):
        film = pattern.fullmatch(name.rsplit("/", 1)[-1])
        if film is None or in_mask_folder(name):
            continue
        found = True
        reading = folder.find(f"{film[1]}_{film[2]}.txt")
        sex, age = _person(folder.bytes_of(reading).decode("utf-8", "replace")) if reading else ("", "")
        finding = _FINDINGS[film[2]]
        label = NORMAL if finding == "normal" else ""
        yield Film(name, patient_id=film[1], label=label, finding=finding, sex=sex, age=age)
    if not found:
        raise LandingError(f"the folder holds no films called {prefix}_0001_0.png and so on")


def _person(reading: str) -> tuple[str, str]:
    sex, age = _SEX.search(reading), _AGE.search(reading)
    years = (age[1] or f"{age[2]} {age[3]}").strip() if age else ""
    return (sex[1] or sex[2]) if sex else "", years


_PATIENTS = "the number in the name"
_LABELS = {"_0": NORMAL, "_1 (tuberculosis)": "none"}
SHENZHEN = Layout(
    "shenzhen",
    "Shenzhen Hospital, Jaeger et al. 2014",
    _LABELS,
    partial(read, prefix="CHNCXR"),
    "the number in the name",
)
MONTGOMERY = Layout(
    "montgomery",
    "Montgomery County, Jaeger et al. 2014",
    _LABELS,
    partial(read, prefix="MCUCXR"),
    "the number in the name",
)
