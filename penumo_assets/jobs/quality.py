"""Quality flags: what a person should know of an image beside its probability; for a cohort and for one file."""

from collections.abc import Iterable

from penumo_assets.jobs.manifest import ManifestRow

BURNED_IN = "burned_in_annotation"
BAD_MASK = "implausible_mask"
# Of what decoding notes, these say that the picture itself may tell who it is of.
IDENTIFYING = ("recognizable_visual_features", "secondary_capture")
# These that the gray levels, the direction or the shape of the picture are in doubt; the others say what was used.
DOUBTFUL = frozenset(
    {"window:percentile", "voi:unusable", "voi:invalid", "bits:beyond_stored", "planar:assumed", "jpeg2000:mended"}
    | {"for_processing", "presentation:contradictory", "orientation:turned", "orientation:mirrored"}
    | {"pixels:not_square", "sign:ignored"}
)


def quality_flags(
    notes: Iterable[str], burned_in: bool | None, mask_problems: Iterable[str], looks: Iterable[str] = ()
) -> tuple[str, ...]:
    """Short codes.

    Those of `DOUBTFUL` are explained in docs/data_contract.md; ``implausible_mask:<problem>``: the whole image was
    used, not the lungs; ``looks_inverted`` and ``looks_rotated``: so the film lies, by its look;
    ``burned_in_annotation``: the header says that text is burned into the pixels; ``recognizable_visual_features`` and
    ``secondary_capture``: the picture may show who it is of, as `imaging/formats/dicom_header.py` explains.
    """
    flags = [note for note in notes if note in DOUBTFUL or note in IDENTIFYING]
    flags += [f"{BAD_MASK}:{problem}" for problem in mask_problems] + [*looks]
    return (*flags, BURNED_IN) if burned_in else tuple(flags)


def identity_counts(rows: Iterable[ManifestRow]) -> dict[str, int]:
    """How many accepted images may show in the picture who they are of, by flag."""
    counts = dict.fromkeys((BURNED_IN, *IDENTIFYING), 0)
    for row in rows:
        if row.status == "accepted":
            for flag in quality_flags(row.notes, row.tags.get("burned_in"), ()):
                if flag in counts:
                    counts[flag] += 1
    return counts
