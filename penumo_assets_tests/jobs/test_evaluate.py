import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from penumo_assets.imaging.npz_writer import npz_bytes
from penumo_assets.jobs import contract
from penumo_assets.jobs.contract import JobError
from penumo_assets.jobs.evaluate import __main__ as evaluate
from penumo_assets.jobs.shards import INDEX_COLUMNS, TrainingSet
from penumo_assets.metrics.report.content import read_report
from penumo_assets.models.classifier import build_classifier, save_classifier
from penumo_assets.models.inputs import default_normalisation, normalise

CLASSES = ["normal", "pneumonia"]
IMAGES = {"train": 16, "validation": 20, "test": 26}
FAST = ["--bootstrap", "40", "--batch-size", "8"]


def tensors(targets: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """(n, 224, 224, 4) uint8: noise with two lungs in the mask, brighter where the target is positive."""
    images = random.integers(0, 120, (len(targets), 224, 224, 4), dtype=np.uint8)
    images[..., :3] += (targets * 90).astype(np.uint8)[:, None, None, None]
    images[..., 3] = 0
    images[:, 40:180, 30:100, 3] = images[:, 40:180, 125:195, 3] = 255
    return images


def write_dataset(folder: Path, classes: list[str] = CLASSES, images: dict[str, int] = IMAGES, seed: int = 0) -> None:
    """A packed training set in two shards per split, with two images per patient."""
    random = np.random.default_rng(seed)
    splits = {}
    for split, n in images.items():
        targets = np.arange(n) % len(classes)
        looks = np.where(np.arange(n) % 7 == 3, 0, targets)  # some images are not what they look like
        pixels = tensors(looks, random)
        (folder / split).mkdir(parents=True)
        half = n // 2
        for number, part in enumerate((pixels[:half], pixels[half:])):
            np.save(folder / split / f"shard-{number:05d}.npy", part)
        rows = pd.DataFrame({name: [None] * n for name in INDEX_COLUMNS})
        rows["shard"], rows["row"] = (np.arange(n) >= half).astype(int), np.r_[np.arange(half), np.arange(n - half)]
        rows["image_id"] = [f"{split}-{i}" for i in range(n)]
        rows["patient_id"] = [f"{split}-p{i // 2}" for i in range(n)]
        rows["cohort"] = ["alpha" if i % 3 else "beta" for i in range(n)]
        rows["label"], rows["target"] = np.array(classes, dtype=object)[targets], targets
        rows["sex"] = ["F" if i % 5 else "M" for i in range(n)]
        for name in ("source_width", "source_height", "source_bytes"):
            rows[name] = random.integers(900, 1300, n)
        rows["mean_intensity"] = random.normal(100, 10, n)
        rows["pixel_sha256"] = rows["image_id"]
        rows.to_parquet(folder / split / "index.parquet")
        counts = {name: int((targets == i).sum()) for i, name in enumerate(classes)}
        splits[split] = {"images": n, "patients": len(set(rows["patient_id"])), "counts": counts}
    document = {
        "schema": "penumo/training-set/1", "classes": classes, "splits": splits, "image_shape": [224, 224, 4],
        "positive_class": classes[-1] if len(classes) == 2 else None, "salt": "penumo-1", "cohorts": ["alpha", "beta"],
        "fractions": {"train": 0.65, "validation": 0.15, "test": 0.2}, "digest": "d" * 64,
    }  # fmt: skip
    (folder / "dataset.json").write_text(json.dumps(document))


def write_model(folder: Path, scratch: Path, spoil: Any = None, **changes: Any) -> None:
    """model.tar.gz of a small-input ResNet-34; ``spoil`` may damage the network first."""
    metadata = {
        "schema": "penumo/model/1", "architecture": "resnet34", "classes": CLASSES, "input_channels": 4,
        "image_size": 32, "threshold": 0.5, "split_salt": "penumo-1", "dataset_digest": "d" * 64, "metrics": {},
        "versions": {}, "hyperparameters": {"pretrained": "none"},
    } | changes  # fmt: skip
    metadata["normalisation"] = default_normalisation(metadata["input_channels"])
    torch.manual_seed(0)
    model = build_classifier("resnet34", len(metadata["classes"]), metadata["input_channels"])
    if spoil is not None:
        spoil(model)
    save_classifier(scratch, model, metadata)
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(folder / "model.tar.gz", "w:gz", compresslevel=0) as archive:
        for path in sorted(scratch.iterdir()):
            archive.add(path, path.name)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The job's root after one full run."""
    root = tmp_path_factory.mktemp("evaluate")
    inputs = root / "processing" / "input"
    write_dataset(inputs / "dataset")
    write_model(inputs / "model", root / "scratch")
    (inputs / "context").mkdir()
    context = {
        "phantoms": True, "code_version": "1.2.3", "gates": {"min_roc_auc_low": 0.99},
        "flow": {"alpha": {"accepted": 40, "rejected": {"lateral_view": 2}}},
        "dice": [{"cohort": "alpha", "patient_id": "p", "image_id": "i", "dice": 0.9, "iou": 0.82}],
    }  # fmt: skip
    (inputs / "context" / "context.json").write_text(json.dumps(context))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PENUMO_OPT_ML", str(root))
        evaluate.main(FAST)
    return root


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A fresh job root with data; the test adds its model."""
    monkeypatch.setenv("PENUMO_OPT_ML", str(tmp_path))
    write_dataset(tmp_path / "processing" / "input" / "dataset", images={"train": 4, "validation": 6, "test": 6})
    return tmp_path


def report_folder(root: Path) -> Path:
    return root / "processing" / "output" / "report"


def run_expecting_refusal(match: str) -> None:
    with pytest.raises(JobError, match=match):
        evaluate.main(FAST)
    assert not (report_folder(contract.opt_ml()) / "result.json").exists()


def test_the_job_leaves_report_page_predictions_and_result(finished):
    folder = report_folder(finished)
    assert sorted(path.name for path in folder.iterdir()) == [
        "predictions.parquet", "report.html", "report.json", "result.json",
    ]  # fmt: skip
    report = json.loads((folder / "report.json").read_text())
    read_report(json.dumps(report))
    result = contract.ResultFile.model_validate_json((folder / "result.json").read_text())
    assert result.program == "evaluate"
    assert result.values["test_roc_auc"] == report["performance"]["test"]["roc_auc"]["value"]
    assert result.values["dice_mean"] == pytest.approx(0.9)
    assert result.values["gates_passed"] is False
    assert result.values["phantoms"] is True


def test_every_result_value_is_flat(finished):
    values = json.loads((report_folder(finished) / "result.json").read_text())["values"]
    assert all(value is None or isinstance(value, int | float | str) for value in values.values())


def test_the_predictions_are_the_networks_own_in_the_order_of_the_index(finished, tmp_path):
    rows = pd.read_parquet(report_folder(finished) / "predictions.parquet")
    assert rows.groupby("split").size().to_dict() == {"test": 26, "validation": 20}
    split = TrainingSet(finished / "processing" / "input" / "dataset").splits["test"]
    from penumo_assets.models.classifier import load_classifier

    model, metadata = load_classifier(finished / "scratch")
    with torch.no_grad():
        logits = model(normalise(torch.from_numpy(split.gather(np.arange(26))), metadata))
    expected = torch.softmax(logits.double(), 1)[:, 1].numpy()
    test = rows[rows["split"] == "test"]
    assert test["image_id"].tolist() == split.index["image_id"].tolist()
    np.testing.assert_allclose(test["probability_pneumonia"], expected, atol=1e-5)
    np.testing.assert_allclose(test["probability_pneumonia"] + test["probability_normal"], 1.0)
    threshold = json.loads((report_folder(finished) / "report.json").read_text())["decision_rule"]["threshold"]
    called = np.where(test["probability_pneumonia"] >= threshold, "pneumonia", "normal")
    assert test["decision"].tolist() == called.tolist()


def test_the_page_shows_the_worst_errors_with_contour_and_grad_cam(finished):
    page = (report_folder(finished) / "report.html").read_text()
    failures = json.loads((report_folder(finished) / "report.json").read_text())["failures"]
    assert len(failures) > 0
    assert page.count("data:image/jpeg;base64,") == 2 * len(failures)
    assert "These are phantoms, not patients." in page


def test_grad_cam_is_held_to_the_lungs_at_the_networks_own_resolution(finished):
    report = read_report((report_folder(finished) / "report.json").read_text())
    found = report.explanation
    assert found.grid == (1, 1)  # 32 pixels, halved five times: one cell, so the map is even
    assert found.looked_at == report.data.splits.test.counts["pneumonia"]
    assert found.energy.value == pytest.approx(found.lungs, abs=1e-6)
    assert found.lungs == pytest.approx(140 * 140 / 224**2, abs=1e-6)
    assert next(row for row in report.checklist if row.item == 31).section == "explanation"
    assert found.boxes is None
    assert "No boxes in these cohorts." in (report_folder(finished) / "report.html").read_text()


def test_no_patient_id_reaches_report_page_or_result(finished):
    for name in ("report.json", "report.html", "result.json"):
        assert "test-p1" not in (report_folder(finished) / name).read_text()


def test_validate_accepts_the_report_and_refuses_a_changed_one(finished, tmp_path, capsys):
    evaluate.main(["--validate", str(report_folder(finished) / "report.json")])
    assert "follows the schema penumo/evaluation-report/3" in capsys.readouterr().out
    broken = json.loads((report_folder(finished) / "report.json").read_text())
    broken["performance"]["test"].pop("roc_auc")
    (tmp_path / "broken.json").write_text(json.dumps(broken))
    with pytest.raises(JobError, match=r"performance/test.*roc_auc"):
        evaluate.main(["--validate", str(tmp_path / "broken.json")])
    (tmp_path / "no.json").write_text("{")
    with pytest.raises(JobError, match=r"no\.json cannot be read"):
        evaluate.main(["--validate", str(tmp_path / "no.json")])


def test_the_module_validates_from_the_command_line(finished):
    done = subprocess.run(
        [sys.executable, "-m", "penumo_assets.jobs.evaluate", "--validate", report_folder(finished) / "report.json"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "follows the schema" in done.stdout


def test_a_second_models_predictions_are_compared(finished, monkeypatch, tmp_path):
    monkeypatch.setenv("PENUMO_OPT_ML", str(tmp_path))
    inputs = tmp_path / "processing" / "input"
    inputs.mkdir(parents=True)
    for name in ("dataset", "model"):
        (inputs / name).symlink_to(finished / "processing" / "input" / name)
    (inputs / "reference").mkdir()
    (report_folder(finished) / "predictions.parquet").rename(inputs / "reference" / "predictions.parquet")
    try:
        evaluate.main(FAST)
    finally:
        (inputs / "reference" / "predictions.parquet").rename(report_folder(finished) / "predictions.parquet")
    report = json.loads((report_folder(tmp_path) / "report.json").read_text())
    assert report["comparison"]["images"] == 26
    assert report["comparison"]["result"]["difference"] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"classes": ["normal", "covid"]}, r"the model's classes are \['normal', 'covid'\].*\['normal', 'pneumonia'\]"),
        ({"classes": ["pneumonia", "normal"]}, "the model's classes"),
    ],
)
def test_a_model_of_other_classes_is_refused_with_both_sides_named(root, changes, match):
    write_model(root / "processing" / "input" / "model", root / "scratch", **changes)
    run_expecting_refusal(match)


def test_a_model_whose_patients_were_split_otherwise_is_refused(root):
    write_model(root / "processing" / "input" / "model", root / "scratch", split_salt="other")
    run_expecting_refusal("split with salt 'other', the data's with 'penumo-1'")


@pytest.mark.parametrize(
    ("shape", "match"),
    [
        ([224, 224, 3], "the model takes 4 channels, the data has 3"),
        ([16, 16, 4], "the model takes images of 32x32 pixels, the data has 16x16"),
    ],
)
def test_a_model_of_another_input_is_refused_with_both_sides_named(root, finished, shape, match):
    path = root / "processing" / "input" / "dataset" / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"image_shape": shape}))
    (root / "processing" / "input" / "model").symlink_to(finished / "processing" / "input" / "model")
    run_expecting_refusal(match)


def test_a_model_that_gives_nan_is_refused(root):
    def spoil(model: torch.nn.Module) -> None:
        model.fc.bias.data[0] = float("nan")

    write_model(root / "processing" / "input" / "model", root / "scratch", spoil)
    run_expecting_refusal("validation: 6 of 6 scores are NaN or infinite")


def test_a_missing_model_is_refused(root):
    run_expecting_refusal(r"no model\.tar\.gz")


@pytest.mark.parametrize("name", ["../outside.txt", "/tmp/outside.txt"])
def test_an_archive_that_leads_outside_is_refused(root, name):
    folder = root / "processing" / "input" / "model"
    folder.mkdir(parents=True)
    with tarfile.open(folder / "model.tar.gz", "w:gz") as archive:
        member = tarfile.TarInfo(name)
        member.size = 4
        archive.addfile(member, io.BytesIO(b"evil"))
    run_expecting_refusal("leads outside")


@pytest.mark.parametrize(
    ("text", "match"),
    [("{", "not JSON"), ("[1]", "must be an object"), ('{"gates": {"x": 1}}', r"gates\.x: Extra inputs")],
)
def test_a_context_that_cannot_be_used_is_refused(root, finished, text, match):
    (root / "processing" / "input" / "model").symlink_to(finished / "processing" / "input" / "model")
    (root / "processing" / "input" / "context").mkdir()
    (root / "processing" / "input" / "context" / "context.json").write_text(text)
    run_expecting_refusal(match)


def test_a_failure_leaves_its_reason_where_sagemaker_looks(root):
    with pytest.raises(SystemExit):
        contract.run_program(evaluate.main, FAST)
    assert "no model.tar.gz" in (root / "output" / "failure").read_text()


@pytest.mark.parametrize(
    ("test_classes", "reason"), [((0, 0), "no image of class pneumonia"), ((), "no labelled images")]
)
def test_a_test_set_of_one_class_or_without_labels_gives_null_with_its_reason(
    tmp_path, monkeypatch, test_classes, reason
):
    """An unlabelled image never reaches the packed set, so a cohort without labels is an empty split."""
    monkeypatch.setenv("PENUMO_OPT_ML", str(tmp_path))
    inputs = tmp_path / "processing" / "input"
    write_dataset(inputs / "dataset", images={"train": 4, "validation": 8, "test": 8})
    keep_test_images(inputs / "dataset", [0, 2, 4, 6] if test_classes else [])
    write_model(inputs / "model", tmp_path / "scratch")
    evaluate.main(FAST)
    report = json.loads((report_folder(tmp_path) / "report.json").read_text())
    read_report(json.dumps(report))
    for metric in ("roc_auc", "pr_auc", "recall"):
        estimate = report["performance"]["test"][metric]
        assert estimate["value"] is None
        assert reason in estimate["reason"]
    assert report["performance"]["validation"]["roc_auc"]["value"] is not None
    values = json.loads((report_folder(tmp_path) / "result.json").read_text())["values"]
    assert values["test_roc_auc"] is None
    assert values["gates_passed"] is False
    assert reason in (report_folder(tmp_path) / "report.html").read_text()


def keep_test_images(dataset: Path, rows: list[int]) -> None:
    """Leave only these images in the test split; even rows are of the first class."""
    folder = dataset / "test"
    index = pd.read_parquet(folder / "index.parquet").iloc[rows].reset_index(drop=True)
    pixels = np.concatenate([np.load(path) for path in sorted(folder.glob("*.npy"))])[rows]
    for path in folder.glob("*.npy"):
        path.unlink()
    if rows:
        np.save(folder / "shard-00000.npy", pixels)
    index["shard"], index["row"] = 0, np.arange(len(index))
    index.to_parquet(folder / "index.parquet")
    document = json.loads((dataset / "dataset.json").read_text())
    document["splits"]["test"] = {
        "images": len(index), "patients": int(index["patient_id"].nunique()),
        "counts": {name: int((index["label"] == name).sum()) for name in CLASSES},
    }  # fmt: skip
    (dataset / "dataset.json").write_text(json.dumps(document))


def test_three_classes_are_evaluated_without_a_threshold(tmp_path, monkeypatch):
    monkeypatch.setenv("PENUMO_OPT_ML", str(tmp_path))
    classes = ["covid", "normal", "pneumonia"]
    write_dataset(tmp_path / "processing" / "input" / "dataset", classes, {"train": 6, "validation": 12, "test": 12})
    write_model(tmp_path / "processing" / "input" / "model", tmp_path / "scratch", classes=classes, threshold=None)
    evaluate.main(FAST)
    values = json.loads((report_folder(tmp_path) / "result.json").read_text())["values"]
    assert values["threshold"] is None
    assert values["test_top_2_accuracy"] >= values["test_accuracy"]


@pytest.mark.parametrize("arguments", [["--bootstrap", "0"], ["--batch-size", "0"]])
def test_senseless_options_are_refused(arguments, capsys):
    with pytest.raises(SystemExit):
        evaluate.main(arguments)
    assert "at least 1" in capsys.readouterr().err


@pytest.mark.parametrize(("cohort", "reason"), [("gamma", ""), ("alpha", "alpha is part of the training set")])
def test_an_external_cohort_takes_the_place_of_the_test_split_and_of_nothing_else(root, cohort, reason):
    inputs = root / "processing" / "input"
    write_model(inputs / "model", root / "scratch")
    (inputs / "npz" / cohort).mkdir(parents=True)
    for name in ("index", "context"):
        (inputs / name).mkdir()
    lines = []
    for i, image in enumerate(tensors(np.arange(20) % 2, np.random.default_rng(5))):
        (inputs / "npz" / cohort / f"{i}.npz").write_bytes(npz_bytes(image))
        patient = {"image_id": f"e{i}", "patient_id": f"e{i}", "label": CLASSES[i % 2]}
        lines.append(patient | {"file": f"{cohort}/{i}.npz", "cohort": cohort})
    (inputs / "index" / "items.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (inputs / "context" / "context.json").write_text(json.dumps({"external": cohort}))
    if reason:
        return run_expecting_refusal(reason)
    evaluate.main(FAST)
    report = read_report((report_folder(root) / "report.json").read_text())
    assert report.external == "gamma"
    assert (report.data.splits.test.images, report.data.splits.validation.images) == (20, 6)
    rows = pd.read_parquet(report_folder(root) / "predictions.parquet")
    assert set(rows.loc[rows["split"] == "test", "cohort"]) == {"gamma"}
    assert set(rows.loc[rows["split"] == "validation", "cohort"]) == {"alpha", "beta"}
    page = (report_folder(root) / "report.html").read_text()
    assert "External validation (gamma)" in page
    assert "All figures are measured on cohort gamma" in page
