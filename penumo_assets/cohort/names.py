"""What the names of landed objects mean, and what they are called outside landing."""

import posixpath
import re
import unicodedata
from collections.abc import Callable

from penumo_assets.cohort.errors import LandingError
from penumo_assets.configs.prepare import FileNames, LabelsConfig
from penumo_assets.imaging.deidentify import file_pseudonym, is_safe_id
from penumo_assets.resources.storage.object_store import printable

LABELS_FILE = "labels.csv"
COMPLETE_MARKER = "_COMPLETE"
NO_NAME = "(no file name)"
_IMAGE_EXTENSION = re.compile(r"\.(dcm|dicom|dic|png|jpe?g|jp2|tiff?|bmp|gif)$", re.IGNORECASE)
_MASK_FOLDER = re.compile(
    # Of masks of any kind; but what is masked, or a data set that is called after its masks, is none.
    r"(?!.*(?:data|study|project|(?<![a-z])and(?![a-z]))).*?(?<!un)(?:masks?|masken|masques?|mascaras?)(?:[^a-z].*)?|"
    r"(?:(?:2d|binary|left|lungs?|manual|right)[ _-]*)*"
    r"(?:segs?|segmentations?|gts?|ground[ _-]*truths?)[ _-]*(?:all|png)?"
)


def require_cohort_name(cohort: str) -> None:
    """Raise LandingError if a cohort's name cannot be part of a key."""
    if not is_safe_id(cohort):
        raise LandingError(f"{cohort!r} is not a valid cohort name: use A-Z a-z 0-9 . _ - and start with none of . -")


def is_hidden(source: str) -> bool:
    """Whether an object is left out as a file on its way or of some file system: a name that begins with a dot.

    ``.`` and ``..`` are no such names: they make a key unsafe, and its file is rejected by name.
    """
    return any(part.startswith(".") and part not in {".", ".."} for part in source.split("/"))


def is_labels(name: str) -> bool:
    """Whether an object is the cohort's table of labels: ``labels.csv`` in any mixture of cases."""
    return name.casefold() == LABELS_FILE


def is_mask_folder(part: str) -> bool:
    """Whether a folder of this name holds masks: ``Mask``, ``lung_masks``, ``leftMask``, ``segmentations``, ``Masken``
    and the like."""
    plain = unicodedata.normalize("NFKD", part).casefold().encode("ascii", "ignore").decode()
    return _MASK_FOLDER.fullmatch(plain) is not None


def in_mask_folder(name: str) -> bool:
    """Whether an object lies below a folder of masks, at whatever depth."""
    return any(is_mask_folder(part) for part in name.split("/")[:-1])


def is_image(name: str) -> bool:
    """Whether a file is called as an image is."""
    return _IMAGE_EXTENSION.search(name) is not None


def stem_of(name: str) -> str:
    """The file's own name without an extension of images; other dots, as those of a DICOM UID, stay."""
    return _IMAGE_EXTENSION.sub("", composed(name).rsplit("/", 1)[-1])


def composed(name: str) -> str:
    """A name in Unicode's composed form (NFC): some systems write ``ü`` as one character, some as two."""
    return unicodedata.normalize("NFC", name)


def as_key(name: str) -> str:
    """The name of a file as a table writes it, with backslashes, doubled slashes or ``./``, as a key has it."""
    slashed = name.replace("\\", "/")
    return posixpath.normpath(slashed).lstrip("/") if slashed.strip("/.") and ".." not in slashed else slashed


def source_name(config: LabelsConfig, key: bytes | None) -> Callable[[str], str]:
    """What turns a landed name into the one it has outside: the same one for both forms of accented letters."""
    if config.file_names is FileNames.keep:
        return lambda name: printable(composed(name))
    return lambda name: file_pseudonym(composed(name), key)
