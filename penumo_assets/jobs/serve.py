"""A classifier behind an endpoint: SageMaker's inference handlers, and a server to try them with.

``model_fn, input_fn, predict_fn, output_fn`` are what SageMaker's PyTorch inference container calls. A raw
DICOM, PNG or JPEG file, or a prepared NPZ tensor goes in; JSON comes out. Not a medical device.

    python -m penumo_assets.jobs.serve --model FOLDER --port 8080
    curl --data-binary @film.dcm -H 'Content-Type: application/dicom' localhost:8080/invocations
"""

import argparse
import json
import logging
from dataclasses import dataclass
from functools import cache
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np

from penumo_assets.configs.prepare import PrepareConfig
from penumo_assets.imaging.errors import ImageRejected
from penumo_assets.imaging.pack import NpzError, load_npz
from penumo_assets.imaging.segment import LungSegmenter
from penumo_assets.jobs.infer import Classifier, decide, probabilities
from penumo_assets.jobs.single_image import PreparedImage, prepare_image

NPZ_TYPES = ("application/x-npz", "application/npz")
IMAGE_TYPES = ("application/dicom", "image/png", "image/jpeg", "application/octet-stream")
PREPARE_CONFIG_NAME = "prepare_config.yaml"
MAX_BODY_BYTES = 64 * 1024**2
DISCLAIMER = "Not a medical device: for research, not for diagnosis."

logger = logging.getLogger(__name__)


class BadRequest(ValueError):
    """A request that cannot be answered; the message says why and goes to whoever asked."""


@dataclass(frozen=True)
class Endpoint:
    """A classifier, and how images were prepared for it."""

    classifier: Classifier
    prepare: PrepareConfig


def model_fn(model_dir: str) -> Endpoint:
    """Load the model; ``prepare_config.yaml`` beside it, if there is one, says how its images were prepared."""
    folder = Path(model_dir)
    path = folder / PREPARE_CONFIG_NAME
    prepare = PrepareConfig.from_yaml(path) if path.is_file() else PrepareConfig()
    return Endpoint(Classifier.load(folder), prepare)


def input_fn(body: bytes, content_type: str) -> PreparedImage | bytes:
    """A prepared tensor, or a raw image still to be prepared with the endpoint's settings.

    Raises
    ------
    BadRequest
        If the content type is unknown, or the NPZ is not a tensor.
    """
    kind = content_type.split(";")[0].strip().lower()
    if kind in NPZ_TYPES:
        try:
            return PreparedImage(load_npz(body), "npz", None, ())
        except NpzError as error:
            raise BadRequest(str(error)) from error
    if kind in IMAGE_TYPES:
        return body
    raise BadRequest(f"content type {kind!r} is not one of {', '.join((*NPZ_TYPES, *IMAGE_TYPES))}")


def predict_fn(image: PreparedImage | bytes, endpoint: Endpoint) -> dict[str, Any]:
    """Probabilities, calibrated ones where the model has a temperature, decision and quality flags.

    Raises
    ------
    BadRequest
        If the image cannot be used.
    """
    if isinstance(image, bytes):
        try:
            image = prepare_image(image, endpoint.prepare, _segmenter())
        except ImageRejected as rejection:
            raise BadRequest(f"{rejection.code}: {rejection.reason}") from rejection
    return answer(endpoint.classifier, image)


def output_fn(prediction: dict[str, Any], accept: str = "application/json") -> tuple[str, str]:
    """JSON, whatever is asked for."""
    return json.dumps(prediction, allow_nan=False), "application/json"


def answer(classifier: Classifier, image: PreparedImage) -> dict[str, Any]:
    """What the classifier says of one image."""
    metadata, logits = classifier.metadata, classifier.logits(np.ascontiguousarray(image.tensor)[None])
    values = probabilities(logits)
    result: dict[str, Any] = {
        "probabilities": dict(zip(metadata["classes"], values[0].tolist(), strict=True)),
        "decision": decide(values, metadata)[0],
        "threshold": metadata["threshold"],
        "architecture": metadata["architecture"],
        "dataset_digest": metadata["dataset_digest"],
        "format": image.format,
        "view": image.view,
        "quality_flags": list(image.flags),
        "disclaimer": DISCLAIMER,
    }
    if metadata.get("temperature"):
        calibrated = probabilities(logits, metadata["temperature"])[0].tolist()
        result["calibrated_probabilities"] = dict(zip(metadata["classes"], calibrated, strict=True))
    return result


@cache
def _segmenter() -> LungSegmenter:
    return LungSegmenter()


def make_server(endpoint: Endpoint, port: int, host: str = "127.0.0.1") -> HTTPServer:
    """A server with SageMaker's two routes: GET /ping and POST /invocations. For trying, one request at a time."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send(*((200, "{}") if self.path == "/ping" else (404, '{"error": "not found"}')))

        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            if self.path != "/invocations" or not 0 < length <= MAX_BODY_BYTES:
                self._send(413 if length > MAX_BODY_BYTES else 404, '{"error": "not found, empty or too large"}')
                return
            try:
                image = input_fn(self.rfile.read(length), self.headers.get("Content-Type", ""))
                self._send(200, output_fn(predict_fn(image, endpoint))[0])
            except BadRequest as error:
                self._send(400, json.dumps({"error": str(error)}))
            except Exception:
                logger.exception("a request failed")
                self._send(500, '{"error": "internal error"}')

        def log_message(self, format: str, *args: Any) -> None:
            logger.debug(format, *args)

        def _send(self, status: int, text: str) -> None:
            data = text.encode("utf-8")
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    return HTTPServer((host, port), Handler)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder with model.safetensors and metadata.json")
    parser.add_argument("--port", type=int, default=8080)
    arguments = parser.parse_args(argv)
    with make_server(model_fn(arguments.model), arguments.port) as server:
        print(f"listening on http://127.0.0.1:{server.server_port}/invocations", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
