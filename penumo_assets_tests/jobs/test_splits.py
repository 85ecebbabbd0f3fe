"""A data set's own division, where it is asked for."""

from dataclasses import dataclass

from penumo_assets.configs.train import DatasetConfig
from penumo_assets.jobs.pack.splits import assign_splits
from penumo_assets.jobs.shards import split_of


@dataclass(frozen=True)
class Image:
    patient_id: str
    declared_split: str | None = None
    file: str = "a.npz"


def assigned(images: list[Image], rule: str) -> tuple[dict[str, list[Image]], int]:
    config = DatasetConfig.parse({"salt": "s", "validation_fraction": 0.2, "test_fraction": 0.3, "split": rule})
    splits, left_out = assign_splits(images, config)
    return splits, len(left_out)


MANY = [f"p{number}" for number in range(200)]


def test_by_hash_what_is_declared_counts_for_nothing() -> None:
    images = [Image(patient, "test") for patient in MANY]
    splits, left_out = assigned(images, "hash")
    assert left_out == 0
    assert all(split_of(image.patient_id, "s", 0.2, 0.3) == name for name, part in splits.items() for image in part)
    assert all(splits.values())


def test_by_column_the_test_is_exactly_what_is_declared() -> None:
    images = [Image(patient, "test" if number < 30 else "train_val") for number, patient in enumerate(MANY)]
    splits, left_out = assigned(images, "column")
    assert splits["test"] == images[:30]
    assert left_out == 0
    share = len(splits["validation"]) / 170
    assert 0.17 < share < 0.41, "0.2 of all is 0.29 of what is not test"


def test_by_column_a_patient_of_two_parts_stands_on_one_side() -> None:
    images = [Image("a", "train"), Image("a", "test"), Image("a"), Image("b", "validation"), Image("b", "train")]
    splits, left_out = assigned(images, "column")
    assert splits == {"train": [], "validation": [images[3]], "test": [images[1], images[2]]}
    assert left_out == 2


def test_by_column_a_cohort_without_a_division_is_split_by_hash() -> None:
    images = [Image(patient) for patient in MANY]
    assert assigned(images, "column") == assigned(images, "hash")
