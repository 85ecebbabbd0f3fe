"""The training program under the container contract, on phantoms a few pixels wide."""

import json
import shutil
import sys
import types
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
import torch

from penumo_assets.imaging.segment import LungSegmenter
from penumo_assets.imaging.segment_torch import load_lung_unet
from penumo_assets.jobs import contract
from penumo_assets.jobs.checkpoint import Checkpoints
from penumo_assets.jobs.segment_train import __main__ as segment_train
from penumo_assets.jobs.segment_train.data import read_channel, shrink
from penumo_assets.jobs.segment_train.fit import Batches, Plan, Stage, loss_of, train
from penumo_assets.jobs.segment_train.score import summarise

FLAGS = ["--stages", "32x3,64x2", "--batch-size", "4", "--folds", "3", "--log-every", "2", "--variants", "as_is"]


def phantoms(folder: Path, count: int, source: str, first: int = 0) -> None:
    """A channel of ``count`` gray films with two dark ellipses, two images to a patient."""
    rows = []
    rng = np.random.default_rng(first)
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for index in range(first, first + count):
        mask = np.zeros((96, 80), np.uint8)
        for column in (24, 56):
            cv2.ellipse(mask, (column, 50), (int(rng.integers(9, 13)), 30), 0, 0, 360, 255, -1)
        film = np.where(mask > 0, 60, 180) + rng.normal(0, 8, mask.shape)
        cv2.imwrite(str(folder / "images" / f"{index}.png"), np.clip(film, 0, 255).astype(np.uint8))
        cv2.imwrite(str(folder / "masks" / f"{index}.png"), mask)
        rows.append({"file": f"{index}.png", "mask": f"{index}.png", "patient_id": f"p{index // 2}", "source": source})
    pd.DataFrame(rows).to_csv(folder / "index.csv", index=False)


