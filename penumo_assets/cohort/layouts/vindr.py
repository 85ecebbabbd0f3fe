"""VinDr-CXR (Nguyen et al. 2022), as PhysioNet or Kaggle give it: DICOM, and a table with a row per reader or box."""

import posixpath
from collections import defaultdict
from collections.abc import Iterator

from penumo_assets.cohort.errors import LandingError
from penumo_assets.cohort.layouts.base import NORMAL, PNEUMONIA, TEST, TRAIN_VAL, Film, Folder, Layout, Options

# Readers with a finding, by image: PhysioNet has a column per finding, Kaggle (train.csv) a row per box.
_TABLES = {"image_labels_train.csv": TRAIN_VAL, "image_labels_test.csv": TEST, "train.csv": TRAIN_VAL}
_NO_FINDING = "No finding"
_PNEUMONIA = "Pneumonia"


def read(folder: Folder, options: Options) -> Iterator[Film]:
    tables = [found for base in _TABLES if (found := folder.find(base))]
    if not tables:
        raise LandingError(f"the folder holds none of {', '.join(_TABLES)} of VinDr-CXR")
    for table in tables:
        split = _TABLES[posixpath.basename(table).removesuffix(".gz")]
        readers: dict[str, set[str]] = defaultdict(set)
        votes: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
        for row in folder.table(table, "image_id"):
            image, reader = row["image_id"], row.get("rad_id") or "consensus"
            readers[image].add(reader)
            for finding in _findings(row):
                votes[image][finding].add(reader)
        for image, those in readers.items():
            agreed = [finding for finding, by in sorted(votes[image].items()) if 2 * len(by) > len(those)]
            yield Film(
                next(filter(None, (folder.image(image + end) for end in (".dicom", ".dcm", ".png", ".jpg"))), ""),
                patient_id=image,
                label=_label(agreed),
                finding="; ".join(agreed),
                split=split,
                extra={"readers": str(len(those))},
            )


def _findings(row: dict[str, str]) -> list[str]:
    if "class_name" in row:
        return [row["class_name"]]
    words = {"pneumonia": _PNEUMONIA, "no_finding": _NO_FINDING}
    marked = [name for name, value in row.items() if value in ("1", "1.0") and name not in ("image_id", "rad_id")]
    return [words.get(name, name.replace("_", " ")) for name in marked]


def _label(agreed: list[str]) -> str:
    if _PNEUMONIA in agreed:
        return PNEUMONIA
    return NORMAL if agreed == [_NO_FINDING] else ""


LAYOUT = Layout(
    "vindr",
    "VinDr-CXR, Nguyen et al. 2022",
    {"Pneumonia, by more than half of the readers": PNEUMONIA, "No finding, by more than half of the readers": NORMAL},
    read,
    "the image: the set names no patients, and gives one film of each examination",
    "image_labels_test.csv; the training films are divided by patient",
)
