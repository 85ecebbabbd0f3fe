"""The endpoint answers raw images and tensors over HTTP, and says what is wrong with the rest."""

import io
import json
import subprocess
import sys
import tarfile
import threading
from http.client import HTTPConnection

import cv2
import numpy as np
import pydicom
import pytest
import torch
import yaml

from penumo_assets.configs.prepare import OnBadMask, PrepareConfig
from penumo_assets.imaging.npz_writer import npz_bytes
from penumo_assets.jobs.infer import handler, serve
from penumo_assets.models.classifier import build_classifier, save_classifier
from penumo_assets.models.inputs import default_normalisation
from penumo_assets.phantoms import write_cohort
from penumo_assets.phantoms.cohort import PLANTED_BIRTH_DATE, PLANTED_NAME
from penumo_assets_tests.jobs.training_samples import tensor
from penumo_assets_tests.models.tiny import use_tiny_networks

METADATA = {
    "schema": "penumo/model/1",
    "architecture": "resnet34",
    "classes": ["normal", "pneumonia"],
    "input_channels": 4,
    "image_size": 64,
    "normalisation": default_normalisation(4),
    "threshold": 0.5,
    "temperature": 1.5,
    "split_salt": "s",
    "dataset_digest": "d",
    "metrics": {},
    "versions": {},
    "hyperparameters": {},
}


@pytest.fixture(scope="module")
def endpoint_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("model")


@pytest.fixture(scope="module")
def endpoint(endpoint_folder):
    folder = endpoint_folder
    with pytest.MonkeyPatch.context() as monkeypatch:
        use_tiny_networks(monkeypatch.setattr)
        torch.manual_seed(0)
        save_classifier(folder, build_classifier("resnet34", 2, 4), METADATA)
        values = PrepareConfig().model_dump(mode="json")
        values["segment"]["on_bad_mask"] = OnBadMask.whole_image.value  # the pictures below have no lungs
        (folder / "prepare_config.yaml").write_text(yaml.safe_dump(values))
        yield handler.model_fn(str(folder))


