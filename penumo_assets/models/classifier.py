"""A classifier as it is stored and used: weights (safetensors), metadata (JSON), and how to feed it.

Nothing here unpickles: a model file from elsewhere can be wrong, but it cannot run code.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

from penumo_assets.configs.documents import DocumentError, parse_json
from penumo_assets.models import resnet34, resnet50
from penumo_assets.models.archive import METADATA_NAME, WEIGHTS_NAME, extract_model_archive
from penumo_assets.models.errors import ModelError
from penumo_assets.models.first_convolution import fit_first_convolution
from penumo_assets.models.safetensors_header import refuse_huge_header

__all__ = [
    "ARCHITECTURES",
    "ModelError",
    "ModelMetadata",
    "build_classifier",
    "default_normalisation",
    "extract_model_archive",
    "imagenet_weights",
    "load_classifier",
    "normalise",
    "read_weights",
    "save_classifier",
    "standardise",
    "to_unit_images",
]

WEIGHTS_SUFFIX = ".safetensors"
MAX_METADATA_BYTES = 16 * 2**20
TENSOR_SIZE = 224
TENSOR_CHANNELS = 4
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
MASK_MEAN = 0.5
MASK_STD = 0.5

_BUILDERS: dict[str, Callable[[int, int], nn.Module]] = {
    "resnet34": resnet34.resnet34,
    "resnet50": resnet50.resnet50,
}
_IMAGENET: dict[str, Callable[[], dict]] = {
    "resnet34": resnet34.imagenet_weights,
    "resnet50": resnet50.imagenet_weights,
}
ARCHITECTURES = tuple(_BUILDERS)


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
        ``resnet34`` or ``resnet50``.
    pretrained : mapping, optional
        A state dict in torchvision's names (a prefix such as ``module.`` is removed). Its last
        layer is used only if it has as many classes; its first is fitted to ``input_channels``.

    Raises
    ------
    ModelError
        If the architecture is unknown, the counts make no sense, or the weights are for another network.
    """
    if architecture not in _BUILDERS:
        raise ModelError(f"unknown architecture {architecture!r}: choose one of {', '.join(ARCHITECTURES)}")
    if classes < 2:
        raise ModelError(f"a classifier needs at least 2 classes, got {classes}")
    if input_channels not in (3, 4):
        raise ModelError(f"input_channels must be 3 (image) or 4 (image and lung mask), got {input_channels}")
    model = _BUILDERS[architecture](classes, input_channels)
    if pretrained is not None:
        _load_pretrained(model, architecture, pretrained, input_channels)
    return model


def imagenet_weights(architecture: str) -> dict[str, torch.Tensor]:
    """ImageNet weights from torchvision's server or the local cache.

    Raises
    ------
    ModelError
        If they cannot be fetched; the message says how to give weights without a network.
    """
    if architecture not in _IMAGENET:
        raise ModelError(f"unknown architecture {architecture!r}: choose one of {', '.join(ARCHITECTURES)}")
    try:
        return _IMAGENET[architecture]()
    except (OSError, RuntimeError) as error:
        raise ModelError(
            f"the ImageNet weights of {architecture} cannot be fetched ({type(error).__name__}: {error}). "
            "Without a network, put a torchvision state dict as .safetensors in storage and give its URI "
            "as pretrained, which becomes the training job's channel 'pretrained'; or train with pretrained=none."
        ) from error


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """A state dict from a ``.safetensors`` file; pickles (``.pth``, ``.pt``, ``.bin``) are refused, whatever they hold.

    Raises
    ------
    ModelError
        If the file is of another kind, cannot be read, or holds no tensors.
    """
    if path.suffix != WEIGHTS_SUFFIX:
        raise ModelError(
            f"{path.name}: only {WEIGHTS_SUFFIX} is read, because a pickle can run code. Convert weights that you "
            "trust with safetensors.torch.save_file(torch.load(path, weights_only=True), 'weights.safetensors')"
        )
    try:
        refuse_huge_header(path)
        weights = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{path.name} cannot be read as weights: {type(error).__name__}") from error
    if not weights:
        raise ModelError(f"{path.name} is not a state dict: a mapping of layer names to tensors")
    return weights


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


