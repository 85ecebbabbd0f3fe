"""A classifier as it is built and stored: a network, its weights (safetensors) and its metadata (JSON).

Nothing here unpickles: a model file from elsewhere can be wrong, but it cannot run code.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from penumo_assets.configs.documents import DocumentError, parse_json
from penumo_assets.models import architectures
from penumo_assets.models.archive import METADATA_NAME, WEIGHTS_NAME
from penumo_assets.models.errors import ModelError
from penumo_assets.models.inputs import TENSOR_CHANNELS, TENSOR_SIZE
from penumo_assets.models.pretrained import load_pretrained
from penumo_assets.models.safetensors_header import refuse_huge_header

MAX_METADATA_BYTES = 16 * 2**20


class Normalisation(BaseModel):
    """Mean and standard deviation per input channel, in units of 0..1."""

    model_config = ConfigDict(extra="forbid")

    mean: list[float]
    std: list[float]


class ModelMetadata(BaseModel):
    """``metadata.json``: what the weights are, how to feed them, and where they come from."""

    model_config = ConfigDict(extra="allow")

    schema_: Literal["penumo/model/1"] = Field("penumo/model/1", alias="schema")
    architecture: str
    classes: list[str] = Field(min_length=2, description="In the order of the logits; of two, the last is positive.")
    input_channels: Literal[3, 4]
    image_size: int = Field(ge=32, le=TENSOR_SIZE, description="Side of the image that the network sees.")
    normalisation: Normalisation
    threshold: float | None = None
    split_salt: str
    dataset_digest: str
    metrics: dict[str, Any]
    versions: dict[str, str]
    hyperparameters: dict[str, Any]

    @model_validator(mode="after")
    def _consistent(self) -> "ModelMetadata":
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("classes repeat")
        if {len(self.normalisation.mean), len(self.normalisation.std)} != {self.input_channels}:
            raise ValueError(f"normalisation needs {self.input_channels} means and deviations")
        if min(self.normalisation.std) <= 0:
            raise ValueError("normalisation.std must be positive")
        return self


def build_classifier(
    architecture: str,
    classes: int,
    input_channels: int = TENSOR_CHANNELS,
    pretrained: Mapping[str, torch.Tensor] | None = None,
) -> nn.Module:
    """A network (N, input_channels, H, W) float32 -> (N, classes) logits.

    Parameters
    ----------
    architecture : str
        One of `configs.train.Architecture`.
    pretrained : mapping, optional
        A state dict in torchvision's names (a prefix such as ``module.`` is removed). Its last
        layer is used only if it has as many classes; its first is fitted to ``input_channels``.

    Raises
    ------
    ModelError
        If the architecture is unknown, the counts make no sense, or the weights are for another network.
    """
    module = architectures.module_of(architecture)
    if classes < 2:
        raise ModelError(f"a classifier needs at least 2 classes, got {classes}")
    if input_channels not in (3, 4):
        raise ModelError(f"input_channels must be 3 (image) or 4 (image and lung mask), got {input_channels}")
    model: nn.Module = module.build(classes, input_channels)
    if pretrained is not None:
        load_pretrained(model, architecture, pretrained, input_channels)
    return model


def save_classifier(folder: Path, model: nn.Module, metadata: Mapping[str, Any]) -> None:
    """Write ``model.safetensors`` and ``metadata.json`` into ``folder``.

    Raises
    ------
    ModelError
        If ``metadata`` lacks a field or contradicts itself.
    """
    values = _validated(dict(metadata), METADATA_NAME)
    text = json.dumps(values, indent=2, allow_nan=False)
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    save_file(state, folder / WEIGHTS_NAME, metadata={"format": "pt"})
    (folder / WEIGHTS_NAME).chmod(0o644)  # safetensors leaves it to its owner alone
    (folder / METADATA_NAME).write_text(text, encoding="utf-8")


def load_classifier(folder: Path) -> tuple[nn.Module, dict[str, Any]]:
    """The network in evaluation mode, on the CPU, and its metadata.

    Raises
    ------
    ModelError
        If a file is missing or broken, the architecture unknown, or a tensor has another shape.
    """
    for name in (METADATA_NAME, WEIGHTS_NAME):
        if not (folder / name).is_file():
            raise ModelError(f"the model has no {name}")
    try:
        values = parse_json((folder / METADATA_NAME).read_bytes(), MAX_METADATA_BYTES)
    except DocumentError as error:
        raise ModelError(f"{METADATA_NAME} is not valid: {error}") from error
    metadata = _validated(values, METADATA_NAME)
    model = build_classifier(metadata["architecture"], len(metadata["classes"]), metadata["input_channels"])
    try:
        refuse_huge_header(folder / WEIGHTS_NAME)
        weights = load_file(folder / WEIGHTS_NAME)
        model.load_state_dict(weights, strict=True)
    except (SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ModelError(f"{WEIGHTS_NAME} does not fit {METADATA_NAME}: {reason[:400]}") from error
    return model.eval().to(memory_format=torch.channels_last), metadata  # type: ignore[call-overload]


def _validated(values: Any, name: str) -> dict[str, Any]:
    try:
        metadata = ModelMetadata.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in item['loc']) or 'metadata'}: {item['msg']}"
            for item in error.errors(include_url=False, include_input=False)
        )
        raise ModelError(f"{name} is not valid: {problems}") from error
    try:
        architectures.module_of(metadata.architecture)
    except ModelError as error:
        raise ModelError(f"{name}: {error}") from error
    return metadata.model_dump(by_alias=True)
