"""The inference job: one row per usable image, the same answer alone or in a batch."""

import json
import tarfile

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

from penumo_assets.jobs.contract import JobError
from penumo_assets.jobs.infer import __main__ as infer
from penumo_assets.jobs.infer import handler
from penumo_assets.jobs.infer.pictures import overlay
from penumo_assets.metrics.report.pictures import with_contour, with_heat
from penumo_assets.models.classifier import build_classifier, load_classifier, save_classifier
from penumo_assets.models.inputs import default_normalisation
from penumo_assets_tests.jobs.training_samples import tensor, write_inputs
from penumo_assets_tests.models.tiny import use_tiny_networks

CLASSES = ["normal", "pneumonia"]


@pytest.fixture(autouse=True)
def _tiny(monkeypatch):
    use_tiny_networks(monkeypatch.setattr)
    torch.manual_seed(0)


@pytest.fixture
def job(tmp_path, monkeypatch):
    monkeypatch.setenv("PENUMO_OPT_ML", str(tmp_path))
    items = write_inputs(tmp_path, images=10)
    write_infer_items(tmp_path, [only_known(item) for item in items])
    write_model(tmp_path)
    return tmp_path


def only_known(item):
    return {name: item[name] for name in ("file", "image_id", "patient_id", "label", "sha256")}


def write_infer_items(root, items):
    index = root / "processing/input/index"
    index.mkdir(exist_ok=True)
    (index / "items.jsonl").write_text("\n".join(json.dumps(item) for item in items))


def read_items(root):
    return [json.loads(line) for line in (root / "processing/input/index/items.jsonl").read_text().splitlines()]


def write_model(root, **changes):
    metadata = {
        "schema": "penumo/model/1",
        "architecture": "resnet34",
        "classes": CLASSES,
        "input_channels": 4,
        "image_size": 64,
        "normalisation": default_normalisation(4),
        "threshold": 0.5,
        "split_salt": "s",
        "dataset_digest": "d",
        "metrics": {},
        "versions": {},
        "hyperparameters": {},
    } | changes
    model = build_classifier("resnet34", len(metadata["classes"]), 4)
    torch.nn.init.normal_(model.fc.weight, std=2.0)
    save_classifier(root / "trained", model, metadata)
    archive_model(root)


def archive_model(root):
    folder = root / "processing/input/model"
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(folder / "model.tar.gz", "w:gz") as archive:
        for path in (root / "trained").iterdir():
            archive.add(path, path.name)


def run(root, *options):
    infer.main(["--threads", "1", *options])
    output = root / "processing/output/predictions"
    return pd.read_parquet(output / "predictions.parquet"), json.loads((output / "result.json").read_text())["values"]


def test_every_image_gets_one_row_with_its_probabilities_and_decision(job):
    frame, values = run(job, "--model-version", "7")
    assert list(frame["image_id"]) == [f"i{i:03d}" for i in range(10)]
    np.testing.assert_allclose(frame["probability_normal"] + frame["probability_pneumonia"], 1)
    decided = np.where(frame["probability_pneumonia"] >= 0.5, "pneumonia", "normal")
    assert list(frame["decision"]) == list(decided)
    assert set(frame["model_version"]) == {"7"}
    assert set(frame["threshold"]) == {0.5}
    assert values["decisions"] == {name: int((decided == name).sum()) for name in CLASSES}
    assert values["images"] == values["labelled"] == 10


def test_the_answer_does_not_depend_on_the_batch(job):
    alone, _ = run(job, "--batch-size", "1")
    together, _ = run(job, "--batch-size", "10")
    np.testing.assert_allclose(alone["probability_pneumonia"], together["probability_pneumonia"], atol=1e-5)


def test_unlabelled_images_are_predicted_too(job):
    items = read_items(job)
    for item in items[:4]:
        item["label"] = None
    write_infer_items(job, items)
    frame, values = run(job)
    assert values["labelled"] == 6
    assert frame["label"].isna().sum() == 4
    assert frame["probability_pneumonia"].notna().all()


def test_a_model_with_a_temperature_gives_calibrated_probabilities(job):
    write_model(job, temperature=2.0)
    frame, _ = run(job)
    logit = np.log(frame["probability_pneumonia"] / frame["probability_normal"])
    np.testing.assert_allclose(frame["calibrated_probability_pneumonia"], 1 / (1 + np.exp(-logit / 2)), atol=1e-9)
    columns = ["calibrated_probability_normal", "calibrated_probability_pneumonia"]
    np.testing.assert_allclose(frame[columns].sum(axis=1), 1)


