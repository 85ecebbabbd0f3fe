"""One folder a class, as many people keep their films: ``train/Pneumonia/a.png``."""

import re
from collections.abc import Iterator

from penumo_assets.cohort.errors import LandingError
from penumo_assets.cohort.labels import SPLITS
from penumo_assets.cohort.layouts.base import Film, Folder, Layout, Options
from penumo_assets.cohort.names import is_image
from penumo_assets.cohort.truths import mask_names


def read(folder: Folder, options: Options) -> Iterator[Film]:
    try:
        pattern = re.compile(options.patient) if options.patient else None
    except re.error as error:
        raise LandingError(f"--patient is no regular expression: {error}") from error
    masks = mask_names(folder.names.values())
    for name in sorted(folder.names.values()):
        *folders, base = name.split("/")
        if not is_image(base) or name in masks:
            continue
        classes = [part for part in folders if part.lower() not in (*SPLITS, "valid", "images")]
        found = pattern.search(name) if pattern else None
        yield Film(
            name,
            patient_id=(found[1] if pattern and pattern.groups else found[0]) if found else "",
            label=options.labels.get(classes[-1], classes[-1].lower()) if classes else "",
            finding=classes[-1] if classes else "",
            split=next((SPLITS[part.lower()] for part in folders if part.lower() in SPLITS), ""),
        )


LAYOUT = Layout(
    "folders",
    "one folder a class",
    {"the folder's name, in lower case": "itself, or what --map label:NAME=OURS says"},
    read,
    "what --patient finds in the path; without it no film has a patient, and none can train",
    "folders train, val and test",
)
