"""The pack job: every usable image once, in its patient's split; the rest named with its reason."""

import json

import numpy as np
import pandas as pd
import pytest

from penumo_assets.jobs.contract import JobError
from penumo_assets.jobs.pack import __main__ as pack
from penumo_assets.jobs.shards import SPLITS, Split, split_of
from penumo_assets.metrics.preparation import QUANTITIES, preparation_quantities
from penumo_assets_tests.jobs.training_samples import CONFIG, run_pack, tensor, write_inputs, write_items


def read_index(opt_ml):
    folder = opt_ml / "processing/output/dataset"
    return pd.concat([pd.read_parquet(folder / name / "index.parquet").assign(split=name) for name in SPLITS])


def test_every_image_lands_once_in_its_patients_split(tmp_path, monkeypatch):
    write_inputs(tmp_path)
    values = run_pack(tmp_path, monkeypatch)
    index = read_index(tmp_path)
    assert sorted(index["patient_id"]) == [f"p{i:03d}" for i in range(48)]
    for row in index.itertuples():
        assert row.split == split_of(row.patient_id, "tests", 0.25, 0.2)
        assert row.target == ["normal", "pneumonia"].index(row.label)
    assert values["images"] == values["patients"] == 48
    assert values["patients_in_several_splits"] == 0
    assert values["unusable"] == []


def test_the_dataset_file_counts_what_is_there(tmp_path, monkeypatch):
    write_inputs(tmp_path)
    run_pack(tmp_path, monkeypatch)
    folder = tmp_path / "processing/output/dataset"
    dataset = json.loads((folder / "dataset.json").read_text())
    index = read_index(tmp_path)
    for name in SPLITS:
        part = index[index["split"] == name]
        assert dataset["splits"][name]["images"] == len(part)
        assert dataset["splits"][name]["counts"] == {
            label: int((part["label"] == label).sum()) for label in ("normal", "pneumonia")
        }
        assert (folder / name / "dataset.json").read_bytes() == (folder / "dataset.json").read_bytes()
    assert dataset["schema"] == "penumo/training-set/1"
    assert dataset["positive_class"] == "pneumonia"
    assert dataset["cohorts"] == ["north", "south"]
    assert dataset["fractions"] == {"train": 0.55, "validation": 0.25, "test": 0.2}


def test_shards_hold_at_most_as_many_images_as_asked_for(tmp_path, monkeypatch):
    write_inputs(tmp_path, shard_images=7)
    run_pack(tmp_path, monkeypatch)
    sizes = [
        len(np.load(p, mmap_mode="r")) for p in sorted((tmp_path / "processing/output/dataset/train").glob("*.npy"))
    ]
    assert sizes[:-1] == [7] * (len(sizes) - 1)
    assert sum(sizes) == len(Split(tmp_path / "processing/output/dataset/train"))


def test_the_index_holds_what_the_preparation_left_beside_the_lungs(tmp_path, monkeypatch):
    write_inputs(tmp_path)
    run_pack(tmp_path, monkeypatch)
    for name in SPLITS:
        split = Split(tmp_path / "processing/output/dataset" / name)
        written = preparation_quantities(split.gather(np.array([0]))[0])
        assert split.index.loc[0, list(QUANTITIES)].astype(float).to_dict() == pytest.approx(written, nan_ok=True)


def test_what_the_source_did_not_say_stays_unknown(tmp_path, monkeypatch):
    write_inputs(tmp_path)
    run_pack(tmp_path, monkeypatch)
    index = read_index(tmp_path).set_index("patient_id")
    assert pd.isna(index.loc["p000", "view"])
    assert pd.isna(index.loc["p000", "age"])
    assert index.loc["p001", "age"] == 40.5
    assert index["sex"].isna().all()


def test_unusable_files_are_named_and_the_others_packed(tmp_path, monkeypatch):
    items = write_inputs(tmp_path)
    npz = tmp_path / "processing/input/npz"
    (npz / items[3]["file"]).write_bytes(b"not an archive")
    (npz / items[10]["file"]).unlink()
    items[20]["file"] = "../config/config.json"
    write_items(tmp_path, items)
    values = run_pack(tmp_path, monkeypatch)
    assert values["unusable_count"] == 3
    reasons = {entry["file"]: entry["reason"] for entry in values["unusable"]}
    assert reasons[items[10]["file"]] == "the file is missing"
    assert reasons["../config/config.json"] == "the name leads outside the folder"
    assert items[3]["file"] in reasons
    folder = tmp_path / "processing/output/dataset"
    assert sum(len(Split(folder / name)) for name in SPLITS) == 45  # opened: every shard is whole


def test_the_digest_depends_on_the_data_and_not_on_the_order_or_the_shards(tmp_path, monkeypatch):
    items = write_inputs(tmp_path, images=12)
    first = run_pack(tmp_path, monkeypatch)["digest"]
    write_items(tmp_path, items[::-1])
    config = tmp_path / "processing/input/config/config.json"
    config.write_text(json.dumps(CONFIG | {"shard_images": 3}))
    assert run_pack(tmp_path, monkeypatch)["digest"] == first
    items[0]["label"] = "pneumonia"
    write_items(tmp_path, items)
    assert run_pack(tmp_path, monkeypatch)["digest"] != first


