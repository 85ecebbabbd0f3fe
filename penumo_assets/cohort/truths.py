"""Which ground-truth mask belongs to which film: by its path below the folder of masks, else by a name that only one
film has. What is not certain is left out and named."""

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from penumo_assets.cohort.names import composed, in_mask_folder, is_mask_folder, stem_of

NO_FILM = "no film has its name and folder"
TWO_FILMS = "more than one film has its name, and its folders do not tell which is meant"
TWO_MASKS = "its film has another mask too"
NOT_LUNG = "its folder says that it shows something else than lungs"
ONE_LUNG = "it shows one lung, and the mask of the other is missing"
FILM_WITHOUT = "mask:none"
FILM_AMBIGUOUS = "mask:ambiguous"
FILM_ONE_LUNG = "mask:one_lung"
FILM_NOTES = frozenset({FILM_WITHOUT, FILM_AMBIGUOUS, FILM_ONE_LUNG})
_SIDE_FOLDER = re.compile(r"(left|right|l|r)[ _-]*(lungs?|masks?)?", re.IGNORECASE)
_SIDE_IN_FOLDER = re.compile(r"(?<![a-z])(left|right)(?![a-z])|(left|right)[ _-]?(mask|lung)", re.IGNORECASE)
_SUFFIX = re.compile(
    r"[ ._-]+(?:(?P<side>left|right|l|r)(?:[ _-]*(?:lung|mask))*|(?:lungs?[ _-]*)?(?:mask|segmentation|seg|gt))",
    re.IGNORECASE,
)
_PREFIX = re.compile(r"(?:lungs?[ _-]*)?(?:mask|segmentation|seg|gt)[ _-]+", re.IGNORECASE)
_OTHER_PART = re.compile(
    r"hearts?|clavicles?|ribs?|spine|bones?|mediastinum|trachea|infections?|lesions?|nodules?|opacit(y|ies)",
    re.IGNORECASE,
)
_IMAGE_FOLDER = re.compile(r"(image|img|film|picture|cxr|x-?ray|png|dicom|dcm)s?([ _-](png|jpg|dcm)s?)?", re.IGNORECASE)


@dataclass(frozen=True)
class Truths:
    """Masks by film: one of both lungs, or one of each; masks that stand for nothing, with the reason; films of a
    cohort with masks that have none for certain, with their note."""

    of_film: dict[str, tuple[str, ...]] = field(default_factory=dict)
    unpaired: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Mask:
    name: str
    folders: tuple[str, ...]
    stem: str
    side: str


def mask_names(names: Iterable[str]) -> set[str]:
    """The names of masks: what lies below a folder of masks, and ``a_mask.png`` beside ``a.png``."""
    plain, beside = set(), []
    found = set()
    for name in names:
        if in_mask_folder(name):
            found.add(name)
            continue
        place = (_parent(name), stem_of(name))
        plain.add(place)
        if (ending := _ending(place[1])) and (not ending["side"] or "mask" in ending[0].lower()):
            beside.append((name, (place[0], place[1][: ending.start()])))
    return found | {name for name, partner in beside if partner in plain}


def pair_masks(films: Iterable[str], masks: Iterable[str]) -> Truths:
    """Pair the names of films and of masks.

    A film and a mask of one path are a pair, folders of masks, of images and of sides aside. Otherwise they are where
    only one film has the mask's name and their folders do not contradict each other: ``patient2/view1`` is no mask of
    ``patient1/view1``. Masks of the left and the right lung go together.
    """
    by_stem: dict[str, list[tuple[str, tuple[str, ...]]]] = defaultdict(list)
    for name in films:
        by_stem[stem_of(name)].append((name, tuple(_places(composed(_parent(name)).split("/")))))
    claims: dict[str, dict[bool, list[_Mask]]] = defaultdict(lambda: {True: [], False: []})
    unpaired: dict[str, str] = {}
    for mask in (_read(name, by_stem) for name in sorted(masks)):
        candidates = by_stem.get(mask.stem, [])
        exact = [film for film, folders in candidates if folders == mask.folders]
        near = exact or [film for film, folders in candidates if _agree(folders, mask.folders)]
        if near and _shows_another_part(mask.name):
            unpaired[mask.name] = NOT_LUNG
        elif len(near) == 1:
            claims[near[0]][bool(exact)].append(mask)
        else:
            unpaired[mask.name] = TWO_FILMS if near else NO_FILM
    paired: dict[str, tuple[str, ...]] = {}
    notes: dict[str, str] = {}
    for film, ranks in claims.items():
        best = ranks[True] or ranks[False]
        sides = sorted(mask.side for mask in best)
        if sides in ([""], ["left", "right"]):
            paired[film] = tuple(mask.name for mask in best)
            unpaired |= {mask.name: TWO_MASKS for mask in ranks[False] if mask not in best}
        else:
            notes[film], reason = (FILM_ONE_LUNG, ONE_LUNG) if len(sides) == 1 else (FILM_AMBIGUOUS, TWO_MASKS)
            unpaired |= {mask.name: reason for mask in (*ranks[True], *ranks[False])}
    if paired or unpaired:
        every = (film for group in by_stem.values() for film, _ in group)
        notes |= {film: FILM_WITHOUT for film in every if film not in paired and film not in notes}
    return Truths(paired, unpaired, notes)


def _read(name: str, films: dict[str, list[tuple[str, tuple[str, ...]]]]) -> _Mask:
    """A mask's place: what is left of its folders and of its name without words for mask and side."""
    parts = composed(_parent(name)).split("/")
    first = next((at for at, part in enumerate(parts) if is_mask_folder(part)), len(parts))
    side = ""
    folders = _places(parts[:first])
    for part in parts[first:]:
        named = _SIDE_FOLDER.fullmatch(part) or _SIDE_IN_FOLDER.search(part) if is_mask_folder(part) else None
        named = named or _SIDE_FOLDER.fullmatch(part)
        if named:
            side = "left" if named[0].lower().startswith("l") else "right"
        elif not is_mask_folder(part):
            folders += _places([part])
    stem = stem_of(name)
    while stem not in films and (ending := _ending(stem)):
        if ending["side"]:
            side = "left" if ending["side"].lower().startswith("l") else "right"
        stem = stem[: ending.start()]
    if stem not in films:
        stem = _PREFIX.sub("", stem, count=1) if _PREFIX.match(stem) else stem
    return _Mask(name, tuple(folders), stem, side)


def _shows_another_part(name: str) -> bool:
    """Whether a folder of masks, or one below it, is called after another part of the body than lungs."""
    parts = _parent(name).split("/")
    first = next((at for at, part in enumerate(parts) if is_mask_folder(part)), len(parts))
    words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+", " ".join(parts[first:]))
    return any(_OTHER_PART.fullmatch(word) for word in words)


def _places(parts: Iterable[str]) -> list[str]:
    """Folders without those that only say that images lie below."""
    return [part for part in parts if part and not _IMAGE_FOLDER.fullmatch(part)]


def _ending(stem: str) -> re.Match[str] | None:
    """The last words of a mask's name that say what it is: ``_mask``, ``-left``, ``_right_lung``."""
    for found in _SUFFIX.finditer(stem):
        if found.end() == len(stem) and found.start():
            return found
    return None


def _agree(film: tuple[str, ...], mask: tuple[str, ...]) -> bool:
    """Whether one's folders are, in their order, among the other's."""
    shorter, longer = sorted((film, mask), key=len)
    remaining = iter(longer)
    return all(part in remaining for part in shorter)


def _parent(name: str) -> str:
    return name.rpartition("/")[0]
