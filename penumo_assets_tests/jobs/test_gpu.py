"""On a GPU: the masks, scores and trainings of the CPU. `make test-gpu` runs these; other tests hide the GPU."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from penumo_assets.configs.train import TrainConfig
from penumo_assets.imaging.lung_mask import clean_mask
from penumo_assets.imaging.segment_engine import OnnxEngine
from penumo_assets.imaging.segment_torch import TorchEngine
from penumo_assets.imaging.segment_weights import BUNDLED, read_weights
from penumo_assets.jobs.checkpoint import Checkpoints
from penumo_assets.jobs.contract import JobError
from penumo_assets.jobs.infer.predictor import score_images
from penumo_assets.jobs.shards import Split
from penumo_assets.jobs.train.distributed import World
from penumo_assets.jobs.train.fit import Training
from penumo_assets.models.classifier import build_classifier
from penumo_assets.models.device import compute_device
from penumo_assets.models.inputs import default_normalisation
from penumo_assets.phantoms import draw_phantom
from penumo_assets_tests.jobs.training_samples import packed_set, tensor

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not (os.environ.get("PENUMO_TEST_GPU") and torch.cuda.is_available()),
        reason="there is no GPU, or PENUMO_TEST_GPU is not set",
    ),
]
CPU = World(0, 1, torch.device("cpu"))
WHOLE = (slice(0, 512), slice(0, 512))
OPTIONS = {"resolution": 64, "batch_size": 8, "epochs": 3, "mixup": 0.2, "checkpoint_steps": 3}


@pytest.fixture(scope="module")
def gpu() -> World:
    return World(0, 1, compute_device("cuda:0"))


def test_a_film_gets_the_mask_of_the_cpu_alone_and_in_a_batch() -> None:
    tensors = read_weights(BUNDLED)[0]
    films = np.stack([(draw_phantom(seed, height=512, width=512)[0] >> 4).astype(np.uint8) for seed in range(8)])
    films[1::2] = 255 - films[1::2]
    engine = TorchEngine(tensors, "cuda")
    expected, seen = (each.see(films).probabilities for each in (OnnxEngine(tensors, 2), engine))
    np.testing.assert_allclose(seen, expected, atol=1e-3)
    for film, probabilities, of_cpu in zip(films, seen, expected, strict=True):
        np.testing.assert_allclose(engine.see(film[None]).probabilities[0], probabilities, atol=1e-4)
        assert np.mean(clean_mask(probabilities, WHOLE) != clean_mask(of_cpu, WHOLE)) <= 1e-5


@pytest.mark.parametrize("architecture", ["resnet34", "resnet50"])
def test_scores_are_those_of_the_cpu_and_depend_on_no_batch(architecture: str) -> None:
    torch.manual_seed(0)
    model = build_classifier(architecture, 2, 4).eval()
    metadata = {
        "classes": ["normal", "pneumonia"],
        "input_channels": 4,
        "image_size": 224,
        "normalisation": default_normalisation(4),
    }
    images = torch.from_numpy(np.stack([tensor(seed, seed % 2 == 0) for seed in range(16)]))
    expected = score_images(model, metadata, images)
    device = compute_device()
    model.to(device)
    together = score_images(model, metadata, images.to(device))
    alone = np.concatenate([score_images(model, metadata, image[None].to(device)) for image in images])
    np.testing.assert_allclose(together, expected, atol=1e-4)
    np.testing.assert_allclose(alone, together, atol=1e-5)


def training(dataset: Path, folder: Path, world: World, stop_after: int = 0, **options: object) -> Training:
    """A ResNet34's training, which asks to be stopped after so many steps."""
    folder.mkdir(exist_ok=True)
    torch.manual_seed(0)
    steps = iter(range(1, 10_000))
    return Training(
        build_classifier("resnet34", 2, 4),
        TrainConfig.parse(OPTIONS | options),
        Split(dataset / "train"),
        Split(dataset / "validation"),
        world,
        Checkpoints(folder, "of tests"),
        lambda: next(steps) == stop_after,
    )


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as monkeypatch:
        return packed_set(tmp_path_factory.mktemp("set"), monkeypatch)


@pytest.mark.parametrize("options", [{}, {"amp": "fp16"}, {"amp": "fp32", "optimizer": "sgd"}], ids=str)
def test_a_training_that_was_stopped_ends_with_the_same_weights(
    options: dict[str, str], dataset: Path, tmp_path: Path, gpu: World
) -> None:
    whole = training(dataset, tmp_path / "whole", gpu, **options)
    whole.run(lambda _: None)
    with pytest.raises(JobError, match="a checkpoint is written"):
        training(dataset, tmp_path / "stopped", gpu, 7, **options).run(lambda _: None)
    resumed = training(dataset, tmp_path / "stopped", gpu, **options)
    assert resumed.resume()
    resumed.run(lambda _: None)
    for (name, expected), found in zip(
        whole.average.model.state_dict().items(), resumed.average.model.state_dict().values(), strict=True
    ):
        assert torch.equal(expected, found), name


def test_a_gpu_goes_on_where_a_cpu_stopped_and_the_other_way_round(dataset: Path, tmp_path: Path, gpu: World) -> None:
    for first, second, folder in ((CPU, gpu, "up"), (gpu, CPU, "down")):
        with pytest.raises(JobError, match="a checkpoint is written"):
            training(dataset, tmp_path / folder, first, 7).run(lambda _: None)
        resumed = training(dataset, tmp_path / folder, second)
        assert resumed.resume()
        assert len(resumed.run(lambda _: None).history) == OPTIONS["epochs"]
