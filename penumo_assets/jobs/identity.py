"""Whose a film is, where its header and labels.csv both say so: which of them holds, and notes where they disagree.

A note stands in the film's manifest row, is counted on the page of `raw_images`, and judged by the check
`patient_identity`. None of them holds an id.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

from penumo_assets.imaging.person import is_missing, same_but_zeros, same_id
from penumo_assets.jobs.manifest import ManifestRow

NO_PATIENT = "patient_id:none"  # neither the header nor labels.csv has an id: the film stands for a patient of its own
PATIENT_DIFFERS = "patient_id:differs"  # labels.csv holds
HEADER_ZEROS = "patient_id:zeros_lost"  # the id with the zeros holds
PLACEHOLDER_ID = "labels:no_patient_id"  # labels.csv has a word for missing; the header holds
TABLE_ZEROS = "labels:zeros_lost"  # two ids of labels.csv differ in nothing but leading zeros
SEX_DIFFERS = "sex:differs"  # labels.csv holds, as for the age
AGE_DIFFERS = "age:differs"
IDENTITY_NOTES = {
    NO_PATIENT: "no patient id: it cannot be split by patient, and does not train",
    PATIENT_DIFFERS: "another patient id in the header than in labels.csv, which holds",
    HEADER_ZEROS: "the patient ids of header and labels.csv differ in leading zeros; the longer one holds",
    PLACEHOLDER_ID: "a word for missing, or a rounded number, stands for the patient id in labels.csv",
    TABLE_ZEROS: "another patient id in labels.csv differs from this one in nothing but leading zeros",
    SEX_DIFFERS: "another sex in the header than in labels.csv, which holds",
    AGE_DIFFERS: "another age in the header than in labels.csv, which holds",
}
_MAX_AGE_DIFFERENCE = 1  # years: at the examination, or at the end of the year


def patient_of(labelled: str | None, header: str | None) -> tuple[str | None, list[str]]:
    """The patient's id from those of labels.csv and of the header, and notes; ``None`` where both are missing."""
    header = None if header is None or is_missing(header) else header
    if not labelled or not header:
        return labelled or header, [] if labelled or header else [NO_PATIENT]
    if same_id(labelled, header):
        return labelled, []
    if same_but_zeros(labelled, header):
        return max(labelled.removesuffix(".0"), header.removesuffix(".0"), key=len), [HEADER_ZEROS]
    return labelled, [PATIENT_DIFFERS]


def contradictions(row: ManifestRow) -> list[str]:
    """Notes on what labels.csv says of a film's patient, against its header."""
    sex, age = row.tags.get("sex"), row.tags.get("age")
    notes = [SEX_DIFFERS] if sex and row.sex and sex != row.sex else []
    far = age is not None and row.age is not None and abs(age - row.age) > _MAX_AGE_DIFFERENCE
    return [*notes, AGE_DIFFERS] if far else notes


def identity_notes(row: ManifestRow) -> list[str]:
    """A labelled film's notes on whose it is; nobody is trained or measured on a film without a label."""
    return [note for note in row.notes if note in IDENTITY_NOTES] if row.label else []


def doubts(rows: Iterable[ManifestRow]) -> list[dict[str, str | int]]:
    """How many labelled films that were not rejected have each note: ``note``, ``meaning``, ``films``."""
    counts = Counter(note for row in rows if row.status == "accepted" for note in identity_notes(row))
    return [{"note": note, "meaning": IDENTITY_NOTES[note], "films": films} for note, films in counts.most_common()]


def label_counts(rows: Iterable[ManifestRow]) -> dict[str, int | str]:
    """Of the films that were not rejected: how many have a label, how many none, and how many are of each class."""
    classes = Counter(row.label for row in rows if row.status == "accepted")
    unlabelled = classes.pop(None, 0)
    listed = ", ".join(f"{label}: {films}" for label, films in sorted(classes.items(), key=str))
    return {"labelled": classes.total(), "unlabelled": unlabelled, "classes": listed or "none: no film has a label"}


def why_untrainable(rows: Sequence[ManifestRow]) -> str:
    """Why a cohort's films cannot train, none of them; empty if some can."""
    if any(is_trainable(row) for row in rows):
        return ""
    labelled = [row for row in rows if row.label]
    accepted = [row for row in labelled if row.status == "accepted"]
    if not rows:
        return "it has not been prepared"
    if not labelled:
        return "none of its films has a label: land a labels.csv, or leave the cohort out"
    if not accepted:
        return "all its labelled films were rejected"
    if not any("npz" in row.stages for row in accepted):
        return "npz_tensors has not been materialized"
    return "none of its labelled films has a patient id, so they cannot be split by patient"


def is_trainable(row: ManifestRow) -> bool:
    """Whether a film has a tensor, a label and a patient to be split by."""
    return bool(row.label) and "npz" in row.stages and NO_PATIENT not in row.notes
