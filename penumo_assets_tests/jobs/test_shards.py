"""The split never moves, and a packed training set is read whole or refused."""

import hashlib
import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penumo_assets.jobs.contract import JobError
from penumo_assets.jobs.shards import Split, TrainingSet, split_of
from penumo_assets_tests.jobs.training_samples import packed_set, tensor


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    return packed_set(tmp_path, monkeypatch)


def test_a_patient_is_split_by_the_published_formula():
    for patient in ("a", "nih-00165", "ä/ö"):
        digest = hashlib.sha256(f"salt{patient}".encode()).hexdigest()
        unit = int(digest[:16], 16) / 2**64
        expected = "test" if unit < 0.2 else "validation" if unit < 0.35 else "train"
        assert split_of(patient, "salt", 0.15, 0.2) == expected


def test_known_patients_stay_where_they_are():
    """Frozen answers: a change here would move patients between train and test."""
    assert [split_of(f"p{i}", "penumo-1", 0.15, 0.20) for i in range(6)] == FROZEN


FROZEN = ["train", "validation", "train", "test", "test", "train"]


@given(st.lists(st.text(min_size=1), unique=True, max_size=30), st.text())
def test_more_patients_never_move_those_already_there(patients, newcomer):
    before = {p: split_of(p, "s", 0.15, 0.2) for p in patients}
    split_of(newcomer, "s", 0.15, 0.2)
    assert {p: split_of(p, "s", 0.15, 0.2) for p in patients} == before


def test_the_shares_are_those_asked_for():
    splits = [split_of(f"patient-{i}", "salt", 0.15, 0.20) for i in range(20_000)]
    assert splits.count("test") / 20_000 == pytest.approx(0.20, abs=0.01)
    assert splits.count("validation") / 20_000 == pytest.approx(0.15, abs=0.01)


def test_a_larger_validation_share_takes_patients_from_train_only():
    for i in range(500):
        small, large = split_of(f"{i}", "s", 0.1, 0.2), split_of(f"{i}", "s", 0.3, 0.2)
        assert small == large or (small, large) == ("train", "validation")


def test_a_batch_holds_the_very_pixels_in_the_order_asked_for(dataset):
    split = Split(dataset / "train")
    rows = np.array([20, 0, 3, 17, 3])
    batch = split.gather(rows)
    for image, row in zip(batch, rows, strict=True):
        number = int(split.index["patient_id"][row][1:])
        np.testing.assert_array_equal(image, tensor(number, split.index["label"][row] == "pneumonia"))


def test_a_batch_can_be_written_into_memory_that_is_there(dataset):
    split = Split(dataset / "train")
    out = np.zeros((2, 224, 224, 4), np.uint8)
    assert split.gather(np.array([1, 2]), out=out) is out
    np.testing.assert_array_equal(out, split.gather(np.array([1, 2])))


def test_a_training_set_opens_all_splits(dataset):
    training_set = TrainingSet(dataset)
    assert sum(len(split) for split in training_set.splits.values()) == 48
    assert {name: len(split) for name, split in training_set.splits.items()} == {
        name: split.images for name, split in training_set.dataset.splits.items()
    }


def test_a_split_alone_is_enough(dataset, tmp_path):
    (dataset / "validation").rename(tmp_path / "alone")
    assert Split(tmp_path / "alone").dataset.classes == ["normal", "pneumonia"]


@pytest.mark.parametrize("kept", [0, 50, 1000, 224 * 224 * 4 * 3])
def test_a_shard_cut_short_is_one_clear_error(dataset, kept):
    shard = dataset / "train" / "shard-00000.npy"
    shard.write_bytes(shard.read_bytes()[:kept])
    with pytest.raises(JobError, match=r"train/shard-00000\.npy is cut short or not an array; pack"):
        Split(dataset / "train")


def test_a_missing_shard_is_named(dataset):
    (dataset / "train" / "shard-00001.npy").unlink()
    with pytest.raises(JobError, match=r"train/shard-00001\.npy is missing"):
        Split(dataset / "train")


def test_a_shard_of_pickled_objects_is_refused(dataset):
    np.save(dataset / "train" / "shard-00000.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(JobError, match="not an array"):
        Split(dataset / "train")


def test_a_shard_of_another_shape_is_refused(dataset):
    np.save(dataset / "train" / "shard-00000.npy", np.zeros((2, 100, 100, 4), np.uint8))
    with pytest.raises(JobError, match=r"expected \(n, 224, 224, 4\)"):
        Split(dataset / "train")


def test_an_index_that_names_other_rows_is_refused(dataset):
    path = dataset / "train" / "index.parquet"
    pd.read_parquet(path).iloc[1:].to_parquet(path)
    with pytest.raises(JobError, match="but the index names"):
        Split(dataset / "train")


def test_an_index_without_a_column_is_refused(dataset):
    path = dataset / "train" / "index.parquet"
    pd.read_parquet(path).drop(columns=["cohort"]).to_parquet(path)
    with pytest.raises(JobError, match="lacks the columns cohort"):
        Split(dataset / "train")


def test_a_folder_that_is_no_training_set_says_so(tmp_path):
    with pytest.raises(JobError, match="not a packed training set"):
        Split(tmp_path)


def test_a_broken_dataset_file_says_so(dataset):
    path = dataset / "train" / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema": "other"}))
    with pytest.raises(JobError, match=r"dataset\.json is not valid"):
        Split(dataset / "train")