@pytest.fixture(scope="module")
def post(endpoint):
    with serve.make_server(endpoint, port=0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()

        def send(body, content_type, path="/invocations", method="POST"):
            connection = HTTPConnection("127.0.0.1", server.server_port, timeout=60)
            connection.request(method, path, body, {"Content-Type": content_type})
            response = connection.getresponse()
            return response.status, json.loads(response.read())

        send.port = server.server_port
        yield send
        server.shutdown()
        thread.join()


def picture(suffix):
    image = np.random.default_rng(0).integers(0, 255, (40, 50), dtype=np.uint8)
    return cv2.imencode(suffix, cv2.resize(image, (500, 400), interpolation=cv2.INTER_CUBIC))[1].tobytes()


def test_a_tensor_gets_the_answer_that_the_batch_job_gives(post, endpoint):
    images = np.stack([tensor(number, number % 2 == 1) for number in range(4)])
    expected = endpoint.classifier.answers(endpoint.classifier.logits(images)).probabilities
    for image, row in zip(images, expected, strict=True):
        status, body = post(npz_bytes(image), "application/x-npz")
        assert status == 200
        assert body["probabilities"]["pneumonia"] == pytest.approx(row[1], abs=1e-5)
        assert body["decision"] == ("pneumonia" if row[1] >= 0.5 else "normal")
        assert "Not a medical device" in body["disclaimer"]


def test_calibrated_probabilities_come_from_the_temperature(post):
    _, body = post(npz_bytes(tensor(1, True)), "application/x-npz")
    plain, calibrated = (body[name]["pneumonia"] for name in ("probabilities", "calibrated_probabilities"))
    logit = np.log(plain / (1 - plain))
    assert calibrated == pytest.approx(1 / (1 + np.exp(-logit / 1.5)))


@pytest.mark.parametrize(("suffix", "content_type"), [(".png", "image/png"), (".jpg", "image/jpeg")])
def test_a_raw_image_is_prepared_and_answered(post, suffix, content_type):
    status, body = post(picture(suffix), content_type)
    assert status == 200, body
    assert sum(body["probabilities"].values()) == pytest.approx(1)
    assert body["format"] == content_type.removeprefix("image/")


@pytest.fixture(scope="module")
def dicom(tmp_path_factory):
    """A DICOM file with a planted patient, and the same cohort's label."""
    folder = tmp_path_factory.mktemp("phantoms")
    write_cohort(folder, "ward", patients=3, seed=4, dicom=True)
    return next(path for path in sorted((folder / "images").iterdir()) if "broken" not in path.name).read_bytes()


def test_a_dicom_file_is_answered_without_a_word_about_its_patient(post, dicom):
    assert PLANTED_NAME.encode() in dicom
    status, body = post(dicom, "application/dicom")
    assert status == 200, body
    assert body["format"] == "dicom"
    assert body["view"] in {"PA", "AP"}
    assert not any(text in json.dumps(body) for text in (*PLANTED_NAME.split("^"), PLANTED_BIRTH_DATE))


def test_a_raw_image_gets_the_answer_that_its_tensor_gets(post, endpoint, dicom):
    image = handler.prepared(dicom, endpoint)
    _, raw = post(dicom, "application/dicom")
    _, prepared = post(npz_bytes(np.ascontiguousarray(image.tensor)), "application/x-npz")
    assert raw["probabilities"] == pytest.approx(prepared["probabilities"])


def test_a_lateral_view_is_refused_with_its_reason(post, dicom):
    dataset = pydicom.dcmread(io.BytesIO(dicom))
    dataset.ViewPosition = "LL"
    changed = io.BytesIO()
    dataset.save_as(changed)
    status, body = post(changed.getvalue(), "application/dicom")
    assert status == 400
    assert body["error"].startswith("lateral_view: ")


def test_the_command_serves_an_archive(tmp_path, endpoint, endpoint_folder):
    """The real program in a process of its own, on a port of its own."""
    archive = tmp_path / "model.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for path in endpoint_folder.iterdir():
            tar.add(path, path.name)
    program = (
        "from penumo_assets_tests.models.tiny import use_tiny_networks\n"
        "use_tiny_networks()\n"
        "from penumo_assets.jobs.infer import serve; import sys; serve.main(sys.argv[1:])\n"
    )
    command = [sys.executable, "-u", "-c", program, "--model", str(archive), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline().split(":")[2].split("/")[0])
            connection = HTTPConnection("127.0.0.1", port, timeout=60)
            connection.request("POST", "/invocations", picture(".png"), {"Content-Type": "image/png"})
            answer = json.loads(connection.getresponse().read())
            assert answer["decision"] in ("normal", "pneumonia")
        finally:
            process.terminate()


def test_an_image_that_cannot_be_used_is_refused_with_its_reason(post):
    status, body = post(b"no image at all", "image/png")
    assert status == 400
    assert body["error"]


def test_a_broken_tensor_is_refused(post):
    status, body = post(b"PK", "application/x-npz")
    assert status == 400
    assert body["error"]


def test_an_unknown_content_type_is_refused(post):
    status, body = post(b"x", "text/html")
    assert status == 400
    assert "text/html" in body["error"]


def test_ping_answers_and_other_paths_do_not(post):
    assert post(None, "text/plain", "/ping", "GET")[0] == 200
    assert post(None, "text/plain", "/secret", "GET")[0] == 404


def test_an_empty_request_is_refused_with_its_reason(post):
    status, body = post(b"", "image/png")
    assert status == 400
    assert "empty" in body["error"]


@pytest.mark.parametrize(("declared", "status"), [(str(65 * 2**20), 413), ("", 411)])
def test_a_request_that_is_too_large_or_does_not_say_is_not_read(post, declared, status):
    connection = HTTPConnection("127.0.0.1", post.port, timeout=60)
    connection.putrequest("POST", "/invocations")
    if declared:
        connection.putheader("Content-Length", declared)
    connection.endheaders()
    response = connection.getresponse()
    assert response.status == status
    assert json.loads(response.read())["error"].startswith("the request")
