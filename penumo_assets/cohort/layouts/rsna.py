"""RSNA Pneumonia Detection Challenge 2018: ``stage_2_train_labels.csv``, ``stage_2_train_images/{patientId}.dcm``."""

import json
from collections.abc import Iterator

from penumo_assets.cohort.layouts.base import NORMAL, PNEUMONIA, Film, Folder, Layout, Options

_MAPPING = "pneumonia-challenge-dataset-mappings_2018.json"
_BOX = ("x", "y", "width", "height")


def read(folder: Folder, options: Options) -> Iterator[Film]:
    details = folder.find("stage_2_detailed_class_info.csv")
    class_of = (
        {row["patientid"]: row["class"] for row in folder.table(details, "patientid", "class")} if details else {}
    )
    nih = _nih_patients(folder)
    boxes: dict[str, list[str]] = {}
    positive: set[str] = set()
    for row in folder.table(folder.need("stage_2_train_labels.csv"), "patientid", "target"):
        mine = boxes.setdefault(row["patientid"], [])
        if row["target"] == "1":
            positive.add(row["patientid"])
            mine.append(" ".join(row.get(side, "") for side in _BOX))
    for image, drawn in boxes.items():
        finding = class_of.get(image, "Lung Opacity" if image in positive else "")
        yield Film(
            folder.image(f"{image}.dcm"),
            patient_id=nih.get(image, image),
            label=PNEUMONIA if image in positive else NORMAL if finding == "Normal" else "",
            finding=finding,
            extra={"boxes": "; ".join(drawn)},
        )


def _nih_patients(folder: Folder) -> dict[str, str]:
    """The NIH's patients by image, where the challenge's mapping to ChestX-ray14 (00016606_003.png) is there."""
    name = folder.find(_MAPPING)
    entries = json.loads(folder.bytes_of(name)) if name else []
    return {each["subset_img_id"]: each["img_id"].split("_")[0] for each in entries}


LAYOUT = Layout(
    "rsna",
    "RSNA Pneumonia Detection Challenge 2018, stage 2",
    {
        "Target = 1 (class Lung Opacity)": PNEUMONIA,
        "class Normal": NORMAL,
        "class No Lung Opacity / Not Normal": "none",
    },
    read,
    f"column patientId, which names one film; with {_MAPPING} the NIH's patient, whom several films can show",
)
