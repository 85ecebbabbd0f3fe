"""What a cohort holds before anybody decodes it: films, masks, patients and labels, counted for who lands it."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from penumo_assets.cohort.labels import Label
from penumo_assets.cohort.names import COMPLETE_MARKER, composed, is_labels
from penumo_assets.cohort.truths import mask_names


@dataclass(frozen=True)
class Census:
    """Counts of a landing: films, ground-truth masks, patients that labels.csv names, films of each class.

    ``no_patient`` counts films without a patient id in labels.csv: a DICOM header may still have one. ``absent`` counts
    rows of labels.csv whose file is not there, ``left_out`` files and rows that were not landed, by reason.
    """

    films: int
    masks: int
    patients: int
    classes: Mapping[str, int]
    unlabelled: int
    no_patient: int
    absent: int
    left_out: Mapping[str, int] = field(default_factory=dict)

    def lines(self) -> Iterator[str]:
        """The counts as a terminal shows them."""
        yield f"{self.films} films, {self.patients} patients, {self.masks} masks"
        yield from (f"  {label}: {count}" for label, count in sorted(self.classes.items()))
        if not self.classes:
            yield "  none of them has a label: the cohort can be predicted, not trained on"
        elif self.unlabelled:
            yield f"  without a label: {self.unlabelled}"
        if self.classes and self.no_patient:
            yield f"  without a patient id in labels.csv: {self.no_patient}"
        if self.absent:
            yield f"  rows of labels.csv whose file is not there: {self.absent}"
        yield from (f"  left out, {reason}: {count}" for reason, count in sorted(self.left_out.items()))


def count(names: Iterable[str], labels: Collection[Label], left_out: Mapping[str, int] | None = None) -> Census:
    """Count the landed ``names`` and what the labels, which know them by ``Label.name``, say of them."""
    landed = {composed(name) for name in names}
    masks = mask_names(landed)
    films = {name for name in landed - masks if not is_labels(name) and name != COMPLETE_MARKER}
    mine = [label for label in labels if composed(label.name) in films and not label.problem]
    classes = Counter(label.label for label in mine if label.label)
    return Census(
        films=len(films),
        masks=len(masks),
        patients=len({label.patient_id for label in mine if label.patient_id}),
        classes=classes,
        unlabelled=len(films) - classes.total(),
        no_patient=len(films) - sum(bool(label.patient_id) for label in mine),
        absent=sum(composed(label.name) not in films for label in labels),
        left_out=left_out or {},
    )
