"""A training by hand with only SageMaker's variables set, and what it refuses."""

import json
from itertools import pairwise

import mlflow
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from penumo_assets.configs.train import AugmentConfig, MixedPrecision, TrainConfig, hyperparameter_fields
from penumo_assets.jobs import contract
from penumo_assets.jobs.contract import JobError
from penumo_assets.jobs.optimisation import MovingAverage, make_optimizer, set_learning_rate
from penumo_assets.jobs.scores import validation_scores, youden_threshold
from penumo_assets.jobs.shards import Split, split_of
from penumo_assets.jobs.train import __main__ as train
from penumo_assets.jobs.train.batches import Loader, epoch_batches, own_part
from penumo_assets.jobs.train.precision import precision_of
from penumo_assets.models.classifier import build_classifier, load_classifier, save_classifier
from penumo_assets.models.inputs import normalise
from penumo_assets_tests.jobs.training_samples import (
    CONFIG,
    packed_set,
    read_result,
    run_pack,
    use_channels,
    write_inputs,
    write_items,
)
from penumo_assets_tests.models.tiny import use_tiny_networks

QUICK = ["--resolution", "64", "--batch-size", "8", "--epochs", "3", "--warmup-epochs", "0", "--threads", "1"]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    with pytest.MonkeyPatch.context() as monkeypatch:
        return packed_set(tmp_path_factory.mktemp("set"), monkeypatch)


@pytest.fixture(autouse=True)
def _tiny(monkeypatch):
    use_tiny_networks(monkeypatch.setattr)


@pytest.fixture
def job(tmp_path, dataset, monkeypatch):
    """An empty container root with the channels set."""
    use_channels(monkeypatch, tmp_path / "opt_ml", dataset)
    return tmp_path / "opt_ml"


def test_a_run_by_hand_learns_and_leaves_a_model_and_a_result(job, dataset):
    train.main(
        [*QUICK, "--epochs", "12", "--learning-rate", "0.02", "--augment-probability", "0", "--ema-decay", "0.5"]
    )
    values = read_result(job)
    assert values["validation_roc_auc"] > 0.9
    model, metadata = load_classifier(job / "model")
    split = Split(dataset / "validation")
    with torch.no_grad():
        logits = model(normalise(torch.from_numpy(split.gather(np.arange(len(split)))), metadata))
    scores = validation_scores(split.targets, logits.double().softmax(dim=1).numpy())
    assert scores["roc_auc"] == pytest.approx(values["validation_roc_auc"], abs=1e-6)
    assert scores["loss"] == pytest.approx(values["validation_loss"], abs=1e-4)
    assert metadata["threshold"] == pytest.approx(scores["threshold"], abs=1e-4)
    assert metadata["dataset_digest"] == split.dataset.digest
    assert metadata["split_salt"] == CONFIG["salt"]
    assert metadata["hyperparameters"]["epochs"] == "12"
    assert metadata["image_size"] == 64


@pytest.mark.parametrize(
    "options",
    [
        ["--input-channels", "3"],
        ["--optimizer", "sgd", "--scheduler", "linear", "--mixup", "0.2"],
        ["--scheduler", "constant", "--class-weighting", "none", "--gradient-clip", "0", "--num-workers", "0"],
        ["--amp", "bf16", "--freeze-epochs", "1", "--ema-decay", "0"],
    ],
)
def test_every_way_to_train_ends_with_finite_scores(job, options):
    train.main([*QUICK, "--epochs", "2", *options])
    values = read_result(job)
    assert np.isfinite([values["validation_loss"], values["validation_roc_auc"]]).all()
    assert [record["epoch"] for record in values["history"]] == [1, 2]


def test_a_real_network_trains(job):
    train.main([*QUICK, "--model-type", "resnet50", "--epochs", "1", "--resolution", "32", "--batch-size", "16"])
    assert load_classifier(job / "model")[1]["architecture"] == "resnet50"


def test_the_test_channel_is_scored_once_if_it_is_there(job, dataset, monkeypatch):
    monkeypatch.setenv("SM_CHANNEL_TEST", str(dataset / "test"))
    train.main([*QUICK, "--epochs", "1"])
    assert 0 <= read_result(job)["test_roc_auc"] <= 1