def test_without_a_temperature_calibrated_probabilities_are_missing_not_made_up(job):
    frame, _ = run(job)
    assert frame[["calibrated_probability_normal", "calibrated_probability_pneumonia"]].isna().all(axis=None)


def test_a_champions_rule_decides_and_the_calibrated_threshold_is_the_same_cut(job):
    cut = float(run(job)[0]["probability_pneumonia"].median())
    rule = {"threshold": cut, "temperature": 2.0, "source": "Youden's index on validation"}
    (job / "trained" / "decision_rule.json").write_text(json.dumps(rule))
    archive_model(job)
    frame, values = run(job)
    assert set(frame["threshold"]) == {cut}
    assert values["threshold"] == cut
    called = frame["decision"] == "pneumonia"
    assert list(called) == list(frame["probability_pneumonia"] >= cut)
    assert list(called) == list(frame["calibrated_probability_pneumonia"] >= frame["calibrated_threshold"])
    assert called.sum() == 5


def test_what_the_rule_is_not_sure_of_is_not_decided_in_batch_and_endpoint_alike(job):
    odds = np.log(run(job)[0]["probability_pneumonia"] / run(job)[0]["probability_normal"])
    cut = float(odds.abs().median())
    rule = {"threshold": 0.5, "temperature": 2.0, "source": "a test", "undecided_below": cut}
    (job / "trained" / "decision_rule.json").write_text(json.dumps(rule))
    archive_model(job)
    frame, values = run(job)
    withheld = frame["decision"] == "not decided"
    assert list(withheld) == list(odds.abs() < cut)
    assert values["decisions"]["not decided"] == withheld.sum() == 5
    endpoint = handler.model_fn(str(job / "trained"))
    for item, decision in zip(read_items(job), frame["decision"], strict=True):
        tensor = (job / "processing/input/npz" / item["file"]).read_bytes()
        assert handler.predict_fn(handler.input_fn(tensor, "application/x-npz"), endpoint)["decision"] == decision


def test_offsets_of_the_rule_move_the_calibrated_probability_and_no_decision(job):
    rule = {"threshold": 0.4, "temperature": 2.0, "source": "a test"}
    (job / "trained" / "decision_rule.json").write_text(json.dumps(rule))
    archive_model(job)
    before, _ = run(job)
    (job / "trained" / "decision_rule.json").write_text(json.dumps(rule | {"offsets": [0.7, -0.7]}))
    archive_model(job)
    after, _ = run(job)
    columns = [f"calibrated_probability_{name}" for name in ("pneumonia", "normal")]
    odds = [np.log(frame[columns[0]] / frame[columns[1]]) for frame in (before, after)]
    np.testing.assert_allclose(odds[1], odds[0] - 1.4, atol=1e-6)
    assert list(after["decision"]) == list(before["decision"])
    assert list(after["decision"] == "pneumonia") == list(
        after["calibrated_probability_pneumonia"] >= after["calibrated_threshold"]
    )


@pytest.mark.parametrize(
    ("rule", "classes", "reason"),
    [
        ({"treshold": 0.3}, CLASSES, "is no decision rule"),
        ({"threshold": 0.3, "temperature": 1.0, "source": "x", "offsets": [0.1]}, CLASSES, "1 offsets.*2 classes"),
        ({"threshold": 0.3, "temperature": None, "source": "x"}, ["a", "b", "c"], "has a threshold.*3 classes"),
    ],
)
def test_a_rule_that_does_not_fit_the_model_is_refused(job, rule, classes, reason):
    write_model(job, classes=classes, threshold=None)
    (job / "trained" / "decision_rule.json").write_text(json.dumps(rule))
    archive_model(job)
    with pytest.raises(JobError, match=reason):
        run(job)


def test_quality_flags_version_and_architecture_stand_beside_every_answer(job):
    items = read_items(job)
    items[3]["quality_flags"] = ["window:percentile", "burned_in_annotation"]
    write_infer_items(job, items)
    frame, values = run(job, "--model-version", "12")
    assert frame["quality_flags"].tolist()[2:5] == ["", "window:percentile;burned_in_annotation", ""]
    assert set(frame["architecture"]) == {"resnet34"}
    assert values["quality_flags"] == {"window:percentile": 1, "burned_in_annotation": 1}