def test_unchanged_images_are_taken_from_the_previous_set(tmp_path, monkeypatch):
    items = write_inputs(tmp_path)
    first = run_pack(tmp_path, monkeypatch)
    (tmp_path / "processing/output/dataset").rename(tmp_path / "processing/input/previous")
    for item in items[:40]:
        (tmp_path / "processing/input/npz" / item["file"]).unlink()  # so they can come from nowhere else
    values = run_pack(tmp_path, monkeypatch)
    assert values["reused"] == 48
    assert values["digest"] == first["digest"]


def test_a_changed_image_is_not_taken_from_the_previous_set(tmp_path, monkeypatch):
    items = write_inputs(tmp_path)
    run_pack(tmp_path, monkeypatch)
    (tmp_path / "processing/output/dataset").rename(tmp_path / "processing/input/previous")
    items[0]["sha256"] = "0" * 64
    write_items(tmp_path, items)
    assert run_pack(tmp_path, monkeypatch)["reused"] == 47


def test_a_broken_previous_set_is_left_aside(tmp_path, monkeypatch):
    write_inputs(tmp_path)
    first = run_pack(tmp_path, monkeypatch)
    previous = tmp_path / "processing/input/previous"
    (tmp_path / "processing/output/dataset").rename(previous)
    (previous / "train/shard-00000.npy").write_bytes(b"cut")
    values = run_pack(tmp_path, monkeypatch)
    assert 0 < values["reused"] < 48
    assert values["digest"] == first["digest"]


def test_an_image_lost_between_two_sets_stops_the_job(tmp_path, monkeypatch):
    items = write_inputs(tmp_path)
    run_pack(tmp_path, monkeypatch)
    previous = tmp_path / "processing/input/previous"
    (tmp_path / "processing/output/dataset").rename(previous)
    for item in items:  # as when only the previous set is thought to hold them
        (tmp_path / "processing/input/npz" / item["file"]).unlink()
    assert run_pack(tmp_path, monkeypatch)["reused"] == len(items)
    (previous / "train/shard-00000.npy").write_bytes(b"cut")
    with pytest.raises(JobError, match=r"neither among the tensors nor in the previous training set, north/p\d+\.npz"):
        run_pack(tmp_path, monkeypatch)


def test_the_same_film_under_two_patients_is_reported(tmp_path, monkeypatch):
    items = write_inputs(tmp_path, images=24)
    npz = tmp_path / "processing/input/npz"
    (npz / items[5]["file"]).write_bytes((npz / items[2]["file"]).read_bytes())
    pairs = run_pack(tmp_path, monkeypatch)["duplicates_across_patients"]
    assert [(p["image_a"], p["image_b"]) for p in pairs if p["identical"]] in ([("i002", "i005")], [("i005", "i002")])


def test_a_class_missing_from_a_split_is_recorded(tmp_path, monkeypatch):
    items = write_inputs(tmp_path)
    for item in items:
        if split_of(item["patient_id"], "tests", 0.25, 0.2) == "validation":
            item["label"] = "normal"
    write_items(tmp_path, items)
    assert run_pack(tmp_path, monkeypatch)["missing"] == ["validation: pneumonia"]


def test_an_empty_split_is_recorded(tmp_path, monkeypatch):
    write_inputs(tmp_path, images=4, validation_fraction=0.0001, test_fraction=0.0001)
    values = run_pack(tmp_path, monkeypatch)
    assert values["splits"]["test"] == {"images": 0, "patients": 0, "counts": {"normal": 0, "pneumonia": 0}}
    assert len(Split(tmp_path / "processing/output/dataset/test")) == 0


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda items: items.clear(), "names no image"),
        (lambda items: items.append(items[0]), "twice"),
        (lambda items: items[1].pop("label"), "line 2: label"),
        (lambda items: items[0].update(surprise=1), "line 1: surprise"),
    ],
)
def test_impossible_item_lists_are_refused(tmp_path, monkeypatch, change, reason):
    items = write_inputs(tmp_path, images=4)
    change(items)
    write_items(tmp_path, items)
    with pytest.raises(JobError, match=reason):
        run_pack(tmp_path, monkeypatch)


def test_impossible_fractions_are_refused(tmp_path, monkeypatch):
    write_inputs(tmp_path, images=4, validation_fraction=0.5, test_fraction=0.5)
    with pytest.raises(JobError, match="no patient trains"):
        run_pack(tmp_path, monkeypatch)


def test_the_perceptual_hash_survives_resizing_and_brightness_but_not_another_film():
    image = tensor(1, True)[..., 0]
    same = pack.cv2.resize(image, (180, 180), interpolation=pack.cv2.INTER_AREA) // 2 + 30
    distance = (pack.perceptual_hash(image) ^ pack.perceptual_hash(same)).bit_count()
    other = (pack.perceptual_hash(image) ^ pack.perceptual_hash(tensor(2, True)[..., 0])).bit_count()
    assert distance <= 4 < other