def test_early_stopping_keeps_the_best_epoch(job):
    train.main([*QUICK, "--epochs", "15", "--early-stopping-patience", "2", "--early-stopping-metric", "loss"])
    values = read_result(job)
    losses = [record["validation_loss"] for record in values["history"]]
    assert values["best_epoch"] == 1 + int(np.argmin(losses))
    assert values["validation_loss"] == pytest.approx(min(losses), rel=1e-6)
    assert values["stopped_early"] == (values["epochs_run"] < 15)
    if values["stopped_early"]:
        assert values["epochs_run"] == values["best_epoch"] + 2


def test_three_classes_have_no_threshold(tmp_path, monkeypatch):
    dataset = packed_set(tmp_path / "set", monkeypatch, images=60, classes=("bacterial", "normal", "viral"))
    use_channels(monkeypatch, tmp_path / "opt_ml", dataset)
    train.main([*QUICK, "--epochs", "1"])
    _, metadata = load_classifier(tmp_path / "opt_ml/model")
    assert metadata["classes"] == ["bacterial", "normal", "viral"]
    assert metadata["threshold"] is None


def test_pretrained_weights_come_through_their_channel(job, tmp_path, monkeypatch):
    weights = build_classifier("resnet34", 5, 3).state_dict()
    folder = tmp_path / "weights"
    folder.mkdir()
    save_file(weights, folder / "weights.safetensors")
    monkeypatch.setenv("SM_CHANNEL_PRETRAINED", str(folder))
    loaded = train.pretrained_weights(TrainConfig(pretrained="s3://bucket/weights.safetensors"), "resnet34")
    torch.testing.assert_close(loaded, dict(weights))
    train.main([*QUICK, "--epochs", "1", "--pretrained", "s3://bucket/weights.safetensors"])


def test_an_mlflow_run_records_the_training_and_leads_back_to_it(job, tmp_path, monkeypatch, capfd, recwarn):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    client = mlflow.MlflowClient(uri)
    experiment = client.create_experiment("tests", artifact_location=(tmp_path / "artifacts").as_uri())
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "tests")
    monkeypatch.setenv("TRAINING_JOB_NAME", "penumo-train-1")
    monkeypatch.setenv("PENUMO_DAGSTER_RUN_ID", "dagster-run")
    monkeypatch.setenv("PENUMO_MLFLOW_PARENT_RUN_ID", "a-parent")
    train.main([*QUICK, "--epochs", "2", "--preset", "quick"])
    assert "%|" not in capfd.readouterr().err  # no bars in a job's log
    assert not [warning for warning in recwarn if "input example" in str(warning.message)]
    values = read_result(job)
    run = client.get_run(values["mlflow_run_id"])
    assert run.info.experiment_id == experiment
    assert run.info.run_name == "penumo-train-1"
    assert run.info.status == "FINISHED"
    assert run.data.tags["penumo.dagster_run_id"] == "dagster-run"
    assert run.data.tags["mlflow.parentRunId"] == "a-parent"
    assert run.data.tags["penumo.dataset_digest"] == values["dataset_digest"]
    assert run.data.tags["penumo.cohorts"] == "north,south"
    shown = {name: run.data.params[name] for name in ("learning-rate", "preset", "resolution", "epochs")}
    assert shown == {"learning-rate": "0.001", "preset": "quick", "resolution": "64", "epochs": "2"}
    history = client.get_metric_history(run.info.run_id, "validation_roc_auc")
    assert [(m.step, m.value) for m in history] == [(r["epoch"], r["validation_roc_auc"]) for r in values["history"]]
    assert run.inputs.dataset_inputs[0].dataset.digest == values["dataset_digest"][:36]
    figures = {item.path for item in client.list_artifacts(run.info.run_id, "figures")}
    assert "figures/confusion_matrix.png" in figures
    loaded = mlflow.pyfunc.load_model(values["mlflow_model_uri"])
    batch = np.zeros((2, 224, 224, 4), np.uint8)
    model, metadata = load_classifier(job / "model")
    with torch.no_grad():
        expected = model(normalise(torch.from_numpy(batch), metadata)).double().softmax(dim=1).numpy()
    np.testing.assert_allclose(loaded.predict(batch), expected, atol=1e-6)


