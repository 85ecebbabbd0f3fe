"""PadChest (Bustos et al. 2020): 16-bit PNG and ``PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv``."""

import re
from collections.abc import Iterator

from penumo_assets.cohort.layouts.base import NORMAL, PNEUMONIA, Film, Folder, Layout, Options, frontal

_TABLES = (
    "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv",
    "PADCHEST_chest_x_ray_images_labels_160K.csv",
    "SJ_chest_x_ray_images_labels_160K.csv",
)
_PNEUMONIAS = {"pneumonia", "atypical pneumonia"}
_NOT_FRONTAL = {"COSTAL": "ribs, not lungs", "EXCLUDE": "excluded by the data set"}


def read(folder: Folder, options: Options) -> Iterator[Film]:
    table = folder.need(*_TABLES)
    for row in folder.table(table, "imageid", "patientid", "labels"):
        labels = [label.strip() for label in re.findall(r"['\"]([^'\"]*)['\"]", row["labels"]) if label.strip()]
        projection = row.get("projection", "")
        placed = folder.path(f"{row['imagedir']}/{row['imageid']}", table) if row.get("imagedir") else ""
        yield Film(
            placed or folder.image(row["imageid"]),
            patient_id=row["patientid"],
            label=PNEUMONIA if _PNEUMONIAS & set(labels) else NORMAL if set(labels) == {"normal"} else "",
            finding="; ".join(labels),
            view=projection,
            sex=row.get("patientsex_dicom", ""),
            age=_age(row.get("studydate_dicom", ""), row.get("patientbirth", "")),
            left_out=_NOT_FRONTAL.get(projection) or frontal(projection),
        )


def _age(study: str, birth: str) -> str:
    """Years from the year of birth to that of the study; a spreadsheet has made 1961.0 of some."""
    try:
        return str(max(0, int(study[:4]) - int(float(birth))))
    except ValueError:
        return ""


LAYOUT = Layout(
    "padchest",
    "PadChest, Bustos et al. 2020",
    {"pneumonia, atypical pneumonia": PNEUMONIA, "normal alone": NORMAL},
    read,
    "column PatientID",
)
