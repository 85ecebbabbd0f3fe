"""A real-time endpoint whose container runs AWS's own `serve`: its PyTorch inference toolkit, TorchServe and all."""

import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from penumo_assets.configs.endpoint import EndpointConfig
from penumo_assets.configs.prepare import OnBadMask, PrepareConfig
from penumo_assets.models.classifier import build_classifier, save_classifier
from penumo_assets.resources.model_package import Approval
from penumo_assets.resources.profile import aws_resources
from penumo_assets.resources.serving import write_serving_archive
from penumo_assets_tests.aws import programs
from penumo_assets_tests.aws.emulator import Emulator
from penumo_assets_tests.aws.emulator.server import IMAGE, wait_for
from penumo_assets_tests.imaging.samples import dicom_bytes
from penumo_assets_tests.jobs.test_serve import METADATA


def model_archive(folder: Path) -> Path:
    """What a champion's package holds, with weights that nobody has trained."""
    torch.manual_seed(0)
    made = folder / "made"
    made.mkdir()
    save_classifier(made, build_classifier("resnet34", 2, 4), METADATA)
    with tarfile.open(folder / "trained.tar.gz", "w:gz") as tar:
        for path in made.iterdir():
            tar.add(path, path.name)
    values = PrepareConfig().model_dump(mode="json")
    values["segment"]["on_bad_mask"] = OnBadMask.whole_image.value  # the film below has no lungs
    rule = json.dumps({"threshold": 0.5, "temperature": None, "source": "a test"}).encode()
    target = folder / "model.tar.gz"
    write_serving_archive(folder / "trained.tar.gz", target, rule, yaml.safe_dump(values).encode(), {"version": "1"})
    return target


Ask = Callable[[bytes], tuple[int, str]]


@pytest.fixture(scope="module")
def ask(emulator: Emulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """One request to a real-time endpoint."""
    programs.required()
    programs.require_java()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in emulator.environment("torchserve").items():
            patch.setenv(name, value)
        patch.setenv("PENUMO_INFERENCE_IMAGE", IMAGE)
        resources = aws_resources()
        store, service = resources["storage"].store, resources["endpoints"].open()
        store.upload(model_archive(tmp_path_factory.mktemp("model")), "model.tar.gz")
        package = resources["packages"].register("1", store.uri("model.tar.gz"), Approval.approved, {})
        variant = service.variant("1", package, EndpointConfig.parse({"mode": "realtime"}))
        service.prepare(variant)
        service.point("films", variant)
        state = wait_for(lambda: (s := service.state("films")) and s.status != "Creating" and s, 200)
        assert state.in_service, state.reason
        yield lambda body: service.ask("films", variant, body, "application/dicom")


@pytest.mark.slow
def test_a_film_of_eight_megabytes_is_answered(ask: Ask) -> None:
    pixels = np.random.default_rng(0).integers(0, 2**16, (2000, 2000), dtype=np.uint16)
    film = dicom_bytes(pixels)
    assert len(film) > 6_553_500, "more than TorchServe takes by itself"
    status, text = ask(film)
    assert status == 200, text
    answer = json.loads(text)
    assert sum(answer["probabilities"].values()) == pytest.approx(1)
    assert "Not a medical device" in answer["disclaimer"]


@pytest.mark.slow
def test_what_is_no_film_is_the_sender_s_fault(ask: Ask) -> None:
    status, text = ask(b"a letter to the radiologist")
    assert status == 400, text
    assert text.startswith("not_an_image: "), "the reason comes first; the toolkit adds where it was raised"
