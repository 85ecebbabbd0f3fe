"""A data set's own division, where it is asked for."""

from dataclasses import dataclass, replace

from penumo_assets.configs.train import DatasetConfig
from penumo_assets.jobs.pack.splits import assign_splits, recorded_salt, too_small
from penumo_assets.jobs.shards import split_of


@dataclass(frozen=True)
class Image:
    patient_id: str
    declared_split: str | None = None
    file: str = "a.npz"
    split_key: str | None = None
    label: str = "normal"


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


def place_of(splits: dict[str, list[Image]]) -> dict[str, str]:
    return {image.patient_id: name for name, images in splits.items() for image in images}


def rare(count: int, positives: int) -> list[Image]:
    return [
        Image(f"{number}-of-{count}", label="pneumonia" if number < positives else "normal") for number in range(count)
    ]


def test_a_patient_of_two_formats_is_split_by_one_key() -> None:
    images = [
        Image(shown, split_key=f"p-{number:016x}")
        for number in range(200)
        for shown in (f"ward-{number}", f"p-{number:016x}")
    ]
    for rule in ("hash", "stratified"):
        place = place_of(assigned(images, rule)[0])
        assert all(place[f"ward-{number}"] == place[f"p-{number:016x}"] for number in range(200))
    column = [Image("ward-1", "test", split_key="p-1"), Image("p-1", "train", split_key="p-1")]
    splits, left_out = assigned(column, "column")
    assert (splits["test"], left_out) == (column[:1], 1)


def test_stratified_every_split_has_every_class_where_the_hash_leaves_some_without() -> None:
    for seed in range(30):
        images = [replace(image, patient_id=f"{seed}/{image.patient_id}") for image in rare(60, 6)]
        splits, _ = assigned(images, "stratified")
        for part in splits.values():
            assert {image.label for image in part} == {"normal", "pneumonia"}
        assert [len(splits[name]) for name in ("test", "validation")] == [18, 12]


def test_stratified_a_patient_with_images_of_two_classes_stands_on_one_side() -> None:
    images = [*rare(60, 6), *(replace(image, label="normal") for image in rare(60, 6)[:6])]
    splits, _ = assigned(images, "stratified")
    sides = [{image.patient_id for image in part} for part in splits.values()]
    assert sum(map(len, sides)) == len(set.union(*sides)) == 60


def test_stratified_new_patients_move_few_of_the_others_and_models_of_the_old_split_are_told_apart() -> None:
    images = rare(300, 60)
    more = [*images, *(replace(image, patient_id=f"new-{image.patient_id}") for image in rare(30, 6))]
    before, after = (place_of(assigned(each, "stratified")[0]) for each in (images, more))
    moved = sum(before[patient] != after[patient] for patient in before)
    assert moved <= 0.05 * len(before)
    config = DatasetConfig.parse({"salt": "s", "split": "stratified"})
    salts = {recorded_salt(assign_splits(each, config)[0], config) for each in (images, images[::-1], more)}
    assert len(salts) == 2


def test_the_recorded_salt_is_the_settings_unless_another_key_splits() -> None:
    config = DatasetConfig.parse({"salt": "s"})
    shown = [Image("p-1", split_key="p-1"), Image("p-2")]
    assert recorded_salt({"train": shown}, config) == "s"
    assert recorded_salt({"train": [*shown, Image("ward-1", split_key="p-3")]}, config) == "s+split_key"


def test_few_patients_of_any_class_are_too_few_to_stratify_and_are_named() -> None:
    splits, _ = assigned(rare(4, 2), "stratified")
    assert sum(map(len, splits.values())) == 4
    assert too_small({"test": rare(24, 9), "train": rare(24, 12)}, ["normal", "pneumonia"]) == [
        "test: 9 patients with pneumonia"
    ]
