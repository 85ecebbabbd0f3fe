"""CheXpert Plus (Chambon et al. 2024): ``df_chexpert_plus_240401.csv``, ``report_fixed.json``, PNG or DICOM."""

import json
import posixpath
import re
from collections.abc import Iterator
from typing import Any

from penumo_assets.cohort.layouts.base import TEST, TRAIN_VAL, Film, Folder, Layout, Options, frontal
from penumo_assets.cohort.layouts.chexpert_labels import LABELS, label_of

_TABLE = "df_chexpert_plus_240401.csv"
_LABELS = ("report_fixed.json", "impression_fixed.json", "findings_fixed.json")
_SPLITS = {"train": TRAIN_VAL, "valid": TEST}


def read(folder: Folder, options: Options) -> Iterator[Film]:
    table = folder.need(_TABLE)
    labels = _labels(folder)
    for row in folder.table(table, "path_to_image"):
        written = row["path_to_image"]
        label, finding = label_of(labels.get(written, {}), options.uncertain)
        patient = re.search(r"(?:^|/)(patient\d+)/", written)
        view = f"{row.get('frontal_lateral', '')} {row.get('ap_pa', '')}".strip()
        yield Film(
            _file(folder, table, written, row.get("path_to_dcm", "")),
            patient_id=row.get("deid_patient_id") or (patient[1] if patient else ""),
            label=label,
            finding=finding,
            view=view,
            sex=row.get("sex", ""),
            age=row.get("age", ""),
            split=_SPLITS.get(row.get("split") or written.split("/")[0], ""),
            left_out=frontal(view),
        )


def _labels(folder: Folder) -> dict[str, dict[str, Any]]:
    """CheXbert's labels by image, one JSON object a line, with the findings in lower case."""
    name = folder.need(*_LABELS)
    found = {}
    for line in folder.lines(name):
        entry = json.loads(line)
        found[entry["path_to_image"]] = {key.lower().replace(" ", "_"): value for key, value in entry.items()}
    return found


def _file(folder: Folder, table: str, image: str, dicom: str) -> str:
    png = posixpath.splitext(image)[0] + ".png"
    for written in (image, png, f"PNG/{png}", f"PNG/PNG/{png}", dicom, f"DICOM/{dicom}"):
        if written and (found := folder.path(written, table)):
            return found
    return ""


LAYOUT = Layout(
    "chexpert-plus",
    "CheXpert Plus, Chambon et al. 2024, labels by CheXbert",
    LABELS,
    read,
    "column deid_patient_id, else the path: patient00001",
    "split valid is the test; train is divided by patient",
)
