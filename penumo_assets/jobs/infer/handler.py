"""SageMaker's inference handlers: a raw DICOM, PNG or JPEG file or a prepared NPZ tensor in, JSON out.

``model_fn, input_fn, predict_fn, output_fn`` are what SageMaker's PyTorch inference container calls; `serve.py` beside
this file calls them over HTTP on one machine, and `penumo predict` on files. Not a medical device.

Reference: https://sagemaker.readthedocs.io/en/stable/frameworks/pytorch/using_pytorch.html#serve-a-pytorch-model
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from penumo_assets.configs.documents import DocumentError, parse_json
from penumo_assets.configs.prepare import PrepareConfig
from penumo_assets.imaging.errors import ImageRejected
from penumo_assets.imaging.film import film_to_tensor
from penumo_assets.imaging.pack import NpzError, load_npz
from penumo_assets.imaging.segment import Segmenter, open_segmenter
from penumo_assets.jobs.infer.predictor import Classifier
from penumo_assets.jobs.quality import quality_flags
from penumo_assets.models.errors import ModelError

NPZ_TYPES = ("application/x-npz", "application/npz")
IMAGE_TYPES = ("application/dicom", "image/png", "image/jpeg", "application/octet-stream")
PREPARE_CONFIG_NAME = "prepare_config.yaml"
SEGMENTER_NAME = "lung_segmenter.safetensors"
SERVING_NAME = "serving.json"
DISCLAIMER = "Not a medical device: for research, not for diagnosis."


class BadRequest(ValueError):
    """A request that cannot be answered; the message says why and goes to whoever asked."""


@dataclass(frozen=True)
class PreparedImage:
    """A tensor (224, 224, 4) uint8, and of the image it was made from: format, view, `jobs/quality.py`'s flags."""

    tensor: np.ndarray
    format: str
    view: str | None
    flags: tuple[str, ...]


@dataclass(frozen=True)
class Endpoint:
    """A classifier, how images were prepared for it, and what is known of its origin (``serving.json``)."""

    classifier: Classifier
    prepare: PrepareConfig
    segmenter: Segmenter
    origin: Mapping[str, Any]


def model_fn(model_dir: str) -> Endpoint:
    """Load the model and what lies beside it: settings of the imaging steps, lung segmenter, origin.

    Raises
    ------
    ModelError, ConfigError
        If the model or the settings cannot be used.
    """
    folder = Path(model_dir)
    settings, weights, origin = (folder / name for name in (PREPARE_CONFIG_NAME, SEGMENTER_NAME, SERVING_NAME))
    prepare = PrepareConfig.from_yaml(settings) if settings.is_file() else PrepareConfig.defaults()
    return Endpoint(
        Classifier.load(folder),
        prepare,
        open_segmenter(prepare.segment.backend, weights if weights.is_file() else None),
        _origin(origin) if origin.is_file() else {},
    )


def _origin(path: Path) -> Mapping[str, Any]:
    try:
        values = parse_json(path.read_bytes())
    except DocumentError as error:
        raise ModelError(f"{path.name} is not valid: {error}") from error
    if not isinstance(values, dict):
        raise ModelError(f"{path.name} must be an object")
    return values


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
    """Probabilities, calibrated ones where the model has been calibrated, decision and quality flags.

    Raises
    ------
    BadRequest
        If the image cannot be used.
    """
    return answer(endpoint, prepared(image, endpoint))


def output_fn(prediction: dict[str, Any], accept: str = "application/json") -> tuple[str, str]:
    """JSON, whatever is asked for."""
    return json.dumps(prediction, allow_nan=False), "application/json"


def prepared(image: PreparedImage | bytes, endpoint: Endpoint) -> PreparedImage:
    """A raw image as the tensor its cohort would have got; a tensor as it is.

    Raises
    ------
    BadRequest
        If the image cannot be used.
    """
    if isinstance(image, PreparedImage):
        return image
    try:
        film = film_to_tensor(image, endpoint.prepare, endpoint.segmenter)
    except ImageRejected as rejection:
        raise BadRequest(f"{rejection.code}: {rejection.reason}") from rejection
    flags = quality_flags(film.decoded.notes, film.decoded.tags.burned_in, film.mask_problems, film.look_flags)
    return PreparedImage(film.tensor, film.decoded.format, film.decoded.tags.view, flags)


def answer(endpoint: Endpoint, image: PreparedImage) -> dict[str, Any]:
    """What the classifier says of one image, as JSON holds it."""
    classifier = endpoint.classifier
    answers = classifier.answers(classifier.logits(np.ascontiguousarray(image.tensor)[None]))
    rule, metadata = classifier.rule, classifier.metadata
    result: dict[str, Any] = {
        "probabilities": dict(zip(classifier.classes, answers.probabilities[0].tolist(), strict=True)),
        "decision": answers.decision[0],
        "threshold": rule.threshold,
        "architecture": metadata["architecture"],
        "model_version": endpoint.origin.get("version"),
        "dataset_digest": metadata["dataset_digest"],
        "format": image.format,
        "view": image.view,
        "quality_flags": list(image.flags),
        "disclaimer": DISCLAIMER,
    }
    if answers.calibrated is not None:
        result["calibrated_probabilities"] = dict(zip(classifier.classes, answers.calibrated[0].tolist(), strict=True))
        result["calibrated_threshold"] = rule.calibrated_threshold
    if endpoint.origin.get("phantoms"):
        result["trained_on_phantoms"] = True
    return result
