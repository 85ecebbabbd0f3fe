"""CheXpert (Irvin et al. 2019): ``train.csv``, ``valid.csv``; ``train/patient00001/study1/view1_frontal.jpg``."""

import posixpath
import re
from collections.abc import Iterator

from penumo_assets.cohort.errors import LandingError
from penumo_assets.cohort.layouts.base import TEST, TRAIN_VAL, Film, Folder, Layout, Options, frontal
from penumo_assets.cohort.layouts.chexpert_labels import LABELS, label_of

_SPLITS = {"train.csv": TRAIN_VAL, "valid.csv": TEST, "test.csv": TEST}


def read(folder: Folder, options: Options) -> Iterator[Film]:
    tables = [found for base in _SPLITS if (found := folder.find(base))]
    if not tables:
        raise LandingError("the folder holds no train.csv, valid.csv or test.csv of CheXpert")
    for table in tables:
        split = _SPLITS[posixpath.basename(table).removesuffix(".gz")]
        for row in folder.table(table, "path", "pneumonia", "no_finding"):
            label, finding = label_of(row, options.uncertain)
            patient = re.search(r"(?:^|/)(patient\d+)/", row["path"])
            view = f"{row.get('frontal/lateral', '')} {row.get('ap/pa', '')}".strip()
            yield Film(
                folder.path(row["path"], table),
                patient_id=patient[1] if patient else "",
                label=label,
                finding=finding,
                view=view,
                sex=row.get("sex", ""),
                age=row.get("age", ""),
                split=split,
                left_out=frontal(view),
            )


LAYOUT = Layout(
    "chexpert",
    "CheXpert, Irvin et al. 2019",
    LABELS,
    read,
    "the path: patient00001",
    "valid.csv (and test.csv), which people labelled, is the test; train.csv is divided by patient",
)
