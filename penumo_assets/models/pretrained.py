"""Weights to start a training from: ImageNet's or somebody's file, fitted to one of our networks."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from penumo_assets.models.architectures import module_of
from penumo_assets.models.errors import ModelError
from penumo_assets.models.first_convolution import fit_first_convolution
from penumo_assets.models.safetensors_header import refuse_huge_header

WEIGHTS_SUFFIX = ".safetensors"


def imagenet_weights(architecture: str) -> dict[str, torch.Tensor]:
    """ImageNet weights from torchvision's server or the local cache.

    Raises
    ------
    ModelError
        If they cannot be fetched; the message says how to give weights without a network.
    """
    module = module_of(architecture)
    try:
        weights: dict[str, torch.Tensor] = module.imagenet_weights()
    except (OSError, RuntimeError) as error:
        raise ModelError(
            f"the ImageNet weights of {architecture} cannot be fetched ({type(error).__name__}: {error}). "
            "Without a network, put a torchvision state dict as .safetensors in storage and give its URI "
            "as pretrained, which becomes the training job's channel 'pretrained'; or train with pretrained=none."
        ) from error
    return weights


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


def load_pretrained(
    model: nn.Module, architecture: str, weights: Mapping[str, torch.Tensor], input_channels: int
) -> None:
    """Give ``model`` the ``weights``, except a last layer for other classes.

    Batch norm's count of batches, which files from before PyTorch 0.4.1 lack (torchvision's first generation), starts
    at 0: no answer depends on it.

    Raises
    ------
    ModelError
        If they are for another network.
    """
    weights = {_bare(name): tensor for name, tensor in weights.items()}
    own = model.state_dict()
    if "conv1.weight" not in weights or weights["conv1.weight"].ndim != 4:
        raise ModelError(f"the pretrained weights are not for {architecture}: they have no conv1.weight")
    weights = fit_first_convolution(weights, input_channels)
    for name in ("fc.weight", "fc.bias"):
        if name not in weights or weights[name].shape != own[name].shape:
            weights[name] = own[name]
    for name, tensor in own.items():
        if name.endswith(".num_batches_tracked"):
            weights.setdefault(name, tensor)
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