def test_the_table_is_written_as_csv_too_and_no_cell_is_a_formula(job):
    items = read_items(job)
    items[0]["patient_id"] = "=1+1"
    write_infer_items(job, items)
    frame, _ = run(job)
    table = pd.read_csv(job / "processing/output/predictions/predictions.csv", keep_default_na=False)
    assert list(table.columns) == list(frame.columns)
    assert table["probability_pneumonia"].tolist() == pytest.approx(frame["probability_pneumonia"].tolist())
    assert table["patient_id"].tolist() == ["'=1+1", *frame["patient_id"].tolist()[1:]]


def test_a_label_that_the_model_does_not_know_is_named_and_the_image_predicted(job):
    items = read_items(job)
    items[0]["label"] = "covid"
    write_infer_items(job, items)
    frame, values = run(job)
    assert len(frame) == 10
    assert values["labels_the_model_does_not_know"] == ["covid"]


@pytest.mark.parametrize("trained_on_it", [False, True])
def test_drift_compares_with_the_models_own_data(job, trained_on_it: bool):
    """With all of it where the cohort is new; with the cohort's own part where the model was trained on it."""
    items = [item | {"image_id": f"{item['image_id']}-{copy}"} for copy in range(6) for item in read_items(job)]
    random = np.random.default_rng(0)
    for item in items:
        item |= {"source_width": 1000, "source_height": 900, "source_bytes": 5e4, "mean_intensity": random.random()}
    write_infer_items(job, items)
    n = 400
    training = pd.DataFrame(
        {
            "source_width": random.integers(2000, 3000, n),
            "source_height": random.integers(2000, 3000, n),
            "source_bytes": random.integers(5e6, 6e6, n),
            "mean_intensity": random.random(n),
            "cohort": "other",
        }
    )
    if trained_on_it:
        own = training.assign(
            source_width=1000, source_height=900, source_bytes=5e4, cohort=items[0]["file"].split("/")[0]
        )
        training = pd.concat([training, own])
    (job / "processing/input/training/train").mkdir(parents=True)
    training.to_parquet(job / "processing/input/training/train/index.parquet")
    (job / "processing/input/reference").mkdir()
    held_out = pd.DataFrame({"probability_pneumonia": random.random(n)})
    held_out.to_parquet(job / "processing/input/reference/predictions.parquet")
    _, values = run(job, "--max-psi", "0.25")
    rows = {row["feature"]: row for row in values["drift"]}
    assert set(rows) == {"probability_pneumonia", "mean_intensity", "aspect_ratio", "megapixels", "file_bytes"}
    assert rows["megapixels"]["moved"] is not trained_on_it
    assert rows["file_bytes"]["moved"] is not trained_on_it
    assert not rows["mean_intensity"]["moved"]
    assert rows["probability_pneumonia"]["images"] == 60


def test_labelled_images_are_measured_with_intervals_and_beside_shortcuts(job):
    """The labels say what the file size says; the network knows nothing."""
    random, items = np.random.default_rng(0), []
    for copy in range(8):
        for item in read_items(job):
            label = CLASSES[len(items) % 2]
            size = 4e5 * (1 + CLASSES.index(label)) + random.normal(0, 1e5)
            unique = {"image_id": f"{item['image_id']}-{copy}", "patient_id": f"p{len(items)}"}
            items.append(item | unique | {"label": label, "source_bytes": round(size)})
    write_infer_items(job, items)
    target = np.arange(200) % 2
    training = pd.DataFrame(
        {"cohort": "elsewhere", "target": target, "source_bytes": 4e5 * (1 + target) + random.normal(0, 1e5, 200)}
    )
    (job / "processing/input/training/train").mkdir(parents=True)
    training.assign(source_width=np.nan, source_height=np.nan, mean_intensity=np.nan).to_parquet(
        job / "processing/input/training/train/index.parquet"
    )
    frame, values = run(job)
    metrics = {row["metric"]: row for row in values["metrics"]}
    assert metrics["roc_auc"]["value"] == pytest.approx(
        roc_auc_score(frame["label"] == "pneumonia", frame["probability_pneumonia"])
    )
    assert metrics["roc_auc"]["low"] < metrics["roc_auc"]["value"] < metrics["roc_auc"]["high"]
    (row,) = [row for row in values["shortcuts"] if row["shortcut"] == "file_size"]
    assert row["shortcut_auc"] > 0.9
    assert row["verdict"] == "shortcut better"
    assert values["trained_on_this_cohort"] is False


