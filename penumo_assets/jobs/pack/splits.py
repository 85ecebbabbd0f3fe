"""Which split a labelled image belongs to: by a hash of its patient, or as its data set divides itself."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol, TypeVar

from penumo_assets.configs.train import DatasetConfig, SplitRule
from penumo_assets.jobs.shards import SPLITS, split_of, unit_of

_STRONGEST_FIRST = ("test", "validation", "train", "train_val")
FEW_PATIENTS = 10
"""A split with fewer patients of a class has no interval of its ROC-AUC (`metrics.auc`)."""


class Splittable(Protocol):
    """An image as far as its split goes.

    ``split_key`` stands for the patient in every format, ``patient_id`` where there is none; ``declared_split`` is what
    labels.csv says.
    """

    @property
    def file(self) -> str: ...
    @property
    def patient_id(self) -> str: ...
    @property
    def split_key(self) -> str | None: ...
    @property
    def label(self) -> str: ...
    @property
    def declared_split(self) -> str | None: ...


T = TypeVar("T", bound=Splittable)


def assign_splits(items: Sequence[T], config: DatasetConfig) -> tuple[dict[str, list[T]], list[dict[str, str]]]:
    """The items of each split, and those that no split can take (``file``, ``reason``).

    By column, a patient with any image declared test is a test patient, then validation, then train; images of the
    patient that are declared otherwise are left out, so that the test is exactly the data set's own and no patient
    stands on two sides. What is declared ``train_val`` is divided by the hash into train and validation; what is not
    declared follows its patient, else the hash.
    """
    home = _homes(items) if config.split is SplitRule.column else {}
    strata = _stratified(items, config) if config.split is SplitRule.stratified else {}
    assigned: dict[str, list[T]] = {name: [] for name in SPLITS}
    left_out = []
    for item in items:
        patient = patient_of(item)
        place = home.get(patient)
        if patient in strata:
            split = strata[patient]
        elif place is None:
            split = split_of(patient, config.salt, config.validation_fraction, config.test_fraction)
        elif place == "train_val":
            split = split_of(patient, config.salt, config.validation_fraction / (1 - config.test_fraction), 0.0)
        elif place == "train" or item.declared_split in (place, None):
            split = place
        else:
            left_out.append({"file": item.file, "reason": f"its patient's other images are declared {place}"})
            continue
        assigned[split].append(item)
    return assigned, left_out


def patient_of(item: Splittable) -> str:
    """What stands for an image's patient in the split."""
    return item.split_key or item.patient_id


def recorded_salt(assigned: Mapping[str, Sequence[Splittable]], config: DatasetConfig) -> str:
    """The salt, and what else decided the split: a model must not be tested by another split than it was trained by.

    Films whose split follows another id than they show, and every stratified division, make another salt.
    """
    salt = config.salt
    items = [item for members in assigned.values() for item in members]
    if any(patient_of(item) != item.patient_id for item in items):
        salt += "+split_key"
    if config.split is SplitRule.stratified:
        lines = sorted({f"{name} {patient_of(item)}" for name, members in assigned.items() for item in members})
        salt += f"+stratified-{hashlib.sha256(chr(10).join(lines).encode()).hexdigest()[:16]}"
    return salt


def too_small(assigned: Mapping[str, Sequence[Splittable]], classes: Iterable[str]) -> list[str]:
    """Splits that hold fewer than `FEW_PATIENTS` patients of a class, each with its number."""
    counts = {
        (name, label): len({patient_of(item) for item in members if item.label == label})
        for label in classes
        for name, members in assigned.items()
    }
    return [f"{name}: {count} patients with {label}" for (name, label), count in counts.items() if count < FEW_PATIENTS]


def _stratified(items: Iterable[Splittable], config: DatasetConfig) -> dict[str, str]:
    """The split of each patient: the patients of a class, in the order of their hashes, are cut by the fractions.

    A patient counts for the last of the classes that its images have, which of two is the positive one. From three
    patients on, every split has one of the class.
    """
    order = config.ordered_classes
    latest: dict[str, int] = {}
    for item in items:
        latest[patient_of(item)] = max(latest.get(patient_of(item), 0), order.index(item.label))
    strata: dict[int, list[str]] = defaultdict(list)
    for patient in sorted(latest, key=lambda name: unit_of(name, config.salt)):
        strata[latest[patient]].append(patient)
    found = {}
    for patients in strata.values():
        count = len(patients)
        least = int(count >= len(SPLITS))
        test = min(max(least, round(count * config.test_fraction)), count - 2 * least)
        validation = min(max(least, round(count * config.validation_fraction)), count - least - test)
        for place, patient in enumerate(patients):
            found[patient] = "test" if place < test else "validation" if place < test + validation else "train"
    return found


def _homes(items: Iterable[Splittable]) -> dict[str, str]:
    """The strongest split that is declared for each patient."""
    homes: dict[str, str] = {}
    for item in items:
        if item.declared_split:
            declared = (item.declared_split, homes.get(patient_of(item), item.declared_split))
            homes[patient_of(item)] = min(declared, key=_STRONGEST_FIRST.index)
    return homes
