"""Children's films of Guangzhou (Kermany et al. 2018): ``chest_xray/{train,test,val}/{NORMAL,PNEUMONIA}/*.jpeg``."""

import re
from collections.abc import Iterator

from penumo_assets.cohort.errors import LandingError
from penumo_assets.cohort.layouts.base import NORMAL, PNEUMONIA, TEST, TRAIN_VAL, Film, Folder, Layout, Options

_CLASSES = {"NORMAL": NORMAL, "PNEUMONIA": PNEUMONIA}
_SPLITS = {"train": TRAIN_VAL, "val": TRAIN_VAL, "test": TEST}
# person12_bacteria_3, IM-0115-0001, NORMAL2-IM-0383-0001 and, of the third version, BACTERIA-1008087-0001.
_PATIENT = re.compile(r"(person\d+)_(?:bacteria|virus)_\d+|((?:NORMAL2-)?IM-\d+)-.*|((?:BACTERIA|VIRUS|NORMAL)-\d+)-.*")
_EXTENSIONS = (".jpeg", ".jpg", ".png")


def read(folder: Folder, options: Options) -> Iterator[Film]:
    seen: set[tuple[str, ...]] = set()
    for name in sorted(folder.names.values()):
        *folders, base = name.split("/")
        classes = [part for part in folders if part.upper() in _CLASSES]
        if not classes or not base.lower().endswith(_EXTENSIONS):
            continue
        patient = _PATIENT.fullmatch(base.rsplit(".", 1)[0])
        split = next((_SPLITS[part.lower()] for part in folders if part.lower() in _SPLITS), "")
        cause = re.search(r"bacteria|virus", base, re.IGNORECASE)
        place = tuple(name.split("/")[-3:])
        is_copy = place in seen
        seen.add(place)
        yield Film(
            name,
            patient_id=next(filter(None, patient.groups())) if patient else "",
            label=_CLASSES[classes[-1].upper()],
            finding=cause[0].lower() if cause else classes[-1],
            split=split,
            left_out="a copy of another film, by name"
            if is_copy
            else "",  # the archive of one host holds all films twice
        )
    if not seen:
        raise LandingError("the folder holds no films below folders NORMAL and PNEUMONIA")


LAYOUT = Layout(
    "kermany",
    "Kermany et al. 2018, chest X-rays of children (Mendeley Data rscbjbr9sj)",
    {"folder NORMAL": NORMAL, "folder PNEUMONIA": PNEUMONIA},
    read,
    "the name's beginning: person12, IM-0115, NORMAL2-IM-0383; bacteria and virus of one number count as one patient",
    "folder test; train and val together are divided by patient, because val holds 16 films",
)
