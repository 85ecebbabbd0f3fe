"""The endpoint in AWS's own server: `serve` of its PyTorch inference toolkit, TorchServe and all, with our archive."""

import json
import os
import signal
import socket
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.client import HTTPConnection
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
import yaml

from penumo_assets.configs.prepare import OnBadMask, PrepareConfig
from penumo_assets.models.classifier import build_classifier, save_classifier
from penumo_assets.resources.model_package import CONTAINER_ENVIRONMENT
from penumo_assets.resources.serving import write_serving_archive
from penumo_assets_tests.aws import programs
from penumo_assets_tests.imaging.samples import dicom_bytes
from penumo_assets_tests.jobs.test_serve import METADATA

# The toolkit writes TorchServe's settings into /etc, which this machine keeps to itself.
_LAUNCHER = """
import sys
from sagemaker_pytorch_serving_container import serving, torchserve
torchserve.TS_CONFIG_FILE = sys.argv[1]
serving.main()
"""


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


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


@pytest.fixture(scope="module")
def post(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[bytes, str], tuple[int, bytes]]]:
    aws = programs.required()
    programs.require_java()
    folder = tmp_path_factory.mktemp("endpoint")
    model = folder / "opt" / "model"
    model.mkdir(parents=True)
    with tarfile.open(model_archive(folder)) as tar:
        tar.extractall(model, filter="data")
    # The packages are here already; on AWS the toolkit installs this list at every start.
    assert (model / "code" / "requirements.txt").read_text().startswith("--only-binary=:all:\n")
    (model / "code" / "requirements.txt").unlink()
    inference, management, metrics = free_ports(3)
    environment = CONTAINER_ENVIRONMENT | {
        "PATH": f"{aws / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(folder),
        "PYTHONPATH": programs.python_path(aws),
        "SAGEMAKER_BASE_DIR": str(folder / "opt"),
        "SAGEMAKER_PROGRAM": "inference.py",
        "SAGEMAKER_MODEL_SERVER_WORKERS": "1",
        "TS_INFERENCE_ADDRESS": f"http://127.0.0.1:{inference}",
        "TS_MANAGEMENT_ADDRESS": f"http://127.0.0.1:{management}",
        "TS_METRICS_ADDRESS": f"http://127.0.0.1:{metrics}",
        "OMP_NUM_THREADS": "1",
    }
    with (folder / "log.txt").open("wb") as log:
        server = subprocess.Popen(
            [aws / "bin" / "python", "-c", _LAUNCHER, folder / "torchserve.properties"],
            env=environment,
            cwd=folder,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait_until_ready(inference, server, folder / "log.txt")
        yield lambda body, kind: _send(inference, "POST", "/invocations", body, kind)
    finally:
        family = [*psutil.Process(server.pid).children(recursive=True)] if server.poll() is None else []
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.kill()


def _send(port: int, method: str, path: str, body: bytes | None = None, kind: str = "") -> tuple[int, bytes]:
    connection = HTTPConnection("127.0.0.1", port, timeout=120)
    connection.request(method, path, body, {"Content-Type": kind} if kind else {})
    response = connection.getresponse()
    return response.status, response.read()


def _wait_until_ready(port: int, server: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline and server.poll() is None:
        with suppress(OSError):
            if _send(port, "GET", "/ping")[0] == 200:
                return
        time.sleep(0.5)
    raise AssertionError(log.read_text(errors="replace")[-3000:])


@pytest.mark.slow
def test_a_film_of_eight_megabytes_is_answered(post: Callable[[bytes, str], tuple[int, bytes]]) -> None:
    pixels = np.random.default_rng(0).integers(0, 2**16, (2000, 2000), dtype=np.uint16)
    film = dicom_bytes(pixels)
    assert len(film) > 6_553_500, "more than TorchServe takes by itself"
    status, body = post(film, "application/dicom")
    assert status == 200, body
    answer = json.loads(body)
    assert sum(answer["probabilities"].values()) == pytest.approx(1)
    assert "Not a medical device" in answer["disclaimer"]


@pytest.mark.slow
def test_what_is_no_film_is_the_sender_s_fault(post: Callable[[bytes, str], tuple[int, bytes]]) -> None:
    status, body = post(b"a letter to the radiologist", "application/dicom")
    assert status == 400, body
    assert body.startswith(b"not_an_image: "), "the reason comes first; the toolkit adds where it was raised"