@pytest.fixture
def container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A container root with a train channel of 12 images of 6 patients."""
    for name in (
        "SM_CHANNEL_TRAIN",
        "SM_CHANNEL_EXTERNAL",
        "SM_MODEL_DIR",
        "SM_OUTPUT_DATA_DIR",
        "MLFLOW_TRACKING_URI",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PENUMO_OPT_ML", str(tmp_path))
    phantoms(tmp_path / "input" / "data" / "train", 12, "phantom")
    return tmp_path


def small_plan(**changes) -> Plan:
    values = {"stages": (Stage(32, 4), Stage(64, 2)), "batch_size": 4, "learning_rate": 3e-3, "weight_decay": 0.02}
    values |= {"ema_decay": 0.9, "source_power": 0.5, "seed": 1, "folds": 3, "fold": 0}
    return Plan(**{**values, **changes})


def test_the_program_leaves_weights_that_load_and_a_result(container: Path) -> None:
    segment_train.main(FLAGS)
    result = json.loads((container / "output" / "data" / "result.json").read_text())
    segmenter = LungSegmenter(container / "model" / "lung_unet.safetensors", expected_sha256=result["values"]["sha256"])
    assert segmenter.digest == result["values"]["sha256"]
    assert result["values"]["steps"] == 5
    assert result["values"]["scores"]["held_out"]["phantom/as_is"]["patients"] == 2
    assert result["values"]["training_data"] == {"phantom": {"images": 8, "patients": 4}}
    rows = pd.read_csv(container / "output" / "data" / "segment_scores.csv")
    assert len(rows) == 4


def test_no_held_out_patient_trains(container: Path) -> None:
    pairs = read_channel(container / "input" / "data" / "train")[0]
    seen: set[str] = set()
    for fold in range(3):
        kept, held_out = segment_train.divide(pairs, small_plan(fold=fold))
        assert len(kept) + len(held_out) == 12
        assert not {p.patient_id for p in kept} & {p.patient_id for p in held_out}
        seen |= {p.file for p in held_out}
    assert len(seen) == 12


def test_without_a_fold_every_patient_trains_and_none_is_scored(container: Path) -> None:
    segment_train.main([*FLAGS, "--fold", "-1"])
    values = json.loads((container / "output" / "data" / "result.json").read_text())["values"]
    assert values["training_data"]["phantom"]["images"] == 12
    assert values["scores"] == {}


def test_an_external_channel_is_measured_and_not_trained_on(container: Path) -> None:
    phantoms(container / "input" / "data" / "external", 4, "elsewhere", first=100)
    segment_train.main(FLAGS)
    values = json.loads((container / "output" / "data" / "result.json").read_text())["values"]
    assert values["scores"]["external"]["elsewhere/as_is"]["images"] == 4
    assert "elsewhere" not in values["training_data"]


def test_images_and_masks_may_come_in_channels_of_their_own(container: Path) -> None:
    data = container / "input" / "data"
    segment_train.main(FLAGS)
    together = json.loads((container / "output" / "data" / "result.json").read_text())["values"]
    for name in ("images", "masks"):
        (data / "train" / name).rename(data / name)
    shutil.rmtree(container / "checkpoints")
    segment_train.main(FLAGS)
    apart = json.loads((container / "output" / "data" / "result.json").read_text())["values"]
    assert apart["data_sha256"] == together["data_sha256"]


def test_a_pair_that_does_not_fit_is_left_out_and_named(container: Path) -> None:
    drawn = np.pad(np.full((2, 2), 255, np.uint8), 2)
    cv2.imwrite(str(container / "input" / "data" / "train" / "masks" / "3.png"), drawn)
    segment_train.main([*FLAGS, "--fold", "-1"])
    values = json.loads((container / "output" / "data" / "result.json").read_text())["values"]
    assert [refusal["file"] for refusal in values["refused"]] == ["3.png"]
    assert "its mask is (6, 6)" in values["refused"][0]["reason"]
    assert values["training_data"]["phantom"]["images"] == 11


def test_a_patient_in_both_channels_stops_the_job(container: Path) -> None:
    phantoms(container / "input" / "data" / "external", 12, "elsewhere")
    with pytest.raises(contract.JobError, match="patients are in the channels train and external"):
        segment_train.main(FLAGS)


def test_a_failed_run_leaves_its_reason(container: Path) -> None:
    (container / "input" / "data" / "train" / "index.csv").unlink()
    with pytest.raises(SystemExit):
        contract.run_program(segment_train.main, FLAGS)
    assert "no index.csv or index.jsonl" in (container / "output" / "failure").read_text()
    assert not (container / "output" / "data" / "result.json").exists()


class Stopped(Exception):
    pass


def checkpoints(container: Path, name: str) -> Checkpoints:
    (container / name).mkdir(exist_ok=True)
    return Checkpoints(container / name, "fingerprint")


def test_an_interrupted_training_ends_with_the_same_weights(container: Path) -> None:
    pairs = read_channel(container / "input" / "data" / "train")[0]

    def stop_at_four(metrics: dict[str, float], step: int) -> None:
        if step == 4:
            raise Stopped

    def ignore(metrics: dict[str, float], step: int) -> None:
        return None

    whole = train(pairs, small_plan(), checkpoints(container, "whole"), 2, ignore).state_dict()
    with pytest.raises(Stopped):
        train(pairs, small_plan(), checkpoints(container, "broken"), 2, stop_at_four)
    steps: list[int] = []
    resumed = train(pairs, small_plan(), checkpoints(container, "broken"), 2, lambda metrics, step: steps.append(step))
    assert steps[0] == 4  # the checkpoint of step 2 was the last
    for name, tensor in resumed.state_dict().items():
        torch.testing.assert_close(tensor, whole[name], msg=name)


def test_a_checkpoint_of_other_data_is_not_used(container: Path) -> None:
    pairs = read_channel(container / "input" / "data" / "train")[0]
    steps: list[int] = []
    for digest in ("one", "two"):
        own = Checkpoints(container, digest, over_others=True)
        train(pairs, small_plan(), own, 2, lambda metrics, step: steps.append(step))
    assert steps == [2, 4, 6, 2, 4, 6]


def test_training_learns_the_phantoms(container: Path) -> None:
    pairs = read_channel(container / "input" / "data" / "train")[0]
    kept, held_out = segment_train.divide(pairs, small_plan())
    model = train(kept, small_plan(stages=(Stage(64, 60),)), checkpoints(container, "lung"), 1000, lambda *_: None)
    images, masks = (torch.from_numpy(part[:, None]).float() for part in shrink(held_out, 64))
    with torch.inference_mode():
        found, truth = model(images) > 0, masks > 127
    dice = 2 * (found & truth).sum() / (found.sum() + truth.sum())
    assert float(dice) > 0.8


def test_saved_weights_differ_from_the_model_by_half_precision_only(container: Path) -> None:
    pairs = read_channel(container / "input" / "data" / "train")[0]
    model = train(pairs, small_plan(), checkpoints(container, "lung"), 10, lambda metrics, step: None)
    loaded, _ = load_lung_unet(segment_train.save_weights(model, container, {}))
    for name, tensor in loaded.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(tensor, model.state_dict()[name], atol=1e-4, rtol=1e-3)


def test_training_can_go_on_from_given_weights(container: Path) -> None:
    segment_train.main(FLAGS)
    first = container / "first.safetensors"
    (container / "model" / "lung_unet.safetensors").rename(first)
    segment_train.main([*FLAGS, "--stages", "32x1", "--learning-rate", "1e-9", "--initial", str(first)])
    result = json.loads((container / "output" / "data" / "result.json").read_text())["values"]
    again, _ = load_lung_unet(container / "model" / "lung_unet.safetensors")
    before, digest = load_lung_unet(first)
    assert result["plan"]["initial_sha256"] == digest
    torch.testing.assert_close(again.head.weight, before.head.weight, atol=1e-4, rtol=1e-3)


def test_a_batch_is_the_same_whenever_it_is_asked_for(container: Path) -> None:
    pairs = read_channel(container / "input" / "data" / "train")[0]
    one, other = (Batches(pairs, small_plan(), torch.device("cpu")) for _ in range(2))
    other.batch(5)
    assert torch.equal(one.batch(3)[0], other.batch(3)[0])


def test_the_loss_of_a_perfect_mask_is_almost_zero_and_of_its_opposite_large() -> None:
    target = (torch.rand(2, 1, 16, 16) > 0.5).float()
    logits = (target - 0.5) * 60
    assert float(loss_of(logits, target)) < 0.01
    assert float(loss_of(-logits, target)) > 10


def test_the_rate_rises_then_falls() -> None:
    plan = small_plan(stages=(Stage(32, 100),))
    rates = [plan.rate_at(step) for step in range(100)]
    assert rates.index(max(rates)) in range(4, 6)
    assert rates[0] < plan.learning_rate / 4
    assert rates[-1] < plan.learning_rate / 50


@pytest.mark.parametrize("flags", [["--fold", "3"], ["--batch-size", "1"]])
def test_flags_that_cannot_work_are_refused(flags: list[str]) -> None:
    with pytest.raises(contract.JobError):
        segment_train.plan_of(segment_train.parser().parse_args([*FLAGS, *flags]))


@pytest.mark.parametrize("text", ["128", "100x5", "64x0", "x"])
def test_stages_off_the_grid_are_refused(text: str) -> None:
    with pytest.raises(SystemExit):
        segment_train.parser().parse_args(["--stages", text])


def test_an_unknown_variant_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        segment_train.parser().parse_args(["--variants", "as_is,upside_down"])
    assert "unknown ['upside_down']; known are as_is, inverted" in capsys.readouterr().err


class FakeMlflow(types.ModuleType):
    """Remembers what it is told."""

    def __init__(self) -> None:
        super().__init__("mlflow")
        self.statuses: list[str] = []
        self.metrics: dict[str, list[int]] = {}
        self.params: dict[str, object] = {}

    def start_run(self, run_id: str | None, run_name: str, tags: dict[str, str], log_system_metrics: bool) -> Any:
        self.tags = tags
        return types.SimpleNamespace(info=types.SimpleNamespace(run_id=run_id or "new"))

    def end_run(self, status: str) -> None:
        self.statuses.append(status)

    def set_tracking_uri(self, uri: str) -> None: ...

    def set_experiment(self, name: str) -> None:
        self.experiment = name

    def set_system_metrics_sampling_interval(self, seconds: int) -> None: ...

    def log_params(self, params: dict[str, object]) -> None:
        self.params |= params

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        for name, value in metrics.items():
            assert isinstance(value, float)
            self.metrics.setdefault(name, []).append(step)


def test_with_a_tracking_server_losses_and_dice_are_logged_to_a_run_of_the_default_experiment(
    container: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeMlflow()
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking")
    monkeypatch.setenv("PENUMO_DAGSTER_RUN_ID", "dagster-1")
    segment_train.main(FLAGS)
    assert fake.statuses == ["FINISHED"]
    assert fake.experiment == "pneumonia"
    assert fake.tags == {"penumo.dagster_run_id": "dagster-1", "penumo.architecture": "LungUNet"}
    assert fake.metrics["loss"] == [2, 4, 5]
    assert fake.metrics["held_out/phantom/as_is/dice"] == [5]
    assert fake.params["segmenter_batch_size"] == 4


def test_help_documents_every_flag(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        segment_train.parser().parse_args(["--help"])
    text = capsys.readouterr().out
    assert "SM_CHANNEL_TRAIN" in text
    for action in segment_train.parser()._actions:
        assert action.help


def test_the_summary_resamples_patients_not_images() -> None:
    rows = [
        {"source": "s", "variant": "as_is", "patient_id": p, "dice": d, "iou": d / (2 - d)}
        for p, d in [("a", 0.9)] * 50 + [("b", 0.5)]
    ]
    result = summarise(rows)["s/as_is"]
    assert result["images"] == 51
    assert result["patients"] == 2
    assert result["dice"] == pytest.approx((50 * 0.9 + 0.5) / 51)
    assert result["dice_interval"] == [pytest.approx(0.5), pytest.approx(0.9)]
    assert result["minimum"] == 0.5