def test_without_mlflow_nothing_is_tracked(job):
    train.main([*QUICK, "--epochs", "1"])
    assert read_result(job)["mlflow_run_id"] is None


def test_a_tracking_server_that_does_not_answer_is_one_clear_error(job, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "no-such-scheme://nowhere")
    with pytest.raises(JobError, match="MLflow at MLFLOW_TRACKING_URI cannot be used"):
        train.main([*QUICK, "--epochs", "1"])


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--model-type", "vgg16"], "unknown architecture 'vgg16'"),
        (["--epochs", "0"], "epochs: Input should be greater than or equal to 1"),
        (["--epochs", "many"], "epochs: Input should be a valid integer"),
        (["--resolution", "100"], "resolution: .*multiple of 32"),
        (["--augment-rotation", "90"], r"augment\.rotation"),
        (["--lr", "1"], "unknown hyperparameters: --lr 1"),
        (["--freeze-epochs", "3"], "freeze_epochs must be below epochs"),
        (["--pretrained", "s3://bucket/nothing"], "expected one weight file"),
    ],
)
def test_impossible_hyperparameters_are_refused_by_name(job, options, reason):
    with pytest.raises(JobError, match=reason):
        train.main([*QUICK, *options])


def test_a_loss_that_is_not_a_number_stops_the_job(job, tmp_path):
    weights = build_classifier("resnet34", 2, 4).state_dict()
    weights["fc.bias"][0] = float("nan")
    save_file(weights, tmp_path / "weights.safetensors")
    with pytest.raises(JobError, match=r"not a number in epoch 1, by step \d+: lower learning_rate"):
        train.main([*QUICK, "--pretrained", str(tmp_path / "weights.safetensors")])
    assert not (job / "checkpoints/last.pt").exists()


def test_a_failed_job_says_why_in_its_failure_file(job):
    with pytest.raises(SystemExit):
        contract.run_program(train.main, ["--model-type", "vgg16"])
    assert (job / "output/failure").read_text().startswith("unknown architecture 'vgg16'")


def pack_with_labels(tmp_path, monkeypatch, label_of):
    items = write_inputs(tmp_path / "set")
    for item in items:
        split = split_of(item["patient_id"], CONFIG["salt"], CONFIG["validation_fraction"], CONFIG["test_fraction"])
        item["label"] = label_of(split, item)
    write_items(tmp_path / "set", items)
    run_pack(tmp_path / "set", monkeypatch)
    use_channels(monkeypatch, tmp_path / "opt_ml", tmp_path / "set/processing/output/dataset")


def test_a_class_missing_from_validation_is_refused(tmp_path, monkeypatch):
    pack_with_labels(tmp_path, monkeypatch, lambda split, item: "normal" if split == "validation" else item["label"])
    with pytest.raises(JobError, match=r"the validation split has .* none of class pneumonia"):
        train.main(QUICK)


def test_a_declared_class_without_images_is_refused(tmp_path, monkeypatch):
    pack_with_labels(tmp_path, monkeypatch, lambda split, item: "normal")
    with pytest.raises(JobError, match="none of class pneumonia"):
        train.main(QUICK)


def test_one_image_of_a_class_is_refused(tmp_path, monkeypatch):
    seen = []

    def label(split, item):
        if split == "train" and item["label"] == "pneumonia":
            seen.append(item)
            return "pneumonia" if len(seen) == 1 else "normal"
        return item["label"]

    pack_with_labels(tmp_path, monkeypatch, label)
    with pytest.raises(JobError, match="a single image of class pneumonia"):
        train.main(QUICK)


def test_a_missing_channel_is_named(job, monkeypatch, tmp_path):
    monkeypatch.setenv("SM_CHANNEL_VALIDATION", str(tmp_path / "nowhere"))
    with pytest.raises(JobError, match="no channel 'validation'"):
        train.main(QUICK)