def to_unit_images(batch: torch.Tensor, input_channels: int, image_size: int) -> torch.Tensor:
    """(N, 224, 224, 4) uint8 -> (N, input_channels, image_size, image_size) float32 in 0..1, channels_last.

    Channels are red, green, blue and lung mask; three of them leave the mask out. Shrinking
    averages over the area, so that no frequency folds back.

    Raises
    ------
    ValueError
        If the batch is not (N, 224, 224, 4) uint8.
    """
    if batch.ndim != 4 or tuple(batch.shape[1:]) != (TENSOR_SIZE, TENSOR_SIZE, TENSOR_CHANNELS):
        raise ValueError(f"expected a batch (N, {TENSOR_SIZE}, {TENSOR_SIZE}, {TENSOR_CHANNELS}), got {batch.shape}")
    if batch.dtype != torch.uint8:
        raise ValueError(f"expected uint8 images, got {batch.dtype}")
    images = batch[..., :input_channels].permute(0, 3, 1, 2)  # NHWC in memory is channels_last
    images = images.to(torch.float32, memory_format=torch.channels_last).mul_(1 / 255)
    if image_size != TENSOR_SIZE:
        images = functional.interpolate(images, size=(image_size, image_size), mode="area")
    return images.contiguous(memory_format=torch.channels_last)


def standardise(images: torch.Tensor, normalisation: Mapping[str, list[float]]) -> torch.Tensor:
    """Subtract the mean and divide by the deviation of each channel of (N, C, H, W) images in 0..1, in place."""
    shape = (1, -1, 1, 1)
    mean = torch.tensor(normalisation["mean"], dtype=images.dtype).view(shape).to(images.device, non_blocking=True)
    std = torch.tensor(normalisation["std"], dtype=images.dtype).view(shape).to(images.device, non_blocking=True)
    return images.sub_(mean).div_(std)


def normalise(batch: torch.Tensor, metadata: Mapping[str, Any]) -> torch.Tensor:
    """(N, 224, 224, 4) uint8 -> what the network takes: (N, C, size, size) float32, channels_last, same device."""
    images = to_unit_images(batch, metadata["input_channels"], metadata["image_size"])
    return standardise(images, metadata["normalisation"])


def default_normalisation(input_channels: int) -> dict[str, list[float]]:
    """ImageNet's statistics for the image, so that its weights fit, and -1/+1 for the mask."""
    mean, std = [*IMAGENET_MEAN, MASK_MEAN], [*IMAGENET_STD, MASK_STD]
    return {"mean": mean[:input_channels], "std": std[:input_channels]}


def _validated(values: Any, name: str) -> dict[str, Any]:
    try:
        metadata = ModelMetadata.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in item['loc']) or 'metadata'}: {item['msg']}"
            for item in error.errors(include_url=False, include_input=False)
        )
        raise ModelError(f"{name} is not valid: {problems}") from error
    if metadata.architecture not in ARCHITECTURES:
        raise ModelError(
            f"{name}: unknown architecture {metadata.architecture!r}: this version knows {', '.join(ARCHITECTURES)}"
        )
    return metadata.model_dump(by_alias=True)


def _load_pretrained(
    model: nn.Module, architecture: str, weights: Mapping[str, torch.Tensor], input_channels: int
) -> None:
    weights = {_bare(name): tensor for name, tensor in weights.items()}
    own = model.state_dict()
    if "conv1.weight" not in weights or weights["conv1.weight"].ndim != 4:
        raise ModelError(f"the pretrained weights are not for {architecture}: they have no conv1.weight")
    weights = fit_first_convolution(weights, input_channels)
    for name in ("fc.weight", "fc.bias"):
        if name not in weights or weights[name].shape != own[name].shape:
            weights[name] = own[name]
    wrong = [name for name, tensor in own.items() if name not in weights or weights[name].shape != tensor.shape]
    surplus = sorted(set(weights) - set(own))
    if wrong or surplus:
        example = (wrong + surplus)[0]
        raise ModelError(
            f"the pretrained weights are not for {architecture}: {len(wrong)} layers missing or of another shape, "
            f"{len(surplus)} unknown (for example {example})"
        )
    model.load_state_dict(weights)


def _bare(name: str) -> str:
    for prefix in ("module.", "model.", "backbone.", "encoder."):
        name = name.removeprefix(prefix)
    return name