def test_without_labels_nothing_is_measured(job):
    write_infer_items(job, [item | {"label": None} for item in read_items(job)])
    _, values = run(job)
    assert (values["metrics"], values["shortcuts"]) == ([], [])


def test_without_the_models_data_there_is_no_drift_to_tell(job):
    assert run(job)[1]["drift"] == []


def test_the_same_file_is_sagemakers_inference_handler(job):
    endpoint = handler.model_fn(str(job / "trained"))
    frame, _ = run(job)
    file = read_items(job)[0]["file"]
    body = (job / "processing/input/npz" / file).read_bytes()
    answer = handler.predict_fn(handler.input_fn(body, "application/x-npz"), endpoint)
    text, content_type = handler.output_fn(answer)
    assert content_type == "application/json"
    found = json.loads(text)["probabilities"]["pneumonia"]
    assert found == pytest.approx(frame["probability_pneumonia"][0], abs=1e-5)


def test_three_classes_are_decided_by_the_likeliest(job):
    write_model(job, classes=["a", "b", "c"], threshold=None)
    frame, _ = run(job)
    values = frame[["probability_a", "probability_b", "probability_c"]].to_numpy()
    assert list(frame["decision"]) == [["a", "b", "c"][i] for i in values.argmax(axis=1)]
    assert frame["threshold"].isna().all()


def test_unusable_files_are_named_and_the_others_predicted(job):
    items = read_items(job)
    npz = job / "processing/input/npz"
    (npz / items[2]["file"]).write_bytes(b"no")
    (npz / items[5]["file"]).unlink()
    items[7]["file"] = "../index/items.jsonl"
    write_infer_items(job, items)
    frame, values = run(job, "--batch-size", "2")
    assert len(frame) == 7
    assert [entry["file"] for entry in values["unusable"]] == [items[2]["file"], items[5]["file"], items[7]["file"]]


def test_overlays_are_written_for_the_likeliest_positives(job):
    frame, values = run(job, "--overlay", "--overlay-limit", "2")
    pictures = sorted((job / "processing/output/predictions/overlays").iterdir())
    likeliest = frame.nlargest(2, "probability_pneumonia")["file"]
    assert [p.stem for p in pictures] == sorted(name.split("/")[-1].removesuffix(".npz") for name in likeliest)
    assert values["overlays"] == 2
    assert cv2.imread(str(pictures[0])).shape == (224, 448, 3)


def test_an_overlay_shows_the_contour_beside_what_spoke_for_the_positive_class(job):
    classifier = infer.Classifier.load(job / "trained", "cpu")
    image = tensor(1, True)
    picture = overlay(classifier, image, np.array([0.9, 0.1]))
    np.testing.assert_array_equal(picture[:, :224], with_contour(image))
    heat = classifier.heat(image[None], np.array([1]))[0]
    np.testing.assert_array_equal(picture[:, 224:], with_heat(image, heat))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda root: write_infer_items(root, []), "names no image"),
        (lambda root: (root / "processing/input/index/items.jsonl").unlink(), r"no items\.jsonl"),
        (lambda root: write_infer_items(root, [{"file": "x.npz"}]), "line 1: image_id"),
        (lambda root: (root / "processing/input/model/model.tar.gz").write_bytes(b"no"), "model cannot be used"),
        (lambda root: (root / "processing/input/model/model.tar.gz").unlink(), r"no metadata\.json"),
        (lambda root: [p.unlink() for p in root.glob("processing/input/npz/*/*.npz")], "none of the 10 tensor files"),
    ],
)
def test_impossible_inputs_are_refused(job, change, reason):
    change(job)
    with pytest.raises(JobError, match=reason):
        run(job)


def test_a_model_that_answers_nan_is_refused(job):
    model, metadata = load_classifier(job / "trained")
    torch.nn.init.constant_(model.fc.bias, float("nan"))
    (job / "processing/input/model/model.tar.gz").unlink()
    save_classifier(job / "processing/input/model", model, metadata)
    with pytest.raises(JobError, match="answers NaN"):
        run(job)