def test_channels_of_different_training_sets_are_refused(job, dataset, tmp_path, monkeypatch):
    other = packed_set(tmp_path / "other", monkeypatch, images=40)
    use_channels(monkeypatch, job, dataset)
    monkeypatch.setenv("SM_CHANNEL_VALIDATION", str(other / "validation"))
    with pytest.raises(JobError, match="different training sets"):
        train.main(QUICK)


def test_the_same_split_twice_is_refused_for_its_shared_patients(job, dataset, monkeypatch):
    monkeypatch.setenv("SM_CHANNEL_VALIDATION", str(dataset / "train"))
    with pytest.raises(JobError, match="patients stand in both train and validation"):
        train.main(QUICK)


def test_the_channel_train_alone_finds_the_validation_split_beside_it(job, monkeypatch):
    monkeypatch.delenv("SM_CHANNEL_VALIDATION")
    train.main([*QUICK, "--epochs", "1", "--model_type", "resnet34", "--early_stopping_patience", "3"])
    assert read_result(job)["validation_images"] > 0


def test_hyperparameters_are_taken_with_dashes_and_with_underscores():
    names = ["model-type", "processes-per-host", *(name for name, _, _ in hyperparameter_fields())]
    values = TrainConfig(batch_size=7).to_hyperparameters() | {"model-type": "resnet50", "processes-per-host": "3"}
    dashed = [text for name in names for text in (f"--{name}", values[name])]
    underscored = [text for name in names for text in (f"--{name.replace('-', '_')}", values[name])]
    assert train.parse_arguments(underscored) == train.parse_arguments(dashed)
    assert train.parse_arguments(underscored)[1].batch_size == 7
    with pytest.raises(JobError, match=r"unknown hyperparameters: --batch_sise 3"):
        train.parse_arguments(["--batch_sise", "3"])


def test_a_preset_by_hand_sets_what_is_not_given():
    _, config, _, _ = train.parse_arguments(["--preset", "quick", "--batch-size", "7"])
    assert config == TrainConfig(preset="quick", batch_size=7)
    assert config.resolution < TrainConfig().resolution


def test_help_describes_every_hyperparameter(capsys):
    with pytest.raises(SystemExit):
        train.build_parser().parse_args(["--help"])
    text = capsys.readouterr().out
    for name in (*TrainConfig().to_hyperparameters(), "model-type"):
        assert f"--{name} " in text


def test_an_epoch_shows_each_image_once_in_an_order_of_its_own():
    first, again, second = (epoch_batches(100, 32, seed=1, epoch=e) for e in (1, 1, 2))
    assert sorted(np.concatenate(first)) == list(range(100))
    assert [len(rows) for rows in first] == [25, 25, 25, 25]
    np.testing.assert_array_equal(np.concatenate(first), np.concatenate(again))
    assert (np.concatenate(first) != np.concatenate(second)).any()


def test_a_large_epoch_has_whole_batches_only():
    assert {len(rows) for rows in epoch_batches(1000, 32, seed=1, epoch=1)} == {32}


def test_processes_share_a_batch_without_overlap():
    rows = np.arange(11)
    parts = [own_part(rows, rank, 3) for rank in range(3)]
    np.testing.assert_array_equal(np.concatenate([part for _, part in parts]), rows)
    assert [first for first, _ in parts] == [0, *np.cumsum([len(part) for _, part in parts])[:-1]]


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_batches_arrive_in_order_whoever_reads_them(dataset, workers):
    split = Split(dataset / "train")
    batches = epoch_batches(len(split), 4, seed=0, epoch=1)
    positions = []
    for batch in Loader(split, workers=workers)(batches, start=1):
        positions.append(batch.position)
        np.testing.assert_array_equal(batch.images.numpy(), split.gather(batches[batch.position]))
        np.testing.assert_array_equal(batch.targets.numpy(), split.targets[batches[batch.position]])
    assert positions == list(range(1, len(batches)))


