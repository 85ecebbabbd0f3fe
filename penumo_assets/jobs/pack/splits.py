"""Which split a labelled image belongs to: by a hash of its patient, or as its data set divides itself."""

from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar

from penumo_assets.configs.train import DatasetConfig, SplitRule
from penumo_assets.jobs.shards import SPLITS, split_of

_STRONGEST_FIRST = ("test", "validation", "train", "train_val")


class Splittable(Protocol):
    """An image as far as its split goes; ``declared_split`` is what labels.csv says."""

    @property
    def file(self) -> str: ...
    @property
    def patient_id(self) -> str: ...
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
    assigned: dict[str, list[T]] = {name: [] for name in SPLITS}
    left_out = []
    for item in items:
        patient, place = item.patient_id, home.get(item.patient_id)
        if place is None:
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


def _homes(items: Iterable[Splittable]) -> dict[str, str]:
    """The strongest split that is declared for each patient."""
    homes: dict[str, str] = {}
    for item in items:
        if item.declared_split:
            declared = (item.declared_split, homes.get(item.patient_id, item.declared_split))
            homes[item.patient_id] = min(declared, key=_STRONGEST_FIRST.index)
    return homes