def test_the_learning_rate_warms_up_and_falls_to_zero():
    config = TrainConfig(epochs=10, warmup_epochs=2, freeze_epochs=1)
    optimizer = make_optimizer(build_classifier("resnet34", 2, 4), config)
    rates = []
    for step in range(50):
        set_learning_rate(optimizer, step, 5, config)
        rates.append({group["head"]: group["lr"] / config.learning_rate for group in optimizer.param_groups})
    head, body = [rate[True] for rate in rates], [rate[False] for rate in rates]
    assert head[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert all(a >= b for a, b in pairwise(head[9:]))
    assert 0 < head[-1] < 0.01
    assert body[:5] == [0] * 5
    assert body[5:] == head[5:]


@pytest.mark.parametrize(("pretrained", "share"), [("none", 1.0), ("imagenet", 0.25), ("s3://b/w.safetensors", 0.25)])
def test_pretrained_layers_learn_at_a_share_of_the_last_layers_rate(pretrained, share):
    config = TrainConfig(epochs=2, warmup_epochs=0, freeze_epochs=1, pretrained=pretrained, backbone_lr_factor=0.25)
    optimizer = make_optimizer(build_classifier("resnet34", 2, 4), config)
    for step, expected in ((2, 0.0), (5, share), (8, share)):  # five steps an epoch, the first of them frozen
        set_learning_rate(optimizer, step, 5, config)
        rates = {group["head"]: group["lr"] for group in optimizer.param_groups}
        assert rates[False] == pytest.approx(expected * rates[True])
        assert rates[True] > 0


def test_an_older_pytorch_that_cannot_tell_its_instructions_trains_in_float32(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert precision_of(MixedPrecision.auto, torch.device("cpu")) is torch.float32


def test_only_weights_decay():
    model = build_classifier("resnet34", 2, 4)
    groups = make_optimizer(model, TrainConfig(weight_decay=0.1)).param_groups
    decayed = {id(p) for group in groups if group["weight_decay"] > 0 for p in group["params"]}
    assert decayed == {id(model.conv1.weight), id(model.layer4[0].weight), id(model.fc.weight)}
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))


def test_the_moving_average_follows_its_formula():
    model = torch.nn.Linear(1, 1, bias=False)
    average = MovingAverage(model, decay=0.3)
    expected = model.weight.item()
    for step, value in enumerate([1.0, -2.0, 5.0, 0.5]):
        torch.nn.init.constant_(model.weight, value)
        average.update(step)
        decay = min(0.3, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
        assert average.model.weight.item() == pytest.approx(expected)


def test_the_youden_threshold_is_the_best_of_all_thresholds():
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 2, 200)
    scores = np.round(rng.normal(targets, 1.0), 1)

    def youden(threshold):
        positive = scores >= threshold
        return positive[targets == 1].mean() - positive[targets == 0].mean()

    best = max(youden(t) for t in np.unique(scores))
    assert youden(youden_threshold(targets, scores)) == pytest.approx(best)


def test_a_model_saved_for_another_size_is_normalised_to_it(tmp_path):
    model = build_classifier("resnet34", 2, 4)
    values = {
        "schema": "penumo/model/1",
        "architecture": "resnet34",
        "classes": ["a", "b"],
        "input_channels": 4,
        "image_size": 32,
        "normalisation": {"mean": [0.5] * 4, "std": [0.5] * 4},
        "split_salt": "",
        "dataset_digest": "",
        "metrics": {},
        "versions": {},
        "hyperparameters": {},
    }
    save_classifier(tmp_path, model, values)
    _, metadata = load_classifier(tmp_path)
    assert normalise(torch.zeros(1, 224, 224, 4, dtype=torch.uint8), metadata).shape == (1, 4, 32, 32)


def test_hyperparameters_come_back_as_they_went():
    config = TrainConfig(learning_rate=3e-4, compile=True, augment=AugmentConfig(rotation=3.5))
    hyperparameters = config.to_hyperparameters()
    assert hyperparameters["compile"] == "true"
    assert hyperparameters["augment-rotation"] == "3.5"
    assert TrainConfig.from_hyperparameters(json.loads(json.dumps(hyperparameters))) == config
